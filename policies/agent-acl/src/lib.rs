//! Decides who may reach which part of an Automate server: traffic class × source.
//!
//! ```toml
//! [policy.acl]
//! plugin = "agent-acl"
//! config = { model = "agent-only", trusted = ["198.51.100.0/24"] }
//! ```
//!
//! Every request gets the tag `class`: `agent`, `transfer`, `deployment`, `technician`, `api` or `other` (see [`Class`]).
//!
//! | key | meaning | default |
//! |---|---|---|
//! | `model` | `"agent-only"`: `agent` and `transfer` from anywhere, the rest from trusted networks. `"all-traffic"`: everything from anywhere | required |
//! | `trusted` | networks (CIDR or address) that the source `"trusted"` means | none |
//! | `class.<class>.from` | `"anywhere"`, `"trusted"`, `"nowhere"` or a list of networks, instead of what the model says | the model |
//! | `parameter` | `{ class, name, value, remember }`, or a list: a secret URL parameter that opens a class to a source that is not allowed. With `remember` a session cookie keeps it open for the browser. A class with a secret and no rule of its own is open to trusted networks only | none; `remember = true` |
//! | `header` | `{ class, name, value }`, or a list: a secret request header that does the same for one request | none |
//! | `deployment_window` | `{ until, from }`: opens `deployment` until an RFC 3339 time, to a list of networks | none; from anywhere |
//! | `legacy_deployment` | whether installers asked for without a token follow the rule of `deployment`; if not, only trusted networks get them | `true` in all-traffic, `false` in agent-only |
//! | `require_tls` | refuses every request over plain HTTP | `false` |
//!
//! In both models: `agent.aspx` takes GET, HEAD and POST only; `Deployment.aspx` without exactly one well-formed
//! `InstallerToken` (and without a legacy installer query) is refused; a path that another server might read as a different
//! one is never `agent`. It passes as `other` only from a source that may reach every class (in agent-only: a trusted
//! network), and never when its real target cannot be known.
//!
//! Check-ins that look odd but pass are reported as findings: `agent-user-agent`, `agent-contentlength`,
//! `agent-length-undeclared`, `agent-host-address`; so is `ambiguous-path`.
//!
//! Reasons: `class_not_allowed`, `ambiguous_path`, `method_not_allowed`, `deployment_probe`, `legacy_deployment`,
//! `tls_required`. The rule of `class_not_allowed` names class and source, e.g. `technician-from-untrusted`.

mod check_in;
mod class;
mod config;
mod decide;
mod deployment;
mod network;
mod rules;
mod secret;
mod time;

use std::net::IpAddr;

use weir_sdk::prelude::*;

pub use crate::class::Class;
use crate::decide::{Client, Exchange, Passage};
use crate::rules::Rules;

/// The policy: rules resolved from [`config::Config`].
pub struct AgentAcl(Rules);

#[policy(schema = "schema.json")]
impl Policy for AgentAcl {
    type Config = config::Config;

    fn configure(config: config::Config) -> Result<Self, String> {
        config.resolve().map(Self)
    }

    fn needs(&self) -> Needs {
        if !self.0.secrets.remembers() {
            return Needs::only(&[Phase::Request]);
        }
        // The response phase hands out what the request phase noted, and has nothing to do elsewhere.
        Needs::only(&[Phase::Request, Phase::Response]).response_when(ResponseWhen { state: true, ..ResponseWhen::default() })
    }

    fn request(&self, request: Request<'_>) -> Verdict {
        let head = request.head();
        let exchange = Exchange::of(&head);
        request.set_tag("class", exchange.target.class.name());
        match decide::decide(&self.0, &exchange, &request) {
            Ok(passage) => {
                decide::findings(&exchange, |finding| request.report(&finding));
                if let Passage::Remember(parameter) = passage
                    && request.set_state(&[parameter]).is_err()
                {
                    log::warn("agent-acl: the gateway kept no state: the secret parameter opens this request only");
                }
                Verdict::Next
            }
            Err(refusal) => Verdict::deny(refusal.rule, refusal.reason.name()),
        }
    }

    fn response(&self, request: Request<'_>, response: Response<'_>) -> Verdict {
        let cookie = request.state().first().and_then(|parameter| self.0.secrets.cookie(*parameter));
        if let Some(cookie) = cookie
            && response.append_header("set-cookie", cookie.as_bytes()).is_err()
        {
            log::warn("agent-acl: the gateway refused the cookie of the secret parameter");
        }
        Verdict::Next
    }
}

impl Client for Request<'_> {
    fn address(&self) -> IpAddr {
        self.client_ip()
    }

    fn is_secure(&self) -> bool {
        self.scheme() == "https"
    }

    fn now(&self) -> u64 {
        time::now()
    }
}
