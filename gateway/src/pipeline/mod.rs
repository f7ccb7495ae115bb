//! The path of one request, in the order it travels. [`handle`] owns the record and turns failures into answers; [`exchange`] is the
//! list of steps.

pub mod call_out;
mod policies;
mod sketch;
pub mod transform;

use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderValue, Uri, Version};
use thiserror::Error;
use weir_plugins::Phase;

use crate::clock;
use crate::config::Limits;
use crate::conn::ClientIp;
use crate::failure::Failure;
use crate::fields::Known;
use crate::finish::{Finish, InFlight};
use crate::http::body::{ClientBody, RequestBody, ResponseBody};
use crate::http::message::{Request, RequestHead, Response};
use crate::http::pace::{BodyFault, BodyLimits};
use crate::http::upgrade::Tunnel;
use crate::http::{forwarded, guard, hop, respond};
use crate::http1::server::Refused;
use crate::listen::conn::Conn;
use crate::observe::record::{AccessRecord, DecidedBy};
use crate::observe::trace;
use crate::runtime::snapshot::{Site, Snapshot};
use crate::runtime::worker::Worker;
use crate::upstream::attempt::Answered;
use crate::upstream::failover;

/// The connection ends without an answer: a policy wants silence.
#[derive(Clone, Copy, Debug, Error)]
#[error("closed by policy")]
pub struct Closed;

/// What the inner function decided.
enum Answer {
    /// The upstream's answer, or a tunnel.
    Relayed(Response<ResponseBody>),
    /// A policy's answer.
    Reply(weir_plugins::Reply),
}

/// Serves one request: exactly one record, whatever happens.
///
/// # Errors
/// [`Closed`] when the connection shall end without an answer.
pub async fn handle(worker: Rc<Worker>, conn: Rc<Conn>, request: Request<ClientBody>) -> Result<Response<ResponseBody>, Closed> {
    let snapshot = worker.snapshot();
    let Request { head, body } = request;
    let record = begin(&worker, &conn, &snapshot, &head);
    let mut flight = InFlight(Some(Finish::new(record, Rc::clone(&worker))));
    let is_http1 = head.version < Version::HTTP_2;
    // Asked now: the head travels on to the upstream.
    let wants_json = respond::prefers_json(&head.headers);
    let mut head = Some(head);
    let decided = exchange(&worker, &conn, &snapshot, &mut flight, &mut head, body).await;
    let closing = worker.is_draining() || decided.as_ref().is_err_and(Failure::closes_connection);
    if !is_http1 && matches!(decided, Err(Failure::Head(_))) {
        conn.retire();
    }
    let mut response = match decided {
        Ok(Answer::Relayed(response)) => response,
        Ok(Answer::Reply(reply)) => {
            let Some(mut finish) = flight.0.take() else { return Err(Closed) };
            finish.record.status = reply.status;
            finish.record.reason.clone_from(&reply.reason);
            finish.record.decided_by = DecidedBy::Policy(Arc::clone(&reply.policy));
            respond::reply(reply, finish)
        }
        Err(failure) => {
            let Some(mut finish) = flight.0.take() else { return Err(Closed) };
            note(&mut finish.record, &failure);
            // Whoever is not refused at the ClientHello finds its connection closed: agents then use their own secondary.
            if failure == Failure::NoHealthyServer && finish.site.as_ref().is_some_and(|site| site.refuse_when_down) {
                finish.record.status = 0;
            }
            if finish.record.status == 0 {
                finish.end(crate::finish::End::Complete);
                return Err(Closed);
            }
            respond::failure(&failure, wants_json, finish)
        }
    };
    if closing && is_http1 && response.head.status != http::StatusCode::SWITCHING_PROTOCOLS {
        respond::close_after(&mut response.head.headers);
    }
    Ok(response)
}

/// Answers a head that was refused as bytes, before any parser saw it.
#[must_use]
pub fn refuse(worker: &Rc<Worker>, conn: &Rc<Conn>, refused: &Refused) -> Response<ResponseBody> {
    let parts = sketch::parts(&refused.sketch);
    let mut record = begin(worker, conn, &worker.snapshot(), &parts);
    record.host = host_text(&parts);
    record.event = "connection";
    let failure = Failure::Head(refused.refusal);
    note(&mut record, &failure);
    let mut response = respond::failure(&failure, respond::prefers_json(&parts.headers), Finish::new(record, Rc::clone(worker)));
    respond::close_after(&mut response.head.headers);
    response
}

/// The configured sizes of a head.
#[must_use]
pub const fn head_limits(limits: &Limits) -> guard::Limits {
    guard::Limits { head_bytes: limits.head_bytes, target_bytes: limits.uri_bytes, fields: limits.fields }
}

/// The configured limits of a request body.
const fn body_limits(limits: &Limits) -> BodyLimits {
    BodyLimits { idle: limits.body_idle, rate: limits.body_rate, bytes: limits.body_bytes }
}

/// The steps of an exchange.
async fn exchange(
    worker: &Rc<Worker>,
    conn: &Rc<Conn>,
    snapshot: &Arc<Snapshot>,
    flight: &mut InFlight,
    head: &mut Option<Box<RequestHead>>,
    body: ClientBody,
) -> Result<Answer, Failure> {
    let (Some(finish), Some(parts)) = (flight.0.as_deref_mut(), head.as_deref_mut()) else {
        return Err(Failure::ClientBody(BodyFault::Failed));
    };
    let limits = &snapshot.config.limits;
    let tls = conn.info.tls.is_some();

    // Head guard: framing and authority rules that hyper does not enforce.
    let authority = match guard::check(parts, tls, head_limits(limits)) {
        Ok(authority) => authority,
        Err(refusal) => {
            finish.record.host = host_text(parts);
            return Err(Failure::Head(refusal));
        }
    };
    finish.record.host = cut_host(authority.text);
    let host = authority.text.to_owned();
    let site = route(snapshot, conn, &authority.host)?;
    finish.record.site = Some(Arc::clone(&site.name));
    finish.site = Some(Arc::clone(&site));

    // Hop-by-hop and forwarding headers: policies see what the upstream will see.
    let upgrading = parts.version == Version::HTTP_11 && hop::asks_upgrade(&parts.headers);
    forward_headers(conn, snapshot, parts, &host, upgrading, finish);

    // Policies on the connection, the head and the first bytes of the body.
    let mut body = RequestBody::new(body, Rc::clone(&finish.bytes_in), body_limits(limits));
    if body.is_too_large() {
        return Err(Failure::ClientBody(BodyFault::TooLarge));
    }
    let mut upstream_host = host;
    // Nothing has been waited for without policies.
    let mut now = finish.record.started;
    if !site.chain.policies().is_empty() {
        // On the heap: an exchange without policies needs no room for calls of theirs.
        let asked = policies::request(conn, snapshot, &site, finish, parts, &mut upstream_host, &mut body);
        match Box::pin(asked).await? {
            ControlFlow::Continue(ended) => now = ended,
            ControlFlow::Break(reply) => return Ok(Answer::Reply(reply)),
        }
    }

    // Upstream.
    let Some(group) = &site.group else { return Err(Failure::SiteUnavailable) };
    finish.record.upstream = Some(Arc::clone(&group.name));
    let Some(head) = head.take() else { return Err(Failure::ClientBody(BodyFault::Failed)) };
    let request = upstream_request(head, body, &upstream_host)?;
    let ids = finish.record.trace;
    let answered = failover::send(&worker.pool, group, request, &ids, &mut finish.record.attempts, now).await?;
    finish.record.decided_by = DecidedBy::Upstream;

    // Response phase in reverse order, then the body on its way.
    relay(snapshot, &site, flight, answered, upgrading).await
}

/// The record as far as the head tells, the host aside: that is read once, by the guard.
fn begin(worker: &Worker, conn: &Conn, snapshot: &Snapshot, parts: &RequestHead) -> Box<AccessRecord> {
    let trusted = conn.is_trusted(&snapshot.config.trusted_proxies);
    let client = if trusted {
        ClientIp(forwarded::client_ip(conn.info.client.0, &parts.headers, &snapshot.config.trusted_proxies))
    } else {
        conn.info.client
    };
    let country = if client == conn.info.client { conn.info.country.clone() } else { worker.country(client) };
    let parent = if trusted { parts.headers.get(Known::Traceparent).and_then(trace::parse) } else { None };
    let (started, time) = clock::with_date();
    Box::new(AccessRecord {
        event: "request",
        time,
        started,
        duration: Duration::ZERO,
        request_id: trace::random_u128(),
        trace: worker.shared.recorder.begin_trace(parent),
        conn: Arc::clone(&conn.info),
        client,
        country,
        site: None,
        protocol: protocol(parts.version),
        method: parts.method.clone(),
        host: String::new(),
        path: parts.uri.path().to_owned(),
        status: 0,
        decided_by: DecidedBy::Gateway,
        reason: String::new(),
        rule: String::new(),
        decisions: Vec::new(),
        findings: Vec::new(),
        tags: Vec::new(),
        upstream: None,
        attempts: Vec::new(),
        calls: Vec::new(),
        bytes_in: 0,
        bytes_out: 0,
    })
}

fn note(record: &mut AccessRecord, failure: &Failure) {
    record.status = failure.status().as_u16();
    failure.reason().clone_into(&mut record.reason);
    record.decided_by = DecidedBy::Gateway;
    if let Failure::Policy(refusal) = failure {
        record.status = refusal.status;
        record.rule.clone_from(&refusal.rule);
        record.decided_by = DecidedBy::Policy(Arc::clone(&refusal.policy));
    }
}

/// SNI and Host must agree on a site: what one site's policies admitted must not reach another.
fn route(snapshot: &Snapshot, conn: &Conn, host: &str) -> Result<Arc<Site>, Failure> {
    let site = snapshot.hosts.find(host).ok_or(Failure::NoSite)?;
    if let Some(sni) = conn.info.tls.as_ref().and_then(|tls| tls.sni.as_deref())
        && sni != host
        && snapshot.hosts.find(sni).is_none_or(|other| other.name != site.name)
    {
        return Err(Failure::Misdirected);
    }
    Ok(Arc::clone(site))
}

fn forward_headers(conn: &Conn, snapshot: &Snapshot, parts: &mut RequestHead, host: &str, upgrade: bool, finish: &Finish) {
    let trusted = conn.is_trusted(&snapshot.config.trusted_proxies);
    hop::strip(&mut parts.headers, upgrade);
    if parts.version == Version::HTTP_2 {
        hop::join_cookies(&mut parts.headers);
    }
    let (peer, peer_text) = (conn.info.client.0, &conn.info.client_text);
    let hop = forwarded::Hop { peer, peer_text, trusted, tls: conn.info.tls.is_some(), host };
    forwarded::rewrite(&mut parts.headers, &hop);
    parts.headers.insert(Known::XRequestId, &finish.id_text);
}

/// The request as the upstream gets it: same target, Host as the policies left it.
fn upstream_request(mut head: Box<RequestHead>, body: RequestBody, host: &str) -> Result<Box<Request<RequestBody>>, Failure> {
    let bad = || Failure::Head(guard::Refusal::BadTarget);
    if host.is_empty() {
        head.headers.remove(Known::Host);
    } else if head.headers.get(Known::Host) != Some(host.as_bytes()) {
        let host = HeaderValue::from_str(host).map_err(|_| bad())?;
        head.headers.insert(Known::Host, host.as_bytes());
    }
    // Most targets are a path already.
    if head.uri.authority().is_some() {
        let mut uri = http::uri::Parts::default();
        uri.path_and_query = Some(head.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")));
        head.uri = Uri::from_parts(uri).map_err(|_| bad())?;
    }
    head.version = Version::HTTP_11;
    Ok(Box::new(Request { head, body }))
}

async fn relay(
    snapshot: &Arc<Snapshot>,
    site: &Arc<Site>,
    flight: &mut InFlight,
    answered: Answered,
    upgrading: bool,
) -> Result<Answer, Failure> {
    let Some(finish) = flight.0.as_deref_mut() else { return Err(Failure::ClientBody(BodyFault::Failed)) };
    let Answered { response, server, idle: kept_for } = answered;
    let Response { mut head, body: incoming } = response;
    let switching = head.status == http::StatusCode::SWITCHING_PROTOCOLS;
    if switching && !upgrading {
        return Err(Failure::Attempt(crate::upstream::AttemptError::BadResponse));
    }
    finish.server = Some((server, kept_for));
    hop::strip(&mut head.headers, switching);
    if site.chain.wants(Phase::Response)
        && let Some(reply) = Box::pin(policies::response(site, finish, &mut head)).await?
    {
        return Ok(Answer::Reply(reply));
    }
    head.headers.insert(Known::XRequestId, &finish.id_text);
    finish.record.status = head.status.as_u16();
    let transforms =
        site.chain.wants(Phase::ResponseBody) && finish.exchange.is_some() && transform::is_for(&finish.record.method, &head);
    if transforms && site.chain.edits_bodies() {
        head.headers.remove(Known::ContentLength);
    }
    let Some(mut finish) = flight.0.take() else { return Err(Failure::ClientBody(BodyFault::Failed)) };
    let idle = site.group.as_ref().map_or(snapshot.config.limits.body_idle, |group| group.timeouts.first_byte);
    let body = if switching {
        let Some(upstream) = incoming.into_connection() else { return Err(Failure::ClientBody(BodyFault::Failed)) };
        ResponseBody::tunnel(Box::new(Tunnel { upstream, idle: snapshot.config.limits.tunnel_idle, finish }))
    } else if transforms {
        let transform = transform::Transform::new(incoming, Arc::clone(site), finish.exchange.take());
        ResponseBody::transformed(transform, idle, finish)
    } else {
        ResponseBody::upstream(incoming, idle, finish)
    };
    Ok(Answer::Relayed(Response { head, body }))
}

const fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}

/// The host for the record, before anything is known to be valid.
fn host_text(parts: &RequestHead) -> String {
    let named = parts.uri.authority().map(|authority| authority.as_str());
    let host = named.or_else(|| parts.headers.text(Known::Host)).unwrap_or_default();
    cut_host(host)
}

fn cut_host(host: &str) -> String {
    // ASCII; if it ever is not, a cut in the middle of a letter is no host at all.
    host.get(..host.len().min(MAX_HOST)).unwrap_or_default().to_owned()
}

/// Longest host name in DNS, in bytes.
const MAX_HOST: usize = 255;
