//! What policies ask of upstreams: over the same pools, health and failover as requests of clients, in a task of its own on the worker
//! that runs the policy.

use std::fmt::Write as _;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, Version};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio::sync::oneshot;
use weir_plugins::capability::http_out::{self, Answer, Call, CallOutError, Made, Outbound};
use weir_plugins::{Host, TraceContext};

use crate::failure::Failure;
use crate::fields::{Fields, Known};
use crate::http::body::{RequestBody, UpstreamBody};
use crate::http::hop;
use crate::http::message::{Request, RequestHead, Response};
use crate::observe::record::{Attempt, TraceIds};
use crate::observe::trace;
use crate::runtime::worker::{Shared, Worker};
use crate::upstream::attempt::Answered;
use crate::upstream::connect::ConnectError;
use crate::upstream::pool::Pool;
use crate::upstream::server::Server;
use crate::upstream::{AttemptError, Group, failover};

/// One worker's way to the upstreams.
struct Upstreams {
    shared: Arc<Shared>,
    pool: Pool,
}

/// Gives the policies on this worker a way to the upstreams, until what comes back is dropped.
#[must_use]
pub fn install(worker: &Rc<Worker>) -> http_out::Installed {
    http_out::install(Rc::new(Upstreams { shared: Arc::clone(&worker.shared), pool: worker.pool.clone() }))
}

impl Outbound for Upstreams {
    fn call(&self, call: Call) -> oneshot::Receiver<Made> {
        let (mut answer, receiver) = oneshot::channel();
        let group = self.shared.snapshot.load().groups.iter().find(|group| group.name == call.upstream).cloned();
        let ids = ids(call.trace, &self.shared);
        let pool = self.pool.clone();
        tokio::task::spawn_local(async move {
            let made = tokio::select! {
                () = answer.closed() => return,
                made = make(&pool, group, call, &ids) => made,
            };
            // Whoever waited has just stopped.
            drop(answer.send(made));
        });
        receiver
    }
}

fn ids(trace: Option<TraceContext>, shared: &Shared) -> TraceIds {
    match trace {
        Some(TraceContext { trace_id, span_id, sampled }) => TraceIds { trace_id, span_id, parent: None, sampled },
        None => shared.recorder.begin_trace(None),
    }
}

async fn make(pool: &Pool, group: Option<Arc<Group>>, call: Call, ids: &TraceIds) -> Made {
    // A policy of a snapshot before this one may ask for what is not there any more.
    let Some(group) = group else { return Made { result: Err(CallOutError::NotGranted), attempts: Vec::new() } };
    let (started, deadline, most) = (Instant::now(), call.deadline, call.most);
    let mut attempts = Vec::new();
    let result = match request(call, &group) {
        Ok(request) => {
            let answer = exchange(pool, &group, request, ids, &mut attempts, most);
            tokio::time::timeout_at(deadline.into(), answer).await.unwrap_or(Err(CallOutError::Timeout))
        }
        Err(error) => Err(error),
    };
    if result.as_ref().is_err_and(|error| *error == CallOutError::Timeout) {
        note_timeout(&mut attempts, &group, started);
    }
    Made { result, attempts }
}

/// The attempt that was under way when the time was over is not among those that ended.
fn note_timeout(attempts: &mut Vec<Attempt>, group: &Group, started: Instant) {
    match attempts.last_mut() {
        Some(last) if last.outcome == "timeout" => {}
        Some(last) if last.status.is_some() => (last.stage, last.outcome) = ("body", "timeout"),
        _ => {
            let server = group.servers.first().map_or_else(|| Arc::clone(&group.name), |server| Arc::clone(&server.label));
            let (elapsed, span_id) = (started.elapsed(), trace::random_u64());
            attempts.push(Attempt { server, stage: "head", outcome: "timeout", status: None, started, elapsed, span_id });
        }
    }
}

/// Appends what policies asked of upstreams, in the Prometheus text format.
pub fn metrics(host: &Host, text: &mut String) {
    text.push_str("# HELP weir_plugin_calls_out_total Requests of policies to upstreams, by what came of them.\n");
    text.push_str("# TYPE weir_plugin_calls_out_total counter\n");
    for (plugin, upstream, outcome, count) in host.calls_out() {
        // The names are those of files and of sections, which hold no quotes.
        let labels = format!("plugin=\"{plugin}\",upstream=\"{upstream}\",outcome=\"{outcome}\"");
        let _ = writeln!(text, "weir_plugin_calls_out_total{{{labels}}} {count}");
    }
}

/// The request as the upstream gets it. Its Host is that of the first server: an upstream is one application.
fn request(call: Call, group: &Group) -> Result<Box<Request<RequestBody>>, CallOutError> {
    let target: PathAndQuery = call.target.parse().map_err(|_| CallOutError::Invalid)?;
    let mut uri = http::uri::Parts::default();
    uri.path_and_query = Some(target);
    let uri = Uri::from_parts(uri).map_err(|_| CallOutError::Invalid)?;
    let host = group.servers.first().map(|server| host(server)).ok_or(CallOutError::NoServer)?;
    let host = HeaderValue::from_str(&host).map_err(|_| CallOutError::Invalid)?;
    let mut headers = Fields::from(&call.headers);
    headers.insert(Known::Host, host.as_bytes());
    let head = RequestHead { method: call.method, uri, version: Version::HTTP_11, headers };
    Ok(Box::new(Request { head: Box::new(head), body: RequestBody::whole(call.body) }))
}

fn host(server: &Server) -> String {
    let url = server.url.to_string();
    let authority = url.split_once("://").map_or(&*url, |(_, rest)| rest).trim_end_matches('/');
    let port = authority.strip_prefix(&server.url.host).filter(|port| port.starts_with(':'));
    match &server.tls {
        Some(tls) => format!("{}{}", tls.name.to_str(), port.unwrap_or_default()),
        None => authority.to_owned(),
    }
}

async fn exchange(
    pool: &Pool,
    group: &Group,
    request: Box<Request<RequestBody>>,
    ids: &TraceIds,
    attempts: &mut Vec<Attempt>,
    most: usize,
) -> Result<Answer, CallOutError> {
    let answered =
        failover::send(pool, group, request, ids, attempts, Instant::now()).await.map_err(|failure| error(&failure))?;
    let Answered { response, server, idle } = answered;
    let Response { mut head, mut body } = response;
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(CallOutError::Broken);
    }
    hop::strip(&mut head.headers, false);
    let read = read(&mut body, most).await;
    if let (Err(failed), Some(last)) = (&read, attempts.last_mut()) {
        (last.stage, last.outcome) = ("body", failed.as_str());
    }
    if let Some(connection) = body.take_reusable() {
        pool.keep(server, connection, idle, Instant::now());
    }
    Ok(Answer { status: head.status, headers: HeaderMap::from(&head.headers), body: read? })
}

/// All of a body, when it is not too large. One that declares to be is not read at all.
async fn read(body: &mut UpstreamBody, most: usize) -> Result<Bytes, CallOutError> {
    if body.size_hint().lower() > most as u64 {
        return Err(CallOutError::AnswerTooLarge);
    }
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| CallOutError::Broken)?;
        let Ok(data) = frame.into_data() else { continue };
        if whole.len() + data.len() > most {
            return Err(CallOutError::AnswerTooLarge);
        }
        if whole.is_empty() && body.is_end_stream() {
            return Ok(data);
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

const fn error(failure: &Failure) -> CallOutError {
    match failure {
        Failure::NoHealthyServer | Failure::SiteUnavailable => CallOutError::NoServer,
        Failure::Attempt(
            AttemptError::Connect(ConnectError::Timeout) | AttemptError::FirstByteTimeout | AttemptError::ServerDown,
        ) => CallOutError::Timeout,
        Failure::Attempt(AttemptError::Connect(_)) => CallOutError::Connect,
        Failure::Attempt(AttemptError::Reset | AttemptError::BadResponse | AttemptError::ClientBody(_))
        | Failure::Head(_)
        | Failure::NoSite
        | Failure::Misdirected
        | Failure::Policy(_)
        | Failure::ClientBody(_) => CallOutError::Broken,
    }
}
