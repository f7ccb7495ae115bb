//! What is left of a request body when nobody reads it any more: thrown away for a moment, so that the client gets to read its answer.
//!
//! A client that is still sending when its answer comes may lose the answer: over HTTP/1 to a reset of the connection, over HTTP/2 to the
//! RST_STREAM that ends an upload, which RFC 9113 (8.1) allows and not every client takes (curl 7.88 fails).

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;

/// How long to wait for the end of a client that has its answer.
pub const TIME: Duration = Duration::from_secs(2);
/// How much of what it still sends to throw away, in bytes.
pub const BYTES: usize = 1024 * 1024;

/// A request body over HTTP/2. What is left of it when it is dropped is read on, within [`TIME`] and [`BYTES`]; then its stream is reset.
/// To be dropped on a worker's thread.
#[derive(Debug)]
pub struct Http2Body(Option<Incoming>);

impl From<Incoming> for Http2Body {
    fn from(incoming: Incoming) -> Self {
        Self(Some(incoming))
    }
}

impl Body for Http2Body {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let body = self.get_mut();
        let Some(incoming) = &mut body.0 else { return Poll::Ready(None) };
        let polled = Pin::new(incoming).poll_frame(context);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            body.0 = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for Http2Body {
    fn drop(&mut self) {
        if let Some(incoming) = self.0.take().filter(|incoming| !incoming.is_end_stream()) {
            tokio::task::spawn_local(tokio::time::timeout(TIME, discard(incoming)));
        }
    }
}

async fn discard(mut incoming: Incoming) {
    let mut thrown = 0;
    while thrown < BYTES {
        let Some(Ok(frame)) = incoming.frame().await else { return };
        thrown += frame.data_ref().map_or(0, Bytes::len);
    }
}
