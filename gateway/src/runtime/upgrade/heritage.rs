//! What a process keeps for its successor, and what it makes of it when one is started.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};

use super::message::{Down, FORMAT, Manifest, Passed};
use super::program::Program;
use super::successor::{Refusal, Successor};
use crate::admin;
use crate::runtime::listeners::Listeners;
use crate::runtime::snapshot::Snapshot;
use crate::runtime::sockets::Draining;
use crate::tls::tickets::Tickets;

/// Processes that drain beside the one that serves. Each holds memory for as long as its longest tunnel.
const MAX_DRAINING: usize = 2;

/// What a process keeps for its successor.
#[derive(Debug)]
pub struct Heritage {
    /// How to start it; none when nothing can replace this process.
    pub program: Option<Program>,
    /// Earlier generations that have not ended, oldest first.
    pub draining: Vec<Draining>,
    /// The keys of session tickets.
    pub tickets: Arc<Tickets>,
}

/// A hand-over that is put together, not begun.
#[derive(Debug)]
pub struct Bequest {
    program: Program,
    manifest: Manifest,
    descriptors: Vec<OwnedFd>,
    /// Generations that must go once there is one more.
    excess: Vec<Draining>,
}

impl Heritage {
    /// Puts everything together.
    ///
    /// # Errors
    /// Nothing can replace this process, or the system gives no more descriptors.
    pub fn pass(&self, listeners: &Listeners, admin: Option<&admin::Passed>, snapshot: &Snapshot) -> Result<Bequest, Refusal> {
        let program = self.program.clone().ok_or(Refusal::Unsupported)?;
        let mut passed = listeners.pass().map_err(Refusal::HandOver)?;
        if let Some(admin) = admin {
            let descriptor = admin.descriptor.try_clone().map_err(Refusal::HandOver)?;
            passed.push((Passed::Admin { address: admin.address.clone() }, descriptor));
        }
        let mut excess = self.alive().map_err(Refusal::HandOver)?;
        let kept = excess.split_off((excess.len() + 1).saturating_sub(MAX_DRAINING));
        passed.extend(kept.into_iter().map(|one| (Passed::Draining { pid: one.pid }, one.handle)));
        // Kernels before 5.3 have no pidfds; generations are not counted there.
        if let Ok(this) = pidfd_open(getpid(), PidfdFlags::empty()) {
            passed.push((Passed::Draining { pid: std::process::id() }, this));
        }
        let (what, descriptors) = passed.into_iter().unzip();
        let manifest = Manifest {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            descriptors: what,
            down: down(snapshot),
            tickets: self.tickets.export(),
        };
        Ok(Bequest { program, manifest, descriptors, excess })
    }

    fn alive(&self) -> std::io::Result<Vec<Draining>> {
        let running = self.draining.iter().filter(|one| !one.has_ended());
        running.map(|one| Ok(Draining { pid: one.pid, handle: one.handle.try_clone()? })).collect()
    }
}

impl Bequest {
    /// The binary that will be started.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program.path
    }

    /// Starts the successor; see [`Successor::start`].
    ///
    /// # Errors
    /// Why there is none.
    pub async fn start(self, patience: Duration) -> Result<Successor, Refusal> {
        let successor = Successor::start(&self.program, &self.manifest, &self.descriptors, patience).await?;
        for oldest in &self.excess {
            tracing::warn!(pid = oldest.pid, "too many processes drain: the oldest closes its tunnels");
            oldest.hurry();
        }
        Ok(successor)
    }
}

impl Draining {
    fn has_ended(&self) -> bool {
        let mut events = [PollFd::new(&self.handle, PollFlags::IN)];
        poll(&mut events, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
    }

    /// A process that drains takes SIGTERM as a word to hurry.
    fn hurry(&self) {
        // One that has just ended needs no word.
        let _ = pidfd_send_signal(self.handle.as_fd(), Signal::TERM);
    }
}

/// Servers that requests must not go to, or rather not, as far as this process knows.
fn down(snapshot: &Snapshot) -> Vec<Down> {
    let now = Instant::now();
    let mut down = Vec::new();
    for group in &snapshot.groups {
        for server in &group.servers {
            let held = match server.condition(now).state {
                "down" | "returning" => false,
                "held" => true,
                _ => continue,
            };
            let (upstream, label) = (group.name.to_string(), server.label.to_string());
            down.push(Down { upstream, server: label, priority: server.priority, held });
        }
    }
    down
}

/// Tells a snapshot of this process what its predecessor knew, so that no request has to find out again.
pub fn take_down(snapshot: &Snapshot, down: &[Down]) {
    for known in down {
        let group = snapshot.groups.iter().find(|group| *group.name == *known.upstream);
        let servers = group.iter().flat_map(|group| &group.servers);
        for server in servers.filter(|server| *server.label == *known.server && server.priority == known.priority) {
            server.on_inherited(known.held);
        }
    }
}
