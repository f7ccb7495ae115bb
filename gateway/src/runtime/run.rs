//! From a configuration file to a running gateway, and to its end.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::task::LocalSet;
use weir_plugins::{Host, HostOptions};

use super::builder::{self, Builder, Event};
use super::control::Control;
use super::descriptors;
use super::files::Watched;
use super::listeners::Listeners;
use super::snapshot::Snapshot;
use super::sockets::Inherited;
use super::upgrade::{self, Heritage, Manifest, Predecessor, Program};
use super::wishes::Wishes;
use super::worker::{Handle, Shared};
use crate::admin;
use crate::config::{self, AccessLog, Config, Errors, Telemetry};
use crate::listen::addresses::Addresses;
use crate::observe::{Metrics, Output, Recorder, Settings};
use crate::tls::tickets::TicketKey;

/// A running gateway. Dropping it does not end it: call [`Running::stop`] or [`Running::wait`].
#[derive(Debug)]
pub struct Running {
    addresses: Vec<(String, SocketAddr)>,
    admin: String,
    stop: mpsc::UnboundedSender<()>,
    control: JoinHandle<()>,
    builder: JoinHandle<()>,
    recorder: Recorder,
}

/// Lines kept for `weir why`.
const RECENT: usize = 2_000;
/// How long the last records may take to be written.
const FLUSH: Duration = Duration::from_secs(5);
/// How long a start waits for candidates: those that are ready by then count from the first request on, as before a restart.
const START_WAIT: Duration = Duration::from_secs(2);
/// How long a check waits for them; each is bounded by the limits of loading a plugin.
const CHECK_WAIT: Duration = Duration::from_secs(600);

/// Everything `run` does short of binding, and what is worth a warning.
///
/// # Errors
/// Every mistake at once.
pub fn check(config_path: &Path) -> Result<(Arc<Snapshot>, Vec<config::Error>), Errors> {
    let config = config::load(config_path)?;
    let (builder, snapshot) = build(config, &[], false)?;
    Ok((snapshot, builder.trials().warnings()))
}

/// What a process starts from. By default nothing, and no other can replace it.
#[derive(Debug, Default)]
pub struct Origin {
    /// How to start it again.
    pub program: Option<Program>,
    /// Sockets that were bound before.
    pub inherited: Inherited,
    /// The process that this one replaces.
    pub predecessor: Option<Predecessor>,
    /// What that one has learned.
    pub manifest: Manifest,
}

impl Origin {
    /// Finds out how this process was started: by an operator, a service manager with sockets, or its predecessor. Call first of all.
    ///
    /// # Errors
    /// There is a predecessor and it is not understood.
    pub fn find() -> Result<Self, Errors> {
        let program = Program::of_this_process();
        let program =
            program.map_err(|error| general("server", format!("cannot find this program: {error}"), "check the system"))?;
        let found = Predecessor::find();
        let found = found.map_err(|error| general("upgrade", error.to_string(), "stop the old process and start the new one"))?;
        Ok(match found {
            Some((predecessor, manifest, inherited)) => {
                Self { program: Some(program), inherited, predecessor: Some(predecessor), manifest }
            }
            None => {
                let inherited = Inherited::from_service_manager();
                Self { program: Some(program), inherited, predecessor: None, manifest: Manifest::default() }
            }
        })
    }
}

/// Starts a gateway: returns when listeners and plugins are live.
///
/// # Errors
/// Every mistake at once; nothing runs then.
pub fn start(config_path: &Path, mut origin: Origin) -> Result<Running, Errors> {
    let predecessor = origin.predecessor.take();
    let prepared = Prepared::new(config_path, origin);
    let (prepared, mut predecessor) = match (prepared, predecessor) {
        (Ok(prepared), predecessor) => (prepared, predecessor),
        (Err(errors), predecessor) => {
            predecessor.into_iter().for_each(|predecessor| predecessor.failed(&errors));
            return Err(errors);
        }
    };
    if let Some(predecessor) = &mut predecessor {
        let told = predecessor.take_over();
        told.map_err(|error| general("upgrade", error.to_string(), "stop the old process and start the new one"))?;
    }
    let running = prepared.serve()?;
    predecessor.into_iter().for_each(Predecessor::serving);
    Ok(running)
}

/// A gateway that has everything it needs and accepts nothing.
struct Prepared {
    runtime: Runtime,
    builder: Builder,
    snapshot: Arc<Snapshot>,
    watched: Watched,
    shared: Arc<Shared>,
    workers: Vec<Handle>,
    listeners: Listeners,
    admin_socket: admin::Socket,
    heritage: Heritage,
    wishes: Wishes,
    stop: mpsc::UnboundedSender<()>,
}

impl Prepared {
    fn new(config_path: &Path, origin: Origin) -> Result<Self, Errors> {
        let Origin { program, mut inherited, manifest, .. } = origin;
        let config = config::load(config_path)?;
        let watched = builder::watched(&config);
        let (builder, snapshot) = build(config, &manifest.tickets, true)?;
        upgrade::take_down(&snapshot, &manifest.down);
        let config = Arc::clone(&snapshot.config);
        let metrics = Arc::new(Metrics::default());
        let recorder = Recorder::start(&settings(&config.telemetry), metrics)
            .map_err(|error| general("telemetry", error.to_string(), "check the path and the collector's address"))?;
        let max_connections = config.limits.connections.unwrap_or_else(descriptors::max_connections);
        let shared = Arc::new(Shared {
            snapshot: ArcSwap::new(Arc::clone(&snapshot)),
            recorder,
            host: builder.host(),
            connections: Arc::default(),
            max_connections: AtomicUsize::new(max_connections),
            addresses: Addresses::default(),
            refused: AtomicU64::new(0),
            tunnels: Arc::default(),
            leaving: AtomicBool::new(false),
            draining: AtomicBool::new(false),
        });
        let runtime = runtime()?;
        let mut listeners = Listeners::default();
        let (stop, stopped) = mpsc::unbounded_channel();
        let (admin_socket, wishes) = {
            let _context = runtime.enter();
            listeners.apply(&config.listeners, &[], &mut inherited)?;
            let passed = inherited.take_admin(&admin::text(&config.server.admin));
            let wishes = Wishes::new(stopped);
            let wishes =
                wishes.map_err(|error| general("server", format!("cannot receive signals: {error}"), "check the system"))?;
            (admin::bind(&config.server.admin, passed)?, wishes)
        };
        let draining = inherited.take_draining();
        for address in inherited.left_over() {
            tracing::warn!("no listener has the address {address}: the socket that was passed for it is closed");
        }
        let mut workers = Vec::with_capacity(config.server.workers);
        for index in 0..config.server.workers {
            let worker = Handle::start(index, Arc::clone(&shared));
            workers.push(worker.map_err(|error| general("server.workers", error, "use fewer workers"))?);
        }
        let heritage = Heritage { program, draining, tickets: builder.tickets() };
        Ok(Self { runtime, builder, snapshot, watched, shared, workers, listeners, admin_socket, heritage, wishes, stop })
    }

    fn serve(self) -> Result<Running, Errors> {
        let Self { runtime, mut builder, snapshot, watched, shared, workers, listeners, admin_socket, heritage, wishes, stop } =
            self;
        let announced = listeners.announce(&workers);
        announced.map_err(|error| general("listener", error.to_string(), "raise the open-file limit (`ulimit -n`)"))?;
        let addresses = listeners.bound().iter().map(|bound| (url(bound.listener.tls, bound.address), bound.address)).collect();
        let (events, received) = mpsc::unbounded_channel();
        let (publish, published) = watch::channel(Arc::clone(&snapshot));
        let (upgrades, asked) = mpsc::unbounded_channel();
        let state = admin::State {
            shared: Arc::clone(&shared),
            plugins: builder.status(),
            trials: builder.trials().status(),
            events: events.clone(),
            upgrades,
        };
        let admin_text = admin::text(&snapshot.config.server.admin);
        let recorder = shared.recorder.clone();
        builder.serve(&snapshot.config);
        let builder = spawn_builder(builder, snapshot, watched, received, publish, &shared)?;
        let admin = Arc::new(state);
        let control = Control { shared, workers, listeners, events, published, admin_socket, admin, upgrades: asked, heritage };
        let run = move || LocalSet::new().block_on(&runtime, control.run(wishes));
        let control = std::thread::Builder::new().name("weir-control".to_owned()).spawn(run);
        let control = control.map_err(|error| thread_error(&error))?;
        Ok(Running { addresses, admin: admin_text, stop, control, builder, recorder })
    }
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

    /// Waits for the end: a signal, or a successor that serves, and what was left to drain.
    pub fn wait(self) {
        self.join();
    }

    /// Drains and ends.
    pub fn stop(self) {
        let _ = self.stop.send(());
        self.join();
    }

    fn join(self) {
        // The control thread has told the builder; one that compiles ends with what it is doing.
        if self.control.join().is_err() || self.builder.join().is_err() {
            tracing::error!("a thread of the gateway ended badly");
        }
        if !self.recorder.shutdown(FLUSH) {
            tracing::warn!("not all records could be written");
        }
    }
}

/// `last_good`: what was live before may stand in for a plugin file that is bad now. A check says that it is bad.
fn build(config: Config, keys: &[TicketKey], last_good: bool) -> Result<(Builder, Arc<Snapshot>), Errors> {
    let compiler = Some(PathBuf::from("/proc/self/exe")).filter(|program| program.exists());
    let options = HostOptions { state: config.server.state.clone(), workers: config.server.workers, compiler };
    let host = Host::new(&options).map_err(|error| general("server.state", error, "check the directory and its owner"))?;
    let mut builder = Builder::new(host, keys).map_err(|error| general("server", error, "check the system"))?;
    let runtime = runtime()?;
    let config = Arc::new(config);
    let snapshot = runtime.block_on(async {
        builder.load_plugins(&config, last_good).await;
        builder.build(Arc::clone(&config), if last_good { START_WAIT } else { CHECK_WAIT }).await
    })?;
    Ok((builder, snapshot))
}

fn spawn_builder(
    builder: Builder,
    snapshot: Arc<Snapshot>,
    watched: Watched,
    received: mpsc::UnboundedReceiver<Event>,
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
        runtime.block_on(builder::run(builder, snapshot, watched, received, publish, metrics));
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
