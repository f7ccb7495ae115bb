//! A request body that can be sent again: what was sent of it is kept, up to a limit, and the rest comes back when the connection lets go
//! of it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;

use super::body::{RequestBody, Rest};

/// Bytes that are kept of one body. Check-ins and forms fit many times over; what does not fit is not sent again.
pub const MAX_REPLAY: u64 = 64 * 1024;

/// What a body and whoever may send it again share.
#[derive(Debug, Default)]
pub(super) struct Replay(RefCell<Inner>);

#[derive(Debug, Default)]
struct Inner {
    pieces: VecDeque<Bytes>,
    size: u64,
    trailers: Option<HeaderMap>,
    lost: bool,
    rest: Option<Rest>,
}

impl Replay {
    /// For a body of at least this size; `None` when that is too much.
    pub(super) fn for_size(size: u64) -> Option<Rc<Self>> {
        (size <= MAX_REPLAY).then(Rc::default)
    }

    /// Keeps a frame that is being sent; answers whether more shall be kept.
    pub(super) fn keep(&self, frame: &Frame<Bytes>) -> bool {
        let mut inner = self.0.borrow_mut();
        if let Some(data) = frame.data_ref() {
            inner.size += data.len() as u64;
            if inner.size > MAX_REPLAY {
                inner.lose();
            } else if !inner.lost {
                inner.pieces.push_back(data.clone());
            }
        } else {
            inner.trailers = frame.trailers_ref().cloned();
        }
        !inner.lost
    }

    /// Takes the rest of a body that is sent no further.
    pub(super) fn give_back(&self, rest: Rest) {
        let mut inner = self.0.borrow_mut();
        if !inner.lost {
            inner.rest = Some(rest);
        }
    }
}

impl Inner {
    fn lose(&mut self) {
        *self = Self { lost: true, ..Self::default() };
    }
}

/// The means to send a body again. Dropped, what was kept is forgotten.
#[derive(Debug)]
pub struct Kept {
    replay: Option<Rc<Replay>>,
    read: Arc<AtomicU64>,
    idle: Duration,
}

impl Kept {
    pub(super) const fn empty(read: Arc<AtomicU64>, idle: Duration) -> Self {
        Self { replay: None, read, idle }
    }

    pub(super) const fn of(replay: Rc<Replay>, read: Arc<AtomicU64>, idle: Duration) -> Self {
        Self { replay: Some(replay), read, idle }
    }

    /// The body once more. `None` when it was too large, broke off, or is still held by its connection.
    #[must_use]
    pub fn again(self) -> Option<RequestBody> {
        let mut rest = Rest::default();
        if let Some(replay) = &self.replay {
            let mut inner = replay.0.borrow_mut();
            rest = inner.rest.take()?;
            rest.trailers = rest.trailers.take().or_else(|| inner.trailers.take());
            for piece in inner.pieces.drain(..).rev() {
                rest.prefix.push_front(piece);
            }
        }
        Some(RequestBody::again(rest, Arc::clone(&self.read), self.idle))
    }

    /// Whether its connection has let go of it.
    #[must_use]
    pub fn is_back(&self) -> bool {
        self.replay.as_ref().is_none_or(|replay| {
            let inner = replay.0.borrow();
            inner.lost || inner.rest.is_some()
        })
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(replay) = &self.replay {
            replay.0.borrow_mut().lose();
        }
    }
}
