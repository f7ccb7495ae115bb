//! The host function: checks a request, hands it to the gateway and waits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;
use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::{Answer, Call, CallOut, CallOutError, ENDED, MAX_FIELD_BYTES, Made, begin};
use crate::contract::bindings::weir::policy::http_out as wit;
use crate::contract::is_gateways;
use crate::exchange::Exchange;
use crate::pool::GuestState;

/// Calls that one policy may make for one exchange: a client's request is no means to flood an upstream.
const MAX_CALLS: usize = 16;
/// Fields of a request to an upstream.
const MAX_FIELDS: usize = 64;
/// Bytes of its target.
const MAX_TARGET: usize = 8 * 1024;
/// Who was asked, when that is nobody the policy may ask.
const NOBODY: &str = "";

impl wit::Host for GuestState {
    async fn send(&mut self, call: wit::Call) -> wasmtime::Result<Result<wit::Answer, wit::CallError>> {
        let started = Instant::now();
        let wall = self.wall_until;
        let upstream = self.shared.http_out.upstream(&call.upstream);
        let counted = upstream.clone().unwrap_or_else(|_| Arc::from(NOBODY));
        self.waits = true;
        let result = match upstream {
            Ok(upstream) => self.ask(upstream, call, started).await,
            Err(error) => Err(error),
        };
        self.shared.calls.count(&counted, result.as_ref().map_or_else(|error| error.as_str(), |_| "ok"));
        if Instant::now() >= wall {
            self.out_of_wall = true;
            return Err(wasmtime::Error::msg("the policy's time was over while it waited for an upstream"));
        }
        self.waits = false;
        Ok(result.map(answer).map_err(CallOutError::to_wit))
    }
}

impl GuestState {
    /// Bytes that the host takes from the guest in one host call, or as the answer of one call that is no piece of a body.
    pub(crate) fn taken(&self) -> usize {
        self.limits.taken().max(self.shared.http_out.taken())
    }

    async fn ask(&mut self, upstream: Arc<str>, call: wit::Call, started: Instant) -> Result<Answer, CallOutError> {
        let deadline = match call.timeout_ms {
            0 => self.wall_until,
            millis => self.wall_until.min(started + Duration::from_millis(u64::from(millis))),
        };
        let exchange = self.exchange.as_deref_mut().ok_or(CallOutError::NotNow)?;
        if exchange.calls.iter().filter(|call| call.by == self.shared.http_out.id).count() >= MAX_CALLS {
            return Err(CallOutError::Busy);
        }
        let call = checked(call, upstream, deadline, exchange, self.shared.http_out.granted.body)?;
        let mut under_way = self.shared.http_out.begin(&self.shared.calls, &call.upstream, deadline)?;
        let mut note = CallOut {
            policy: Arc::clone(&self.policy),
            decision: exchange.decisions.len(),
            upstream: Arc::clone(&call.upstream),
            method: call.method.clone(),
            path: call.target.split('?').next().unwrap_or_default().to_owned(),
            outcome: ENDED,
            started,
            elapsed: Duration::ZERO,
            attempts: Vec::new(),
            by: self.shared.http_out.id,
        };
        let Some(receiver) = begin(call) else {
            under_way.answered = true;
            return Err(CallOutError::NotNow);
        };
        // Whoever ends the call of the policy ends this one: it is on record from now on.
        let place = exchange.calls.len();
        exchange.calls.push(note.clone());
        // The gateway answers by the deadline. Only a worker that is ending drops the sender.
        let Made { result, attempts } =
            receiver.await.unwrap_or(Made { result: Err(CallOutError::Broken), attempts: Vec::new() });
        under_way.answered = true;
        drop(under_way);
        note.outcome = result.as_ref().map_or_else(|error| error.as_str(), |_| "ok");
        (note.elapsed, note.attempts) = (started.elapsed(), attempts);
        if let Some(call) = self.exchange.as_deref_mut().and_then(|exchange| exchange.calls.get_mut(place)) {
            *call = note;
        }
        result
    }
}

fn checked(
    call: wit::Call,
    upstream: Arc<str>,
    deadline: Instant,
    exchange: &Exchange,
    most: usize,
) -> Result<Call, CallOutError> {
    let method = Method::from_bytes(call.method.as_bytes()).map_err(|_| CallOutError::Invalid)?;
    let is_target = call.target.starts_with('/') && call.target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if method == Method::CONNECT || !is_target {
        return Err(CallOutError::Invalid);
    }
    let field_bytes: usize = call.headers.iter().map(|header| header.name.len() + header.value.len()).sum();
    let too_large = call.headers.len() > MAX_FIELDS || field_bytes > MAX_FIELD_BYTES || call.target.len() > MAX_TARGET;
    if too_large || call.body.len() > most {
        return Err(CallOutError::RequestTooLarge);
    }
    let mut headers = HeaderMap::with_capacity(call.headers.len() + 4);
    for field in &call.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| CallOutError::Invalid)?;
        let value = HeaderValue::from_bytes(&field.value).map_err(|_| CallOutError::Invalid)?;
        if is_gateways(&name) || OURS.contains(&name.as_str()) {
            return Err(CallOutError::Invalid);
        }
        headers.append(name, value);
    }
    let (target, body, trace) = (call.target, call.body.into(), exchange.trace);
    Ok(Call { upstream, method, target, headers, body, deadline, most, trace })
}

/// What only the gateway writes into a call, beside framing and hop-by-hop fields.
const OURS: [&str; 6] = ["traceparent", "tracestate", "expect", "proxy-authorization", "proxy-authenticate", "http2-settings"];

fn answer(answer: Answer) -> wit::Answer {
    let headers = answer
        .headers
        .iter()
        .map(|(name, value)| wit::Header { name: name.as_str().to_owned(), value: value.as_bytes().to_vec() });
    wit::Answer { status: answer.status.as_u16(), headers: headers.collect(), body: answer.body.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(method: &str, target: &str, headers: &[(&str, &str)], body: usize) -> wit::Call {
        let header = |(name, value): &(&str, &str)| wit::Header { name: (*name).to_owned(), value: value.as_bytes().to_vec() };
        wit::Call {
            upstream: "auth".to_owned(),
            method: method.to_owned(),
            target: target.to_owned(),
            headers: headers.iter().map(header).collect(),
            body: vec![b'x'; body],
            timeout_ms: 0,
        }
    }

    #[test]
    fn requests_of_policies_are_checked() {
        let exchange = crate::exchange::tests::exchange();
        let check = |call: wit::Call, want: Option<CallOutError>| {
            let text = format!("{} {} {:?}", call.method, call.target, call.headers.first().map(|field| field.name.clone()));
            let got = checked(call, Arc::from("auth"), Instant::now(), &exchange, 10).map(|_| ()).err();
            assert_eq!(got, want, "{text}");
        };
        check(call("GET", "/", &[], 0), None);
        check(call("POST", "/a?b=c%20d", &[("content-type", "text/plain"), ("authorization", "x")], 10), None);
        for (method, target) in
            [("CONNECT", "/"), ("G T", "/"), ("", "/"), ("GET", ""), ("GET", "*"), ("GET", "http://a/"), ("GET", "/a b")]
        {
            check(call(method, target, &[], 0), Some(CallOutError::Invalid));
        }
        check(call("GET", "/\r\nx: y", &[], 0), Some(CallOutError::Invalid));
        for name in [
            "host",
            "content-length",
            "transfer-encoding",
            "connection",
            "upgrade",
            "te",
            "traceparent",
            "x-forwarded-for",
            "a b",
            "",
        ] {
            check(call("GET", "/", &[(name, "1")], 0), Some(CallOutError::Invalid));
        }
        check(call("GET", "/", &[("x-a", "1\r\nx-b: 2")], 0), Some(CallOutError::Invalid));
        check(call("POST", "/", &[], 11), Some(CallOutError::RequestTooLarge));
        check(call("GET", "/", &[("x-a", "1"); MAX_FIELDS + 1], 0), Some(CallOutError::RequestTooLarge));
        check(call("GET", "/", &[("x-a", &"v".repeat(MAX_FIELD_BYTES))], 0), Some(CallOutError::RequestTooLarge));
    }
}
