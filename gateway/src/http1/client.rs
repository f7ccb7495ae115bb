//! One exchange with a server over HTTP/1. It always knows how much of the request was handed to the socket, and gives the request back
//! when there is no answer: the caller decides whether it may be sent again.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::body::{Decoder, Framing, Piece};
use super::deadline::{Deadline, after};
use super::wire::{Io, Wire};
use super::{head, response, turn};
use crate::fields::Known;
use crate::http::body::{BodyError, RequestBody};
use crate::http::message::{Request, Response};
use crate::http::pace::BodyFault;

/// How long a server may take to ask for a body that it was told to expect; servers that know nothing of it never ask.
const PATIENCE: Duration = Duration::from_secs(1);
/// Interim answers before the one that counts.
const MAX_INTERIM: u32 = 2_000;

/// A connection to a server, between exchanges or in one.
#[derive(Debug)]
pub struct Connection {
    wire: Wire,
    deadline: Deadline,
}

impl Connection {
    /// A connection on which nothing was sent.
    #[must_use]
    pub fn new(io: Io) -> Box<Self> {
        Box::new(Self { wire: Wire::new(io), deadline: Deadline::default() })
    }

    /// Whether the server has ended an idle connection, or said something that nobody asked for.
    pub fn is_stale(&mut self) -> bool {
        self.wire.is_disturbed(&mut Context::from_waker(Waker::noop()))
    }

    /// The bytes, once the connection has left HTTP.
    pub const fn wire(&mut self) -> &mut Wire {
        &mut self.wire
    }
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The connection ended.
    Reset,
    /// What came is no response.
    BadResponse,
    /// Nothing moved for too long.
    Timeout,
    /// The caller takes the request back.
    Lost,
    /// The client's body failed.
    ClientBody(BodyFault),
}

/// A request without an answer.
#[derive(Debug)]
pub struct Unanswered {
    /// Why.
    pub error: Error,
    /// Bytes of it that were handed to the socket.
    pub sent: u64,
    /// Whether any of its body was taken.
    pub begun: bool,
    /// The request. Its body is what is left of it.
    pub request: Box<Request<RequestBody>>,
}

/// How a request is sent.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// When it begins to be sent.
    pub begun: std::time::Instant,
    /// How long the server may be silent, once nothing is sent any more.
    pub limit: Duration,
    /// When the answer must have begun in any case.
    pub deadline: Option<std::time::Instant>,
    /// How often the caller is asked whether it takes the request back.
    pub look_every: Duration,
    /// Whether the body is left alone until the socket has taken the head.
    pub head_first: bool,
}

/// Sends a request and waits for the head of its answer. `lost` is asked now and then whether there is still something to wait for.
///
/// # Errors
/// The request, and why it has no answer.
pub async fn send(
    connection: Box<Connection>,
    request: Box<Request<RequestBody>>,
    manner: Manner,
    lost: impl Fn() -> bool,
) -> Result<Response<ResponseBytes>, Box<Unanswered>> {
    let mut sending = Sending::new(connection, request, manner);
    turn::others_first().await;
    match poll_fn(|context| sending.poll(context, &lost)).await {
        Ok(head) => Ok(sending.answered(head)),
        Err(error) => Err(Box::new(sending.unanswered(error))),
    }
}

struct Sending {
    connection: Box<Connection>,
    upload: Upload,
    manner: Manner,
    quiet: Option<Quiet>,
    /// Since when nothing moves, until that is looked at for the first time.
    begun: Option<Instant>,
    interim: u32,
}

/// A time without progress.
#[derive(Clone, Copy)]
struct Quiet {
    since: Instant,
    /// What had been sent then.
    sent: u64,
    /// When the caller is asked next.
    look: Instant,
}

impl Sending {
    fn new(mut connection: Box<Connection>, request: Box<Request<RequestBody>>, manner: Manner) -> Self {
        let framing = request_framing(&request);
        connection.deadline.moved();
        connection.wire.begin();
        let said = head::write_request(connection.wire.output(), &request.head, framing);
        let held = said.expects && !request.body.is_end_stream();
        let trailers = said.trailers;
        let upload = Upload { request, framing, held, head_first: manner.head_first, begun: false, over: false, trailers };
        Self { connection, upload, manner, quiet: None, begun: Some(manner.begun.into()), interim: 0 }
    }

    fn poll(&mut self, context: &mut Context<'_>, lost: &impl Fn() -> bool) -> Poll<Result<response::Head, Error>> {
        // A server may answer and close before it has read everything: what it said counts more than that it did not listen.
        let unheard = match self.upload.poll(&mut self.connection.wire, context) {
            Poll::Ready(Err(UploadError::Body(error))) => return Poll::Ready(Err(Error::ClientBody(BodyFault::of(&error)))),
            Poll::Ready(Err(UploadError::Connection)) => true,
            Poll::Ready(Ok(())) | Poll::Pending => false,
        };
        loop {
            let wire = &mut self.connection.wire;
            if !wire.input.is_empty() {
                match response::take(&mut wire.input, &self.upload.request.head.method) {
                    Ok(Some(response::Head { head, .. }))
                        if head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS =>
                    {
                        self.interim += 1;
                        if self.interim > MAX_INTERIM {
                            return Poll::Ready(Err(Error::BadResponse));
                        }
                        if head.status == StatusCode::CONTINUE && self.upload.held {
                            self.upload.held = false;
                            return self.poll(context, lost);
                        }
                        continue;
                    }
                    Ok(Some(head)) => return Poll::Ready(Ok(head)),
                    Ok(None) => {}
                    Err(response::BadResponse) => return Poll::Ready(Err(Error::BadResponse)),
                }
            }
            match wire.poll_fill(context) {
                // What has begun to answer has been at work: such a request is not one that nobody looked at.
                Poll::Ready(Ok(0) | Err(_)) if self.interim > 0 || !wire.input.is_empty() => {
                    return Poll::Ready(Err(Error::BadResponse));
                }
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(Error::Reset)),
                // A head that comes drop by drop is no progress: the limit holds for all of it.
                Poll::Ready(Ok(_)) => {}
                Poll::Pending if unheard => return Poll::Ready(Err(Error::Reset)),
                Poll::Pending => return self.poll_quiet(context, lost),
            }
        }
    }

    fn poll_quiet(&mut self, context: &mut Context<'_>, lost: &impl Fn() -> bool) -> Poll<Result<response::Head, Error>> {
        let sent = self.connection.wire.sent();
        let mut quiet = match self.quiet {
            Some(quiet) if quiet.sent == sent => quiet,
            _ => {
                let now = self.begun.take().unwrap_or_else(Instant::now);
                Quiet { since: now, sent, look: now + self.manner.look_every }
            }
        };
        let wait = if self.upload.held { PATIENCE.min(self.manner.limit) } else { self.manner.limit };
        let end = after(quiet.since, wait);
        let end = self.manner.deadline.map_or(end, |deadline| end.min(deadline.into()));
        loop {
            if self.connection.deadline.poll(context, end.min(quiet.look)).is_pending() {
                self.quiet = Some(quiet);
                return Poll::Pending;
            }
            if quiet.look >= end {
                break;
            }
            if lost() {
                return Poll::Ready(Err(Error::Lost));
            }
            quiet.look = Instant::now() + self.manner.look_every;
        }
        self.quiet = None;
        if std::mem::take(&mut self.upload.held) {
            return self.poll(context, lost);
        }
        Poll::Ready(Err(Error::Timeout))
    }

    fn answered(self, head: response::Head) -> Response<ResponseBytes> {
        let Self { connection, upload, .. } = self;
        let response::Head { head, framing, keep } = head;
        let switching = head.status == StatusCode::SWITCHING_PROTOCOLS;
        let decoder = if switching { Decoder::Done } else { Decoder::new(framing) };
        let upload = if upload.over { None } else { Some(Box::new(upload)) };
        Response { head, body: ResponseBytes { connection: Some(connection), decoder, keep: keep && !switching, upload } }
    }

    fn unanswered(self, error: Error) -> Unanswered {
        let sent = self.connection.wire.sent();
        Unanswered { error, sent, begun: self.upload.begun, request: self.upload.request }
    }
}

/// How the server learns where the body ends; none for a request that has none and says nothing of one.
fn request_framing(request: &Request<RequestBody>) -> Option<Framing> {
    let Request { head: parts, body } = request;
    match body.size_hint().exact() {
        Some(0) if body.is_end_stream() => {
            let meant = matches!(parts.method, Method::POST | Method::PUT | Method::PATCH)
                || parts.headers.contains(Known::ContentLength);
            meant.then_some(Framing::Length(0))
        }
        Some(length) => Some(Framing::Length(length)),
        None => Some(Framing::Chunked),
    }
}

/// The trailers that were announced.
#[must_use]
pub fn announced_only(mut trailers: HeaderMap, announced: Option<&[u8]>) -> HeaderMap {
    let names = announced.unwrap_or_default();
    let is_announced =
        |name: &str| names.split(|byte| *byte == b',').any(|own| own.trim_ascii().eq_ignore_ascii_case(name.as_bytes()));
    let others: Vec<_> = trailers.keys().filter(|name| !is_announced(name.as_str())).cloned().collect();
    for name in others {
        trailers.remove(name);
    }
    trailers
}

enum UploadError {
    /// The client's side.
    Body(BodyError),
    /// The server's side.
    Connection,
}

/// A request on its way out.
#[derive(Debug)]
struct Upload {
    request: Box<Request<RequestBody>>,
    framing: Option<Framing>,
    /// Whether the body waits for the server's word.
    held: bool,
    /// Whether it waits for the socket to take the head.
    head_first: bool,
    /// Whether any of it was taken.
    begun: bool,
    over: bool,
    trailers: Option<Box<[u8]>>,
}

impl Upload {
    fn poll(&mut self, wire: &mut Wire, context: &mut Context<'_>) -> Poll<Result<(), UploadError>> {
        if self.head_first {
            ready!(wire.poll_send(context)).map_err(|_| UploadError::Connection)?;
            self.head_first = false;
        }
        loop {
            let mut waits = self.held;
            while !self.over && !waits && !wire.is_full() {
                if self.request.body.is_end_stream() && !matches!(self.framing, Some(Framing::Chunked)) {
                    self.over = true;
                    break;
                }
                self.begun = true;
                match Pin::new(&mut self.request.body).poll_frame(context) {
                    Poll::Ready(Some(Ok(frame))) => self.write(wire, frame),
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(UploadError::Body(error))),
                    Poll::Ready(None) => self.end(wire, None),
                    Poll::Pending => waits = true,
                }
            }
            ready!(wire.poll_send(context)).map_err(|_| UploadError::Connection)?;
            if self.over {
                return Poll::Ready(Ok(()));
            }
            if waits {
                return Poll::Pending;
            }
        }
    }

    fn write(&mut self, wire: &mut Wire, frame: Frame<Bytes>) {
        match frame.into_data() {
            Ok(data) if data.is_empty() => {}
            Ok(data) if self.framing == Some(Framing::Chunked) => head::write_chunk(wire, data),
            Ok(data) => wire.push(data, b""),
            Err(frame) => {
                let trailers = frame.into_trailers().ok();
                let trailers = trailers.map(|trailers| announced_only(trailers, self.trailers.as_deref()));
                self.end(wire, trailers.as_ref());
            }
        }
    }

    fn end(&mut self, wire: &mut Wire, trailers: Option<&HeaderMap>) {
        self.over = true;
        if self.framing == Some(Framing::Chunked) {
            head::write_trailers(wire.output(), trailers);
        }
    }
}

/// The body of an answer, with the connection it comes on.
#[derive(Debug)]
pub struct ResponseBytes {
    connection: Option<Box<Connection>>,
    decoder: Decoder,
    keep: bool,
    /// What is left of a request that was answered before all of it was sent.
    upload: Option<Box<Upload>>,
}

impl ResponseBytes {
    /// The connection, when the body is over and another exchange may follow.
    pub fn take_reusable(&mut self) -> Option<Box<Connection>> {
        let quiet = self.keep && self.upload.is_none() && self.decoder.is_done();
        let quiet = quiet && self.connection.as_ref().is_some_and(|connection| connection.wire.input.is_empty());
        if quiet { self.connection.take() } else { None }
    }

    /// The connection, after it has left HTTP.
    pub fn into_connection(mut self) -> Option<Box<Connection>> {
        self.connection.take()
    }
}

impl Body for ResponseBytes {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Self { connection, decoder, upload, .. } = self.get_mut();
        let Some(Connection { wire, .. }) = connection.as_deref_mut() else { return Poll::Ready(None) };
        if let Some(rest) = upload
            && rest.poll(wire, context).map(|sent| sent.is_ok()) == Poll::Ready(true)
        {
            *upload = None;
        }
        loop {
            match decoder.take(&mut wire.input) {
                Ok(Piece::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Piece::Trailers(trailers)) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Ok(Piece::End) => return Poll::Ready(None),
                Ok(Piece::More) => {}
                Err(malformed) => return Poll::Ready(Some(Err(malformed.into()))),
            }
            match ready!(wire.poll_fill(context)) {
                Ok(0) if decoder.end() => return Poll::Ready(None),
                Ok(0) => return Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.decoder.is_done()
    }

    fn size_hint(&self) -> SizeHint {
        self.decoder.left().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
