//! A connection without a network: bytes that are there, and an end.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Reads pieces as they are cut, then the end; what is written is thrown away.
pub struct Wire {
    pieces: VecDeque<Vec<u8>>,
    /// Who waits for something to be written before anything can be read.
    closed: Option<Option<Waker>>,
}

impl Wire {
    /// In these pieces.
    #[must_use]
    pub fn new(pieces: &[&[u8]]) -> Self {
        Self { pieces: pieces.iter().map(|piece| piece.to_vec()).collect(), closed: None }
    }

    /// In these pieces, once something was written.
    #[must_use]
    pub fn after_a_request(pieces: &[&[u8]]) -> Self {
        Self { closed: Some(None), ..Self::new(pieces) }
    }

    /// What was not read.
    #[must_use]
    pub fn left(&self) -> usize {
        self.pieces.iter().map(Vec::len).sum()
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(waiting) = &mut self.closed {
            *waiting = Some(context.waker().clone());
            return Poll::Pending;
        }
        if let Some(mut piece) = self.pieces.pop_front() {
            let rest = piece.split_off(piece.len().min(buffer.remaining()));
            buffer.put_slice(&piece);
            if !rest.is_empty() {
                self.pieces.push_front(rest);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(waiting) = self.closed.take().flatten() {
            waiting.wake();
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Runs to the end on this thread's runtime.
pub fn run<T>(future: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    }
    RUNTIME.with(|runtime| tokio::task::LocalSet::new().block_on(runtime, future))
}
