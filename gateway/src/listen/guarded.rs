//! The head guard in the way of an HTTP/1 connection's bytes: the parser sees no head that was not judged as bytes. A refused one is
//! replaced by a plain head, so that its refusal is an exchange like any other: answered, recorded, and the last of its connection.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::http::guard::stream::{Stream, Then};
use crate::http::guard::{Limits, Refusal};

/// What stands in for a refused head. Its method says that no answer is without a body.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
/// Read at a time while a head is not whole.
const PIECE: usize = 4096;
/// Bytes of a refused head that are kept for the record.
const SKETCH: usize = 1024;
/// Bytes kept behind a request for an upgrade until it is answered.
const MAX_AHEAD: usize = 16 * 1024;
/// How long to wait for the end of a client that was told that its connection ends, and how much of what it still sends to throw away.
/// Closing at once would reset the connection, and the client might never read its answer.
const LINGER: Duration = Duration::from_secs(2);
const MAX_LINGER: usize = 1024 * 1024;

/// What the connection and its exchanges tell each other.
#[derive(Debug, Default)]
pub struct Fork {
    /// The exchange that is a refused head, counted from 1; 0 while there is none.
    refused: AtomicU64,
    /// The exchange whose answer decides what follows it on the connection; 0 while there is none.
    forked: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    refused: Option<Refused>,
    /// Whether the connection has become a tunnel; nothing while that is open.
    tunnel: Option<bool>,
    /// The reader, when it waits for that.
    reader: Option<Waker>,
}

/// A head that no parser has seen.
#[derive(Clone, Debug)]
pub struct Refused {
    /// Why.
    pub refusal: Refusal,
    /// Its first bytes, for the record.
    pub sketch: Vec<u8>,
}

impl Fork {
    /// The refusal that is this exchange's answer. Exchanges are counted from 1.
    #[must_use]
    pub fn refused(&self, exchange: u64) -> Option<Refused> {
        let due = self.refused.load(Ordering::Relaxed) == exchange;
        if due { self.state().refused.take() } else { None }
    }

    /// An exchange has its answer: if what follows it depends on that, the reader learns whether it is a tunnel.
    pub fn answered(&self, exchange: u64, tunnel: bool) {
        if self.forked.load(Ordering::Relaxed) != exchange {
            return;
        }
        self.forked.store(0, Ordering::Relaxed);
        let mut state = self.state();
        state.tunnel = Some(tunnel);
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream from which only judged heads are read.
#[derive(Debug)]
pub struct Guarded<S> {
    inner: S,
    stream: Stream,
    fork: Arc<Fork>,
    /// Bytes that were read and not handed on; the first `passable` of them may be.
    held: BytesMut,
    passable: usize,
    end: Option<End>,
    linger: Option<(Pin<Box<Sleep>>, usize)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The stand-in has been put where the refused head was.
    Refused,
    Broken,
}

impl<S> Guarded<S> {
    /// Wraps a connection from which nothing was read.
    #[must_use]
    pub fn new(inner: S, limits: Limits, fork: Arc<Fork>) -> Self {
        Self { inner, stream: Stream::new(limits), fork, held: BytesMut::new(), passable: 0, end: None, linger: None }
    }

    /// Judges `held`.
    fn judge(&mut self) {
        let fed = self.stream.feed(&self.held);
        self.passable = fed.pass;
        self.note(fed.then);
    }

    fn note(&mut self, then: Then) {
        match then {
            Then::More => {}
            Then::Fork => self.fork.forked.store(self.stream.heads(), Ordering::Relaxed),
            Then::Broken(bad) => {
                tracing::debug!("{bad}");
                self.end = Some(End::Broken);
            }
            Then::Refused(refusal) => {
                let head = self.held.get(self.passable..).unwrap_or_default();
                let sketch = head.get(..SKETCH).unwrap_or(head).to_vec();
                self.fork.state().refused = Some(Refused { refusal, sketch });
                self.fork.refused.store(self.stream.heads() + 1, Ordering::Relaxed);
                self.held.truncate(self.passable);
                self.held.extend_from_slice(STAND_IN);
                self.passable = self.held.len();
                self.end = Some(End::Refused);
            }
        }
    }

    fn hand_on(&mut self, buffer: &mut ReadBuf<'_>) {
        let here = self.passable.min(buffer.remaining());
        if let Some(bytes) = self.held.get(..here) {
            buffer.put_slice(bytes);
        }
        self.held.advance(here);
        self.passable -= here;
        if self.held.is_empty() {
            // Most heads come whole: the next one needs no buffer.
            self.held = BytesMut::new();
        }
    }
}

impl<S: AsyncRead + Unpin> Guarded<S> {
    /// Reads into the caller's buffer, which is where whole heads belong.
    fn poll_straight(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
        let fresh = buffer.filled().get(before..).unwrap_or_default();
        if fresh.is_empty() {
            return Poll::Ready(Ok(true));
        }
        let fed = self.stream.feed(fresh);
        if fed.pass < fresh.len() {
            self.held.extend_from_slice(fresh.get(fed.pass..).unwrap_or_default());
            buffer.set_filled(before + fed.pass);
        }
        self.note(fed.then);
        Poll::Ready(Ok(fed.pass > 0))
    }

    /// Reads behind what is held. Answers the number of bytes.
    fn poll_more(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut piece = [0; PIECE];
        let mut buffer = ReadBuf::new(&mut piece);
        ready!(Pin::new(&mut self.inner).poll_read(context, &mut buffer))?;
        self.held.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// Waits for the answer to a request for an upgrade, reading ahead only to notice a client that goes.
    fn poll_fork(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let resolved = {
            let mut state = self.fork.state();
            let resolved = state.tunnel.take();
            if resolved.is_none() {
                state.reader = Some(context.waker().clone());
            }
            resolved
        };
        if let Some(tunnel) = resolved {
            self.stream.resolve(tunnel);
            return Poll::Ready(Ok(true));
        }
        while self.held.len() < MAX_AHEAD {
            if ready!(self.poll_more(context))? == 0 {
                return Poll::Ready(Ok(false));
            }
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let guarded = self.get_mut();
        loop {
            if guarded.passable > 0 {
                guarded.hand_on(buffer);
                return Poll::Ready(Ok(()));
            }
            match guarded.end {
                // The answer is on its way; whatever the client still sends is nobody's.
                Some(End::Refused) => return Poll::Pending,
                Some(End::Broken) => return Poll::Ready(Err(io::Error::from(io::ErrorKind::InvalidData))),
                None => {}
            }
            if guarded.stream.is_forked() {
                if !ready!(guarded.poll_fork(context))? {
                    return Poll::Ready(Ok(()));
                }
                guarded.judge();
            } else if guarded.held.is_empty() {
                if ready!(guarded.poll_straight(context, buffer))? {
                    return Poll::Ready(Ok(()));
                }
            } else {
                let before = guarded.held.len();
                if ready!(guarded.poll_more(context))? == 0 {
                    return Poll::Ready(Ok(()));
                }
                // A head becomes whole, and most become wrong, with a line feed: no need to look at each byte again before.
                let fresh = guarded.held.get(before..).unwrap_or_default();
                if fresh.contains(&b'\n') || guarded.stream.is_too_long(guarded.held.len()) {
                    guarded.judge();
                }
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    /// Ends our direction; when the client may still be sending, waits a moment for it to end its own.
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let guarded = self.get_mut();
        if guarded.linger.is_none() {
            ready!(Pin::new(&mut guarded.inner).poll_shutdown(context))?;
            if guarded.end.is_none() && guarded.stream.is_between_requests() && guarded.held.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
        let (sleep, thrown) = guarded.linger.get_or_insert_with(|| (Box::pin(sleep(LINGER)), 0));
        let mut piece = [0; PIECE];
        while *thrown < MAX_LINGER {
            let mut buffer = ReadBuf::new(&mut piece);
            match Pin::new(&mut guarded.inner).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => *thrown += buffer.filled().len(),
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return sleep.as_mut().poll(context).map(Ok),
            }
        }
        Poll::Ready(Ok(()))
    }
}
