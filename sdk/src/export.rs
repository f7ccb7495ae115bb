//! From the contract's exported functions to a [`Policy`]. Used by the `#[policy]` attribute only.

#[cfg(target_family = "wasm")]
use crate::Needs;
use crate::{Phase, Policy};

/// What the attribute knows about a policy at compile time.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// The package's name.
    pub name: &'static str,
    /// The package's version.
    pub version: &'static str,
    /// The phases the policy writes.
    pub phases: &'static [Phase],
    /// The capabilities it names.
    pub capabilities: &'static [&'static str],
    /// The window of the request body in bytes.
    pub request_body: usize,
    /// JSON Schema of the configuration; empty when there is none.
    pub schema: &'static str,
}

/// A policy that the attribute exports: what is known of it at compile time. The native test host calls the phases it lists.
pub trait Described: Policy {
    /// What the plugin says about itself.
    const ABOUT: About;
}

/// The JSON of `describe`.
#[must_use]
pub fn describe(about: &About) -> String {
    let phases: Vec<_> = about.phases.iter().map(|phase| phase.name()).collect();
    serde_json::json!({
        "name": about.name,
        "version": about.version,
        "phases": phases,
        "capabilities": about.capabilities,
        "request_body": about.request_body,
        "schema": schema(about.schema),
    })
    .to_string()
}

/// A schema that is no JSON is sent as it is, a text, and the gateway refuses it by name.
fn schema(text: &str) -> serde_json::Value {
    if text.is_empty() { serde_json::Value::Null } else { serde_json::from_str(text).unwrap_or_else(|_| text.into()) }
}

/// The answer of `configure` for what a policy needs.
#[cfg(target_family = "wasm")]
fn needs_json(needs: &Needs) -> String {
    let mut json = serde_json::Map::new();
    if let Some(phases) = &needs.phases {
        json.insert("phases".to_owned(), phases.iter().map(|phase| phase.name()).collect());
    }
    if let Some(window) = needs.request_body {
        json.insert("request_body".to_owned(), window.into());
    }
    if let Some(when) = &needs.response_when {
        let when = serde_json::json!({ "headers": when.headers, "containing": when.containing, "state": when.state });
        json.insert("response_when".to_owned(), when);
    }
    serde_json::Value::Object(json).to_string()
}

/// Builds a policy from its configuration as JSON, with errors that name the key.
///
/// # Errors
/// What serde or [`Policy::configure`] says.
pub fn configure<P: Policy>(config: &str) -> Result<P, String> {
    let config = serde_json::from_str(config).map_err(|error| error.to_string())?;
    P::configure(config)
}

/// One function per export of the contract.
#[cfg(target_family = "wasm")]
pub mod handle {
    use std::cell::{OnceCell, RefCell};

    use super::{configure as build, needs_json};
    use crate::host::bindings::weir::policy::types as wit;
    use crate::host::{Answer, current};
    use crate::{Connection, Policy, Request, Response, Verdict, log};

    /// Reports panics with message and location to the operator's log, then builds the policy.
    ///
    /// # Errors
    /// What [`Policy::configure`] says.
    pub fn configure<P: Policy>(config: &str) -> Result<(P, String), String> {
        std::panic::set_hook(Box::new(|info| log::error(&info.to_string())));
        let policy: P = build(config)?;
        let needs = needs_json(&policy.needs());
        Ok((policy, needs))
    }

    thread_local! {
        /// One handle for all exchanges of the instance.
        static REQUEST: OnceCell<wit::Request> = const { OnceCell::new() };
        static RESPONSE: OnceCell<wit::Response> = const { OnceCell::new() };
        /// The verdict of a lean phase that was none of its words, until it is asked for.
        static VERDICT: RefCell<Option<wit::Verdict>> = const { RefCell::new(None) };
    }

    /// `on-request`, lean
    pub fn lean_request<P: Policy>(policy: &P) -> Answer {
        REQUEST.with(|request| answer(policy.request(Request(request.get_or_init(current::this_request)))))
    }

    /// `on-response`, lean
    pub fn lean_response<P: Policy>(policy: &P) -> Answer {
        REQUEST.with(|request| {
            RESPONSE.with(|response| {
                let (request, response) =
                    (request.get_or_init(current::this_request), response.get_or_init(current::this_response));
                answer(policy.response(Request(request), Response(response)))
            })
        })
    }

    /// `whole-answer`
    pub fn whole_answer() -> wit::Verdict {
        VERDICT.take().unwrap_or(wit::Verdict::Next)
    }

    fn answer(verdict: Verdict) -> Answer {
        match verdict {
            Verdict::Next => Answer::Next,
            Verdict::Accept => Answer::Accept,
            other => {
                VERDICT.set(Some(into_wit(other)));
                Answer::Other
            }
        }
    }

    /// `on-connection`
    pub fn connection<P: Policy>(policy: &P, connection: &wit::Connection) -> wit::Verdict {
        into_wit(policy.connection(Connection(connection)))
    }

    /// `on-request`
    pub fn request<P: Policy>(policy: &P, request: &wit::Request) -> wit::Verdict {
        into_wit(policy.request(Request(request)))
    }

    /// `on-request-body`
    pub fn request_body<P: Policy>(policy: &P, request: &wit::Request, window: &[u8], complete: bool) -> wit::Verdict {
        into_wit(policy.request_body(Request(request), window, complete))
    }

    /// `on-response`
    pub fn response<P: Policy>(policy: &P, request: &wit::Request, response: &wit::Response) -> wit::Verdict {
        into_wit(policy.response(Request(request), Response(response)))
    }

    /// `on-response-body`
    pub fn response_body<P: Policy>(policy: &P, request: &wit::Request, chunk: Vec<u8>, last: bool) -> Vec<u8> {
        policy.response_body(Request(request), chunk, last)
    }

    /// `on-complete`
    pub fn complete<P: Policy>(policy: &P, request: &wit::Request, outcome: &wit::Outcome) {
        policy.complete(Request(request), outcome);
    }

    fn into_wit(verdict: Verdict) -> wit::Verdict {
        match verdict {
            Verdict::Next => wit::Verdict::Next,
            Verdict::Accept => wit::Verdict::Accept,
            Verdict::Deny(denial) => {
                wit::Verdict::Deny(wit::Denial { status: denial.status, rule: denial.rule, reason: denial.reason })
            }
            Verdict::Reply(reply) => wit::Verdict::Reply(wit::Reply {
                status: reply.status,
                headers: reply.host_headers(),
                body: reply.body,
                reason: reply.reason,
            }),
        }
    }
}

/// The native build exports nothing.
#[cfg(not(target_family = "wasm"))]
pub mod handle {}
