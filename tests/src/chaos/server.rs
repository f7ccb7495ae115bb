//! The upstream: a thread per connection.

use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::exchange;
use super::fault::Behaviour;
use super::journal::Journal;

/// The path of health checks, which are always answered well and never counted.
pub const HEALTH: &str = "/chaos/health";
/// The path that answers how many requests there were: two numbers, all and those that must not be executed twice.
pub const STATISTICS: &str = "/chaos/statistics";

/// What the threads share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) behaviour: Mutex<Behaviour>,
    pub(super) journal: Option<Journal>,
    /// A fault that ends the process may.
    pub(super) may_die: bool,
    pub(super) requests: AtomicU64,
    pub(super) writes: AtomicU64,
    stopping: AtomicBool,
    /// Those that end with the upstream, by number.
    connections: Mutex<HashMap<u64, TcpStream>>,
}

/// A running upstream, ended when dropped.
#[derive(Debug)]
pub struct ChaosUpstream {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl ChaosUpstream {
    /// Listens within this process.
    ///
    /// # Errors
    /// The address or the journal cannot be had.
    pub fn start(address: SocketAddr, behaviour: Behaviour, journal: Option<&Path>) -> io::Result<Self> {
        Self::listen(address, behaviour, journal, false)
    }

    /// Serves as the whole process, which a fault may end, until it is killed.
    ///
    /// # Errors
    /// The address or the journal cannot be had.
    pub fn run(address: SocketAddr, behaviour: Behaviour, journal: Option<&Path>) -> io::Result<()> {
        let mut upstream = Self::listen(address, behaviour, journal, true)?;
        let acceptor = upstream.acceptor.take().map(JoinHandle::join);
        acceptor.map_or(Ok(()), |joined| joined.map_err(|_| io::Error::other("the acceptor panicked")))
    }

    fn listen(address: SocketAddr, behaviour: Behaviour, journal: Option<&Path>, may_die: bool) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let shared = Arc::new(Shared {
            behaviour: Mutex::new(behaviour),
            journal: journal.map(Journal::open).transpose()?,
            may_die,
            requests: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            connections: Mutex::default(),
        });
        let address = listener.local_addr()?;
        let own = Arc::clone(&shared);
        let acceptor = std::thread::spawn(move || accept(&listener, &own));
        Ok(Self { address, shared, acceptor: Some(acceptor) })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Behaves like this from the next request on.
    pub fn behave(&self, behaviour: Behaviour) {
        *lock(&self.shared.behaviour) = behaviour;
    }

    /// Requests so far, health checks left out.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::SeqCst)
    }
}

impl Drop for ChaosUpstream {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Wakes the accept; when that fails nobody is waiting.
        drop(TcpStream::connect(self.address));
        if let Some(acceptor) = self.acceptor.take() {
            drop(acceptor.join());
        }
        for (_, connection) in lock(&self.shared.connections).drain() {
            drop(connection.shutdown(Shutdown::Both));
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for (number, stream) in (0..).zip(listener.incoming()) {
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        // Only to be ended with the upstream; as a process it ends with that.
        if !shared.may_die
            && let Ok(copy) = stream.try_clone()
        {
            lock(&shared.connections).insert(number, copy);
        }
        let own = Arc::clone(shared);
        let spawned = std::thread::Builder::new().stack_size(exchange::STACK).spawn(move || {
            // A connection that breaks ends its thread, as with any server.
            drop(exchange::converse(&own, stream));
            // The last descriptor: only now the end, or the reset, is sent.
            drop(lock(&own.connections).remove(&number));
        });
        drop(spawned);
    }
}

/// A panic in another thread is reported there.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
