//! A request body that can be sent again: what was sent of it is kept, up to a limit, and the rest comes back when the connection lets go
//! of it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;

use super::body::{RequestBody, Rest};
use super::pace::BodyLimits;

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
    read: Rc<Cell<u64>>,
    limits: BodyLimits,
}

impl Kept {
    pub(super) const fn empty(read: Rc<Cell<u64>>, limits: BodyLimits) -> Self {
        Self { replay: None, read, limits }
    }

    pub(super) const fn of(replay: Rc<Replay>, read: Rc<Cell<u64>>, limits: BodyLimits) -> Self {
        Self { replay: Some(replay), read, limits }
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
        Some(RequestBody::again(rest, Rc::clone(&self.read), self.limits))
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

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use http_body::Body;

    use super::*;

    const LIMITS: BodyLimits = BodyLimits { idle: std::time::Duration::from_secs(1), rate: 0, bytes: None };

    fn body(pieces: &[usize], trailers: bool) -> RequestBody {
        let prefix = pieces.iter().enumerate().map(|(index, size)| Bytes::from(vec![b'a' + index as u8; *size])).collect();
        let trailers = trailers.then(HeaderMap::new);
        RequestBody::again(Rest { prefix, incoming: None, trailers }, Rc::default(), LIMITS)
    }

    /// The next frame: how many bytes and which, 0 for trailers.
    fn next(body: &mut RequestBody) -> Option<(usize, u8)> {
        match Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Ok(frame))) => {
                Some(frame.into_data().map_or((0, 0), |data| (data.len(), data.first().copied().unwrap_or(0))))
            }
            Poll::Ready(Some(Err(_))) | Poll::Pending => panic!("nothing here waits or fails"),
            Poll::Ready(None) => None,
        }
    }

    #[test]
    fn a_body_comes_again_from_wherever_it_was_left() {
        for taken in 0..=4 {
            let mut first = body(&[3, 5, 7], true);
            let kept = first.keep().unwrap();
            assert!(!kept.is_back());
            for _ in 0..taken {
                let _ = next(&mut first);
            }
            drop(first);
            assert!(kept.is_back());
            let mut second = kept.again().unwrap();
            let all: Vec<_> = std::iter::from_fn(|| next(&mut second)).collect();
            assert_eq!(all, [(3, b'a'), (5, b'b'), (7, b'c'), (0, 0)], "{taken} taken");
        }
    }

    #[test]
    fn what_is_too_large_or_still_held_does_not_come_again() {
        let mut large = body(&[40_000, 40_000], false);
        assert!(large.keep().is_none(), "known to be too large");
        let mut held = body(&[3], false);
        let kept = held.keep().unwrap();
        let _ = next(&mut held);
        assert!(kept.again().is_none(), "its connection may still send it");
    }

    #[test]
    fn nothing_is_kept_once_there_is_an_answer() {
        let mut answered = body(&[3, 5], false);
        let kept = answered.keep().unwrap();
        let _ = next(&mut answered);
        let replay = Rc::clone(kept.replay.as_ref().unwrap());
        drop(kept);
        let _ = next(&mut answered);
        drop(answered);
        let inner = replay.0.borrow();
        assert!(inner.lost && inner.pieces.is_empty() && inner.rest.is_none());
    }

    #[test]
    fn an_empty_body_needs_no_keeping() {
        let mut empty = body(&[], false);
        let kept = empty.keep().unwrap();
        assert!(kept.is_back());
        assert!(kept.again().unwrap().is_end_stream());
    }
}
