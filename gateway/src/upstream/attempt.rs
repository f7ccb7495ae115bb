//! One request to one server.

use std::cell::Cell;
use std::error::Error as _;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::uri::Scheme;
use http::{StatusCode, Uri};
use hyper::client::conn::http2;

use super::connect::{ConnectError, Sender};
use super::group::Group;
use super::health::Standing;
use super::server::Server;
use http_body::Body as _;

use crate::fields::Known;
use crate::http::body::{RequestBody, UpstreamBody};
use crate::http::message::{Request, RequestHead, Response};
use crate::http::pace::BodyFault;
use crate::http::replay;
use crate::http1::client::{self, Connection, Unanswered};

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
    /// The server went down while the request waited for its response head.
    ServerDown,
    /// The client's body failed while it was being sent.
    ClientBody(BodyFault),
}

impl AttemptError {
    /// The status of the answer when this was the last attempt.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::Connect(ConnectError::Timeout) | Self::FirstByteTimeout | Self::ServerDown => StatusCode::GATEWAY_TIMEOUT,
            Self::Connect(ConnectError::Unresolved | ConnectError::Bind) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Connect(ConnectError::Refused | ConnectError::Tls | ConnectError::Certificate)
            | Self::Reset
            | Self::BadResponse => StatusCode::BAD_GATEWAY,
            Self::ClientBody(fault) => fault.status(),
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
            Self::ServerDown => "upstream_went_down",
            Self::ClientBody(fault) => fault.reason(),
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
            Self::ServerDown => ("head", "went_down"),
            Self::ClientBody(_) => ("send", "client_body"),
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
    /// How long a connection to it may be kept unused.
    pub idle: Duration,
}

/// An attempt that failed, and what is proven of it.
#[derive(Debug)]
pub struct Failed {
    /// Why.
    pub error: AttemptError,
    /// What became of the request.
    pub fate: Fate,
}

/// What a failed attempt did with the request.
#[derive(Debug)]
pub enum Fate {
    /// Nothing of it was sent: here it is.
    Unsent(Box<Request<RequestBody>>),
    /// Some of it was sent, and the server says that it did not process it.
    Refused,
    /// Some of it was sent, and the connection ended without an answer. The request, when all of it is still here.
    Unanswered(Option<Box<Request<RequestBody>>>),
    /// The answer had begun, was late or was wrong, or the client's body failed: it is not sent again.
    Final,
}

/// How long a request may take, and when it is given up sooner.
#[derive(Clone, Copy, Debug)]
pub struct Limits<'a> {
    /// When the request begins to be sent.
    pub begun: Instant,
    /// How long the server may be silent.
    pub first_byte: Duration,
    /// When the response head must be there, however the request moves.
    pub deadline: Option<Instant>,
    /// Where the request finds another server, when it is taken back from one that goes down while it waits there.
    pub take_back: Option<&'a Group>,
}

/// Sends a request over a connection and waits for the head of its response.
///
/// # Errors
/// Why there is none, and what became of the request.
pub async fn attempt(
    server: &Server,
    sender: Sender,
    request: Box<Request<RequestBody>>,
    limits: Limits<'_>,
    idle: Duration,
) -> Result<Answered, Failed> {
    match sender {
        Sender::Http1(connection) => {
            let response = over_http1(connection, request, server, limits).await?;
            Ok(Answered { response, server: server.id, idle })
        }
        // On the heap: most exchanges need no room for it.
        Sender::Http2(sender) => {
            let response = Box::pin(over_http2(sender, request, server, limits)).await?;
            Ok(Answered { response, server: server.id, idle })
        }
    }
}

/// Over HTTP/2 the request is hyper's until it tells that nothing of it was sent.
async fn over_http2(
    mut sender: http2::SendRequest<RequestBody>,
    request: Box<Request<RequestBody>>,
    server: &Server,
    limits: Limits<'_>,
) -> Result<Response<UpstreamBody>, Failed> {
    if !sender.is_ready()
        && let Err(error) = ready(&tokio::time::timeout(limits.first_byte, sender.ready()).await)
    {
        return Err(Failed { error, fate: Fate::Unsent(request) });
    }
    let progress = request.body.progress();
    let sent = answered(sender.try_send_request(for_http2(*request)), server, limits, progress).await?;
    Ok(Response::from(sent.map_err(Failed::of)?).map(UpstreamBody::Http2))
}

/// Over HTTP/1 it is known which bytes were sent, and the request comes back.
async fn over_http1(
    connection: Box<Connection>,
    mut request: Box<Request<RequestBody>>,
    server: &Server,
    limits: Limits<'_>,
) -> Result<Response<UpstreamBody>, Failed> {
    let has_body = !request.body.is_end_stream();
    let kept = if has_body { request.body.keep() } else { None };
    // A body that is too large to be kept stays whole until the connection has proven to take its head.
    let head_first = has_body && kept.is_none();
    let Limits { begun, first_byte: limit, deadline, .. } = limits;
    let manner = client::Manner { begun, limit, deadline, look_every: LOOK_EVERY, head_first };
    let lost = || is_lost(server, limits);
    let Unanswered { error, sent, begun, request } = match client::send(connection, request, manner, lost).await {
        Ok(response) => return Ok(response.map(UpstreamBody::Http1)),
        Err(unanswered) => *unanswered,
    };
    let error = match error {
        client::Error::Reset => AttemptError::Reset,
        client::Error::BadResponse => AttemptError::BadResponse,
        client::Error::Timeout => AttemptError::FirstByteTimeout,
        client::Error::Lost => AttemptError::ServerDown,
        client::Error::ClientBody(fault) => AttemptError::ClientBody(fault),
    };
    if !matches!(error, AttemptError::Reset | AttemptError::ServerDown) {
        return Err(Failed { error, fate: Fate::Final });
    }
    let Request { head, body } = *request;
    let body = match kept {
        None => (!begun).then_some(body),
        Some(kept) => {
            drop(body);
            kept.again()
        }
    };
    let request = body.map(|body| Box::new(Request { head, body }));
    let fate = match request {
        Some(request) if sent == 0 => Fate::Unsent(request),
        request => Fate::Unanswered(request),
    };
    Err(Failed { error, fate })
}

/// Waits for the response head. The limit is on silence: while the request's body still moves, the server owes no answer yet, however
/// long the upload takes. Interim answers (1xx) are no answer and move no limit, so that any number of them has an end. Now and then it
/// is looked whether the server went down meanwhile: nothing comes from one that vanished from the network.
async fn answered<F: Future>(
    answer: F,
    server: &Server,
    limits: Limits<'_>,
    progress: Option<Rc<Cell<u64>>>,
) -> Result<F::Output, Failed> {
    let mut answer = std::pin::pin!(answer);
    let (mut seen, mut silent) = (0, Duration::ZERO);
    loop {
        let left = limits.deadline.map_or(LOOK_EVERY, |deadline| deadline.saturating_duration_since(Instant::now()));
        let turn = LOOK_EVERY.min(limits.first_byte.saturating_sub(silent)).min(left);
        if let Ok(output) = tokio::time::timeout(turn, answer.as_mut()).await {
            return Ok(output);
        }
        silent += turn;
        let moved = progress.as_ref().map_or(0, |bytes| bytes.get());
        if moved != seen {
            (seen, silent) = (moved, Duration::ZERO);
        }
        if silent >= limits.first_byte || (limits.deadline.is_some() && left <= turn) {
            return Err(Failed { error: AttemptError::FirstByteTimeout, fate: Fate::Final });
        }
        if is_lost(server, limits) {
            return Err(Failed { error: AttemptError::ServerDown, fate: Fate::Unanswered(None) });
        }
    }
}

/// How often a waiting request looks whether its server is still there.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Whether a request that waits at a server is taken back: the server went down meanwhile, and there is another.
fn is_lost(server: &Server, limits: Limits<'_>) -> bool {
    server.seen_standing() == Some(Standing::Down) && limits.take_back.is_some_and(|group| !group.is_down(Instant::now()))
}

/// A new connection needs a moment before it takes a request, and a server may allow no exchange for a while: both have an end.
fn ready(waited: &Result<hyper::Result<()>, tokio::time::error::Elapsed>) -> Result<(), AttemptError> {
    match waited {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(AttemptError::Reset),
        Err(_) => Err(AttemptError::FirstByteTimeout),
    }
}

/// A copy of a request that may have to be sent again.
#[derive(Debug)]
pub struct Copy {
    head: Box<RequestHead>,
    body: replay::Kept,
}

impl Copy {
    /// A copy of the head; the body is kept as it is sent. `None` when it is too large to be kept.
    #[must_use]
    pub fn of(request: &mut Request<RequestBody>) -> Option<Self> {
        let body = request.body.keep()?;
        Some(Self { head: request.head.clone(), body })
    }

    /// The request once more, when all of its body can be had. Over HTTP/2 the body is let go of by a task of its own, a moment later.
    pub async fn again(self) -> Option<Request<RequestBody>> {
        for _ in 0..LETTING_GO {
            if self.body.is_back() {
                break;
            }
            tokio::task::yield_now().await;
        }
        let Self { head, body } = self;
        Some(Request { head, body: body.again()? })
    }
}

/// Turns of the scheduler that a connection gets to let go of a body.
const LETTING_GO: usize = 8;

/// Whether repeating the request changes nothing: by its method, or because the client says so.
#[must_use]
pub fn is_repeatable(request: &Request<RequestBody>) -> bool {
    request.head.method.is_safe() || request.head.headers.contains(Known::IdempotencyKey)
}

/// HTTP/2 wants scheme and authority in the target, and no Host beside them.
fn for_http2(mut request: Request<RequestBody>) -> http::Request<RequestBody> {
    let head = &mut request.head;
    let authority = head.headers.get(Known::Host).and_then(|host| http::uri::Authority::try_from(host).ok());
    let mut uri = std::mem::take(&mut head.uri).into_parts();
    if authority.is_some() {
        uri.scheme = Some(Scheme::HTTPS);
        uri.authority = authority;
    }
    if let Ok(uri) = Uri::from_parts(uri) {
        head.uri = uri;
    }
    head.headers.remove(Known::Host);
    head.headers.remove(Known::TransferEncoding);
    head.version = http::Version::HTTP_2;
    request.into()
}

/// A request that was made for HTTP/2 and not sent: the next server may speak HTTP/1.
fn from_http2(request: http::Request<RequestBody>) -> Request<RequestBody> {
    let mut request = Request::from(request);
    let mut uri = std::mem::take(&mut request.head.uri).into_parts();
    if let Some(authority) = uri.authority.take() {
        request.head.headers.insert(Known::Host, authority.as_str().as_bytes());
    }
    uri.scheme = None;
    request.head.uri = Uri::from_parts(uri).unwrap_or_default();
    request.head.version = http::Version::HTTP_11;
    request
}

impl Failed {
    fn of(mut error: hyper::client::conn::TrySendError<http::Request<RequestBody>>) -> Self {
        let unsent = error.take_message().map(|request| Fate::Unsent(Box::new(from_http2(request))));
        let error = error.into_error();
        let (kind, fate) = if error.is_parse() || error.is_parse_too_large() {
            (AttemptError::BadResponse, Fate::Final)
        } else if error.is_user() {
            let fault = error.source().and_then(|source| source.downcast_ref());
            (AttemptError::ClientBody(fault.map_or(BodyFault::Failed, BodyFault::of)), Fate::Final)
        } else if is_refused(&error) {
            (AttemptError::Reset, Fate::Refused)
        } else {
            (AttemptError::Reset, Fate::Unanswered(None))
        };
        Self { error: kind, fate: unsent.unwrap_or(fate) }
    }
}

/// Whether an HTTP/2 server said that it did not process the request: its GOAWAY ends the streams behind the last one it looked at. What
/// our own side ends, because the server broke the protocol, it may have processed.
fn is_refused(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
    let says_so = |cause: &h2::Error| cause.is_go_away() || cause.reason() == Some(h2::Reason::REFUSED_STREAM);
    cause.is_some_and(|cause| cause.is_remote() && says_so(cause))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn what_was_made_for_http_2_and_not_sent_is_as_it_was_for_http_1() {
        let mut head =
            RequestHead { uri: "/agent?id=1".parse().unwrap(), version: http::Version::HTTP_11, ..RequestHead::default() };
        head.headers.append(Known::Host, b"automate.test:8443");
        head.headers.append(Known::IdempotencyKey, b"a");
        let before = (head.uri.clone(), head.version);
        let made = for_http2(Request { head: Box::new(head), body: RequestBody::whole(Bytes::from_static(b"body")) });
        assert_eq!(made.uri(), "https://automate.test:8443/agent?id=1");
        assert!(!made.headers().contains_key("host"));
        let again = from_http2(made);
        assert_eq!((again.head.uri, again.head.version), before);
        assert_eq!(again.head.headers.text(Known::Host), Some("automate.test:8443"));
        assert_eq!(again.head.headers.text(Known::IdempotencyKey), Some("a"));
        assert_eq!(again.body.size_hint().exact(), Some(4));
    }
}
