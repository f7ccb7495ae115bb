//! The accept loop: a permit and a spawn, never a wait for the peer.

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::addresses::Place;
use super::conn;
use crate::conn::ClientIp;
use crate::http::forwarded;
use crate::runtime::worker::Worker;

/// A bound listener, as all workers see it.
#[derive(Debug)]
pub struct Listening {
    /// The address as configured, for logs and policies.
    pub name: Arc<str>,
    /// Whether its connections start with a TLS handshake.
    pub tls: bool,
    /// Whether its connections start with a PROXY header.
    pub proxy_protocol: bool,
}

/// Pause when the process is out of file descriptors: accepting is what would need one.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// Connections to take in a row before other tasks of the worker get their turn.
const BURST: u32 = 32;

/// How an accept loop ends.
#[derive(Clone, Copy, Debug)]
pub struct Stop {
    /// Take what the kernel has accepted first: closing the socket would reset it.
    pub empty_queue: bool,
}

/// Connections to take from the queue of a socket that is closed, at most: as many as the queue holds.
const MAX_QUEUE: usize = 4096;

/// Accepts until it is told to stop.
pub async fn accept(worker: Rc<Worker>, listener: TcpListener, listening: Arc<Listening>, mut stopped: oneshot::Receiver<Stop>) {
    let (mut burst, said) = (0, Sometimes::default());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            stop = &mut stopped => {
                if stop.is_ok_and(|stop| stop.empty_queue) {
                    empty_queue(&worker, listener, &listening);
                }
                return;
            }
        };
        match accepted {
            Ok((stream, peer)) => {
                begin(&worker, stream, peer, &listening);
                burst += 1;
                if burst == BURST {
                    burst = 0;
                    tokio::task::yield_now().await;
                }
            }
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                worker.shared.recorder.metrics().accept_failed();
                if let Some(before) = said.now() {
                    tracing::warn!(listener = &*listening.name, before, "cannot accept: {error}");
                }
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
        }
    }
}

fn begin(worker: &Rc<Worker>, stream: TcpStream, peer: SocketAddr, listening: &Arc<Listening>) {
    match Permit::take(worker, peer.ip()) {
        Ok(permit) => {
            tokio::task::spawn_local(conn::run(Rc::clone(worker), stream, peer, Arc::clone(listening), permit));
        }
        Err(reason) => {
            drop(stream);
            refuse(worker, listening, peer, reason);
        }
    }
}

/// Takes everything that waits in the kernel. Asked directly: the runtime may not have heard of it yet.
fn empty_queue(worker: &Rc<Worker>, listener: TcpListener, listening: &Arc<Listening>) {
    let Ok(listener) = listener.into_std() else { return };
    for _ in 0..MAX_QUEUE {
        match listener.accept() {
            Ok((stream, peer)) => {
                let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
                if let Ok(stream) = stream {
                    begin(worker, stream, peer, listening);
                }
            }
            Err(error) if is_about_one_connection(&error) => {}
            // Nothing more, or no descriptors.
            Err(_) => return,
        }
    }
}

fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Counts a connection that has no place, and records one a second: a flood must not become a flood of lines.
fn refuse(worker: &Rc<Worker>, listening: &Listening, peer: SocketAddr, reason: TooMany) {
    if reason == TooMany::InAll {
        worker.shared.refused.fetch_add(1, Ordering::Relaxed);
    }
    match worker.refusals.now() {
        Some(before) => {
            let client = ClientIp(peer.ip().to_canonical());
            let detail = format!("{before} more were refused since the last line");
            conn::lost(worker, listening, peer, client, None, reason.as_str(), detail);
        }
        None => worker.shared.recorder.metrics().refused_connection(reason.as_str()),
    }
}

/// Says yes at most once a second, and then how often it has said no.
#[derive(Debug, Default)]
pub struct Sometimes {
    last: Cell<Option<Instant>>,
    silent: Cell<u64>,
}

impl Sometimes {
    /// How often it was not the time since the last time; nothing when it is not the time.
    fn now(&self) -> Option<u64> {
        let now = Instant::now();
        if self.last.get().is_some_and(|last| now.duration_since(last) < Duration::from_secs(1)) {
            self.silent.set(self.silent.get() + 1);
            return None;
        }
        self.last.set(Some(now));
        Some(self.silent.take())
    }
}

/// Why there is no place for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TooMany {
    InAll,
    OfOneAddress,
}

impl TooMany {
    const fn as_str(self) -> &'static str {
        match self {
            Self::InAll => "too_many_connections",
            Self::OfOneAddress => "too_many_connections_per_address",
        }
    }
}

/// One of the connections the process may hold, and its client.
#[derive(Debug)]
pub struct Permit {
    open: Arc<AtomicUsize>,
    /// Proxies speak for many clients, and are not counted as one.
    _place: Option<Place>,
}

impl Permit {
    fn take(worker: &Worker, peer: IpAddr) -> Result<Self, TooMany> {
        let shared = &worker.shared;
        let snapshot = shared.snapshot.load();
        let (most, proxies) = (snapshot.config.limits.connections_per_address, &snapshot.config.trusted_proxies);
        let place = if forwarded::is_trusted(peer, proxies) {
            None
        } else {
            Some(shared.addresses.take(peer, most).ok_or(TooMany::OfOneAddress)?)
        };
        if shared.connections.fetch_add(1, Ordering::Relaxed) >= shared.max_connections.load(Ordering::Relaxed) {
            shared.connections.fetch_sub(1, Ordering::Relaxed);
            return Err(TooMany::InAll);
        }
        Ok(Self { open: Arc::clone(&shared.connections), _place: place })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}
