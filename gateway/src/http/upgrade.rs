//! Two connections joined into a tunnel (WebSocket and whatever else answers 101).

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Instant;

use crate::finish::{End, Finish};
use crate::http1::client::Connection;
use crate::http1::deadline::{Deadline, after};
use crate::http1::downstream::Downstream;
use crate::http1::wire::Wire;

/// For the end of one direction to be taken.
const GOODBYE: Duration = Duration::from_secs(5);

/// A server's side that waits for its client.
#[derive(Debug)]
pub struct Tunnel {
    /// The connection to the server, which has left HTTP.
    pub upstream: Box<Connection>,
    /// How long nothing may move.
    pub idle: Duration,
    /// The exchange that has become a tunnel.
    pub finish: Box<Finish>,
}

/// Relays bytes both ways until both sides have ended, one has failed, nothing moves for the tunnel's idle time, or the process closes its
/// tunnels; then ends the exchange.
pub async fn run(downstream: &RefCell<Downstream>, tunnel: Tunnel) {
    let Tunnel { mut upstream, idle, mut finish } = tunnel;
    let (mut up, mut down) = (Direction::default(), Direction::default());
    let mut deadline = Deadline::default();
    let mut quiet = (0, Instant::now());
    let mut open = finish.tunnel();
    let mut closing = pin!(open.signal.close_tunnels());
    let mut is_closing = false;
    poll_fn(|context| {
        let client = &mut downstream.borrow_mut().wire;
        let server = upstream.wire();
        if !is_closing && closing.as_mut().poll(context).is_ready() {
            is_closing = true;
            quiet.1 = Instant::now();
            up.ended = true;
            down.ended = true;
        }
        let ended = (up.poll(client, server, context), down.poll(server, client, context));
        match ended {
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) | (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => {
                return Poll::Ready(());
            }
            _ => {}
        }
        let moved = up.moved + down.moved;
        if moved != quiet.0 {
            quiet = (moved, Instant::now());
        }
        // A peer that does not take the end needs no long goodbye.
        let wait = if up.is_closing() || down.is_closing() { GOODBYE } else { idle };
        deadline.poll(context, after(quiet.1, wait))
    })
    .await;
    finish.bytes_in.set(finish.bytes_in.get() + up.moved);
    finish.record.bytes_out += down.moved;
    finish.end(End::Complete);
}

/// One direction: a closed side is passed on as a closed side, so that half-closed tunnels work.
#[derive(Debug, Default)]
struct Direction {
    moved: u64,
    ended: bool,
    shut: bool,
}

impl Direction {
    const fn is_closing(&self) -> bool {
        self.ended && !self.shut
    }

    fn poll(&mut self, from: &mut Wire, to: &mut Wire, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(to.poll_send(context))?;
            if !from.input.is_empty() {
                let data = from.input.split().freeze();
                self.moved += data.len() as u64;
                to.push(data, b"");
                continue;
            }
            if self.ended {
                if !self.shut {
                    ready!(to.poll_shutdown(context))?;
                    self.shut = true;
                }
                return Poll::Ready(Ok(()));
            }
            if ready!(from.poll_fill(context))? == 0 {
                self.ended = true;
            }
        }
    }
}
