//! A response body that passes through policies piece by piece, as it comes: an event stream stays one.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body::{Body, Frame, SizeHint};
use weir_plugins::Exchange;

use crate::http::body::{BodyError, UpstreamBody};
use crate::http::message::ResponseHead;
use crate::runtime::snapshot::Site;

/// Whether policies are given the body of this answer: it has one, and it is not compressed. What is compressed goes out as it came, for
/// no policy can change it without spoiling it; one that has to see text removes Accept-Encoding from the request.
#[must_use]
pub fn is_for(method: &Method, head: &ResponseHead) -> bool {
    let bodiless = matches!(head.status, StatusCode::SWITCHING_PROTOCOLS | StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let plain = |value: &[u8]| value.is_empty() || value.eq_ignore_ascii_case(b"identity");
    *method != Method::HEAD && !bodiless && head.headers.get_all("content-encoding").all(plain)
}

type Passed = (Option<Box<Exchange>>, Result<Bytes, Arc<str>>);

/// A relayed body with policies in its way.
pub struct Transform {
    incoming: UpstreamBody,
    site: Arc<Site>,
    exchange: Option<Box<Exchange>>,
    call: Option<Pin<Box<dyn Future<Output = Passed>>>>,
    state: State,
    trailers: Option<http::HeaderMap>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Reading,
    /// The upstream's body has ended; the policies' last piece is due.
    Last,
    Done,
}

impl std::fmt::Debug for Transform {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Transform").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Transform {
    /// Passes `incoming` through the site's policies.
    #[must_use]
    pub fn new(incoming: UpstreamBody, site: Arc<Site>, exchange: Option<Box<Exchange>>) -> Box<Self> {
        Box::new(Self { incoming, site, exchange, call: None, state: State::Reading, trailers: None })
    }

    /// The exchange, when no call holds it.
    pub fn take_exchange(&mut self) -> Option<Box<Exchange>> {
        self.exchange.take()
    }

    /// What is relayed.
    pub const fn incoming(&mut self) -> &mut UpstreamBody {
        &mut self.incoming
    }

    /// Whether everything was passed on.
    #[must_use]
    pub fn is_end_stream(&self) -> bool {
        self.state == State::Done && self.trailers.is_none()
    }

    /// How much is left, where that is known: before the first piece, when no policy changes what it is shown.
    #[must_use]
    pub fn size_hint(&self) -> SizeHint {
        if self.site.chain.edits_bodies() || self.call.is_some() { SizeHint::default() } else { self.incoming.size_hint() }
    }

    /// The next frame, as [`Body::poll_frame`].
    pub fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            if let Some(call) = &mut self.call {
                let (exchange, passed) = ready!(call.as_mut().poll(context));
                self.call = None;
                self.exchange = exchange;
                match passed {
                    Ok(bytes) if bytes.is_empty() => {}
                    Ok(bytes) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                    Err(policy) => return Poll::Ready(Some(Err(BodyError::Policy(policy)))),
                }
            }
            match self.state {
                State::Done => return Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers)))),
                State::Last => {
                    self.state = State::Done;
                    self.pass(Bytes::new(), true);
                }
                State::Reading => match ready!(Pin::new(&mut self.incoming).poll_frame(context)) {
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) => self.pass(data, false),
                        Err(other) => self.trailers = other.into_trailers().ok(),
                    },
                    Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                    None => self.state = State::Last,
                },
            }
        }
    }

    fn pass(&mut self, chunk: Bytes, last: bool) {
        let site = Arc::clone(&self.site);
        let mut exchange = self.exchange.take();
        self.call = Some(Box::pin(async move {
            let passed = site.chain.response_body(&mut exchange, chunk, last).await;
            (exchange, passed)
        }));
    }
}
