//! Case files on the mock host: the same that `weir plugin test` runs on the gateway's.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use weir_cases::{Answer, Ask, Case, Failure, Replies, Reply, Seen, SeenFinding, Setting, Step, Verdict as Kind, differences};

use crate::exchange::{Connection, Request, Response, to_host};
use crate::export::Described;
use crate::host::mock::{self, Header, Message, STATE};
use crate::{Outcome, Phase, Verdict, http};

/// Runs a file of cases, or every `*.toml` of a directory, relative to the package. `docs/reference/cases.md` describes the format.
///
/// The mock host has no limits, does not check the configuration against the schema and does not mask evidence; the gateway's host
/// does: `weir plugin test` runs the same cases there.
///
/// # Panics
/// The schema is no JSON, a file cannot be understood, or a case fails; the message lists every difference.
pub fn run_cases<P: Described>(path: impl AsRef<Path>) {
    let schema = P::ABOUT.schema;
    if let Err(error) = serde_json::from_str::<serde_json::Value>(if schema.is_empty() { "null" } else { schema }) {
        panic!("the schema is not JSON: {error}");
    }
    let files = weir_cases::read(path.as_ref()).unwrap_or_else(|error| panic!("{error}"));
    let mut failures = String::new();
    for file in &files {
        for case in &file.cases {
            let wrong = run::<P>(case, &file.policy.http_out.upstreams);
            if !wrong.is_empty() {
                failures.push_str(&format!("\n{}:{}: {}", file.path.display(), case.line, case.name));
                wrong.iter().for_each(|line| failures.push_str(&format!("\n    {line}")));
            }
        }
    }
    assert!(failures.is_empty(), "cases fail:{failures}");
}

/// What is wrong, a line each.
fn run<P: Described>(case: &Case, granted: &[String]) -> Vec<String> {
    STATE.take();
    let configured = crate::export::configure::<P>(&case.config.to_string());
    match (&case.setting, configured) {
        (Setting::Refused(text), Err(error)) if error.contains(text.as_str()) => Vec::new(),
        (Setting::Refused(text), Err(error)) => vec![format!("refused: expected {text:?}, found {error:?}")],
        (Setting::Refused(text), Ok(_)) => {
            vec![format!("refused: expected {text:?}, found a configuration that is taken")]
        }
        (Setting::Steps(_), Err(error)) => vec![format!("config: {error}")],
        (Setting::Steps(steps), Ok(policy)) => Run { needs: policy.needs(), policy, granted }.steps(steps),
    }
}

struct Run<'a, P> {
    policy: P,
    /// Upstreams that the policy may ask.
    granted: &'a [String],
    needs: crate::Needs,
}

impl<P: Described> Run<'_, P> {
    fn steps(&self, steps: &[Step]) -> Vec<String> {
        for (index, step) in steps.iter().enumerate() {
            for _ in 0..step.repeat {
                let mut seen = Seen::default();
                let request = ask(&step.request);
                self.script(step);
                self.exchange(&request, step, &mut seen);
                finish(&request, &mut seen);
                // What the policy may not ask leaves no gateway.
                let calls = crate::testing::calls().into_iter().filter(|call| self.granted.contains(&call.upstream));
                seen.calls = calls.map(|call| format!("{} {} {}", call.upstream, call.method, call.target)).collect();
                let wrong = differences(&step.expect, &seen);
                if !wrong.is_empty() {
                    let place = if steps.len() > 1 { format!("step {}: ", index + 1) } else { String::new() };
                    return wrong.iter().map(|difference| format!("{place}{difference}")).collect();
                }
            }
        }
        Vec::new()
    }

    /// What upstreams answer in this step. One that the policy may ask and that says nothing is down.
    fn script(&self, step: &Step) {
        STATE.with_borrow_mut(|state| (state.upstreams, state.calls) = Default::default());
        for name in self.granted {
            let (replies, asked) = (step.upstreams.get(name).cloned(), Cell::new(0));
            crate::testing::upstream(name, move |_| {
                let number = asked.replace(asked.get() + 1);
                replies.as_ref().map_or(Err(http::Error::NoServer), |replies: &Replies| reply(replies.of(number)))
            });
        }
    }

    fn wants(&self, phase: Phase) -> bool {
        self.needs.phases.as_deref().unwrap_or(P::ABOUT.phases).contains(&phase)
    }

    /// The phases in the order of the gateway; the first that decides ends it.
    fn exchange(&self, request: &mock::Request, step: &Step, seen: &mut Seen) {
        let body = &step.request.body.0;
        let view = Request(request);
        let window = self.needs.request_body.unwrap_or(P::ABOUT.request_body).min(body.len());
        let stopped = self.ask(Phase::Connection, seen, || {
            let verdict = self.policy.connection(Connection(&request.connection));
            let own = request.connection.message.take();
            let mut message = request.message.borrow_mut();
            message.tags.extend(own.tags);
            message.findings.extend(own.findings);
            verdict
        }) || self.ask(Phase::Request, seen, || self.policy.request(view))
            || (!body.is_empty()
                && self.ask(Phase::RequestBody, seen, || {
                    self.policy.request_body(view, body.get(..window).unwrap_or_default(), window == body.len())
                }));
        if !stopped && let Some(answer) = &step.response {
            self.answer(request, answer, seen);
        }
        let upstream = seen.response.as_ref().map_or(200, |response| response.status);
        let outcome = Outcome { status: seen.status.unwrap_or(upstream), ..Outcome::default() };
        if self.wants(Phase::Complete) {
            self.policy.complete(view, &outcome);
        }
    }

    fn answer(&self, request: &mock::Request, answer: &Answer, seen: &mut Seen) {
        let message = Message { headers: headers(&answer.headers.0), status: answer.status, ..Message::default() };
        let response = mock::Response { message: RefCell::new(message) };
        let view = Request(request);
        let mut body = answer.body.0.clone();
        let is_wanted = self.is_wanted(request, &response);
        if is_wanted && self.ask(Phase::Response, seen, || self.policy.response(view, Response(&response))) {
            return;
        }
        if self.wants(Phase::ResponseBody) {
            let transformed = caught(|| {
                let mut whole = self.policy.response_body(view, body.clone(), false);
                whole.extend(self.policy.response_body(view, Vec::new(), true));
                whole
            });
            match transformed {
                Ok(whole) => body = whole,
                Err(message) => failed(seen, Phase::ResponseBody, "policy_trapped", message),
            }
        }
        let message = response.message.into_inner();
        seen.response =
            Some(weir_cases::Message { status: message.status, headers: pairs(message.headers), body, ..Default::default() });
    }

    /// Whether the policy wants to be asked about a response like this.
    fn is_wanted(&self, request: &mock::Request, response: &mock::Response) -> bool {
        let Some(when) = &self.needs.response_when else { return true };
        let named = |header: &Header| when.headers.iter().any(|name| name.eq_ignore_ascii_case(&header.name));
        let holds = |header: &Header| {
            let value = String::from_utf8_lossy(&header.value).to_ascii_lowercase();
            when.containing.iter().any(|text| value.contains(&text.to_ascii_lowercase()))
        };
        (when.state && !request.message.borrow().state.is_empty())
            || response.message.borrow().headers.iter().any(|header| named(header) || holds(header))
    }

    /// Asks one phase; whether that ended the exchange.
    fn ask(&self, phase: Phase, seen: &mut Seen, call: impl FnOnce() -> Verdict) -> bool {
        if !self.wants(phase) {
            return false;
        }
        match caught(call) {
            Ok(Verdict::Next) => return false,
            Ok(Verdict::Accept) => {
                (seen.verdict, seen.phase) = (Kind::Accept, Some(phase.name()));
                return false;
            }
            Ok(Verdict::Deny(denial)) if denial.status == 0 || (400..600).contains(&denial.status) => {
                (seen.verdict, seen.phase, seen.status) = (Kind::Deny, Some(phase.name()), Some(denial.status));
                (seen.rule, seen.reason) = (cut(denial.rule), reason(denial.reason));
            }
            Ok(Verdict::Reply(reply)) if (200..600).contains(&reply.status) => {
                (seen.verdict, seen.phase, seen.status) = (Kind::Reply, Some(phase.name()), Some(reply.status));
                seen.reason = reason(reply.reason);
                let headers = reply.headers.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value));
                let headers = headers.filter(|(name, _)| !mock::FORBIDDEN.contains(&name.as_str())).collect();
                seen.response =
                    Some(weir_cases::Message { status: reply.status, headers, body: reply.body, ..Default::default() });
            }
            Ok(other) => failed(seen, phase, "policy_broke_contract", format!("a status that is none: {other:?}")),
            Err(message) => failed(seen, phase, "policy_trapped", message),
        }
        true
    }
}

fn reply(reply: &Reply) -> Result<http::Answer, http::Error> {
    Err(match reply.error {
        None => {
            let (headers, body) = (reply.headers.0.clone(), reply.body.0.clone());
            return Ok(http::Answer { status: reply.status, headers, body });
        }
        Some(Failure::Busy) => http::Error::Busy,
        Some(Failure::NoServer) => http::Error::NoServer,
        Some(Failure::Connect) => http::Error::Connect,
        Some(Failure::Timeout) => http::Error::Timeout,
        Some(Failure::Broken) => http::Error::Broken,
        Some(Failure::AnswerTooLarge) => http::Error::AnswerTooLarge,
    })
}

fn failed(seen: &mut Seen, phase: Phase, reason: &str, failure: String) {
    (seen.verdict, seen.phase, seen.failure) = (Kind::Error, Some(phase.name()), Some(failure));
    seen.reason = reason.to_owned();
}

/// A panic is what a trap is in the gateway.
fn caught<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic: Box<dyn Any + Send>| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panicked".to_owned())
    })
}

fn cut(text: String) -> String {
    if text.len() <= 64 { text } else { text.chars().take(64).collect() }
}

fn reason(text: String) -> String {
    if text.is_empty() { "unspecified".to_owned() } else { cut(text) }
}

fn ask(ask: &Ask) -> mock::Request {
    if let Some(country) = &ask.country {
        STATE.with_borrow_mut(|state| {
            state.countries.retain(|(known, _)| *known != ask.client);
            state.countries.push((ask.client, country.to_ascii_uppercase()));
        });
    }
    let connection = mock::Connection {
        client_ip: to_host(ask.client),
        peer_ip: to_host(ask.peer.unwrap_or(ask.client)),
        server_name: ask.tls.server_name.clone(),
        tls_version: ask.tls.version.clone(),
        ja4: ask.tls.ja4.clone(),
        message: RefCell::default(),
    };
    let mut message = Message {
        headers: headers(&ask.headers.0),
        tags: ask.tags.clone().into_iter().collect(),
        authority: ask.host.to_ascii_lowercase(),
        target: ask.target.as_bytes().to_vec(),
        ..Message::default()
    };
    let has_length = message.headers.iter().any(|header| header.name == "content-length");
    if !ask.body.0.is_empty() && !has_length {
        message.headers.push(Header { name: "content-length".to_owned(), value: ask.body.0.len().to_string().into_bytes() });
    }
    mock::Request { connection, method: ask.method.clone(), protocol: ask.protocol.clone(), message: RefCell::new(message) }
}

/// What the policy left behind.
fn finish(request: &mock::Request, seen: &mut Seen) {
    let message = request.message.borrow();
    seen.tags.clone_from(&message.tags);
    let finding = |finding: &crate::Finding| SeenFinding {
        rule: finding.rule.clone(),
        category: finding.category.clone(),
        target: finding.target.clone(),
        score: finding.score,
    };
    seen.findings = message.findings.iter().map(finding).collect();
    seen.request = weir_cases::Message {
        target: String::from_utf8_lossy(&message.target).into_owned(),
        host: message.authority.clone(),
        headers: pairs(message.headers.clone()),
        ..Default::default()
    };
    let metrics = |state: &mut mock::State| {
        let series = state.metrics.iter().map(|((name, label), value)| (name.clone(), label.clone(), *value));
        series.collect()
    };
    seen.metrics = STATE.with_borrow_mut(metrics);
}

fn headers(list: &[(String, Vec<u8>)]) -> Vec<Header> {
    list.iter().map(|(name, value)| Header { name: name.clone(), value: value.clone() }).collect()
}

fn pairs(list: Vec<Header>) -> Vec<(String, Vec<u8>)> {
    list.into_iter().map(|header| (header.name, header.value)).collect()
}
