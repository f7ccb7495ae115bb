//! A worker: one thread, one runtime, its own connections, pools and policy instances.

use std::net::TcpListener as StdListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, LocalSet};
use weir_plugins::Host;

use super::snapshot::Snapshot;
use crate::conn::ClientIp;
use crate::listen::accept::{Listening, accept};
use crate::observe::Recorder;
use crate::upstream::pool::Pool;

/// What all workers share.
#[derive(Debug)]
pub struct Shared {
    /// The current state of the world.
    pub snapshot: ArcSwap<Snapshot>,
    /// Where records go.
    pub recorder: Recorder,
    /// The plugin host, for country look-ups.
    pub host: Arc<Host>,
    /// Open connections.
    pub connections: Arc<AtomicUsize>,
    /// How many there may be.
    pub max_connections: AtomicUsize,
    /// Connections refused because there were too many.
    pub refused: AtomicU64,
    /// Set once: no new connections, the last answers say so.
    pub draining: AtomicBool,
}

/// One worker, as the tasks on it see it.
#[derive(Debug)]
pub struct Worker {
    /// Shared with other threads.
    pub shared: Arc<Shared>,
    /// Idle upstream connections.
    pub pool: Pool,
    drain: watch::Receiver<bool>,
}

/// What a worker is told.
#[derive(Debug)]
pub enum Command {
    /// Accept on this socket.
    Listen(StdListener, Arc<Listening>),
    /// Stop accepting on the listener with this number of its arrival.
    Unlisten(usize),
    /// Stop accepting at all and finish.
    Drain,
}

/// A running worker thread.
#[derive(Debug)]
pub struct Handle {
    commands: mpsc::UnboundedSender<Command>,
    thread: Option<JoinHandle<()>>,
}

/// How often idle connections and retired instances are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

impl Worker {
    /// The current state of the world.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.snapshot.load_full()
    }

    /// The country of a client.
    #[must_use]
    pub fn country(&self, client: ClientIp) -> Option<Arc<str>> {
        self.shared.host.countries().country(client.0).map(|country| Arc::from(country.as_str()))
    }

    /// Whether the process is ending.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.shared.draining.load(Ordering::Relaxed)
    }

    /// Tells a connection when to finish.
    #[must_use]
    pub fn drain_signal(&self) -> DrainSignal {
        DrainSignal(self.drain.clone())
    }
}

/// Waits for the drain.
#[derive(Debug)]
pub struct DrainSignal(watch::Receiver<bool>);

impl DrainSignal {
    /// Returns when the worker drains.
    pub async fn wait(&mut self) {
        // The sender lives as long as the worker; if it is gone, so is the reason to serve.
        drop(self.0.wait_for(|draining| *draining).await);
    }
}

impl Handle {
    /// Starts a worker thread.
    ///
    /// # Errors
    /// The thread or its runtime cannot be started.
    pub fn start(index: usize, shared: Arc<Shared>) -> Result<Self, String> {
        let (commands, received) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("cannot start a runtime: {error}"))?;
        let run = move || {
            let local = LocalSet::new();
            local.block_on(&runtime, work(shared, received));
        };
        let thread = std::thread::Builder::new().name(format!("weir-worker-{index}")).spawn(run);
        let thread = thread.map_err(|error| format!("cannot start a thread: {error}"))?;
        Ok(Self { commands, thread: Some(thread) })
    }

    /// Tells the worker.
    pub fn tell(&self, command: Command) {
        // A worker that has ended needs no orders.
        drop(self.commands.send(command));
    }

    /// Waits for its end.
    pub fn join(mut self) {
        if let Some(thread) = self.thread.take() {
            drop(self.commands);
            drop(thread.join());
        }
    }
}

async fn work(shared: Arc<Shared>, mut commands: mpsc::UnboundedReceiver<Command>) {
    let (draining, drain) = watch::channel(false);
    let worker = Rc::new(Worker { shared, pool: Pool::default(), drain });
    let mut accepting: Vec<Option<AbortHandle>> = Vec::new();
    let mut sweep = tokio::time::interval(SWEEP_EVERY);
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                Some(Command::Listen(socket, listening)) => accepting.push(listen(&worker, socket, listening)),
                Some(Command::Unlisten(index)) => {
                    if let Some(task) = accepting.get_mut(index).and_then(Option::take) {
                        task.abort();
                    }
                }
                Some(Command::Drain) | None => break,
            },
            _ = sweep.tick() => {
                worker.pool.sweep(Instant::now());
                weir_plugins::sweep();
            }
        }
    }
    accepting.iter().flatten().for_each(AbortHandle::abort);
    draining.send_replace(true);
    let limit = worker.shared.snapshot.load().config.limits.drain;
    let done = async {
        while worker.shared.connections.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    if tokio::time::timeout(limit, done).await.is_err() {
        tracing::warn!("connections are still open after {limit:?} of draining; they are cut");
    }
}

fn listen(worker: &Rc<Worker>, socket: StdListener, listening: Arc<Listening>) -> Option<AbortHandle> {
    let name = Arc::clone(&listening.name);
    match tokio::net::TcpListener::from_std(socket) {
        Ok(listener) => Some(tokio::task::spawn_local(accept(Rc::clone(worker), listener, listening)).abort_handle()),
        Err(error) => {
            tracing::error!(listener = &*name, "cannot listen: {error}");
            None
        }
    }
}
