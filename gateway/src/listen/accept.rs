//! The accept loop: a permit and a spawn, never a wait for the peer.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;

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

/// Accepts until the task is ended.
pub async fn accept(worker: Rc<Worker>, listener: TcpListener, listening: Arc<Listening>) {
    let mut burst = 0;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                if let Some(permit) = Permit::take(&worker) {
                    tokio::task::spawn_local(conn::run(Rc::clone(&worker), stream, peer, Arc::clone(&listening), permit));
                } else {
                    worker.shared.refused.fetch_add(1, Ordering::Relaxed);
                    drop(stream);
                }
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
