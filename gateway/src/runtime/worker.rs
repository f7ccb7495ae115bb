//! A worker: one thread, one runtime, its own connections, pools and policy instances.

use std::cell::Cell;
use std::net::TcpListener as StdListener;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle as Thread;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::runtime::LocalOptions;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use weir_plugins::Host;

use super::drain::{self, Orders};
use super::snapshot::Snapshot;
use crate::conn::ClientIp;
use crate::listen::accept::{Listening, Sometimes, Stop, accept};
use crate::listen::addresses::Addresses;
use crate::observe::Recorder;
use crate::pipeline::call_out;
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
    /// Client connections by address.
    pub addresses: Addresses,
    /// Connections refused because there were too many.
    pub refused: AtomicU64,
    /// Which of them are tunnels.
    pub tunnels: Arc<AtomicUsize>,
    /// Set once the process is on its way out: nothing should be sent to it any more, though it still serves.
    pub leaving: AtomicBool,
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
    /// When it is time for a line on connections that were refused.
    pub refusals: Sometimes,
    orders: watch::Receiver<Orders>,
    /// Connections told so far to close when they are idle.
    told: Cell<u32>,
}

/// What a worker is told.
#[derive(Debug)]
pub enum Command {
    /// Accept on this socket.
    Listen(StdListener, Arc<Listening>),
    /// Stop accepting on one listener.
    Unlisten {
        /// The number of its arrival.
        index: usize,
        /// Whether to take what the kernel has accepted first.
        empty_queue: bool,
    },
    /// Stop accepting at all.
    StopAccepting {
        /// Whether to take what the kernel has accepted first: not when another process will.
        empty_queue: bool,
        /// Told when nothing is accepted any more.
        done: oneshot::Sender<()>,
    },
    /// How connections shall end.
    Orders(Orders),
}

/// A running worker thread.
#[derive(Debug)]
pub struct Handle {
    commands: mpsc::UnboundedSender<Command>,
    thread: Option<Thread<()>>,
}

/// Tells a worker from somewhere else. It keeps no worker running.
#[derive(Clone, Debug)]
pub struct Teller(mpsc::UnboundedSender<Command>);

impl Teller {
    /// Tells the worker.
    pub fn tell(&self, command: Command) {
        // A worker that has ended needs no orders.
        drop(self.0.send(command));
    }
}

/// Bytes of a worker's stack, whatever the environment says: policies that run on it may take 512 KiB (`plugins/src/stack.rs`).
const STACK: usize = 4 << 20;

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
        DrainSignal(self.orders.clone())
    }

    /// Until when the next connection may stay idle, now that the worker drains.
    #[must_use]
    pub fn idle_until(&self) -> Instant {
        let number = self.told.get();
        self.told.set(number.wrapping_add(1));
        Instant::now() + drain::spread(number, self.shared.snapshot.load().config.limits.drain_idle)
    }

    /// Counts a tunnel, which has a life of its own when the worker drains.
    #[must_use]
    pub fn tunnel(&self) -> OpenTunnel {
        self.shared.tunnels.fetch_add(1, Ordering::Relaxed);
        OpenTunnel { count: Arc::clone(&self.shared.tunnels), signal: self.drain_signal() }
    }
}

/// A tunnel, until it is dropped.
#[derive(Debug)]
pub struct OpenTunnel {
    count: Arc<AtomicUsize>,
    /// Tells when to close it.
    pub signal: DrainSignal,
}

impl Drop for OpenTunnel {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Waits for the drain.
#[derive(Clone, Debug)]
pub struct DrainSignal(watch::Receiver<Orders>);

impl DrainSignal {
    /// Returns when the worker drains.
    pub async fn wait(&mut self) {
        self.wait_for(|orders| orders.draining).await;
    }

    /// Returns when tunnels are closed.
    pub async fn close_tunnels(&mut self) {
        self.wait_for(|orders| orders.close_tunnels).await;
    }

    async fn wait_for(&mut self, wanted: impl Fn(&Orders) -> bool) {
        // The sender lives as long as the worker; if it is gone, so is the reason to serve.
        drop(self.0.wait_for(|orders| wanted(orders)).await);
    }
}

impl Handle {
    /// Starts a worker thread.
    ///
    /// # Errors
    /// The thread or its runtime cannot be started.
    pub fn start(index: usize, shared: Arc<Shared>) -> Result<Self, String> {
        let (commands, received) = mpsc::unbounded_channel();
        let (started, start) = std::sync::mpsc::sync_channel(1);
        let run = move || {
            weir_plugins::become_worker(index);
            // The runtime is the thread's own: what runs on it needs no locks.
            match tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
                Ok(runtime) => {
                    drop(started.send(Ok(())));
                    runtime.block_on(work(shared, received));
                }
                Err(error) => drop(started.send(Err(error))),
            }
        };
        let builder = std::thread::Builder::new().name(format!("weir-worker-{index}")).stack_size(STACK);
        let thread = builder.spawn(run);
        let thread = thread.map_err(|error| format!("cannot start a thread: {error}"))?;
        let runtime = start.recv().unwrap_or_else(|_| Err(std::io::Error::other("the thread ended")));
        runtime.map_err(|error| format!("cannot start a runtime: {error}"))?;
        Ok(Self { commands, thread: Some(thread) })
    }

    /// Tells the worker.
    pub fn tell(&self, command: Command) {
        // A worker that has ended needs no orders.
        drop(self.commands.send(command));
    }

    /// Stops accepting; see [`Command::StopAccepting`]. What comes back is told when it is done.
    #[must_use]
    pub fn stop_accepting(&self, empty_queue: bool) -> oneshot::Receiver<()> {
        let (done, stopped) = oneshot::channel();
        self.tell(Command::StopAccepting { empty_queue, done });
        stopped
    }

    /// Another way to tell the worker.
    #[must_use]
    pub fn teller(&self) -> Teller {
        Teller(self.commands.clone())
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
    let (told, orders) = watch::channel(Orders::default());
    let worker = Worker { shared, pool: Pool::default(), refusals: Sometimes::default(), orders, told: Cell::new(0) };
    let worker = Rc::new(worker);
    let _installed = call_out::install(&worker);
    // By the number of their arrival.
    let mut accepting: Vec<Option<Accepting>> = Vec::new();
    let mut sweep = tokio::time::interval(SWEEP_EVERY);
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                Some(Command::Listen(socket, listening)) => accepting.push(listen(&worker, socket, listening)),
                Some(Command::Unlisten { index, empty_queue }) => {
                    if let Some(accepting) = accepting.get_mut(index).and_then(Option::take) {
                        accepting.stop(empty_queue).await;
                    }
                }
                Some(Command::StopAccepting { empty_queue, done }) => {
                    for accepting in accepting.drain(..).flatten() {
                        accepting.stop(empty_queue).await;
                    }
                    let _ = done.send(());
                }
                Some(Command::Orders(orders)) => {
                    if orders.end {
                        break;
                    }
                    told.send_replace(orders);
                }
                None => break,
            },
            _ = sweep.tick() => {
                worker.pool.sweep(Instant::now());
                weir_plugins::sweep();
            }
        }
    }
}

/// An accept loop.
struct Accepting {
    stop: oneshot::Sender<Stop>,
    task: JoinHandle<()>,
}

impl Accepting {
    /// Ends at once: the loop waits for nothing but connections, or a moment when there are no descriptors.
    async fn stop(self, empty_queue: bool) {
        // A loop that has ended needs no order.
        let _ = self.stop.send(Stop { empty_queue });
        drop(self.task.await);
    }
}

fn listen(worker: &Rc<Worker>, socket: StdListener, listening: Arc<Listening>) -> Option<Accepting> {
    let name = Arc::clone(&listening.name);
    match tokio::net::TcpListener::from_std(socket) {
        Ok(listener) => {
            let (stop, stopped) = oneshot::channel();
            let task = tokio::task::spawn_local(accept(Rc::clone(worker), listener, listening, stopped));
            Some(Accepting { stop, task })
        }
        Err(error) => {
            tracing::error!(listener = &*name, "cannot listen: {error}");
            None
        }
    }
}
