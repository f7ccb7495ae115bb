//! The admin API: what runs, how it is, and the operator's orders. On a unix socket by default, outside every policy.

mod client;
mod closable;
mod plugins;
mod trial;

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::{Request, State as Extracted};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, oneshot, watch};

pub use client::{AdminError, call};
pub use closable::Stage;

use self::closable::Closable;
use crate::config::{self, AdminAddress};
use crate::observe::metrics;
use crate::pipeline::call_out;
use crate::runtime::builder::Event;
use crate::runtime::control::UpgradeReply;
use crate::runtime::plugins::status::Status;
use crate::runtime::trials;
use crate::runtime::upgrade::Refusal;
use crate::runtime::worker::Shared;
use crate::upstream::report;

/// What the API answers from.
#[derive(Debug)]
pub struct State {
    /// Shared with the workers.
    pub shared: Arc<Shared>,
    /// The plugin table.
    pub plugins: Arc<Status>,
    /// The candidates.
    pub trials: Arc<trials::Status>,
    /// Orders for the builder.
    pub events: mpsc::UnboundedSender<Event>,
    /// Orders for the control thread.
    pub upgrades: mpsc::UnboundedSender<UpgradeReply>,
}

/// A bound admin address.
#[derive(Debug)]
pub enum Socket {
    /// A unix socket.
    Unix(UnixListener),
    /// A TCP address, and the token that every request must carry.
    Tcp(TcpListener, Arc<str>),
    /// None: it has been given away.
    None,
}

/// The admin socket for a successor.
#[derive(Debug)]
pub struct Passed {
    /// Where it is, as text.
    pub address: String,
    /// It.
    pub descriptor: OwnedFd,
}

impl Socket {
    /// A second handle of it.
    ///
    /// # Errors
    /// The system gives no more descriptors, or knows no address of it.
    pub fn pass(&self) -> std::io::Result<Passed> {
        let (address, descriptor) = match self {
            Self::Unix(listener) => {
                let address = listener.local_addr()?;
                let path = address.as_pathname().ok_or(std::io::ErrorKind::AddrNotAvailable)?;
                (unix_text(path), listener.as_fd())
            }
            Self::Tcp(listener, _) => (listener.local_addr()?.to_string(), listener.as_fd()),
            Self::None => return Err(std::io::ErrorKind::NotConnected.into()),
        };
        Ok(Passed { address, descriptor: descriptor.try_clone_to_owned()? })
    }
}

/// An admin address as text.
#[must_use]
pub fn text(address: &AdminAddress) -> String {
    match address {
        AdminAddress::Unix(path) => unix_text(path),
        AdminAddress::Tcp { address, .. } => address.to_string(),
    }
}

fn unix_text(path: &Path) -> String {
    format!("unix:{}", path.display())
}

/// Binds the admin address, or takes the socket that a predecessor has bound there. Call within a runtime.
///
/// # Errors
/// It cannot be had: another gateway has it, or the token cannot be read.
pub fn bind(address: &AdminAddress, inherited: Option<OwnedFd>) -> Result<Socket, config::Error> {
    let error = |key: &str, message: String, hint: &str| config::Error {
        location: None,
        key: format!("server.{key}"),
        message,
        hint: Some(hint.to_owned()),
    };
    match address {
        AdminAddress::Unix(path) => {
            let wrong = |cause: std::io::Error| {
                let message = format!("cannot listen at {}: {cause}", path.display());
                error("admin", message, "name a path in a directory this user may write to")
            };
            if let Some(descriptor) = inherited {
                let listener = std::os::unix::net::UnixListener::from(descriptor);
                listener.set_nonblocking(true).map_err(wrong)?;
                return UnixListener::from_std(listener).map(Socket::Unix).map_err(wrong);
            }
            // A socket that nobody answers at is left over from a gateway that was killed.
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                let message = format!("another gateway answers at {}", path.display());
                return Err(error("admin", message, "give each gateway its own state directory"));
            }
            drop(std::fs::remove_file(path));
            let listener = UnixListener::bind(path).map_err(wrong)?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(wrong)?;
            Ok(Socket::Unix(listener))
        }
        AdminAddress::Tcp { address, token } => {
            let hint = "put a long random text into the file, readable by this user only";
            let secret = std::fs::read_to_string(token)
                .map_err(|cause| error("admin_token", format!("cannot read {}: {cause}", token.display()), hint))?;
            if secret.trim().is_empty() {
                return Err(error("admin_token", format!("{} is empty", token.display()), hint));
            }
            let wrong =
                |cause: std::io::Error| error("admin", format!("cannot listen on {address}: {cause}"), "name a free address");
            let socket = inherited.map_or_else(|| std::net::TcpListener::bind(address), |descriptor| Ok(descriptor.into()));
            let socket = socket.map_err(wrong)?;
            socket.set_nonblocking(true).map_err(wrong)?;
            Ok(Socket::Tcp(TcpListener::from_std(socket).map_err(wrong)?, secret.trim().into()))
        }
    }
}

/// Serves the API until its last stage; answers under way are finished then.
pub async fn serve(socket: Socket, state: Arc<State>, stage: watch::Receiver<Stage>) {
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_text))
        .route("/v1/config", get(show_config))
        .route("/v1/plugins", get(plugins::list))
        .route("/v1/plugins/{name}/rollback", post(plugins::roll_back))
        .route("/v1/plugins/{name}/promote", post(trial::promote))
        .route("/v1/plugins/{name}/abandon", post(trial::abandon))
        .route("/v1/upstreams", get(upstreams))
        .route("/v1/reload", post(reload))
        .route("/v1/upgrade", post(upgrade))
        .with_state(state);
    let end = closable::ending(stage.clone());
    let served = match socket {
        Socket::Unix(listener) => axum::serve(Closable::new(listener, stage), router).with_graceful_shutdown(end).await,
        Socket::Tcp(listener, secret) => {
            let guarded = router.layer(from_fn(move |request, next| authorise(Arc::clone(&secret), request, next)));
            axum::serve(Closable::new(listener, stage), guarded).with_graceful_shutdown(end).await
        }
        Socket::None => return,
    };
    if let Err(error) = served {
        tracing::error!("the admin API cannot be served: {error}");
    }
}

async fn authorise(secret: Arc<str>, request: Request, next: Next) -> Response {
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let given = given.strip_prefix("Bearer ").unwrap_or_default().as_bytes();
    // Every byte is compared, so that time tells nothing about the secret.
    let differs = given.iter().zip(secret.as_bytes()).fold(given.len() ^ secret.len(), |sum, (a, b)| sum | usize::from(a ^ b));
    if differs == 0 { next.run(request).await } else { (StatusCode::UNAUTHORIZED, "a bearer token is needed\n").into_response() }
}

async fn readyz(Extracted(state): Extracted<Arc<State>>) -> Response {
    if state.shared.leaving.load(std::sync::atomic::Ordering::Relaxed) {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response();
    }
    "ready\n".into_response()
}

async fn metrics_text(Extracted(state): Extracted<Arc<State>>) -> Response {
    let extra = state.shared.host.plugin_counters();
    let extra = extra.into_iter().map(|(plugin, name, label, value)| (name, label, plugin, value));
    let groups = &state.shared.snapshot.load_full().groups;
    let now = std::time::Instant::now();
    for server in groups.iter().flat_map(|group| &group.servers) {
        state.shared.recorder.metrics().upstream_healthy(&server.group, &server.label, server.is_eligible(now));
    }
    let mut text = state.shared.recorder.metrics().render_with(extra);
    report::metrics(groups, now, &mut text);
    call_out::metrics(&state.shared.host, &mut text);
    trial::metrics(&state.trials.rows(), &mut text);
    plugins::metrics(&state.plugins, &state.shared.host, &mut text);
    let refused = state.shared.refused.load(std::sync::atomic::Ordering::Relaxed);
    text.push_str("# HELP weir_connections_over_limit_total Connections closed because there were too many.\n");
    text.push_str("# TYPE weir_connections_over_limit_total counter\n");
    text.push_str(&format!("weir_connections_over_limit_total {refused}\n"));
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response()
}

async fn show_config(Extracted(state): Extracted<Arc<State>>) -> Json<Value> {
    let snapshot = state.shared.snapshot.load_full();
    let sites: Vec<_> = snapshot
        .config
        .sites
        .iter()
        .map(|site| {
            let hosts: Vec<_> = site.hosts.iter().map(ToString::to_string).collect();
            let chain: Vec<&str> = site.chain.iter().map(|name| &**name).collect();
            json!({ "name": &*site.name, "hosts": hosts, "upstream": &*site.upstream, "chain": chain })
        })
        .collect();
    let listeners: Vec<_> =
        snapshot.config.listeners.iter().map(|one| json!({ "address": one.address, "tls": one.tls })).collect();
    Json(json!({
        "generation": snapshot.generation,
        "path": snapshot.config.path,
        "sites": sites,
        "listeners": listeners,
        "policies": snapshot.config.policies.keys().map(|name| &**name).collect::<Vec<&str>>(),
    }))
}

async fn upstreams(Extracted(state): Extracted<Arc<State>>) -> Json<Value> {
    let now = std::time::Instant::now();
    let groups: Vec<_> = state.shared.snapshot.load_full().groups.iter().map(|group| report::json(group, now)).collect();
    Json(json!({ "upstreams": groups }))
}

/// Seconds since 1970.
fn unix(time: Option<SystemTime>) -> Option<u64> {
    Some(time?.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs())
}

async fn reload(Extracted(state): Extracted<Arc<State>>) -> Response {
    let (reply, result) = oneshot::channel();
    if state.events.send(Event::Reload(reply)).is_err() {
        return (StatusCode::SERVICE_UNAVAILABLE, "the gateway is ending\n").into_response();
    }
    match result.await {
        Ok(Ok(generation)) => Json(json!({ "generation": generation })).into_response(),
        Ok(Err(errors)) => (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({ "errors": errors.to_json() }))).into_response(),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the gateway is ending\n").into_response(),
    }
}

async fn upgrade(Extracted(state): Extracted<Arc<State>>) -> Response {
    let (reply, result) = oneshot::channel();
    if state.upgrades.send(reply).is_err() {
        return (StatusCode::SERVICE_UNAVAILABLE, "the gateway is ending\n").into_response();
    }
    match result.await.unwrap_or(Err(Refusal::Ending)) {
        Ok(successor) => Json(json!({ "pid": successor.pid, "version": successor.version })).into_response(),
        Err(refusal) => {
            let status = match &refusal {
                Refusal::Busy => StatusCode::CONFLICT,
                Refusal::Ending => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::UNPROCESSABLE_ENTITY,
            };
            let errors = match &refusal {
                Refusal::Failed(errors) => errors.clone(),
                _ => json!([]),
            };
            (status, Json(json!({ "reason": refusal.to_string(), "errors": errors }))).into_response()
        }
    }
}
