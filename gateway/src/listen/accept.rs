//! The accept loop: a permit and a spawn, never a wait for the peer.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::conn;
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
    let mut burst = 0;
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
                tracing::warn!(listener = &*listening.name, "cannot accept: {error}");
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
        }
    }
}

fn begin(worker: &Rc<Worker>, stream: TcpStream, peer: SocketAddr, listening: &Arc<Listening>) {
    if let Some(permit) = Permit::take(worker) {
        tokio::task::spawn_local(conn::run(Rc::clone(worker), stream, peer, Arc::clone(listening), permit));
    } else {
        worker.shared.refused.fetch_add(1, Ordering::Relaxed);
        drop(stream);
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

/// One of the connections the process may hold.
#[derive(Debug)]
pub struct Permit(Arc<AtomicUsize>);

impl Permit {
    fn take(worker: &Worker) -> Option<Self> {
        let open = &worker.shared.connections;
        if open.fetch_add(1, Ordering::Relaxed) >= worker.shared.max_connections.load(Ordering::Relaxed) {
            open.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Self(Arc::clone(open)))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
