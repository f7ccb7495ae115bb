//! The control thread: health checks, listeners, the admin API, signals. Nothing on it is in the path of a request.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;

use tokio::net::TcpSocket;
use tokio::sync::{mpsc, oneshot, watch};

use super::builder::Event;
use super::snapshot::Snapshot;
use super::worker::{Command, Handle, Shared};
use crate::admin;
use crate::config::{self, Listener};
use crate::listen::accept::Listening;
use crate::upstream::probe;

/// Connections the kernel holds for a worker that is busy.
const BACKLOG: u32 = 4096;

/// A listener in use.
#[derive(Debug)]
pub struct Bound {
    /// As configured.
    pub listener: Listener,
    /// Where it really is.
    pub address: SocketAddr,
    /// The number of its arrival at the workers.
    index: usize,
    /// Kept, so that the same address can be served in another form without letting go of it.
    socket: StdListener,
}

/// The listeners of a process.
#[derive(Debug, Default)]
pub struct Listeners {
    bound: Vec<Bound>,
    next: usize,
}

impl Listeners {
    /// Binds what is new and lets go of what is gone. What cannot be bound is an error and changes nothing else.
    ///
    /// # Errors
    /// Every listener that cannot be bound.
    pub fn apply(&mut self, wanted: &[Listener], workers: &[Handle]) -> Result<(), Vec<config::Error>> {
        let mut errors = Vec::new();
        let form = |listener: &Listener| (listener.address, listener.tls, listener.proxy_protocol);
        let mut old = std::mem::take(&mut self.bound);
        let mut changed = Vec::new();
        for listener in wanted {
            // Listeners on port 0 may repeat: each stands for one of its own.
            match old.iter().position(|bound| form(&bound.listener) == form(listener)) {
                Some(index) => self.bound.push(old.swap_remove(index)),
                None => changed.push(listener),
            }
        }
        for bound in &old {
            workers.iter().for_each(|worker| worker.tell(Command::Unlisten(bound.index)));
        }
        for listener in changed {
            let kept = old.iter().position(|bound| bound.listener.address == listener.address && listener.address.port() != 0);
            let socket = kept.map_or_else(|| bind(listener.address), |index| Ok(old.swap_remove(index).socket));
            if let Err(error) = socket.and_then(|socket| self.hand_out(listener, socket, workers)) {
                errors.push(cannot_listen(listener, &error));
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// What is bound, in the order it was bound.
    #[must_use]
    pub fn bound(&self) -> &[Bound] {
        &self.bound
    }

    fn hand_out(&mut self, listener: &Listener, socket: StdListener, workers: &[Handle]) -> std::io::Result<()> {
        let address = socket.local_addr()?;
        let name = Arc::from(address.to_string());
        let listening = Arc::new(Listening { name, tls: listener.tls, proxy_protocol: listener.proxy_protocol });
        for worker in workers {
            worker.tell(Command::Listen(socket.try_clone()?, Arc::clone(&listening)));
        }
        self.bound.push(Bound { listener: listener.clone(), address, index: self.next, socket });
        self.next += 1;
        Ok(())
    }
}

fn bind(address: SocketAddr) -> std::io::Result<StdListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

fn cannot_listen(listener: &Listener, error: &std::io::Error) -> config::Error {
    use std::io::ErrorKind::{AddrInUse, AddrNotAvailable, PermissionDenied};
    let hint = match error.kind() {
        AddrInUse => "another process listens there: `ss -ltnp` names it",
        AddrNotAvailable => "no interface of this machine has this address",
        PermissionDenied => "ports below 1024 need root or CAP_NET_BIND_SERVICE",
        _ => "check the address",
    };
    config::Error {
        location: Some(listener.at.clone()),
        key: "listener.address".to_owned(),
        message: format!("cannot listen on {}: {error}", listener.address),
        hint: Some(hint.to_owned()),
    }
}

/// What the control thread works with.
#[derive(Debug)]
pub struct Control {
    /// Shared with the workers.
    pub shared: Arc<Shared>,
    /// The workers.
    pub workers: Vec<Handle>,
    /// What they listen on.
    pub listeners: Listeners,
    /// Orders for the builder.
    pub events: mpsc::UnboundedSender<Event>,
    /// Published snapshots.
    pub published: watch::Receiver<Arc<Snapshot>>,
    /// Where the admin API is served.
    pub admin_socket: admin::Socket,
    /// What the admin API answers from.
    pub admin: Arc<admin::State>,
}

impl Control {
    /// Runs until `stop` is told, then drains. Call in a `LocalSet`.
    pub async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        let snapshot = self.published.borrow_and_update().clone();
        let metrics = Arc::clone(self.shared.recorder.metrics());
        let mut probes = probe::start(&snapshot.groups, &metrics);
        let admin = tokio::task::spawn_local(admin::serve(self.admin_socket, Arc::clone(&self.admin)));
        let mut hangup = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).ok();
        loop {
            tokio::select! {
                _ = &mut stop => break,
                changed = self.published.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    let snapshot = self.published.borrow_and_update().clone();
                    metrics.retain_servers(|upstream, server| {
                        snapshot.groups.iter().any(|group| {
                            *group.name == *upstream && group.servers.iter().any(|known| *known.label == *server)
                        })
                    });
                    probes = probe::start(&snapshot.groups, &metrics);
                    if let Err(errors) = self.listeners.apply(&snapshot.config.listeners, &self.workers) {
                        for error in errors {
                            tracing::error!("{error}");
                        }
                    }
                }
                () = next_hangup(&mut hangup) => {
                    self.shared.recorder.reopen();
                    let (reply, _) = oneshot::channel();
                    drop(self.events.send(Event::Reload(reply)));
                }
            }
        }
        drop(probes);
        // Whoever comes now shall be refused, not queued.
        drop(self.listeners);
        drain(&self.shared, self.workers).await;
        admin.abort();
    }
}

async fn drain(shared: &Shared, workers: Vec<Handle>) {
    shared.draining.store(true, std::sync::atomic::Ordering::Relaxed);
    workers.iter().for_each(|worker| worker.tell(Command::Drain));
    // The admin API answers while the last requests finish.
    let joined = tokio::task::spawn_blocking(move || workers.into_iter().for_each(Handle::join)).await;
    if joined.is_err() {
        tracing::error!("a worker ended badly");
    }
}

async fn next_hangup(hangup: &mut Option<tokio::signal::unix::Signal>) {
    if let Some(signal) = hangup
        && signal.recv().await.is_some()
    {
        return;
    }
    std::future::pending::<()>().await;
}
