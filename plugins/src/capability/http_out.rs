//! Requests of policies to upstreams of the gateway. The guest waits on its fiber; the gateway sends, on the worker that runs the guest.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use tokio::sync::oneshot;

use crate::contract::bindings::weir::policy::http_out as wit;
use crate::contract::is_gateways;
use crate::exchange::{Exchange, TraceContext};
use crate::pool::GuestState;

/// What a policy may send, and to whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpOut {
    /// Names of upstreams it may ask.
    pub upstreams: Vec<Arc<str>>,
    /// Calls of the policy that may be under way at once, all workers together.
    pub calls: usize,
    /// Bytes that the body of a request may have, and that of an answer.
    pub body: usize,
}

/// Calls of one policy under way at once: as many as a worker's instances.
pub const DEFAULT_CALLS: usize = 64;
/// Bodies of verdicts and directory entries are small; what is larger belongs on the way of the exchange itself.
pub const DEFAULT_BODY: usize = 64 * 1024;

impl Default for HttpOut {
    fn default() -> Self {
        Self { upstreams: Vec::new(), calls: DEFAULT_CALLS, body: DEFAULT_BODY }
    }
}

/// A request of a policy, checked.
#[derive(Debug)]
pub struct Call {
    /// The upstream's name.
    pub upstream: Arc<str>,
    /// Never CONNECT.
    pub method: Method,
    /// Path and query: visible ASCII beginning with `/`.
    pub target: String,
    /// Without Host, framing and hop-by-hop fields.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// When the whole answer must be there.
    pub deadline: Instant,
    /// Bytes its body may have.
    pub most: usize,
    /// The trace of the exchange; absent in the connection phase.
    pub trace: Option<TraceContext>,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// Without hop-by-hop fields.
    pub headers: HeaderMap,
    /// All of the body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CallOutError {
    /// The policy may not ask this upstream.
    NotGranted,
    /// No exchange, or no worker.
    NotNow,
    /// No valid request.
    Invalid,
    /// Headers or body over the limit.
    RequestTooLarge,
    /// Too many calls under way.
    Busy,
    /// Every server is down.
    NoServer,
    /// No connection.
    Connect,
    /// Not in time.
    Timeout,
    /// Broke off, or no HTTP.
    Broken,
    /// The answer's body is over the limit.
    AnswerTooLarge,
}

impl CallOutError {
    /// The `outcome` label and field.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotGranted => "not_granted",
            Self::NotNow => "not_now",
            Self::Invalid => "invalid",
            Self::RequestTooLarge => "request_too_large",
            Self::Busy => "busy",
            Self::NoServer => "no_server",
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Broken => "broken",
            Self::AnswerTooLarge => "answer_too_large",
        }
    }

    const fn to_wit(self) -> wit::CallError {
        match self {
            Self::NotGranted => wit::CallError::NotGranted,
            Self::NotNow => wit::CallError::NotNow,
            Self::Invalid => wit::CallError::Invalid,
            Self::RequestTooLarge => wit::CallError::RequestTooLarge,
            Self::Busy => wit::CallError::Busy,
            Self::NoServer => wit::CallError::NoServer,
            Self::Connect => wit::CallError::Connect,
            Self::Timeout => wit::CallError::Timeout,
            Self::Broken => wit::CallError::Broken,
            Self::AnswerTooLarge => wit::CallError::AnswerTooLarge,
        }
    }
}

/// One request to one server: how far it came, and how it ended.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The server's URL as configured.
    pub server: Arc<str>,
    /// `connect`, `tls`, `send`, `head`, `body`.
    pub stage: &'static str,
    /// `ok`, or what went wrong (`refused`, `timeout`, `reset`, `certificate`, ...).
    pub outcome: &'static str,
    /// The upstream's status, when a head arrived.
    pub status: Option<u16>,
    /// When it began.
    pub started: Instant,
    /// Until the response head, or until it failed.
    pub elapsed: Duration,
    /// The CLIENT span's id, as sent in `traceparent`.
    pub span_id: u64,
}

/// A call and what came of it.
#[derive(Debug)]
pub struct Made {
    /// The answer.
    pub result: Result<Answer, CallOutError>,
    /// Every attempt.
    pub attempts: Vec<Attempt>,
}

/// A call as the log and the spans of its exchange show it.
#[derive(Clone, Debug)]
pub struct CallOut {
    /// Who called.
    pub policy: Arc<str>,
    /// Which call of a policy it belongs to: the index of its [`Decision`](crate::Decision).
    pub decision: usize,
    /// Who was asked.
    pub upstream: Arc<str>,
    /// The method.
    pub method: Method,
    /// The path, without its query.
    pub path: String,
    /// `ok`, or why there was no answer.
    pub outcome: &'static str,
    /// When it began.
    pub started: Instant,
    /// Until the last byte of the answer, or until it failed.
    pub elapsed: Duration,
    /// Every attempt.
    pub attempts: Vec<Attempt>,
    /// Whose call it was: a candidate has the name of the policy that it wants to replace, and a budget of its own.
    pub by: u64,
}

/// The gateway's way to its upstreams, on one worker.
pub trait Outbound {
    /// Begins a call. The answer, or the failure, comes by the call's deadline; whoever waits no longer drops the receiver, and the call
    /// ends.
    fn call(&self, call: Call) -> oneshot::Receiver<Made>;
}

thread_local! {
    /// Workers have one; the thread that loads plugins has none.
    static OUTBOUND: RefCell<Option<Rc<dyn Outbound>>> = const { RefCell::new(None) };
}

/// Gives the policies of this thread a way to the upstreams, until what comes back is dropped.
#[must_use]
pub fn install(outbound: Rc<dyn Outbound>) -> Installed {
    OUTBOUND.set(Some(outbound));
    Installed(())
}

/// A thread's way to the upstreams. It ends with its runtime, not with its thread.
#[derive(Debug)]
pub struct Installed(());

impl Drop for Installed {
    fn drop(&mut self) {
        OUTBOUND.set(None);
    }
}

/// What one generation was granted, and how much of it is in use.
#[derive(Debug, Default)]
pub(crate) struct Allowance {
    id: u64,
    granted: HttpOut,
    under_way: AtomicUsize,
}

impl Allowance {
    pub(crate) fn new(granted: &HttpOut) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self { id, granted: granted.clone(), under_way: AtomicUsize::new(0) })
    }

    /// Bytes that the host takes from a guest for one call. Twice the limit, so that a body that is a little too long is refused with its
    /// reason.
    pub(crate) fn taken(&self) -> usize {
        if self.granted.upstreams.is_empty() {
            return 0;
        }
        self.granted.body.saturating_mul(2).saturating_add(4 * MAX_FIELD_BYTES)
    }

    fn upstream(&self, name: &str) -> Result<Arc<str>, CallOutError> {
        self.granted.upstreams.iter().find(|own| ***own == *name).cloned().ok_or(CallOutError::NotGranted)
    }

    fn begin(
        self: &Arc<Self>,
        counts: &Arc<CallCounts>,
        upstream: &Arc<str>,
        deadline: Instant,
    ) -> Result<UnderWay, CallOutError> {
        // The count is right before the look at it: two that begin at once see each other.
        let before = self.under_way.fetch_add(1, Ordering::Relaxed);
        if before < self.granted.calls {
            let (allowance, counts, upstream) = (Arc::clone(self), Arc::clone(counts), Arc::clone(upstream));
            return Ok(UnderWay { allowance, counts, upstream, deadline, answered: false });
        }
        self.under_way.fetch_sub(1, Ordering::Relaxed);
        Err(CallOutError::Busy)
    }
}

/// A call under way, until it is dropped.
struct UnderWay {
    allowance: Arc<Allowance>,
    counts: Arc<CallCounts>,
    upstream: Arc<str>,
    deadline: Instant,
    /// There is a result, which is counted by whoever takes it.
    answered: bool,
}

/// The outcome of a call that nobody waited for to the end: the client was gone, or the time of the policy was over.
const ENDED: &str = "ended";

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.allowance.under_way.fetch_sub(1, Ordering::Relaxed);
        if !self.answered {
            let is_late = Instant::now() >= self.deadline;
            self.counts.count(&self.upstream, if is_late { CallOutError::Timeout.as_str() } else { ENDED });
        }
    }
}

/// Calls of one plugin by upstream and outcome. Upstreams are those of the configuration, so there are few.
#[derive(Debug, Default)]
pub struct CallCounts(Mutex<BTreeMap<(Arc<str>, &'static str), u64>>);

impl CallCounts {
    fn count(&self, upstream: &Arc<str>, outcome: &'static str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry((Arc::clone(upstream), outcome)).or_default() += 1;
    }

    /// Upstream, outcome and number of calls.
    #[must_use]
    pub fn snapshot(&self) -> Vec<(Arc<str>, &'static str, u64)> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.iter().map(|((upstream, outcome), count)| (Arc::clone(upstream), *outcome, *count)).collect()
    }
}

/// Calls that one policy may make for one exchange: a client's request is no means to flood an upstream.
const MAX_CALLS: usize = 16;
/// Fields of a request to an upstream, and bytes of them all.
const MAX_FIELDS: usize = 64;
const MAX_FIELD_BYTES: usize = 16 * 1024;
const MAX_TARGET: usize = 8 * 1024;
/// Who was asked, when that is nobody the policy may ask.
const NOBODY: &str = "";

impl wit::Host for GuestState {
    async fn send(&mut self, call: wit::Call) -> wasmtime::Result<Result<wit::Answer, wit::CallError>> {
        let started = Instant::now();
        let wall = self.wall_until;
        let upstream = self.shared.http_out.upstream(&call.upstream);
        let counted = upstream.clone().unwrap_or_else(|_| Arc::from(NOBODY));
        let result = match upstream {
            Ok(upstream) => self.ask(upstream, call, started).await,
            Err(error) => Err(error),
        };
        self.shared.calls.count(&counted, result.as_ref().map_or_else(|error| error.as_str(), |_| "ok"));
        if Instant::now() >= wall {
            self.out_of_wall = true;
            return Err(wasmtime::Error::msg("the policy's time was over while it waited for an upstream"));
        }
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
        let begun = OUTBOUND.with_borrow(|outbound| outbound.as_ref().map(|outbound| outbound.call(call)));
        let Some(receiver) = begun else {
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
        // The first epoch that the guest sees afterwards passed while it waited: that was no time of the CPU.
        self.ticks_left = self.ticks_left.saturating_add(1);
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

    #[test]
    fn so_many_calls_are_under_way_and_no_more() {
        let allowance = Allowance::new(&HttpOut { upstreams: vec![Arc::from("auth")], calls: 2, body: 0 });
        assert_eq!(allowance.upstream("auth").as_deref(), Ok("auth"));
        assert_eq!(allowance.upstream("other"), Err(CallOutError::NotGranted));
        let (counts, auth, now) = (Arc::<CallCounts>::default(), Arc::from("auth"), Instant::now());
        let later = now + Duration::from_secs(60);
        let begin = |deadline| allowance.begin(&counts, &auth, deadline);
        let (first, second) = (begin(now).unwrap(), begin(later).unwrap());
        assert_eq!(begin(later).map(|_| ()).err(), Some(CallOutError::Busy));
        drop(first);
        let mut third = begin(later).unwrap();
        third.answered = true;
        drop((second, third));
        assert_eq!(allowance.under_way.load(Ordering::Relaxed), 0);
        let auth = |outcome| (Arc::from("auth"), outcome, 1);
        assert_eq!(counts.snapshot(), [auth("ended"), auth("timeout")], "an answer is counted by whoever takes it");
    }
}
