//! Active health checks and name look-ups, away from the workers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{CONNECTION, HOST, USER_AGENT};
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;

use super::connect::{LocalExecutor, UpstreamStream, open};
use super::dial::check;
use super::group::Group;
use super::health::{Cause, Probed};
use super::server::Server;
use crate::config::{Health, Timeouts};
use crate::observe::Metrics;

/// How often names are looked up again.
const RESOLVE_EVERY: Duration = Duration::from_secs(30);
/// How often it is looked whether a server needs somebody to try connections.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Bytes of a probe's answer that are looked at.
const MAX_ANSWER: usize = 64 * 1024;

/// Starts the checks of these groups; they end when the set is dropped. Call on the control thread, in a `LocalSet`.
#[must_use]
pub fn start(groups: &[Arc<Group>], metrics: &Arc<Metrics>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let all = groups.iter().flat_map(|group| group.servers.iter().map(|server| (Arc::clone(server), group.timeouts)));
    tasks.spawn_local(look_after(all.collect()));
    for group in groups {
        for server in &group.servers {
            metrics.upstream_healthy(&group.name, &server.label, server.is_eligible(Instant::now()));
            if server.url.ip().is_none() {
                let server = Arc::clone(server);
                tasks.spawn_local(async move {
                    loop {
                        tokio::time::sleep(RESOLVE_EVERY).await;
                        server.resolve().await;
                    }
                });
            }
            if let Some(health) = &group.health {
                tasks.spawn_local(watch(Arc::clone(server), health.clone(), Arc::clone(metrics)));
            }
        }
    }
    tasks
}

/// Sees to it that somebody tries connections to whoever is suspect, or down without probes. Usually that is the worker whose
/// connection failed; nobody has done it yet when the process before this one knew of the outage.
async fn look_after(servers: Vec<(Arc<Server>, Timeouts)>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        for (server, timeouts) in &servers {
            check(None, server, timeouts.connect, timeouts.idle);
        }
    }
}

async fn watch(server: Arc<Server>, health: Health, metrics: Arc<Metrics>) {
    let mut was_good = true;
    loop {
        let (probed, why) = probe(&server, &health).await;
        let is_good = probed == Probed::Good;
        if was_good && !is_good {
            let (upstream, label) = (&*server.group, &*server.label);
            tracing::warn!(upstream, server = label, "probe failed: {why}");
        }
        was_good = is_good;
        server.on_probe(probed);
        metrics.upstream_healthy(&server.group, &server.label, server.is_eligible(Instant::now()));
        tokio::time::sleep(jittered(health.every)).await;
    }
}

/// ±20 %, so that many gateways do not knock at once.
#[must_use]
pub fn jittered(every: Duration) -> Duration {
    let share = (crate::observe::trace::random_u64() % 401) as f64 / 1000.0;
    every.mul_f64(0.8 + share)
}

/// One probe, and what to tell the operator. A server that cannot be connected to is dead; one that takes the connection and does not
/// answer may be an application that is being recycled.
async fn probe(server: &Arc<Server>, health: &Health) -> (Probed, String) {
    let began = Instant::now();
    let stream = match tokio::time::timeout(health.timeout, open(server)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return (Probed::Bad(error.cause()), format!("connect: {}", error.outcome())),
        Err(_) => return (Probed::Bad(Cause::ConnectTimeout), format!("no connection within {:?}", health.timeout)),
    };
    let left = health.timeout.saturating_sub(began.elapsed());
    match tokio::time::timeout(left, ask(stream, server, health)).await {
        Ok(Ok(())) => (Probed::Good, String::new()),
        Ok(Err(why)) => (Probed::Bad(Cause::ProbeFailed), why),
        Err(_) => (Probed::Slow, format!("connected, but no answer within {:?}", health.timeout)),
    }
}

async fn ask(stream: UpstreamStream, server: &Server, health: &Health) -> Result<(), String> {
    let response = send(stream, server, &health.path).await?;
    let status = response.status();
    let expected = health.status.map_or_else(|| status.is_success() || status.is_redirection(), |want| want == status.as_u16());
    if !expected {
        return Err(format!("status {}", status.as_u16()));
    }
    let Some(text) = &health.expect else { return Ok(()) };
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(|error| format!("body: {error}"))?;
    let bytes = body.to_bytes();
    let found = bytes.windows(text.len().max(1)).any(|window| window == text.as_bytes());
    if found { Ok(()) } else { Err(format!("the answer does not hold {text:?}")) }
}

/// Over HTTP/2 when the server chose it in the handshake, as requests do.
async fn send(stream: UpstreamStream, server: &Server, path: &str) -> Result<Response<Incoming>, String> {
    let host = server.tls.as_ref().map_or_else(|| server.url.host.clone(), |tls| tls.name.to_str().into_owned());
    let request = Request::get(path).header(USER_AGENT, "weir-health");
    let answer = if stream.is_h2() {
        let request = request.uri(format!("https://{host}{path}")).body(Empty::<Bytes>::new());
        let handshake = http2::handshake(LocalExecutor, TokioIo::new(stream)).await;
        let (mut sender, driver) = handshake.map_err(|error| format!("handshake: {error}"))?;
        tokio::task::spawn_local(async move { drop(driver.await) });
        sender.send_request(request.map_err(|error| error.to_string())?).await
    } else {
        let request = request.header(HOST, host).header(CONNECTION, "close").body(Empty::<Bytes>::new());
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, driver) = handshake.map_err(|error| format!("handshake: {error}"))?;
        tokio::task::spawn_local(async move { drop(driver.await) });
        sender.send_request(request.map_err(|error| error.to_string())?).await
    };
    answer.map_err(|error| format!("request: {error}"))
}
