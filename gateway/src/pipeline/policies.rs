//! The chain's part of an exchange: what policies are shown, and what of their edits is taken over.

use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::uri::PathAndQuery;
use http::{StatusCode, Uri};
use http_body::Body as _;
use weir_plugins::{ConnectionFacts, Exchange, Phase, Reply, ResponseHead, TraceContext, Verdict};

use crate::failure::Failure;
use crate::finish::Finish;
use crate::http::body::RequestBody;
use crate::http::message::{self, RequestHead};
use crate::http::pace::BodyFault;
use crate::listen::conn::Conn;
use crate::observe::record::TraceIds;
use crate::runtime::snapshot::{Site, Snapshot};

/// The connection, request and request-body phases. Edits land in `parts` and `host`. Goes on with the time at which the last policy
/// had ended, or ends with the answer of one.
///
/// # Errors
/// A refusal, or a body that broke off while it was looked at.
pub(super) async fn request(
    conn: &Rc<Conn>,
    snapshot: &Arc<Snapshot>,
    site: &Arc<Site>,
    finish: &mut Finish,
    parts: &mut RequestHead,
    host: &mut String,
    body: &mut RequestBody,
) -> Result<ControlFlow<Reply, Instant>, Failure> {
    let facts = ConnectionFacts { client_ip: finish.record.client.0, ..conn.facts() };
    let target = parts.uri.path_and_query().map_or_else(|| "/".to_owned(), |target| target.as_str().to_owned());
    let authority = host.to_ascii_lowercase();
    let head = (parts.method.clone(), parts.version, target, authority);
    let headers = std::mem::take(&mut parts.headers);
    let mut exchange = Exchange::new(facts, Arc::clone(&site.name), finish.record.request_id, head, headers);
    let TraceIds { trace_id, span_id, sampled, .. } = finish.record.trace;
    exchange.trace = Some(TraceContext { trace_id, span_id, sampled });
    finish.exchange = Some(Box::new(exchange));
    let mut clock = Instant::now();
    let verdict = ask(conn, snapshot, site, finish, body, &mut clock).await;
    take_over(site, finish, parts, host)?;
    match verdict? {
        Verdict::Continue => Ok(ControlFlow::Continue(clock)),
        Verdict::Deny(refusal) => Err(Failure::Policy(*refusal)),
        Verdict::Reply(reply) => Ok(ControlFlow::Break(*reply)),
    }
}

async fn ask(
    conn: &Rc<Conn>,
    snapshot: &Arc<Snapshot>,
    site: &Arc<Site>,
    finish: &mut Finish,
    body: &mut RequestBody,
    clock: &mut Instant,
) -> Result<Verdict, Failure> {
    let chain = &site.chain;
    if chain.wants(Phase::Connection) {
        let verdict = if finish.record.client == conn.info.client {
            conn.connection_verdict(snapshot, site, finish.exchange.as_deref_mut(), clock).await
        } else {
            // Behind a trusted proxy many clients share a connection: each request is asked about its own.
            chain.connection(&mut finish.exchange, clock).await
        };
        if verdict != Verdict::Continue {
            return Ok(verdict);
        }
    }
    if chain.wants(Phase::Request) {
        let verdict = chain.request(&mut finish.exchange, clock).await;
        if verdict != Verdict::Continue {
            return Ok(verdict);
        }
    }
    if chain.wants(Phase::RequestBody) && !body.is_end_stream() {
        let (window, complete) =
            body.window(chain.request_window()).await.map_err(|error| Failure::ClientBody(BodyFault::of(&error)))?;
        *clock = Instant::now();
        // Only the end of it was still to come.
        if complete && window.is_empty() {
            return Ok(Verdict::Continue);
        }
        return Ok(chain.request_body(&mut finish.exchange, &window, complete, clock).await);
    }
    Ok(Verdict::Continue)
}

/// Writes the policies' edits back to the request. A later phase that wants to read the request keeps a copy of its headers.
fn take_over(site: &Site, finish: &mut Finish, parts: &mut RequestHead, host: &mut String) -> Result<(), Failure> {
    let Some(exchange) = finish.exchange.as_deref_mut() else { return Ok(()) };
    let later = [Phase::Response, Phase::ResponseBody, Phase::Complete];
    parts.headers = if later.iter().any(|phase| site.chain.wants(*phase)) {
        exchange.headers.clone()
    } else {
        std::mem::take(&mut exchange.headers)
    };
    if exchange.rewritten.authority {
        host.clone_from(&exchange.authority);
    }
    if exchange.rewritten.target {
        let target: PathAndQuery = exchange.target.parse().map_err(|_| Failure::Head(crate::http::guard::Refusal::BadTarget))?;
        let mut uri = http::uri::Parts::default();
        uri.path_and_query = Some(target);
        parts.uri = Uri::from_parts(uri).map_err(|_| Failure::Head(crate::http::guard::Refusal::BadTarget))?;
    }
    Ok(())
}

/// The response phase. Edits land in `head`.
///
/// # Errors
/// A refusal.
pub(super) async fn response(
    site: &Arc<Site>,
    finish: &mut Finish,
    head: &mut message::ResponseHead,
) -> Result<Option<Reply>, Failure> {
    let Some(exchange) = finish.exchange.as_deref_mut() else { return Ok(None) };
    if !site.chain.wants(Phase::Response) {
        return Ok(None);
    }
    exchange.response = Some(ResponseHead { status: head.status.as_u16(), headers: std::mem::take(&mut head.headers) });
    let verdict = site.chain.response(&mut finish.exchange, &mut Instant::now()).await;
    if let Some(response) = finish.exchange.as_deref_mut().and_then(|exchange| exchange.response.take()) {
        head.headers = response.headers;
        head.status = StatusCode::from_u16(response.status).unwrap_or(head.status);
    }
    match verdict {
        Verdict::Continue => Ok(None),
        Verdict::Deny(refusal) => Err(Failure::Policy(*refusal)),
        Verdict::Reply(reply) => Ok(Some(*reply)),
    }
}
