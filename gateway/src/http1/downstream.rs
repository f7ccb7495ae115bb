//! A client's connection while an exchange is on it: the request's body, read by whoever wants it next.

use std::cell::{RefCell, RefMut};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::body::{Decoder, Framing, Piece};
use super::wire::{Io, Wire};
use crate::http::body::BodyError;

/// Tells a client that holds its body back to go on.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// Bytes of later requests that are read while an exchange is in progress.
const MAX_AHEAD: usize = 16 * 1024;

/// What a connection's reader and its exchange share. Both are of one task.
#[derive(Debug)]
pub struct Downstream {
    /// The bytes.
    pub wire: Wire,
    /// What is left of the request's body.
    pub body: Decoder,
    /// Whether the client holds the body back until it is told to go on.
    pub expects: bool,
}

impl Downstream {
    /// A connection without a request.
    #[must_use]
    pub fn new(io: Io) -> Self {
        Self { wire: Wire::new(io), body: Decoder::Done, expects: false }
    }

    /// A request's head has been taken.
    pub fn begin(&mut self, framing: Framing, expects: bool) {
        self.body = Decoder::new(framing);
        self.expects = expects && !self.body.is_done();
    }

    /// Ready when the client has gone, looking ahead only as far as it must.
    pub fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if !self.body.is_done() {
            // Whoever reads the body will notice.
            return Poll::Pending;
        }
        while self.wire.input.len() < MAX_AHEAD {
            match ready!(self.wire.poll_fill(context)) {
                Ok(read) if read > 0 => {}
                Ok(_) | Err(_) => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }

    /// The next piece of the body.
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if std::mem::take(&mut self.expects) && self.wire.input.is_empty() {
            self.wire.output().extend_from_slice(CONTINUE);
        }
        loop {
            match self.body.take(&mut self.wire.input) {
                Ok(Piece::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Piece::Trailers(trailers)) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Ok(Piece::End) => return Poll::Ready(None),
                Ok(Piece::More) => {}
                Err(malformed) => return Poll::Ready(Some(Err(malformed.into()))),
            }
            // Only the word to go on can wait here: the answer has not begun while its request is read, or it is written by itself.
            if let Poll::Ready(Err(error)) = self.wire.poll_send(context) {
                return Poll::Ready(Some(Err(error.into())));
            }
            match ready!(self.wire.poll_fill(context)) {
                Ok(0) => return Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
        }
    }
}

/// The body of the request that is on a client's connection.
#[derive(Clone, Debug)]
pub struct RequestBytes(Rc<RefCell<Downstream>>);

impl RequestBytes {
    /// The body on this connection.
    #[must_use]
    pub fn of(downstream: &Rc<RefCell<Downstream>>) -> Self {
        Self(Rc::clone(downstream))
    }

    fn downstream(&self) -> RefMut<'_, Downstream> {
        self.0.borrow_mut()
    }
}

impl Body for RequestBytes {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.downstream().poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.downstream().body.is_done()
    }

    fn size_hint(&self) -> SizeHint {
        self.downstream().body.left().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
