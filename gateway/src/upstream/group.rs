//! Upstream groups. A server's state outlives configurations: a reload forgets no outage and no connection.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use super::budget::Budget;
use super::health::{Probes, Rules, Standing};
use super::pick::{Candidate, pick};
use super::server::{Server, ServerTls};
use crate::config::{self, Url};

/// One upstream of a snapshot.
#[derive(Debug)]
pub struct Group {
    /// Its name in `weir.toml`.
    pub name: Arc<str>,
    /// Its servers in the order of the file.
    pub servers: Vec<Arc<Server>>,
    /// Time limits.
    pub timeouts: config::Timeouts,
    /// When to try another server.
    pub retry: config::Retry,
    /// How to ask servers how they are.
    pub health: Option<config::Health>,
    /// Retries so far, and those that the budget did not allow.
    pub retries: Retries,
    /// The only server of the lowest priority, if there is only one.
    first: Option<usize>,
    lots: AtomicUsize,
    requests: AtomicU64,
    budget: Mutex<Budget>,
}

/// Requests that were sent again.
#[derive(Debug, Default)]
pub struct Retries {
    /// Sent again.
    pub granted: AtomicU64,
    /// Not sent again because there were too many.
    pub over_budget: AtomicU64,
}

/// Every server alive in this process, by what identifies it.
#[derive(Debug, Default)]
pub struct Groups {
    servers: HashMap<Key, Weak<Server>>,
}

type Key = (Arc<str>, String, u32, Option<IpAddr>, Option<u64>, Rules);

impl Groups {
    /// The group of a configuration, with the servers that are already known.
    pub fn build(&mut self, upstream: &config::Upstream, tls: impl Fn(&Url) -> Option<ServerTls>) -> Arc<Group> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        self.servers.retain(|_, server| server.strong_count() > 0);
        let rules = rules(upstream);
        let mut servers = Vec::with_capacity(upstream.servers.len());
        for server in &upstream.servers {
            let tls = tls(&server.url);
            let identity = tls.as_ref().map(|tls| tls.identity);
            let key = (Arc::clone(&upstream.name), server.url.to_string(), server.priority, upstream.bind, identity, rules);
            let known = self.servers.get(&key).and_then(Weak::upgrade);
            let server = known.unwrap_or_else(|| {
                let id = NEXT.fetch_add(1, Ordering::Relaxed);
                Arc::new(Server::new(id, &upstream.name, &server.url, server.priority, upstream.bind, tls, rules))
            });
            self.servers.insert(key, Arc::downgrade(&server));
            servers.push(server);
        }
        Arc::new(Group {
            name: Arc::clone(&upstream.name),
            first: first(&servers),
            servers,
            timeouts: upstream.timeouts,
            retry: upstream.retry,
            health: upstream.health.clone(),
            retries: Retries::default(),
            lots: AtomicUsize::new(0),
            requests: AtomicU64::new(0),
            budget: Mutex::new(Budget::new(upstream.retry.budget, Instant::now())),
        })
    }
}

fn rules(upstream: &config::Upstream) -> Rules {
    let probes = upstream.health.as_ref().map(|health| Probes { fall: health.fall, rise: health.rise, stall: health.stall });
    Rules { probes, hold: upstream.failback.after, ramp: upstream.failback.ramp }
}

fn first(servers: &[Arc<Server>]) -> Option<usize> {
    let lowest = servers.iter().map(|server| server.priority).min()?;
    let mut those = servers.iter().enumerate().filter(|(_, server)| server.priority == lowest);
    let (index, _) = those.next()?;
    those.next().is_none().then_some(index)
}

impl Group {
    /// The next server for an exchange that has tried the servers with these ids. `lot` is its place in the rotation, asked for when it
    /// matters.
    #[must_use]
    pub fn pick(&self, tried: &[u64], lot: impl FnOnce() -> usize, now: Instant) -> Option<&Arc<Server>> {
        // One preferred server that is well is the common case and needs no list.
        if tried.is_empty()
            && let Some(first) = self.first.and_then(|index| self.servers.get(index))
            && (first.seen_standing() == Some(Standing::Ready) || self.servers.len() == 1)
        {
            return first.is_eligible(now).then_some(first);
        }
        let lot = lot();
        let draw = draw(lot);
        let candidate = |server: &Arc<Server>| Candidate {
            priority: server.priority,
            standing: server.standing(now, draw),
            tried: tried.contains(&server.id),
        };
        let candidates: Vec<_> = self.servers.iter().map(candidate).collect();
        self.servers.get(pick(&candidates, lot)?)
    }

    /// A place in the rotation among equal servers, and in the ramp of one that comes back.
    #[must_use]
    pub fn draw_lot(&self) -> usize {
        self.lots.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether every server is known to be down.
    #[must_use]
    pub fn is_down(&self, now: Instant) -> bool {
        !self.servers.iter().any(|server| server.is_eligible(now))
    }

    /// Counts a request, for the budget. A count that two workers write at once may be lost: the budget needs no better.
    pub fn count_request(&self) {
        self.requests.store(self.requests.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// Whether a request that a server may have seen can be sent again now.
    pub fn take_retry(&self, now: Instant) -> bool {
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        let granted = budget.take(self.requests.load(Ordering::Relaxed), now);
        let counter = if granted { &self.retries.granted } else { &self.retries.over_budget };
        counter.fetch_add(1, Ordering::Relaxed);
        granted
    }
}

/// Numbers from 0 to 1 that fill the range evenly, whatever stretch of lots is looked at: turns of the golden angle.
fn draw(lot: usize) -> f64 {
    const GOLDEN: f64 = 0.618_033_988_749_894_9;
    (lot as f64 * GOLDEN).fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_even() {
        for from in [0, 17, 12_345] {
            let below = |limit: f64| (from..from + 100).filter(|lot| draw(*lot) < limit).count();
            assert!((9..=11).contains(&below(0.1)) && (49..=51).contains(&below(0.5)), "from {from}");
        }
    }
}
