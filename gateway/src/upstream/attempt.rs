//! One request to one server.

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::header::HOST;
use http::uri::Scheme;
use http::{Request, Response, StatusCode, Uri};

use super::connect::{ConnectError, Sender, connect};
use super::group::{Group, Server};
use super::pool::Pool;
use crate::http::body::{BodyError, RequestBody, UpstreamBody};
use crate::http1::client::{self, Unanswered};

/// Why an attempt gave no response head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptError {
    /// No connection: nothing was sent.
    Connect(ConnectError),
    /// The connection ended, or broke the protocol, after the request was sent.
    Reset,
    /// The response head is malformed or too large.
    BadResponse,
    /// No response head in time.
    FirstByteTimeout,
    /// The client's body broke off while it was being sent.
    ClientBody,
    /// The client's body stalled while it was being sent.
    ClientBodyStalled,
}

impl AttemptError {
    /// The status of the answer when this was the last attempt.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::Connect(ConnectError::Timeout) | Self::FirstByteTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Connect(ConnectError::Unresolved | ConnectError::Bind) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Connect(ConnectError::Refused | ConnectError::Tls | ConnectError::Certificate)
            | Self::Reset
            | Self::BadResponse => StatusCode::BAD_GATEWAY,
            Self::ClientBody => StatusCode::BAD_REQUEST,
            Self::ClientBodyStalled => StatusCode::REQUEST_TIMEOUT,
        }
    }

    /// The `reason` of the decision log.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Connect(ConnectError::Unresolved) => "upstream_unresolved",
            Self::Connect(ConnectError::Refused) => "upstream_refused",
            Self::Connect(ConnectError::Timeout) => "upstream_connect_timeout",
            Self::Connect(ConnectError::Tls) => "upstream_tls_failed",
            Self::Connect(ConnectError::Certificate) => "upstream_certificate_invalid",
            Self::Connect(ConnectError::Bind) => "upstream_bind_failed",
            Self::Reset => "upstream_reset",
            Self::BadResponse => "upstream_bad_response",
            Self::FirstByteTimeout => "upstream_timeout",
            Self::ClientBody => "client_body_failed",
            Self::ClientBodyStalled => "client_body_stalled",
        }
    }

    /// The `stage` and `outcome` of the attempt in the log.
    #[must_use]
    pub const fn stage(&self) -> (&'static str, &'static str) {
        match self {
            Self::Connect(error @ (ConnectError::Tls | ConnectError::Certificate)) => ("tls", error.outcome()),
            Self::Connect(error) => ("connect", error.outcome()),
            Self::Reset => ("head", "reset"),
            Self::BadResponse => ("head", "malformed"),
            Self::FirstByteTimeout => ("head", "timeout"),
            Self::ClientBody | Self::ClientBodyStalled => ("send", "client_body"),
        }
    }
}

/// An answer, and who gave it.
#[derive(Debug)]
pub struct Answered {
    /// The response.
    pub response: Response<UpstreamBody>,
    /// The server's id.
    pub server: u64,
}

/// An attempt that failed, and the request when it is proven unsent.
#[derive(Debug)]
pub struct Failed {
    /// Why.
    pub error: AttemptError,
    /// The request, for another attempt.
    pub unsent: Option<Box<Request<RequestBody>>>,
}

/// Sends a request to a server over a pooled or a new connection. A pooled connection that turns out to be closed before anything was
/// sent is replaced by a new one without counting as a failure.
///
/// # Errors
/// Why there is no response head; with the request when nothing of it was sent.
pub async fn attempt(
    pool: &Pool,
    group: &Group,
    server: &Arc<Server>,
    request: Request<RequestBody>,
) -> Result<Answered, Failed> {
    let mut request = request;
    if let Some(sender) = pool.take(server.id, group.timeouts.idle, Instant::now()) {
        match send(server, sender, request, group.timeouts.first_byte).await {
            Err(Failed { error: AttemptError::Reset, unsent: Some(unsent) }) => request = *unsent,
            done => return done,
        }
    }
    let sender = match connect(server, group.timeouts.connect).await {
        Ok(sender) => sender,
        Err(error) => {
            server.on_connect_failure();
            return Err(Failed { error: AttemptError::Connect(error), unsent: Some(Box::new(request)) });
        }
    };
    server.on_connect_success();
    if let Sender::Http2(sender) = &sender {
        pool.share(server.id, sender);
    }
    send(server, sender, request, group.timeouts.first_byte).await
}

async fn send(server: &Arc<Server>, sender: Sender, request: Request<RequestBody>, limit: Duration) -> Result<Answered, Failed> {
    match sender {
        Sender::Http1(connection) => match client::send(connection, request, limit).await {
            Ok(response) => Ok(Answered { response: response.map(UpstreamBody::Http1), server: server.id }),
            Err(unanswered) => Err(unanswered_http1(*unanswered)),
        },
        Sender::Http2(mut sender) => {
            if !sender.is_ready()
                && let Err(error) = ready(&tokio::time::timeout(limit, sender.ready()).await)
            {
                return Err(Failed { error, unsent: Some(Box::new(request)) });
            }
            let late = Failed { error: AttemptError::FirstByteTimeout, unsent: None };
            let progress = request.body().progress();
            let again = Again::of(&request);
            let sent = answered(sender.try_send_request(for_http2(request)), limit, progress).await.ok_or(late)?;
            match sent {
                Ok(response) => Ok(Answered { response: response.map(UpstreamBody::Http2), server: server.id }),
                Err(error) => {
                    let is_refused = is_refused(&error);
                    let mut failed = failed(error);
                    if failed.unsent.is_none() && failed.error == AttemptError::Reset {
                        failed.unsent = again.and_then(|again| again.unless_processed(is_refused));
                    }
                    Err(failed)
                }
            }
        }
    }
}

/// Waits for the response head. The limit is on silence: while the request's body still moves, the server owes no answer yet, however
/// long the upload takes. `None` when nothing moved and nothing came for the limit.
async fn answered<F: Future>(answer: F, limit: Duration, progress: Option<Arc<AtomicU64>>) -> Option<F::Output> {
    let mut answer = std::pin::pin!(answer);
    let mut seen = 0;
    loop {
        if let Ok(output) = tokio::time::timeout(limit, answer.as_mut()).await {
            return Some(output);
        }
        let moved = progress.as_ref().map_or(0, |bytes| bytes.load(Ordering::Relaxed));
        if moved == seen {
            return None;
        }
        seen = moved;
    }
}

/// A new connection needs a moment before it takes a request, and a server may allow no exchange for a while: both have an end.
fn ready(waited: &Result<hyper::Result<()>, tokio::time::error::Elapsed>) -> Result<(), AttemptError> {
    match waited {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(AttemptError::Reset),
        Err(_) => Err(AttemptError::FirstByteTimeout),
    }
}

/// A request without a body, kept because an HTTP/2 server may end its connection at any time with exchanges on it: the request is
/// gone then, but the server has told that it was not processed, or repeating it changes nothing.
struct Again {
    request: Request<()>,
    body: RequestBody,
}

impl Again {
    fn of(request: &Request<RequestBody>) -> Option<Self> {
        let body = request.body().repeated()?;
        let mut copy = Request::new(());
        *copy.method_mut() = request.method().clone();
        *copy.uri_mut() = request.uri().clone();
        *copy.headers_mut() = request.headers().clone();
        Some(Self { request: copy, body })
    }

    fn unless_processed(self, is_refused: bool) -> Option<Box<Request<RequestBody>>> {
        let may_repeat = is_refused || self.request.method().is_safe();
        may_repeat.then(|| Box::new(self.request.map(|()| self.body)))
    }
}

/// Whether the server said that it did not process the request.
fn is_refused(error: &hyper::client::conn::TrySendError<Request<RequestBody>>) -> bool {
    let cause = error.error().source().and_then(|source| source.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| cause.is_go_away() || cause.reason() == Some(h2::Reason::REFUSED_STREAM))
}

/// HTTP/2 wants scheme and authority in the target, and no Host beside them.
fn for_http2(mut request: Request<RequestBody>) -> Request<RequestBody> {
    let host = request.headers_mut().remove(HOST);
    let authority = host.and_then(|host| http::uri::Authority::try_from(host.as_bytes()).ok());
    let mut uri = std::mem::take(request.uri_mut()).into_parts();
    if authority.is_some() {
        uri.scheme = Some(Scheme::HTTPS);
        uri.authority = authority;
    }
    if let Ok(uri) = Uri::from_parts(uri) {
        *request.uri_mut() = uri;
    }
    request.headers_mut().remove(http::header::TRANSFER_ENCODING);
    *request.version_mut() = http::Version::HTTP_2;
    request
}

fn unanswered_http1(unanswered: Unanswered) -> Failed {
    let Unanswered { error, sent, request } = unanswered;
    let error = match error {
        client::Error::Reset => AttemptError::Reset,
        client::Error::BadResponse => AttemptError::BadResponse,
        client::Error::Timeout => AttemptError::FirstByteTimeout,
        client::Error::ClientBody => AttemptError::ClientBody,
        client::Error::ClientBodyStalled => AttemptError::ClientBodyStalled,
    };
    Failed { error, unsent: (sent == 0).then(|| Box::new(request)) }
}

fn failed(mut error: hyper::client::conn::TrySendError<Request<RequestBody>>) -> Failed {
    let unsent = error.take_message().map(Box::new);
    let error = error.into_error();
    let kind = if error.is_parse() || error.is_parse_too_large() {
        AttemptError::BadResponse
    } else if error.is_user() {
        let body = error.source().and_then(|source| source.downcast_ref::<BodyError>());
        if matches!(body, Some(BodyError::Stalled(_))) { AttemptError::ClientBodyStalled } else { AttemptError::ClientBody }
    } else {
        AttemptError::Reset
    };
    Failed { error: kind, unsent }
}
