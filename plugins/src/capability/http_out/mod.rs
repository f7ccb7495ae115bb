//! Requests of policies to upstreams of the gateway. The guest waits on its fiber; the gateway sends, on the worker that runs the guest.

mod allowance;
mod send;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::HeaderMap;
use http::{Method, StatusCode};
use tokio::sync::oneshot;

pub(crate) use allowance::Allowance;
pub use allowance::CallCounts;

use crate::contract::bindings::weir::policy::http_out as wit;
use crate::exchange::TraceContext;

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

/// Begins a call on this thread's way to the upstreams, if there is one.
fn begin(call: Call) -> Option<oneshot::Receiver<Made>> {
    OUTBOUND.with_borrow(|outbound| outbound.as_ref().map(|outbound| outbound.call(call)))
}

/// The outcome of a call that nobody waited for to the end: the client was gone, or the time of the policy was over.
const ENDED: &str = "ended";
/// Bytes of all header fields of a request to an upstream.
const MAX_FIELD_BYTES: usize = 16 * 1024;
