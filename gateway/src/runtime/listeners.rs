//! The listeners of a process: bound, changed and let go while it runs, and passed to its successor.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use super::sockets::{self, Inherited, Socket};
use super::upgrade::message::Passed;
use super::worker::{Command, Handle, Teller};
use crate::config::{self, Listener};
use crate::listen::accept::Listening;

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
    socket: Socket,
}

/// The listeners of a process.
#[derive(Debug, Default)]
pub struct Listeners {
    bound: Vec<Bound>,
    next: usize,
}

/// Between the moment from which newcomers are ignored and the last look into the queue: a slow client's round trip.
const SETTLE: Duration = Duration::from_millis(250);

impl Listeners {
    /// Binds what is new and lets go of what is gone. What cannot be bound is an error and changes nothing else. Without workers, the
    /// sockets are bound and nobody accepts until [`Listeners::announce`].
    ///
    /// # Errors
    /// Every listener that cannot be bound.
    pub fn apply(
        &mut self,
        wanted: &[Listener],
        workers: &[Handle],
        inherited: &mut Inherited,
    ) -> Result<(), Vec<config::Error>> {
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
        for listener in changed {
            let kept = old.iter().position(|bound| bound.listener.address == listener.address && listener.address.port() != 0);
            let socket = match kept.map(|index| old.swap_remove(index)) {
                Some(bound) => {
                    // What is in its queue is served in the new form.
                    let index = bound.index;
                    workers.iter().for_each(|worker| worker.tell(Command::Unlisten { index, empty_queue: false }));
                    Ok(bound.socket)
                }
                None => inherited.take(listener).map_or_else(|| sockets::bind(listener.address), Ok),
            };
            if let Err(error) = socket.and_then(|socket| self.hand_out(listener, socket, workers)) {
                errors.push(cannot_listen(listener, &error));
            }
        }
        let tellers: Vec<Teller> = workers.iter().map(Handle::teller).collect();
        for bound in old {
            let tellers = tellers.clone();
            tokio::task::spawn_local(async move { bound.close(&tellers).await });
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// What is bound, in the order it was bound.
    #[must_use]
    pub fn bound(&self) -> &[Bound] {
        &self.bound
    }

    /// Has the workers accept on everything that is bound.
    ///
    /// # Errors
    /// The system gives no more descriptors.
    pub fn announce(&self, workers: &[Handle]) -> std::io::Result<()> {
        self.bound.iter().try_for_each(|bound| bound.announce(workers))
    }

    /// What a successor is told of them, and their sockets.
    ///
    /// # Errors
    /// The system gives no more descriptors.
    pub fn pass(&self) -> std::io::Result<Vec<(Passed, OwnedFd)>> {
        let one = |bound: &Bound| {
            let passed = Passed::Listener {
                configured: bound.listener.address,
                tls: bound.listener.tls,
                proxy_protocol: bound.listener.proxy_protocol,
                shared: bound.socket.shared,
            };
            Ok((passed, bound.socket.listener.as_fd().try_clone_to_owned()?))
        };
        self.bound.iter().map(one).collect()
    }

    /// Lets go of all of them. When nobody else has them, returns only when what the kernel has accepted is on its way.
    pub async fn close(self, workers: &[Handle], has_successor: bool) {
        let mut waiting = false;
        if !has_successor {
            for bound in self.bound.iter().filter(|bound| !bound.socket.shared) {
                sockets::ignore_newcomers(&bound.socket.listener);
                waiting = true;
            }
        }
        if waiting {
            tokio::time::sleep(SETTLE).await;
        }
        let stopped = workers.iter().map(|worker| worker.stop_accepting(!has_successor));
        for stopped in stopped.collect::<Vec<_>>() {
            // A worker that has ended accepts nothing.
            drop(stopped.await);
        }
    }

    fn hand_out(&mut self, listener: &Listener, socket: Socket, workers: &[Handle]) -> std::io::Result<()> {
        let address = socket.listener.local_addr()?;
        let bound = Bound { listener: listener.clone(), address, index: self.next, socket };
        bound.announce(workers)?;
        self.bound.push(bound);
        self.next += 1;
        Ok(())
    }
}

impl Bound {
    fn announce(&self, workers: &[Handle]) -> std::io::Result<()> {
        let name = Arc::from(self.address.to_string());
        let listener = &self.listener;
        let listening = Arc::new(Listening { name, tls: listener.tls, proxy_protocol: listener.proxy_protocol });
        for worker in workers {
            worker.tell(Command::Listen(self.socket.listener.try_clone()?, Arc::clone(&listening)));
        }
        Ok(())
    }

    async fn close(self, workers: &[Teller]) {
        if !self.socket.shared {
            sockets::ignore_newcomers(&self.socket.listener);
            tokio::time::sleep(SETTLE).await;
        }
        workers.iter().for_each(|worker| worker.tell(Command::Unlisten { index: self.index, empty_queue: !self.socket.shared }));
    }
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
