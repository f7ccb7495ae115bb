//! Idle connections to servers, one pool per worker.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use hyper::client::conn::http2;

use super::connect::Sender;
use crate::http::body::RequestBody;
use crate::http1::client::Connection;

/// Idle connections a worker keeps to one server.
const MAX_IDLE: usize = 256;

/// The pool of one worker.
#[derive(Debug, Default)]
pub struct Pool {
    servers: RefCell<HashMap<u64, Idle>>,
}

#[derive(Debug, Default)]
struct Idle {
    /// Most recently used last.
    http1: Vec<(Box<Connection>, Instant)>,
    http2: Option<http2::SendRequest<RequestBody>>,
}

impl Pool {
    /// A connection that is ready to send, most recently used first, idle for less than `limit`.
    #[must_use]
    pub fn take(&self, server: u64, limit: Duration, now: Instant) -> Option<Sender> {
        let mut servers = self.servers.borrow_mut();
        let idle = servers.get_mut(&server)?;
        if let Some(sender) = idle.http2.clone() {
            if sender.is_ready() {
                return Some(Sender::Http2(sender));
            }
            idle.http2 = None;
        }
        while let Some((mut connection, since)) = idle.http1.pop() {
            if now.duration_since(since) < limit && !connection.is_stale() {
                return Some(Sender::Http1(connection));
            }
        }
        None
    }

    /// Keeps a connection whose exchange has ended.
    pub fn keep(&self, server: u64, connection: Box<Connection>, now: Instant) {
        let mut servers = self.servers.borrow_mut();
        let idle = servers.entry(server).or_default();
        if idle.http1.len() < MAX_IDLE {
            idle.http1.push((connection, now));
        }
    }

    /// Keeps a connection that carries many exchanges.
    pub fn share(&self, server: u64, sender: &http2::SendRequest<RequestBody>) {
        self.servers.borrow_mut().entry(server).or_default().http2 = Some(sender.clone());
    }

    /// Closes what has been idle for `limit` or longer, and what is closed. Call it now and then.
    pub fn sweep(&self, limit: Duration, now: Instant) {
        self.servers.borrow_mut().retain(|_, idle| {
            idle.http1.retain_mut(|(connection, since)| now.duration_since(*since) < limit && !connection.is_stale());
            if idle.http2.as_ref().is_some_and(http2::SendRequest::is_closed) {
                idle.http2 = None;
            }
            !idle.http1.is_empty() || idle.http2.is_some()
        });
    }
}
