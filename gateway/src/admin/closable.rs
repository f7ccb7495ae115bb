//! A listener that is closed while its connections go on: a successor has the same socket, and whoever connects next is its client.

use std::future::pending;
use std::io;

use axum::serve::Listener;
use tokio::sync::watch;

/// How far the end of the admin API has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// Not begun.
    #[default]
    Serving,
    /// No new connections.
    Closed,
    /// Answers under way are finished, nothing else.
    Ending,
}

/// The listener.
#[derive(Debug)]
pub(super) struct Closable<L> {
    listener: Option<L>,
    stage: watch::Receiver<Stage>,
}

impl<L> Closable<L> {
    pub(super) const fn new(listener: L, stage: watch::Receiver<Stage>) -> Self {
        Self { listener: Some(listener), stage }
    }
}

impl<L: Listener> Listener for Closable<L> {
    type Io = L::Io;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        if let Some(listener) = &mut self.listener {
            // The order first: what is accepted after it would be a client of the wrong process.
            tokio::select! {
                biased;
                () = closed(&mut self.stage) => {}
                accepted = listener.accept() => return accepted,
            }
        }
        self.listener = None;
        pending().await
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.as_ref().map_or_else(|| Err(io::ErrorKind::NotConnected.into()), Listener::local_addr)
    }
}

async fn closed(stage: &mut watch::Receiver<Stage>) {
    // Without anybody to give orders there is nobody to serve for.
    drop(stage.wait_for(|stage| *stage != Stage::Serving).await);
}

/// Returns when nothing but answers under way shall be served.
pub(super) async fn ending(mut stage: watch::Receiver<Stage>) {
    drop(stage.wait_for(|stage| *stage == Stage::Ending).await);
}
