//! Lets an application be used under a public host name while it believes in another one, and answers CORS for a fixed
//! list of origins.
//!
//! ```toml
//! [policy.sso]
//! plugin = "sso-cors"
//! config = { public = "052d3c3287c38201.example.com", origin = "automate.partner.example" }
//! ```
//!
//! | key | meaning | default |
//! |---|---|---|
//! | `public` | host name the clients use, with `:port` when it is fixed; else the client's port is kept | required |
//! | `origin` | host name the application believes in, with `:port` when it is not the default one | required |
//! | `origin_scheme` | `"http"` or `"https"`: the scheme the application believes in | as the client wrote it |
//! | `rewrite_query` | query parameters whose absolute URLs are rewritten, in any case | `redirect_uri`, `ReturnUrl`, `RelayState`, `wreply`, `returnurl` |
//! | `allowed_origins` | other origins answered with CORS headers, compared by scheme, host and port | none |
//! | `preflight` | `"answer"` preflight requests at the edge, or `"pass"` them to the application | `"answer"` |
//! | `secure_cookies` | add `Secure` to cookies set for a client that spoke https | `true` |
//! | `rewrite_body` | only `false`: bodies are not rewritten yet | `false` |
//!
//! | direction | what | how |
//! |---|---|---|
//! | request | `Host`, `Origin`, `Referer`, listed query parameters | public → origin |
//! | response | `Location`, `Content-Location`, `Refresh`, `Link`, the return addresses in their queries, content security policies, `X-Frame-Options`, `Access-Control-Allow-Origin` | origin → public, with the scheme and port of the client |
//! | response | `Set-Cookie` | `Domain` of the origin dropped, so that the cookie belongs to the public host |
//!
//! A host is replaced only where it is the whole host of a URL: never a longer name, userinfo, a path, or a value of a
//! parameter that is not listed. A query with a SAML signature is left alone. `Origin: null` and third-party origins pass
//! untouched. An origin is granted access only if it is the public name or listed; it is never reflected for any other reason.
//!
//! Where a request carries an origin that is neither, or a response still names the origin's host, the policy reports the
//! finding `mismatch` (category `sso`) and logs once what to do about it. Redirect addresses that are signed or registered
//! at the identity provider cannot be rewritten: there, the public name has to be added as an alternate FQDN.
//!
//! Reasons: `preflight_answered`, `preflight_unknown_origin`. This policy never denies.

mod authority;
mod config;
mod cors;
mod find;
mod query;
mod request;
mod response;
mod state;
mod url;
mod values;

#[cfg(test)]
mod scenarios;

use std::cell::{LazyCell, RefCell};

use weir_sdk::prelude::*;

use crate::authority::Scheme;
use crate::config::Site;
use crate::response::{Change, Client};
use crate::state::State;
use crate::url::{Form, Start};

/// Host names that get a hint in the log: a client that invents more of them must not fill memory or log.
const MAX_HINTS: usize = 64;

/// Bytes of a client's value that are shown.
const MAX_EVIDENCE: usize = 100;

/// The policy: the two names, and which hints were given.
pub struct SsoCors {
    site: Box<Site>,
    hinted: RefCell<Vec<String>>,
}

#[policy(schema = "schema.json", capabilities("log"))]
impl Policy for SsoCors {
    type Config = config::Config;

    fn configure(config: config::Config) -> Result<Self, String> {
        Ok(Self { site: Box::new(config.resolve()?), hinted: RefCell::default() })
    }

    fn needs(&self) -> Needs {
        Needs::default().response_when(response::when(&self.site))
    }

    fn request(&self, request: Request<'_>) -> Verdict {
        let head = request.head();
        let inbound = request::Inbound::read(&head);
        let spoke_https = || request.scheme() == "https";
        let plan = match inbound.host {
            Some(host) => inbound.plan(&self.site, host, spoke_https),
            None => inbound.plan(&self.site, request.authority().as_bytes(), spoke_https),
        };
        if let Some(origin) = plan.foreign_origin {
            self.report_origin(request, origin);
        }
        match plan.reply {
            Some(reply) => reply.into(),
            None => {
                self.edit_request(request, &plan);
                Verdict::Next
            }
        }
    }

    fn response(&self, request: Request<'_>, response: Response<'_>) -> Verdict {
        let head = response.head();
        let client = LazyCell::new(|| {
            let state = request.state();
            let State { port, origin } = State::read(&state);
            let scheme = if request.scheme() == "https" { Scheme::Https } else { Scheme::Http };
            Client { scheme, port, origin: origin.map(<[u8]>::to_vec) }
        });
        let plan = response::plan(&self.site, &head, &client);
        for change in &plan.changes {
            self.check_edit(change.name, edit_response(response, change));
        }
        if plan.vary {
            self.check_edit("vary", response.append_header("vary", b"Origin"));
        }
        for name in plan.leftovers {
            self.report_leftover(request, name);
        }
        Verdict::Next
    }
}

impl SsoCors {
    fn edit_request(&self, request: Request<'_>, plan: &request::Plan<'_>) {
        if plan.rename_host {
            self.check_edit("host", request.set_authority(&self.site.origin_text));
        }
        for (name, value) in [("origin", &plan.origin), ("referer", &plan.referer)] {
            if let Some(value) = value {
                self.check_edit(name, request.set_header(name, value));
            }
        }
        if let Some(target) = &plan.target {
            self.check_edit("query", request.set_target(target));
        }
        if !plan.state.is_empty() {
            self.check_edit("state", request.set_state(&plan.state));
        }
    }

    fn report_origin(&self, request: Request<'_>, origin: &[u8]) {
        let host = Start::read(origin, Form::Plain).and_then(|start| origin.get(start.host)).unwrap_or(origin);
        let host = host.get(..MAX_EVIDENCE).unwrap_or(host);
        request.report(&Finding::new("mismatch", "sso", "header:origin", 0).evidence(host));
        self.hint_once(&String::from_utf8_lossy(host), |seen| {
            let public = self.site.public.text();
            format!(
                "a page of {seen:?} called {public}, which is neither that name nor in allowed_origins: add {public} as alternate FQDN \
                 in ConnectWise Home, or the page's origin to allowed_origins if it belongs to the sign-on"
            )
        });
    }

    fn report_leftover(&self, request: Request<'_>, header: &str) {
        let (public, origin) = (self.site.public.text(), &self.site.origin.host);
        request.report(&Finding::new("mismatch", "sso", &format!("header:{header}"), 0).evidence(origin.as_bytes()));
        self.hint_once(origin, |seen| {
            format!("the header {header} still sends clients to {seen}: add {public} as alternate FQDN in ConnectWise Home")
        });
    }

    /// The gateway refuses an edit it could not send on; the message then goes out as it came.
    fn check_edit(&self, what: &str, edit: Result<(), EditError>) {
        if let Err(error) = edit {
            self.hint_once(&format!("edit:{what}"), |_| format!("the gateway refused to rewrite {what}: {error:?}"));
        }
    }

    fn hint_once(&self, key: &str, text: impl FnOnce(&str) -> String) {
        let Ok(mut hinted) = self.hinted.try_borrow_mut() else { return };
        if hinted.len() < MAX_HINTS && !hinted.iter().any(|own| own == key) {
            log::info(&text(key));
            hinted.push(key.to_owned());
        }
    }
}

fn edit_response(response: Response<'_>, change: &Change<'_>) -> Result<(), EditError> {
    let Some((first, rest)) = change.values.split_first() else { return response.remove_header(change.name) };
    response.set_header(change.name, first)?;
    rest.iter().try_for_each(|value| response.append_header(change.name, value))
}
