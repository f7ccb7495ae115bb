//! From a configuration file to a running gateway, and to its end.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::LocalSet;
use weir_plugins::{Host, HostOptions};

use super::builder::{self, Builder, Event};
use super::control::{Control, Listeners};
use super::descriptors;
use super::files::Watched;
use super::snapshot::Snapshot;
use super::worker::{Handle, Shared};
use crate::admin;
use crate::config::{self, AccessLog, AdminAddress, Config, Errors, Telemetry};
use crate::observe::{Metrics, Output, Recorder, Settings};

/// A running gateway. Dropping it does not end it: call [`Running::stop`] or [`Running::wait`].
#[derive(Debug)]
pub struct Running {
    addresses: Vec<(String, SocketAddr)>,
    admin: String,
    stop: oneshot::Sender<()>,
    control: JoinHandle<()>,
    events: mpsc::UnboundedSender<Event>,
    builder: JoinHandle<()>,
    recorder: Recorder,
}

/// Lines kept for `weir why`.
const RECENT: usize = 2_000;
/// How long the last records may take to be written.
const FLUSH: Duration = Duration::from_secs(5);

/// Everything `run` does short of binding.
///
/// # Errors
/// Every mistake at once.
pub fn check(config_path: &Path) -> Result<Arc<Snapshot>, Errors> {
    let config = config::load(config_path)?;
    let (_, snapshot) = build(config)?;
    Ok(snapshot)
}

/// Starts a gateway: returns when listeners and plugins are live.
///
/// # Errors
/// Every mistake at once; nothing runs then.
pub fn start(config_path: &Path) -> Result<Running, Errors> {
    let config = config::load(config_path)?;
    let watched = builder::watched(&config);
    let (builder, snapshot) = build(config)?;
    let config = Arc::clone(&snapshot.config);
    let metrics = Arc::new(Metrics::default());
    let recorder = Recorder::start(&settings(&config.telemetry), Arc::clone(&metrics))
        .map_err(|error| general("telemetry", error.to_string(), "check the path and the collector's address"))?;
    let max_connections = config.limits.connections.unwrap_or_else(descriptors::max_connections);
    let shared = Arc::new(Shared {
        snapshot: ArcSwap::new(Arc::clone(&snapshot)),
        recorder: recorder.clone(),
        host: builder.host(),
        connections: Arc::new(AtomicUsize::new(0)),
        max_connections: AtomicUsize::new(max_connections),
        refused: AtomicU64::new(0),
        draining: AtomicBool::new(false),
    });
    let runtime = runtime()?;
    let mut workers = Vec::with_capacity(config.server.workers);
    for index in 0..config.server.workers {
        let worker = Handle::start(index, Arc::clone(&shared));
        workers.push(worker.map_err(|error| general("server.workers", error, "use fewer workers"))?);
    }
    let mut listeners = Listeners::default();
    let bound = {
        let _context = runtime.enter();
        listeners.apply(&config.listeners, &workers)
    };
    let admin_socket = {
        let _context = runtime.enter();
        bound.and_then(|()| admin::bind(&config.server.admin).map_err(|error| vec![error]))
    };
    let admin_socket = match admin_socket {
        Ok(socket) => socket,
        Err(errors) => {
            workers.into_iter().for_each(Handle::join);
            return Err(errors.into());
        }
    };
    let addresses = listeners.bound().iter().map(|bound| (url(bound.listener.tls, bound.address), bound.address)).collect();
    let (events, received) = mpsc::unbounded_channel();
    let (publish, published) = watch::channel(Arc::clone(&snapshot));
    let admin = Arc::new(admin::State { shared: Arc::clone(&shared), plugins: builder.status(), events: events.clone() });
    let builder = spawn_builder(builder, snapshot, watched, received, events.clone(), publish, &shared)?;
    let control = Control { shared, workers, listeners, events: events.clone(), published, admin_socket, admin };
    let (stop, stopped) = oneshot::channel();
    let run = move || LocalSet::new().block_on(&runtime, control.run(stopped));
    let control = std::thread::Builder::new().name("weir-control".to_owned()).spawn(run).map_err(|error| thread_error(&error))?;
    Ok(Running { addresses, admin: admin_text(&config.server.admin), stop, control, events, builder, recorder })
}

impl Running {
    /// URL and address of every listener, in the order of the file.
    #[must_use]
    pub fn addresses(&self) -> &[(String, SocketAddr)] {
        &self.addresses
    }

    /// The admin address as text.
    #[must_use]
    pub fn admin(&self) -> &str {
        &self.admin
    }

    /// Waits for SIGTERM or SIGINT, then drains and ends.
    ///
    /// # Errors
    /// Signals cannot be received.
    pub fn wait(self) -> Result<(), String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| format!("cannot start a runtime: {error}"))?;
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let wrong = |error: std::io::Error| format!("cannot receive signals: {error}");
            let mut terminate = signal(SignalKind::terminate()).map_err(wrong)?;
            let mut interrupt = signal(SignalKind::interrupt()).map_err(wrong)?;
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            Ok::<_, String>(())
        })?;
        tracing::info!("draining");
        self.stop();
        Ok(())
    }

    /// Drains and ends.
    pub fn stop(self) {
        // A control thread that has ended already needs no word.
        let _ = self.stop.send(());
        // A builder that has ended hears nothing; one that compiles ends with what it is doing.
        drop(self.events.send(Event::Stop));
        if self.control.join().is_err() || self.builder.join().is_err() {
            tracing::error!("a thread of the gateway ended badly");
        }
        if !self.recorder.shutdown(FLUSH) {
            tracing::warn!("not all records could be written");
        }
    }
}

fn build(config: Config) -> Result<(Builder, Arc<Snapshot>), Errors> {
    let options = HostOptions { state: config.server.state.clone(), workers: config.server.workers };
    let host = Host::new(&options).map_err(|error| general("server.state", error, "check the directory and its owner"))?;
    let mut builder = Builder::new(host).map_err(|error| general("server", error, "check the system"))?;
    let runtime = runtime()?;
    let config = Arc::new(config);
    let snapshot = runtime.block_on(async {
        builder.load_plugins(&config).await;
        builder.build(Arc::clone(&config)).await
    })?;
    Ok((builder, snapshot))
}

fn spawn_builder(
    builder: Builder,
    snapshot: Arc<Snapshot>,
    watched: Watched,
    received: mpsc::UnboundedReceiver<Event>,
    events: mpsc::UnboundedSender<Event>,
    publish: watch::Sender<Arc<Snapshot>>,
    shared: &Arc<Shared>,
) -> Result<JoinHandle<()>, Errors> {
    let runtime = runtime()?;
    let shared = Arc::clone(shared);
    let run = move || {
        let metrics = Arc::clone(shared.recorder.metrics());
        metrics.config_generation(snapshot.generation);
        let publish = |new: &Arc<Snapshot>| {
            let old = shared.snapshot.swap(Arc::clone(new));
            let connections = new.config.limits.connections.unwrap_or_else(descriptors::max_connections);
            shared.max_connections.store(connections, Ordering::Relaxed);
            shared.recorder.metrics().config_generation(new.generation);
            if old.config.telemetry != new.config.telemetry
                && let Err(error) = shared.recorder.apply(&settings(&new.config.telemetry))
            {
                tracing::error!("telemetry stays as it was: {error}");
            }
            publish.send_replace(Arc::clone(new));
        };
        runtime.block_on(builder::run(builder, snapshot, watched, received, events, publish, metrics));
    };
    std::thread::Builder::new().name("weir-builder".to_owned()).spawn(run).map_err(|error| thread_error(&error))
}

fn settings(telemetry: &Telemetry) -> Settings {
    Settings {
        access_log: match &telemetry.access_log {
            AccessLog::Stdout => Output::Stdout,
            AccessLog::Off => Output::Off,
            AccessLog::File(path) => Output::File(path.clone()),
        },
        otlp: telemetry.otlp.as_ref().map(ToString::to_string),
        sample: telemetry.sample,
        recent: match telemetry.access_log {
            AccessLog::Off => 0,
            AccessLog::Stdout | AccessLog::File(_) => RECENT,
        },
    }
}

fn runtime() -> Result<Runtime, Errors> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| thread_error(&error))
}

fn thread_error(error: &std::io::Error) -> Errors {
    general("server", format!("cannot start a thread: {error}"), "check the limits of the process")
}

fn general(key: &str, message: String, hint: &str) -> Errors {
    config::Error { location: None, key: key.to_owned(), message, hint: Some(hint.to_owned()) }.into()
}

fn url(tls: bool, address: SocketAddr) -> String {
    format!("{}://{address}", if tls { "https" } else { "http" })
}

fn admin_text(address: &AdminAddress) -> String {
    match address {
        AdminAddress::Unix(path) => format!("unix:{}", path.display()),
        AdminAddress::Tcp { address, .. } => address.to_string(),
    }
}
