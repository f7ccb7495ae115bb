//! The bytes of an HTTP/2 connection, watched in both directions below hyper: what costs too much ends the connection, with a GOAWAY
//! if it can be written at once, and is told to whoever records.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::io::Activity;
use crate::http::abuse::account::Verdict;
use crate::http::abuse::{Account, Limits, Reason, frames};

/// How often the clock is looked at within the shorter limit.
const LOOKS: u32 = 8;
/// Bytes thrown away after a GOAWAY. Closing with bytes unread would reset the connection, and the reset may overtake it.
const THROWN: usize = 64 * 1024;
const PIECE: usize = 4096;
const NO_ERROR: u32 = 0;
const ENHANCE_YOUR_CALM: u32 = 11;

/// Why a connection was ended, and what there is to say of it. Empty while it was not.
pub type Ended = Arc<OnceLock<(Reason, String)>>;

/// A stream whose frames are counted.
#[derive(Debug)]
pub struct Watched<S> {
    inner: S,
    account: Account,
    ended: Ended,
    /// Nothing more is read or written.
    is_over: bool,
    activity: Arc<Activity>,
    /// An answer is not yet all sent, so the connection is not idle, whatever the exchanges say.
    is_answering: bool,
    tick: Duration,
    /// Armed only while something is going on that has an end.
    clock: Option<Pin<Box<Sleep>>>,
    is_armed: bool,
}

impl<S> Watched<S> {
    /// Watches a connection on which nothing was sent.
    #[must_use]
    pub fn new(inner: S, limits: Limits, activity: Arc<Activity>) -> (Self, Ended) {
        let ended = Ended::default();
        let tick = limits.head.min(limits.stall) / LOOKS;
        let watched = Self {
            inner,
            account: Account::new(limits),
            ended: Arc::clone(&ended),
            is_over: false,
            activity,
            is_answering: false,
            tick: tick.max(Duration::from_millis(1)),
            clock: None,
            is_armed: false,
        };
        (watched, ended)
    }

    fn judge(&mut self, verdict: Option<Verdict>) {
        let Some(Verdict::End(reason) | Verdict::Told(reason)) = verdict else { return self.note_answers() };
        self.is_over |= matches!(verdict, Some(Verdict::End(_)));
        // Whoever noticed first is right.
        drop(self.ended.set((reason, self.account.summary())));
    }

    fn note_answers(&mut self) {
        let is_answering = self.account.is_answering();
        if is_answering != self.is_answering {
            self.is_answering = is_answering;
            if is_answering { self.activity.begin() } else { self.activity.end() }
        }
    }

    /// Looks at the clock when it is time. The caller is polled again when it is time next.
    fn poll_clock(&mut self, context: &mut Context<'_>) {
        if !self.is_armed {
            if !self.account.needs_clock() {
                return;
            }
            self.account.look(Instant::now());
            match &mut self.clock {
                Some(clock) => clock.as_mut().reset(tokio::time::Instant::now() + self.tick),
                None => self.clock = Some(Box::pin(sleep(self.tick))),
            }
            self.is_armed = true;
        }
        let Some(clock) = &mut self.clock else { return };
        while clock.as_mut().poll(context).is_ready() {
            if let Some(reason) = self.account.look(Instant::now()) {
                return self.judge(Some(Verdict::End(reason)));
            }
            if !self.account.needs_clock() {
                self.is_armed = false;
                return;
            }
            clock.as_mut().reset(tokio::time::Instant::now() + self.tick);
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Watched<S> {
    /// The end, as far as it can be brought about without waiting for the client.
    fn end(&mut self, context: &mut Context<'_>, code: u32) -> io::Error {
        if self.account.is_between_frames() {
            let goaway = goaway(self.account.last_stream(), code);
            drop(Pin::new(&mut self.inner).poll_write(context, &goaway));
        }
        drop(Pin::new(&mut self.inner).poll_flush(context));
        drop(Pin::new(&mut self.inner).poll_shutdown(context));
        let mut piece = [0; PIECE];
        for _ in 0..THROWN / PIECE {
            let mut buffer = ReadBuf::new(&mut piece);
            let polled = Pin::new(&mut self.inner).poll_read(context, &mut buffer);
            if !matches!(polled, Poll::Ready(Ok(()))) || buffer.filled().is_empty() {
                break;
            }
        }
        io::Error::from(io::ErrorKind::ConnectionAborted)
    }

    /// A socket that takes nothing is one more way of not reading.
    fn note_stalled<T>(&self, polled: &Poll<io::Result<T>>) {
        if matches!(polled, Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::TimedOut) {
            drop(self.ended.set((Reason::Stalled, self.account.summary())));
        }
    }

    /// What follows every write: the verdict on it comes with the next call, since these bytes are out.
    fn wrote(&mut self, context: &mut Context<'_>, bytes: &[u8]) {
        let verdict = self.account.wrote(bytes);
        self.judge(verdict);
        self.poll_clock(context);
    }
}

fn goaway(last_stream: u32, code: u32) -> [u8; 17] {
    let ([s0, s1, s2, s3], [c0, c1, c2, c3]) = (last_stream.to_be_bytes(), code.to_be_bytes());
    [0, 0, 8, frames::kind::GOAWAY, 0, 0, 0, 0, 0, s0, s1, s2, s3, c0, c1, c2, c3]
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Watched<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let watched = self.get_mut();
        if watched.is_over {
            return Poll::Ready(Err(watched.end(context, ENHANCE_YOUR_CALM)));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut watched.inner).poll_read(context, buffer);
        match &polled {
            Poll::Ready(Ok(())) => {
                let fresh = buffer.filled().get(before..).unwrap_or_default();
                let verdict = watched.account.read(fresh, Instant::now);
                watched.judge(verdict);
            }
            // So that a request that is on its way is known to be unseen.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::TimedOut => {
                drop(watched.end(context, NO_ERROR));
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => watched.poll_clock(context),
        }
        if watched.is_over {
            buffer.set_filled(before);
            return Poll::Ready(Err(watched.end(context, ENHANCE_YOUR_CALM)));
        }
        polled
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let watched = self.get_mut();
        if watched.is_over {
            return Poll::Ready(Err(watched.end(context, ENHANCE_YOUR_CALM)));
        }
        let polled = Pin::new(&mut watched.inner).poll_write(context, bytes);
        watched.note_stalled(&polled);
        if let Poll::Ready(Ok(length)) = polled {
            watched.wrote(context, bytes.get(..length).unwrap_or_default());
        }
        polled
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let watched = self.get_mut();
        if watched.is_over {
            return Poll::Ready(Err(watched.end(context, ENHANCE_YOUR_CALM)));
        }
        let polled = Pin::new(&mut watched.inner).poll_write_vectored(context, buffers);
        watched.note_stalled(&polled);
        if let Poll::Ready(Ok(length)) = polled {
            let mut left = length;
            for buffer in buffers {
                let here = left.min(buffer.len());
                watched.wrote(context, buffer.get(..here).unwrap_or_default());
                left -= here;
            }
        }
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let watched = self.get_mut();
        if watched.is_over {
            return Poll::Ready(Err(watched.end(context, ENHANCE_YOUR_CALM)));
        }
        let polled = Pin::new(&mut watched.inner).poll_flush(context);
        watched.note_stalled(&polled);
        polled
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }
}
