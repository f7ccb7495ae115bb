//! What a process is asked to do by signals, or by whoever holds it.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// SIGTERM, SIGINT, or a call: end. Repeated: sooner.
    Stop,
    /// SIGHUP: read the configuration again.
    Reload,
    /// SIGUSR2: let a new binary take over.
    Upgrade,
}

/// Where wishes come from.
#[derive(Debug)]
pub struct Wishes {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    user2: Signal,
    stop: mpsc::UnboundedReceiver<()>,
}

impl Wishes {
    /// Listens from now on. Call within a runtime, and before anybody is told that the process is ready: a signal that nobody listens
    /// for ends it.
    ///
    /// # Errors
    /// The system's.
    pub fn new(stop: mpsc::UnboundedReceiver<()>) -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            user2: signal(SignalKind::user_defined2())?,
            stop,
        })
    }

    /// The next one. Nothing is lost when the wait for it is given up.
    pub async fn next(&mut self) -> Wish {
        tokio::select! {
            Some(()) = self.stop.recv() => Wish::Stop,
            Some(()) = self.terminate.recv() => Wish::Stop,
            Some(()) = self.interrupt.recv() => Wish::Stop,
            Some(()) = self.hangup.recv() => Wish::Reload,
            Some(()) = self.user2.recv() => Wish::Upgrade,
            else => std::future::pending().await,
        }
    }

    /// The next wish to stop, on the way to the end where no other counts.
    pub async fn stop(&mut self) {
        while self.next().await != Wish::Stop {}
    }
}
