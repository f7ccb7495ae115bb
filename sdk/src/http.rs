//! Asking upstreams of the gateway over HTTP, in straight-line code. Needs `grants = ["http-out"]` and the names of the upstreams:
//! `http_out = { upstreams = ["auth"] }`.
//!
//! ```
//! use std::time::Duration;
//! use weir_sdk::http;
//! use weir_sdk::testing;
//!
//! fn may_enter(user: &str) -> Result<bool, http::Error> {
//!     let account = http::get("directory", &format!("/accounts/{user}")).timeout(Duration::from_millis(200)).send()?;
//!     let verdict = http::post("auth", "/check", account.body).header("x-user", user).send()?;
//!     Ok(verdict.status == 204)
//! }
//!
//! testing::upstream("directory", |_| Ok(http::Answer::new(200).with_body("gold")));
//! testing::upstream("auth", |call| Ok(http::Answer::new(if call.body == b"gold" { 204 } else { 403 })));
//! assert_eq!(may_enter("ada"), Ok(true));
//! assert_eq!(testing::calls()[0].target, "/accounts/ada");
//! ```
//!
//! The policy waits, the gateway does not: its other connections go on. The wait counts against `limits.wall` (50 ms by default), which
//! ends the call of the policy itself, so raise it beyond the timeouts of the calls that the policy makes.

use std::fmt;
use std::time::Duration;

use crate::host::http_out as host;

/// A request to an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "nothing is sent before send()"]
pub struct Call {
    /// The upstream's name in `weir.toml`.
    pub upstream: String,
    /// Any method but `CONNECT`.
    pub method: String,
    /// Path and query, beginning with `/`.
    pub target: String,
    /// Name in lower case, and value.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body.
    pub body: Vec<u8>,
    /// How long to wait for the whole answer. `None` waits as long as this call of the policy may take.
    pub timeout: Option<Duration>,
}

/// A GET.
pub fn get(upstream: &str, target: &str) -> Call {
    Call::new(upstream, "GET", target)
}

/// A POST with a body.
pub fn post(upstream: &str, target: &str, body: impl Into<Vec<u8>>) -> Call {
    Call { body: body.into(), ..Call::new(upstream, "POST", target) }
}

impl Call {
    /// Any request.
    pub fn new(upstream: &str, method: &str, target: &str) -> Self {
        Self {
            upstream: upstream.to_owned(),
            method: method.to_owned(),
            target: target.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
            timeout: None,
        }
    }

    /// Adds a header. Host, framing and the trace context are the gateway's to write.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_ascii_lowercase(), value.as_ref().to_vec()));
        self
    }

    /// Waits no longer than this for the whole answer. Below a millisecond it is one.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sends it and waits for the answer.
    ///
    /// # Errors
    /// There is no answer.
    #[allow(clippy::useless_conversion, reason = "the mock host fails with this very error")]
    pub fn send(self) -> Result<Answer, Error> {
        let millis = |timeout: Duration| u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX).max(1);
        let headers = self.headers.into_iter().map(|(name, value)| crate::host::Header { name, value });
        let call = host::Call {
            upstream: self.upstream,
            method: self.method,
            target: self.target,
            headers: headers.collect(),
            body: self.body,
            timeout_ms: self.timeout.map_or(0, millis),
        };
        match host::send(&call) {
            Ok(answer) => Ok(Answer {
                status: answer.status,
                headers: answer.headers.into_iter().map(|header| (header.name, header.value)).collect(),
                body: answer.body,
            }),
            Err(error) => Err(Error::from(error)),
        }
    }
}

/// What an upstream answered, whatever its status. Redirects are not followed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Name in lower case, and value, in order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// All of the body.
    pub body: Vec<u8>,
}

impl Answer {
    /// An answer without headers and body, for tests.
    #[must_use]
    pub fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    /// Adds a header, for tests.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_ascii_lowercase(), value.as_ref().to_vec()));
        self
    }

    /// Sets the body, for tests.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// The first value of a header; the name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_slice())
    }

    /// Whether the status is 200 to 299.
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body as text; bytes that are not UTF-8 are replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The policy may not ask this upstream, or there is none of this name.
    NotGranted,
    /// Nothing is asked while a plugin is described, configured or tested.
    NotNow,
    /// Method, target or a header is none, or is the gateway's to write.
    Invalid,
    /// The request's headers or its body are over the limit.
    RequestTooLarge,
    /// So many calls of this policy are under way, or were made for this exchange, that no other may begin.
    Busy,
    /// Every server of the upstream is known to be down.
    NoServer,
    /// No connection to a server.
    Connect,
    /// No whole answer in time.
    Timeout,
    /// The server broke off, or what it said is no answer.
    Broken,
    /// The answer's body is over the limit.
    AnswerTooLarge,
}

impl Error {
    /// A word for logs, metrics and the `reason` of a verdict.
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
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl std::error::Error for Error {}

#[cfg(target_family = "wasm")]
impl From<host::CallError> for Error {
    fn from(error: host::CallError) -> Self {
        match error {
            host::CallError::NotGranted => Self::NotGranted,
            host::CallError::NotNow => Self::NotNow,
            host::CallError::Invalid => Self::Invalid,
            host::CallError::RequestTooLarge => Self::RequestTooLarge,
            host::CallError::Busy => Self::Busy,
            host::CallError::NoServer => Self::NoServer,
            host::CallError::Connect => Self::Connect,
            host::CallError::Timeout => Self::Timeout,
            host::CallError::Broken => Self::Broken,
            host::CallError::AnswerTooLarge => Self::AnswerTooLarge,
        }
    }
}
