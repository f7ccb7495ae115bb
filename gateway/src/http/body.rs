//! Bodies on their way: counted, bounded in time, and followed to their end.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use thiserror::Error;
use tokio::time::{Sleep, sleep};

use super::replay::{Kept, Replay};
use crate::finish::{End, Finish};
use crate::http::guard::chunks::BadChunk;
use crate::http::pace::{BodyLimits, Pace};
use crate::http::unread::Http2Body;
use crate::http::upgrade::Tunnel;
use crate::http1::client::{Connection, ResponseBytes};
use crate::http1::downstream::RequestBytes;
use crate::listen::serve::Busy;
use crate::pipeline::transform::Transform;

/// Why a body broke off.
#[derive(Debug, Error)]
pub enum BodyError {
    /// The peer's HTTP/2 stream failed.
    #[error("body broke off: {0}")]
    Broken(#[from] hyper::Error),
    /// The peer's HTTP/1 connection failed or ended.
    #[error("body broke off: {0}")]
    Cut(#[from] io::Error),
    /// A chunked body that is not one.
    #[error(transparent)]
    Malformed(#[from] BadChunk),
    /// The client sent more than the limit.
    #[error("more than {0} bytes of a body")]
    TooLarge(u64),
    /// The client sent drops.
    #[error("less than {0} bytes of a body in a second")]
    TooSlow(usize),
    /// Nothing moved for too long.
    #[error("no byte of the body for {0:?}")]
    Stalled(Duration),
    /// A policy that must see the body failed.
    #[error("policy {0} failed on the body")]
    Policy(Arc<str>),
}

/// A client's body as its protocol brings it.
#[derive(Debug)]
pub enum ClientBody {
    /// Over HTTP/1.
    Http1(RequestBytes),
    /// Over HTTP/2.
    Http2(Http2Body),
}

/// A server's body as its protocol brings it.
#[derive(Debug)]
pub enum UpstreamBody {
    /// Over HTTP/1.
    Http1(ResponseBytes),
    /// Over HTTP/2.
    Http2(Incoming),
}

macro_rules! either {
    ($body:ty) => {
        impl Body for $body {
            type Data = Bytes;
            type Error = BodyError;

            fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
                match self.get_mut() {
                    Self::Http1(body) => Pin::new(body).poll_frame(context),
                    Self::Http2(body) => Pin::new(body).poll_frame(context).map_err(BodyError::from),
                }
            }

            fn is_end_stream(&self) -> bool {
                match self {
                    Self::Http1(body) => body.is_end_stream(),
                    Self::Http2(body) => body.is_end_stream(),
                }
            }

            fn size_hint(&self) -> SizeHint {
                match self {
                    Self::Http1(body) => body.size_hint(),
                    Self::Http2(body) => body.size_hint(),
                }
            }
        }
    };
}

impl UpstreamBody {
    /// The connection, when its body is over and another exchange may follow on it.
    #[must_use]
    pub fn take_reusable(&mut self) -> Option<Box<Connection>> {
        match self {
            Self::Http1(body) => body.take_reusable(),
            Self::Http2(_) => None,
        }
    }

    /// The connection, after it has left HTTP.
    #[must_use]
    pub fn into_connection(self) -> Option<Box<Connection>> {
        match self {
            Self::Http1(body) => body.into_connection(),
            Self::Http2(_) => None,
        }
    }
}

either!(ClientBody);
either!(UpstreamBody);

/// A request body: what was read for inspection, then the rest as it comes.
#[derive(Debug)]
pub struct RequestBody {
    prefix: VecDeque<Bytes>,
    incoming: Option<ClientBody>,
    /// Read with the window, to be sent after it.
    trailers: Option<HeaderMap>,
    read: Rc<Cell<u64>>,
    stall: Stall,
    /// Where what is sent is kept, and the rest returns to, while the request may be sent again.
    replay: Option<Rc<Replay>>,
    pace: Pace,
    limits: BodyLimits,
}

/// Fires when nothing moved for a while. Armed only while waiting, so a body that is there costs no timer.
#[derive(Debug)]
struct Stall {
    limit: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Stall {
    const fn new(limit: Duration) -> Self {
        Self { limit, sleep: None }
    }

    fn moved(&mut self) {
        self.sleep = None;
    }

    fn poll_stalled(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let limit = self.limit;
        self.sleep.get_or_insert_with(|| Box::pin(sleep(limit))).as_mut().poll(context)
    }
}

impl RequestBody {
    /// A body that is relayed as it comes. `read` counts its bytes.
    #[must_use]
    pub fn new(incoming: ClientBody, read: Rc<Cell<u64>>, limits: BodyLimits) -> Self {
        let incoming = Some(incoming).filter(|body| !body.is_end_stream());
        Self::of(Rest { prefix: VecDeque::new(), incoming, trailers: None }, read, limits)
    }

    /// A body that is all here.
    #[must_use]
    pub fn whole(bytes: Bytes) -> Self {
        let prefix = Some(bytes).filter(|bytes| !bytes.is_empty()).into_iter().collect();
        let limits = BodyLimits { idle: Duration::MAX, rate: 0, bytes: None };
        Self::of(Rest { prefix, incoming: None, trailers: None }, Rc::default(), limits)
    }

    fn of(rest: Rest, read: Rc<Cell<u64>>, limits: BodyLimits) -> Self {
        let Rest { prefix, incoming, trailers } = rest;
        let (stall, pace) = (Stall::new(limits.idle), Pace::new(limits.rate, limits.idle.saturating_mul(2)));
        Self { prefix, incoming, trailers, read, stall, replay: None, pace, limits }
    }

    /// Whether the head says that more will come than may.
    #[must_use]
    pub fn is_too_large(&self) -> bool {
        self.limits.bytes.is_some_and(|most| self.size_hint().lower() > most)
    }

    /// Counts what has come, the first time that it is read.
    fn came(&mut self, bytes: usize) -> Result<(), BodyError> {
        let before = self.read.replace(self.read.get() + bytes as u64);
        if let Some(most) = self.limits.bytes.filter(|most| before + bytes as u64 > *most) {
            return Err(BodyError::TooLarge(most));
        }
        if self.pace.moved(bytes, Instant::now) { Ok(()) } else { Err(BodyError::TooSlow(self.limits.rate)) }
    }

    /// Reads `window` bytes, and on until it is known whether there are more, and keeps them for sending. Answers them in one piece, and
    /// whether that is all of the body: the same whatever the pieces that the client sends.
    ///
    /// # Errors
    /// The body broke off or stalled.
    pub async fn window(&mut self, window: usize) -> Result<(Bytes, bool), BodyError> {
        let mut size = 0;
        while size <= window && !self.is_read() {
            self.pace.wait(Instant::now);
            let next = tokio::time::timeout(self.stall.limit, self.next_data()).await;
            match next.map_err(|_| BodyError::Stalled(self.stall.limit))?? {
                Some(bytes) => {
                    self.came(bytes.len())?;
                    size += bytes.len();
                    self.prefix.push_back(bytes);
                }
                None => break,
            }
        }
        let complete = self.is_read() && size <= window;
        let whole = match (self.prefix.len(), self.prefix.front()) {
            (0, _) => Bytes::new(),
            (1, Some(only)) => only.clone(),
            _ => self.prefix.iter().flatten().copied().collect::<Vec<u8>>().into(),
        };
        Ok((whole.slice(..window.min(whole.len())), complete))
    }

    /// Counts its bytes as they are read; `None` when all of it is here already.
    #[must_use]
    pub fn progress(&self) -> Option<Rc<Cell<u64>>> {
        self.incoming.as_ref().map(|_| Rc::clone(&self.read))
    }

    /// Keeps what is sent from now on, so that the body can be sent again. `None` when it is known to be too large for that.
    #[must_use]
    pub fn keep(&mut self) -> Option<Kept> {
        let (read, limits) = (Rc::clone(&self.read), self.limits);
        if self.is_end_stream() {
            return Some(Kept::empty(read, limits));
        }
        let replay = Replay::for_size(self.size_hint().lower())?;
        self.replay = Some(Rc::clone(&replay));
        Some(Kept::of(replay, read, limits))
    }

    /// The body that was kept: what was sent of it, then the rest.
    #[must_use]
    pub(super) fn again(rest: Rest, read: Rc<Cell<u64>>, limits: BodyLimits) -> Self {
        Self::of(rest, read, limits)
    }

    /// Notes a frame that is being sent.
    fn keep_frame(&mut self, frame: &Frame<Bytes>) {
        if let Some(replay) = &self.replay
            && !replay.keep(frame)
        {
            self.replay = None;
        }
    }

    fn is_read(&self) -> bool {
        self.incoming.is_none()
    }

    async fn next_data(&mut self) -> Result<Option<Bytes>, BodyError> {
        while let Some(incoming) = &mut self.incoming {
            match incoming.frame().await {
                Some(Ok(frame)) => {
                    if incoming.is_end_stream() {
                        self.incoming = None;
                    }
                    match frame.into_data() {
                        Ok(data) => return Ok(Some(data)),
                        Err(other) => self.trailers = other.into_trailers().ok(),
                    }
                }
                Some(Err(error)) => return Err(error),
                None => self.incoming = None,
            }
        }
        Ok(None)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let body = self.get_mut();
        if let Some(bytes) = body.prefix.pop_front() {
            let frame = Frame::data(bytes);
            body.keep_frame(&frame);
            return Poll::Ready(Some(Ok(frame)));
        }
        let Some(incoming) = &mut body.incoming else {
            let frame = body.trailers.take().map(Frame::trailers);
            frame.iter().for_each(|frame| body.keep_frame(frame));
            return Poll::Ready(frame.map(Ok));
        };
        match Pin::new(incoming).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                body.stall.moved();
                if let Err(error) = body.came(frame.data_ref().map_or(0, Bytes::len)) {
                    return Poll::Ready(Some(Err(error)));
                }
                body.keep_frame(&frame);
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                body.replay = None;
                Poll::Ready(Some(Err(error)))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => {
                body.pace.wait(Instant::now);
                ready!(body.stall.poll_stalled(context));
                Poll::Ready(Some(Err(BodyError::Stalled(body.stall.limit))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.prefix.is_empty() && self.trailers.is_none() && self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let held: u64 = self.prefix.iter().map(|bytes| bytes.len() as u64).sum();
        let rest = self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint);
        let mut hint = SizeHint::new();
        hint.set_lower(held + rest.lower());
        // A body with trailers is not sent with its length: there is no place for them then.
        if let Some(upper) = rest.upper().filter(|_| self.trailers.is_none()) {
            hint.set_upper(held + upper);
        }
        hint
    }
}

/// What is not sent yet of a request body.
#[derive(Debug, Default)]
pub(super) struct Rest {
    pub(super) prefix: VecDeque<Bytes>,
    pub(super) incoming: Option<ClientBody>,
    pub(super) trailers: Option<HeaderMap>,
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Some(replay) = self.replay.take() {
            let (prefix, incoming) = (std::mem::take(&mut self.prefix), self.incoming.take());
            replay.give_back(Rest { prefix, incoming, trailers: self.trailers.take() });
        }
    }
}

/// A response body. Its end, whatever it is, ends the exchange.
#[derive(Debug)]
pub struct ResponseBody {
    source: Source,
    stall: Stall,
    finish: Option<Box<Finish>>,
    /// Tells the connection when the exchange has ended.
    busy: Option<Busy>,
}

#[derive(Debug)]
enum Source {
    /// Made by the gateway or a policy.
    Full(Option<Bytes>),
    /// Relayed.
    Upstream(UpstreamBody),
    /// Relayed through policies.
    Transformed(Box<Transform>),
    /// Not a body any more.
    Tunnel(Option<Box<Tunnel>>),
}

impl ResponseBody {
    /// A body in one piece.
    #[must_use]
    pub fn full(bytes: Bytes, finish: Box<Finish>) -> Self {
        let source = Source::Full(Some(bytes).filter(|bytes| !bytes.is_empty()));
        Self { source, stall: Stall::new(Duration::MAX), finish: Some(finish), busy: None }
    }

    /// A connection that leaves HTTP.
    #[must_use]
    pub fn tunnel(tunnel: Box<Tunnel>) -> Self {
        Self { source: Source::Tunnel(Some(tunnel)), stall: Stall::new(Duration::MAX), finish: None, busy: None }
    }

    /// The tunnel, if this is one.
    #[must_use]
    pub fn into_tunnel(mut self) -> Option<Box<Tunnel>> {
        if let Source::Tunnel(tunnel) = &mut self.source { tunnel.take() } else { None }
    }

    /// A relayed body that may stall for `idle`.
    #[must_use]
    pub fn upstream(incoming: UpstreamBody, idle: Duration, finish: Box<Finish>) -> Self {
        Self { source: Source::Upstream(incoming), stall: Stall::new(idle), finish: Some(finish), busy: None }
    }

    /// A body that passes through policies piece by piece.
    #[must_use]
    pub fn transformed(transform: Box<Transform>, idle: Duration, finish: Box<Finish>) -> Self {
        Self { source: Source::Transformed(transform), stall: Stall::new(idle), finish: Some(finish), busy: None }
    }

    /// Keeps the connection busy until the body has ended.
    #[must_use]
    pub fn holding(mut self, busy: Busy) -> Self {
        self.busy = Some(busy);
        self
    }

    /// The client takes nothing of it, and is waited for no longer.
    pub fn stalled(&mut self) {
        if let Some(finish) = &mut self.finish {
            "client_stalled".clone_into(&mut finish.record.reason);
        }
    }

    fn end(&mut self, end: End<'_>) {
        self.busy = None;
        if let Some(mut finish) = self.finish.take() {
            match &mut self.source {
                Source::Transformed(transform) => {
                    finish.give_back(transform.take_exchange());
                    finish.reuse = transform.incoming().take_reusable();
                }
                Source::Upstream(incoming) => finish.reuse = incoming.take_reusable(),
                Source::Full(_) | Source::Tunnel(_) => {}
            }
            finish.end(end);
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let body = self.get_mut();
        let polled = match &mut body.source {
            Source::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Source::Upstream(incoming) => Pin::new(incoming).poll_frame(context),
            Source::Transformed(transform) => transform.poll_frame(context),
            Source::Tunnel(_) => Poll::Ready(None),
        };
        match polled {
            Poll::Ready(Some(Ok(frame))) => {
                body.stall.moved();
                if let (Some(data), Some(finish)) = (frame.data_ref(), &mut body.finish) {
                    finish.sent(data.len());
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                body.end(End::Upstream(&error));
                Poll::Ready(Some(Err(error)))
            }
            Poll::Ready(None) => {
                body.end(End::Complete);
                Poll::Ready(None)
            }
            Poll::Pending => {
                ready!(body.stall.poll_stalled(context));
                let error = BodyError::Stalled(body.stall.limit);
                body.end(End::Upstream(&error));
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Full(bytes) => bytes.is_none(),
            Source::Upstream(incoming) => incoming.is_end_stream(),
            Source::Transformed(transform) => transform.is_end_stream(),
            Source::Tunnel(_) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Source::Upstream(incoming) => incoming.size_hint(),
            Source::Transformed(transform) => transform.size_hint(),
            Source::Tunnel(_) => SizeHint::with_exact(0),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        // A body whose length was declared is dropped by hyper after its last byte, without a final poll.
        let end = if self.is_end_stream() { End::Complete } else { End::ClientGone };
        self.end(end);
    }
}
