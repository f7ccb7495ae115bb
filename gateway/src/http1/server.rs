//! A client's HTTP/1 connection: request after request, each judged as bytes, answered, and written out, with a deadline on every wait.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Buf as _;
use http::{HeaderMap, Method, StatusCode, Version};
use http_body::Body;
use tokio::time::Instant;

use super::body::{Framing, Piece};
use super::client::announced_only;
use super::deadline::{Deadline, after};
use super::downstream::{Downstream, RequestBytes};
use super::head::{self, Delivery};
use super::turn;
use super::wire::Io;
use crate::clock;
use crate::fields::Place;
use crate::http::body::{ClientBody, ResponseBody};
use crate::http::guard::raw::{self, Reading};
use crate::http::guard::{Limits, Refusal};
use crate::http::message::{Request, RequestHead, Response};
use crate::http::{unread, upgrade};
use crate::listen::conn::{Conn, age, connection_record};
use crate::listen::io::Waits;
use crate::pipeline;
use crate::runtime::worker::Worker;

/// Bytes of a refused head that are kept for the record.
const SKETCH: usize = 1024;
/// A body that nobody wanted is read to its end when that is near, so that the connection can go on.
const MAX_UNWANTED: u64 = 64 * 1024;

/// How long a connection that has just fallen idle stays open while the process ends.
const BREATH: Duration = Duration::from_secs(1);

thread_local! {
    /// Where the fields of the head that is being read are: room that the heads of all connections use in turn.
    static PLACES: Cell<Vec<Place>> = const { Cell::new(Vec::new()) };
}

/// Serves a connection to its end.
pub async fn serve(worker: Rc<Worker>, conn: Rc<Conn>, io: Io) {
    let mut session = Session::new(worker, conn, io);
    let mut drain = session.worker.drain_signal();
    let mut drain = pin!(drain.wait());
    // Once it was asked, the signal wakes the connection's task by itself.
    let mut heard = false;
    loop {
        let next = session
            .next(|context| if std::mem::replace(&mut heard, true) { Poll::Pending } else { drain.as_mut().poll(context) });
        match next.await {
            Next::Request(head, keep) => {
                if !session.exchange(head, keep).await {
                    break;
                }
            }
            Next::Refused(refused) => {
                session.refuse(&refused).await;
                break;
            }
            Next::Late => {
                let record = connection_record(Arc::clone(&session.conn.info), None, "request_head_timeout", String::new());
                session.worker.shared.recorder.record_connection(record);
                return;
            }
            Next::Closing => break,
            Next::End => return,
        }
    }
    session.close().await;
}

/// A head that no parser has seen.
#[derive(Clone, Debug)]
pub struct Refused {
    /// Why.
    pub refusal: Refusal,
    /// Its first bytes, for the record.
    pub sketch: Vec<u8>,
}

/// What a connection brings next.
enum Next {
    /// A request, and whether its client means to send another one.
    Request(Box<RequestHead>, bool),
    Refused(Box<Refused>),
    /// A head that is not whole in time.
    Late,
    /// Nothing has come for as long as a process that ends waits for it.
    Closing,
    /// Nothing more.
    End,
}

/// What the writer needs to know of a request whose parts have been used.
#[derive(Clone, Copy)]
struct Manner {
    version: Version,
    head_only: bool,
    keep: bool,
}

/// How the writing of an answer ended.
enum Written {
    Whole,
    /// The client has gone.
    Gone,
    /// The client is there and takes nothing.
    Stalled,
    /// The body broke off. Whether the client can tell by itself that something is missing.
    Cut {
        evident: bool,
    },
}

struct Session {
    worker: Rc<Worker>,
    conn: Rc<Conn>,
    downstream: Rc<RefCell<Downstream>>,
    limits: Limits,
    waits: Waits,
    /// Requests so far, and after how many the connection ends.
    served: (u64, u64),
    /// When the connection is old, and whether it is: its next answer ends it.
    expires: Instant,
    is_old: bool,
    deadline: Deadline,
    /// When the process ends: the connection is closed from then on, when nothing happens on it.
    close_idle_at: Option<Instant>,
    /// Whether the client may still be sending when the connection ends.
    lingers: bool,
    /// When the last exchange ended, if nothing has happened since.
    ended: Option<Instant>,
}

impl Session {
    fn new(worker: Rc<Worker>, conn: Rc<Conn>, io: Io) -> Self {
        let limits = worker.snapshot().config.limits;
        let age = age(limits.connection_age, conn.info.peer.0);
        Self {
            worker,
            conn,
            downstream: Rc::new(RefCell::new(Downstream::new(io))),
            limits: pipeline::head_limits(&limits),
            waits: Waits { idle: limits.idle, head: limits.request_head, write: limits.write_idle, age },
            served: (0, limits.connection_requests),
            expires: after(Instant::now(), age),
            is_old: false,
            deadline: Deadline::default(),
            close_idle_at: None,
            lingers: false,
            ended: None,
        }
    }

    async fn next(&mut self, mut drain: impl FnMut(&mut Context<'_>) -> Poll<()>) -> Next {
        // Bytes that were judged to be no whole head, and since when there are some, or none.
        let (mut judged, mut since) = (0, None);
        poll_fn(|context| self.poll_next(context, &mut judged, &mut since, &mut drain)).await
    }

    fn poll_next(
        &mut self,
        context: &mut Context<'_>,
        judged: &mut usize,
        since: &mut Option<(bool, Instant)>,
        drain: &mut impl FnMut(&mut Context<'_>) -> Poll<()>,
    ) -> Poll<Next> {
        let mut downstream = self.downstream.borrow_mut();
        let downstream = &mut *downstream;
        loop {
            let input = &downstream.wire.input;
            // A head becomes whole, and most become wrong, with a line feed: no need to look at each byte again before.
            let fresh = input.get(*judged..).unwrap_or_default();
            let is_due = !fresh.is_empty() && (*judged == 0 || fresh.contains(&b'\n') || input.len() > self.limits.head_bytes);
            if is_due {
                let mut fields = PLACES.take();
                let next = match raw::read_fields(input, self.limits, &mut fields) {
                    Reading::Partial => None,
                    Reading::Whole(head) => Some(take(downstream, &head, &fields)),
                    Reading::Refused(refusal) => Some(Next::refused(refusal, input)),
                };
                PLACES.set(fields);
                if let Some(next) = next {
                    return Poll::Ready(next);
                }
                *judged = downstream.wire.input.len();
            }
            match downstream.wire.poll_fill(context) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Next::End),
                Poll::Ready(Ok(_)) => continue,
                Poll::Pending => {}
            }
            let in_head = !downstream.wire.input.is_empty();
            let began = match *since {
                Some((before, began)) if before == in_head => began,
                _ => self.ended.take().unwrap_or_else(Instant::now),
            };
            self.is_old |= began >= self.expires;
            *since = Some((in_head, began));
            if !in_head {
                if self.close_idle_at.is_none() && (drain(context).is_ready() || self.worker.is_draining()) {
                    self.close_idle_at = Some(self.worker.idle_until().into());
                }
                // Not at once: a request may be on its way, and would be lost. Whoever was just answered may be about to ask again.
                if let Some(time) = self.close_idle_at.map(|time| time.max(began + BREATH)) {
                    ready!(self.deadline.poll(context, time.min(after(began, self.waits.idle))));
                    return Poll::Ready(Next::Closing);
                }
            }
            let wait = if in_head { self.waits.head } else { self.waits.idle };
            ready!(self.deadline.poll(context, after(began, wait)));
            return Poll::Ready(if in_head { Next::Late } else { Next::End });
        }
    }

    /// Answers whether another request may follow.
    async fn exchange(&mut self, head: Box<RequestHead>, mut keep: bool) -> bool {
        self.served.0 += 1;
        self.ended = None;
        keep &= self.served.0 < self.served.1 && !self.is_old;
        let manner = Manner { version: head.version, head_only: head.method == Method::HEAD, keep };
        let request = Request { head, body: ClientBody::Http1(RequestBytes::of(&self.downstream)) };
        let answer = {
            let downstream = &self.downstream;
            // On the heap, so that a connection that waits for its next request does not hold room for one.
            let mut handling = Box::pin(pipeline::handle(Rc::clone(&self.worker), Rc::clone(&self.conn), request));
            poll_fn(|context| match turn::poll(handling.as_mut(), context) {
                (Poll::Ready(answer), _) => Poll::Ready(answer.ok()),
                (Poll::Pending, true) => Poll::Pending,
                (Poll::Pending, false) => downstream.borrow_mut().poll_gone(context).map(|()| None),
            })
            .await
        };
        let Some(response) = answer else { return false };
        if response.head.status == StatusCode::SWITCHING_PROTOCOLS {
            self.tunnel(response, manner).await;
            return false;
        }
        self.deliver(response, manner).await
    }

    async fn refuse(&mut self, refused: &Refused) {
        self.lingers = true;
        let response = pipeline::refuse(&self.worker, &self.conn, refused);
        let manner = Manner { version: Version::HTTP_11, head_only: false, keep: false };
        self.deliver(response, manner).await;
    }

    /// Writes an answer. Answers whether another request may follow.
    async fn deliver(&mut self, response: Response<ResponseBody>, manner: Manner) -> bool {
        let Response { head, mut body } = response;
        let (framing, bodiless) = response_framing(head.status, &body, manner);
        let mut keep = manner.keep && framing != Some(Framing::ToEnd) && !self.worker.is_draining();
        let said = {
            let mut downstream = self.downstream.borrow_mut();
            let downstream = &mut *downstream;
            if !downstream.body.is_done() {
                // What is left of a body that nobody may read any more must not be taken for a request.
                let near = downstream.body.left().is_some_and(|left| left <= MAX_UNWANTED);
                keep &= near && !downstream.expects;
                self.lingers = true;
            }
            downstream.expects = false;
            let delivery = Delivery { version: manner.version, framing, keep };
            head::write_response(downstream.wire.output(), &head, delivery)
        };
        keep = said.keep;
        let mut writer = Writer {
            downstream: &self.downstream,
            deadline: &mut self.deadline,
            wait: self.waits.write,
            framing: if bodiless { None } else { framing },
            announced: said.trailers,
            over: false,
            stuck: None,
            waited: false,
        };
        turn::others_first().await;
        let written = poll_fn(|context| writer.poll(context, Pin::new(&mut body))).await;
        let waited = writer.waited;
        match written {
            Written::Whole => {}
            Written::Gone => return false,
            Written::Stalled => {
                // What the system holds for a client that does not read is given up with the rest.
                self.downstream.borrow().wire.reset();
                self.lingers = false;
                body.stalled();
                return false;
            }
            Written::Cut { evident } => {
                if !evident {
                    self.downstream.borrow().wire.reset();
                }
                self.lingers = false;
                return false;
            }
        }
        // Whatever the body ended with, the clock is read at its end.
        drop(body);
        self.ended = (!waited).then(|| clock::last().into());
        keep && self.is_read().await
    }

    /// Reads what is left of the request's body. Answers whether the next request is where it ends.
    async fn is_read(&mut self) -> bool {
        if !self.downstream.borrow().body.is_done() {
            self.ended = None;
            let until = after(Instant::now(), self.waits.head);
            let (downstream, deadline) = (&self.downstream, &mut self.deadline);
            poll_fn(|context| {
                let mut downstream = downstream.borrow_mut();
                let downstream = &mut *downstream;
                loop {
                    match downstream.body.take(&mut downstream.wire.input) {
                        Ok(Piece::More) => {}
                        Ok(Piece::Data(_)) => continue,
                        Ok(Piece::Trailers(_) | Piece::End) | Err(_) => return Poll::Ready(()),
                    }
                    match downstream.wire.poll_fill(context) {
                        Poll::Ready(Ok(1..)) => {}
                        Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                        Poll::Pending => return deadline.poll(context, until),
                    }
                }
            })
            .await;
        }
        let is_done = self.downstream.borrow().body.is_done();
        self.lingers &= !is_done;
        is_done
    }

    async fn tunnel(&mut self, response: Response<ResponseBody>, manner: Manner) {
        let Response { head, body } = response;
        let Some(tunnel) = body.into_tunnel() else { return };
        {
            let mut downstream = self.downstream.borrow_mut();
            let delivery = Delivery { version: manner.version, framing: None, keep: true };
            head::write_response(downstream.wire.output(), &head, delivery);
        }
        upgrade::run(&self.downstream, *tunnel).await;
    }

    /// Ends our direction; when the client may still be sending, waits a moment for it to end its own.
    async fn close(mut self) {
        let until = after(Instant::now(), unread::TIME);
        let mut thrown = 0;
        let mut is_shut = false;
        poll_fn(|context| {
            let mut downstream = self.downstream.borrow_mut();
            let wire = &mut downstream.wire;
            if !is_shut {
                match wire.poll_shutdown(context) {
                    Poll::Ready(Ok(())) => is_shut = true,
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => return self.deadline.poll(context, until),
                }
            }
            if !self.lingers && wire.input.is_empty() {
                return Poll::Ready(());
            }
            while thrown < unread::BYTES {
                thrown += wire.input.len();
                wire.input.clear();
                match wire.poll_fill(context) {
                    Poll::Ready(Ok(1..)) => {}
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                    Poll::Pending => return self.deadline.poll(context, until),
                }
            }
            Poll::Ready(())
        })
        .await;
    }
}

impl Next {
    fn refused(refusal: Refusal, input: &[u8]) -> Self {
        Self::Refused(Box::new(Refused { refusal, sketch: input.get(..SKETCH).unwrap_or(input).to_vec() }))
    }
}

/// Takes a whole head off the front of the input.
fn take(downstream: &mut Downstream, head: &raw::Head, fields: &[Place]) -> Next {
    match head::request(&downstream.wire.input, head, fields) {
        Ok(parts) => {
            downstream.wire.input.advance(head.length);
            let framing = match head.body {
                raw::Framing::Length(length) => Framing::Length(length),
                raw::Framing::Chunked => Framing::Chunked,
            };
            downstream.begin(framing, head.expects);
            Next::Request(Box::new(parts), head.persistent)
        }
        Err(refusal) => Next::refused(refusal, &downstream.wire.input),
    }
}

/// How the end of the answer's body is told, and whether none of it is sent.
fn response_framing(status: StatusCode, body: &ResponseBody, manner: Manner) -> (Option<Framing>, bool) {
    let exact = body.size_hint().exact();
    if status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED {
        return (None, true);
    }
    if manner.head_only {
        // A relayed answer to HEAD says by itself how long the body would be.
        return (exact.filter(|length| *length > 0).map(Framing::Length), true);
    }
    let framing = match exact {
        Some(length) => Framing::Length(length),
        None if manner.version == Version::HTTP_10 => Framing::ToEnd,
        None => Framing::Chunked,
    };
    (Some(framing), false)
}

/// An answer's body on its way to the client.
struct Writer<'a> {
    downstream: &'a RefCell<Downstream>,
    deadline: &'a mut Deadline,
    wait: Duration,
    /// None when the body is not sent.
    framing: Option<Framing>,
    announced: Option<Box<[u8]>>,
    over: bool,
    /// Since when the client takes nothing.
    stuck: Option<(Instant, u64)>,
    /// Whether anything had to be waited for.
    waited: bool,
}

impl Writer<'_> {
    fn poll(&mut self, context: &mut Context<'_>, mut body: Pin<&mut ResponseBody>) -> Poll<Written> {
        loop {
            let mut waits = false;
            while !self.over && !waits && !self.downstream.borrow().wire.is_full() {
                match body.as_mut().poll_frame(context) {
                    Poll::Ready(Some(Ok(frame))) => self.write(frame),
                    Poll::Ready(Some(Err(_))) => {
                        let evident = self.framing != Some(Framing::ToEnd);
                        return Poll::Ready(Written::Cut { evident });
                    }
                    Poll::Ready(None) => self.end(None),
                    Poll::Pending => waits = true,
                }
            }
            let mut downstream = self.downstream.borrow_mut();
            match downstream.wire.poll_send(context) {
                Poll::Ready(Ok(())) => self.stuck = None,
                Poll::Ready(Err(_)) => return Poll::Ready(Written::Gone),
                Poll::Pending => {
                    self.waited = true;
                    let sent = downstream.wire.sent();
                    let since = match self.stuck {
                        Some((since, before)) if before == sent => since,
                        _ => Instant::now(),
                    };
                    self.stuck = Some((since, sent));
                    return self.deadline.poll(context, after(since, self.wait)).map(|()| Written::Stalled);
                }
            }
            if self.over {
                return Poll::Ready(Written::Whole);
            }
            if waits {
                return downstream.poll_gone(context).map(|()| Written::Gone);
            }
        }
    }

    fn write(&mut self, frame: http_body::Frame<bytes::Bytes>) {
        match frame.into_data() {
            Ok(data) if data.is_empty() => {}
            Ok(data) => {
                let wire = &mut self.downstream.borrow_mut().wire;
                match self.framing {
                    Some(Framing::Chunked) => head::write_chunk(wire, data),
                    Some(Framing::Length(_) | Framing::ToEnd) => wire.push(data, b""),
                    None => {}
                }
            }
            Err(frame) => {
                let trailers = frame.into_trailers().ok();
                let trailers = trailers.map(|trailers| announced_only(trailers, self.announced.as_deref()));
                self.end(trailers.as_ref());
            }
        }
    }

    fn end(&mut self, trailers: Option<&HeaderMap>) {
        self.over = true;
        if self.framing == Some(Framing::Chunked) {
            head::write_trailers(self.downstream.borrow_mut().wire.output(), trailers);
        }
    }
}
