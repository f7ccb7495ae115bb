//! A client's bytes, with a deadline on every wait: idle between requests, within a head, on a reader that does not read.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// How long a connection may wait for what.
#[derive(Clone, Copy, Debug)]
pub struct Waits {
    /// Between requests, and before the first byte of the first one.
    pub idle: Duration,
    /// From the first byte of a head to its end.
    pub head: Duration,
    /// For a client that does not read what is sent.
    pub write: Duration,
    /// From accept until the connection is old.
    pub age: Duration,
}

/// What a connection is doing, told by the HTTP layer.
#[derive(Debug, Default)]
pub struct Activity {
    /// Exchanges in progress.
    exchanges: AtomicUsize,
    /// Whether bytes of the next head have arrived.
    in_head: AtomicBool,
    /// Whether the connection has reached its age.
    old: AtomicBool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Idle,
    Head,
    Busy,
}

impl Activity {
    /// An exchange begins: its own deadlines apply.
    pub fn begin(&self) {
        self.in_head.store(false, Ordering::Relaxed);
        self.exchanges.fetch_add(1, Ordering::Relaxed);
    }

    /// An exchange has ended.
    pub fn end(&self) {
        self.exchanges.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether the connection has lived long enough: its next answer ends it.
    #[must_use]
    pub fn is_old(&self) -> bool {
        self.old.load(Ordering::Relaxed)
    }

    fn doing(&self) -> Doing {
        if self.exchanges.load(Ordering::Relaxed) > 0 {
            Doing::Busy
        } else if self.in_head.load(Ordering::Relaxed) {
            Doing::Head
        } else {
            Doing::Idle
        }
    }
}

/// A stream with deadlines. A deadline that has passed looks like an error of the connection to the HTTP layer.
#[derive(Debug)]
pub struct Timed<S> {
    inner: S,
    activity: Arc<Activity>,
    waits: Waits,
    /// What the read deadline is for, and since when.
    reading: (Doing, Instant),
    expires: Instant,
    read_sleep: Pin<Box<Sleep>>,
    write_sleep: Option<Pin<Box<Sleep>>>,
}

impl<S> Timed<S> {
    /// Wraps a stream that waits for its first request.
    #[must_use]
    pub fn new(inner: S, activity: Arc<Activity>, waits: Waits) -> Self {
        let now = Instant::now();
        let read_sleep = Box::pin(sleep_until(now + waits.head.max(waits.idle).min(waits.age)));
        Self { inner, activity, waits, reading: (Doing::Idle, now), expires: now + waits.age, read_sleep, write_sleep: None }
    }

    /// When the current wait for the client ends, if it does.
    fn read_deadline(&mut self) -> Option<Instant> {
        let doing = self.activity.doing();
        if doing != self.reading.0 {
            self.reading = (doing, Instant::now());
        }
        match doing {
            Doing::Idle => Some(self.reading.1 + self.waits.idle),
            Doing::Head => Some(self.reading.1 + self.waits.head),
            Doing::Busy => None,
        }
    }

    fn note_bytes(&mut self) {
        if self.activity.doing() == Doing::Idle {
            self.activity.in_head.store(true, Ordering::Relaxed);
            self.reading = (Doing::Head, Instant::now());
        }
    }

    /// The timer is looked at only when it fires, so that a busy connection moves no timer. It also runs during an exchange: nobody
    /// polls a connection that falls idle, so the timer is what notices.
    fn poll_read_deadline(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        let deadline = self.read_deadline();
        if let Some(sooner) = deadline.filter(|deadline| *deadline < self.read_sleep.deadline()) {
            self.read_sleep.as_mut().reset(sooner);
        }
        while self.read_sleep.as_mut().poll(context).is_ready() {
            let now = Instant::now();
            if deadline.is_some_and(|deadline| deadline <= now) {
                return Poll::Ready(io::Error::from(io::ErrorKind::TimedOut));
            }
            if now >= self.expires {
                self.activity.old.store(true, Ordering::Relaxed);
            }
            let next = deadline.unwrap_or_else(|| now + self.waits.idle.min(self.waits.head));
            self.read_sleep.as_mut().reset(if now < self.expires { next.min(self.expires) } else { next });
        }
        Poll::Pending
    }

    fn poll_write_deadline<T>(&mut self, context: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.write_sleep = None;
            return polled;
        }
        let limit = self.waits.write;
        let sleep = self.write_sleep.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + limit)));
        sleep.as_mut().poll(context).map(|()| Err(io::Error::from(io::ErrorKind::TimedOut)))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Timed<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let timed = self.get_mut();
        let before = buffer.filled().len();
        match Pin::new(&mut timed.inner).poll_read(context, buffer) {
            Poll::Ready(done) => {
                if buffer.filled().len() > before {
                    timed.note_bytes();
                }
                Poll::Ready(done)
            }
            Poll::Pending => timed.poll_read_deadline(context).map(Err),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let timed = self.get_mut();
        let polled = Pin::new(&mut timed.inner).poll_write(context, bytes);
        timed.poll_write_deadline(context, polled)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let timed = self.get_mut();
        let polled = Pin::new(&mut timed.inner).poll_write_vectored(context, buffers);
        timed.poll_write_deadline(context, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let timed = self.get_mut();
        let polled = Pin::new(&mut timed.inner).poll_flush(context);
        timed.poll_write_deadline(context, polled)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let timed = self.get_mut();
        let polled = Pin::new(&mut timed.inner).poll_shutdown(context);
        timed.poll_write_deadline(context, polled)
    }
}
