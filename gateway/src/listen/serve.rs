//! HTTP/2 on one connection, until its end or until the worker drains.

use std::cell::Cell;
use std::future::Future as _;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::conn::{Conn, connection_record};
use super::h2_watch::Watched;
use super::io::{Activity, Timed};
use crate::http::abuse::{self, Reason};
use crate::http::body::{ClientBody, ResponseBody};
use crate::pipeline::{self, Closed};
use crate::runtime::worker::Worker;
use crate::upstream::connect::LocalExecutor;

/// HTTP/2.
pub async fn http2<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(worker: Rc<Worker>, conn: Rc<Conn>, stream: Timed<S>) {
    let limits = worker.snapshot().config.limits;
    let watch = abuse::Limits { head: limits.request_head, stall: limits.write_idle };
    let (stream, watched) = Watched::new(stream, watch, Arc::clone(&conn.activity));
    let service = service(Rc::clone(&worker), Rc::clone(&conn), Rc::default(), limits.connection_requests);
    let mut builder = http2::Builder::new(LocalExecutor);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let mut drain = worker.drain_signal();
    let draining = async {
        drain.wait().await;
        tokio::time::sleep_until(worker.idle_until().into()).await;
    };
    let mut draining = std::pin::pin!(draining);
    let mut is_ending = false;
    // Whoever wants the connection to end has been polled by it, so that the wish is seen at once.
    let ended = std::future::poll_fn(|context| {
        loop {
            if let Poll::Ready(ended) = connection.as_mut().poll(context) {
                return Poll::Ready(ended);
            }
            if is_ending || !(conn.is_retiring() || draining.as_mut().poll(context).is_ready()) {
                return Poll::Pending;
            }
            is_ending = true;
            // Two steps: no new streams, please; and after a round trip, no more than these. Whatever is on its way is served.
            connection.as_mut().graceful_shutdown();
        }
    });
    let ended = ended.await;
    if let Some((reason, summary)) = watched.get() {
        note_closed(&worker, &conn, *reason, summary);
    } else if let Err(error) = ended {
        tracing::debug!("connection ended: {error}");
    }
}

/// Exchanges at once on one HTTP/2 connection.
const MAX_STREAMS: u32 = 100;
/// What a client may send before it is read: 256 KiB a stream, 1 MiB a connection fill a 100 Mbit/s line over 80 ms.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// What is held for a client that does not read, per stream.
const SEND_BUFFER: usize = 64 * 1024;

fn service(
    worker: Rc<Worker>,
    conn: Rc<Conn>,
    served: Rc<Cell<u64>>,
    most: u64,
) -> impl hyper::service::Service<
    Request<Incoming>,
    Response = Response<ResponseBody>,
    Error = Closed,
    Future = impl Future<Output = Result<Response<ResponseBody>, Closed>>,
> {
    service_fn(move |request| {
        let exchange = served.get() + 1;
        served.set(exchange);
        let busy = Busy::new(&conn.activity);
        let (worker, conn) = (Rc::clone(&worker), Rc::clone(&conn));
        async move {
            let request = request.map(|body: Incoming| ClientBody::Http2(body.into()));
            let response = pipeline::handle(worker, Rc::clone(&conn), request.into()).await?;
            if exchange >= most {
                conn.retire();
            }
            Ok(response.map(|body| body.holding(busy)).into())
        }
    })
}

/// An exchange in progress on a connection: while there is one, the connection's own deadlines rest.
#[derive(Debug)]
pub struct Busy(Arc<Activity>);

impl Busy {
    /// Counts an exchange until it is dropped.
    #[must_use]
    pub fn new(activity: &Arc<Activity>) -> Self {
        activity.begin();
        Self(Arc::clone(activity))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// A connection that was ended for what its client did on it.
fn note_closed(worker: &Rc<Worker>, conn: &Rc<Conn>, reason: Reason, summary: &str) {
    let sni = conn.info.tls.as_ref().and_then(|tls| tls.sni.as_deref());
    let site = sni.and_then(|sni| worker.snapshot().hosts.find(sni).map(|site| Arc::clone(&site.name)));
    let record = connection_record(Arc::clone(&conn.info), site, reason.as_str(), summary.to_owned());
    worker.shared.recorder.record_closed(reason.as_str(), record);
}
