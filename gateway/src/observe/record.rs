//! The one record of an exchange or of a connection that never became one. Plain data: written while the request runs, turned into
//! a log line, metrics and spans at its end.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

pub use weir_plugins::capability::http_out::Attempt;
use weir_plugins::capability::http_out::CallOut;
use weir_plugins::{Decision, Finding};

use crate::conn::{ClientIp, ConnInfo};

/// Who decided the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecidedBy {
    /// The upstream's answer was relayed.
    Upstream,
    /// The gateway itself answered (no site, no upstream, bad request).
    Gateway,
    /// A policy refused or answered; its name.
    Policy(Arc<str>),
}

impl DecidedBy {
    /// The text of the `decided_by` field.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Upstream => "upstream",
            Self::Gateway => "gateway",
            Self::Policy(name) => name,
        }
    }
}

/// W3C trace context of an exchange. `span_id` is the SERVER span's own id.
#[derive(Clone, Copy, Debug)]
pub struct TraceIds {
    /// 16 bytes, big endian.
    pub trace_id: u128,
    /// 8 bytes, big endian.
    pub span_id: u64,
    /// The remote parent, when a trusted proxy sent one.
    pub parent: Option<u64>,
    /// Whether the spans are exported whatever the outcome. Refused, failed and slow exchanges are exported anyway.
    pub sampled: bool,
}

/// One exchange, from its head to the end of its response body.
#[derive(Debug)]
pub struct AccessRecord {
    /// `request`, or `connection` when no request could be read from it.
    pub event: &'static str,
    /// Wall clock at the arrival of the head.
    pub time: SystemTime,
    /// Monotonic clock at the same moment.
    pub started: Instant,
    /// From then to the end of the response body.
    pub duration: Duration,
    /// 16 random bytes; 32 hex digits in text.
    pub request_id: u128,
    /// Trace context.
    pub trace: TraceIds,
    /// The connection.
    pub conn: Arc<ConnInfo>,
    /// The client after the trust rules, forwarding headers included.
    pub client: ClientIp,
    /// ISO code of `client`.
    pub country: Option<Arc<str>>,
    /// The site's name, once routed.
    pub site: Option<Arc<str>>,
    /// `HTTP/1.0`, `HTTP/1.1`, `HTTP/2`.
    pub protocol: &'static str,
    /// The method as sent.
    pub method: http::Method,
    /// Host name as the client sent it.
    pub host: String,
    /// The raw path without query.
    pub path: String,
    /// The status the client saw; 0 when the connection ended before one was sent.
    pub status: u16,
    /// Who decided.
    pub decided_by: DecidedBy,
    /// A closed set per policy and for the gateway; empty only when the upstream answered.
    pub reason: String,
    /// The rule that decided.
    pub rule: String,
    /// Every policy call.
    pub decisions: Vec<Decision>,
    /// Rules that matched.
    pub findings: Vec<Finding>,
    /// Facts published by policies (`class`).
    pub tags: Vec<(String, String)>,
    /// The upstream's name in `weir.toml`.
    pub upstream: Option<Arc<str>>,
    /// Every attempt.
    pub attempts: Vec<Attempt>,
    /// What policies asked of upstreams.
    pub calls: Vec<CallOut>,
    /// Bytes of the request body.
    pub bytes_in: u64,
    /// Bytes of the response body.
    pub bytes_out: u64,
}

/// A connection that never became a request.
#[derive(Debug)]
pub struct ConnectionRecord {
    /// Wall clock at the accept.
    pub time: SystemTime,
    /// The connection as far as it is known.
    pub conn: Arc<ConnInfo>,
    /// The site, when the server name told it.
    pub site: Option<Arc<str>>,
    /// `gateway` or a policy.
    pub decided_by: DecidedBy,
    /// A closed set: `tls_handshake_failed`, `tls_handshake_timeout`, `bad_request`, `policy_denied`, `too_many_connections`, ...
    pub reason: String,
    /// Free text for the operator.
    pub detail: String,
    /// What policies decided, when one of them closed it.
    pub decisions: Vec<Decision>,
    /// Rules that matched then.
    pub findings: Vec<Finding>,
}
