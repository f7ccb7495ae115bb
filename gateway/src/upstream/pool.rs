//! Idle connections to servers, one pool per worker.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hyper::client::conn::http2;

use super::connect::Sender;
use crate::hash::BuildShort;
use crate::http::body::RequestBody;
use crate::http1::client::Connection;

/// Idle connections a worker keeps to one server.
const MAX_IDLE: usize = 256;

/// The pool of one worker; clones are the same pool.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    servers: Rc<RefCell<HashMap<u64, Idle, BuildShort>>>,
}

#[derive(Debug, Default)]
struct Idle {
    /// With the end of their time; most recently used last.
    http1: Vec<(Box<Connection>, Instant)>,
    http2: Option<http2::SendRequest<RequestBody>>,
}

impl Pool {
    /// A connection that is ready to send and whose time is not over, most recently used first. One that its server has closed is not
    /// ready: its driver sees the end with the same turn of the event loop that brings new requests.
    #[must_use]
    pub fn take(&self, server: u64, now: Instant) -> Option<Sender> {
        let mut servers = self.servers.borrow_mut();
        let idle = servers.get_mut(&server)?;
        if let Some(sender) = idle.http2.clone() {
            if sender.is_ready() {
                return Some(Sender::Http2(sender));
            }
            idle.http2 = None;
        }
        while let Some((mut connection, until)) = idle.http1.pop() {
            if now < until && !connection.is_stale() {
                return Some(Sender::Http1(connection));
            }
        }
        None
    }

    /// Keeps a connection whose exchange has ended, for `idle` at most.
    pub fn keep(&self, server: u64, connection: Box<Connection>, idle: Duration, now: Instant) {
        let mut servers = self.servers.borrow_mut();
        let kept = servers.entry(server).or_default();
        if kept.http1.len() < MAX_IDLE {
            kept.http1.push((connection, now + idle));
        }
    }

    /// Keeps a connection that carries many exchanges.
    pub fn share(&self, server: u64, sender: &http2::SendRequest<RequestBody>) {
        self.servers.borrow_mut().entry(server).or_default().http2 = Some(sender.clone());
    }

    /// Keeps a new connection that nobody waits for any more.
    pub fn keep_new(&self, server: u64, sender: Sender, idle: Duration) {
        match sender {
            Sender::Http1(connection) => self.keep(server, connection, idle, Instant::now()),
            Sender::Http2(sender) => self.share(server, &sender),
        }
    }

    /// Closes what has been idle for too long, and what is closed. Call it now and then.
    pub fn sweep(&self, now: Instant) {
        self.servers.borrow_mut().retain(|_, idle| {
            idle.http1.retain_mut(|(connection, until)| now < *until && !connection.is_stale());
            if idle.http2.as_ref().is_some_and(http2::SendRequest::is_closed) {
                idle.http2 = None;
            }
            !idle.http1.is_empty() || idle.http2.is_some()
        });
    }
}
