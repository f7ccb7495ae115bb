//! Upstream groups and their servers. A server's state outlives configurations: a reload forgets no outage and no connection.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;

use super::health::{Health, Thresholds};
use super::pick::{Candidate, pick};
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
    /// Further attempts after the first.
    pub attempts: u32,
    /// How to ask servers how they are.
    pub health: Option<config::Health>,
    turn: AtomicUsize,
}

/// One server, shared by all snapshots that name it alike.
#[derive(Debug)]
pub struct Server {
    /// Unique in this process; keys connection pools.
    pub id: u64,
    /// The upstream's name.
    pub group: Arc<str>,
    /// The URL as text, for logs.
    pub label: Arc<str>,
    /// Where it is.
    pub url: Url,
    /// 0 is preferred.
    pub priority: u32,
    /// The local address of connections to it.
    pub bind: Option<IpAddr>,
    /// How to speak TLS to it.
    pub tls: Option<ServerTls>,
    addresses: ArcSwap<Vec<SocketAddr>>,
    health: Mutex<Health>,
    /// What `health` said last, for the hot path.
    eligible: AtomicBool,
    paused: AtomicBool,
}

/// TLS towards one server.
#[derive(Clone)]
pub struct ServerTls {
    /// The name its certificate must have.
    pub name: ServerName<'static>,
    /// Trust and ALPN.
    pub config: Arc<ClientConfig>,
    /// What distinguishes this from another TLS identity at the same address.
    pub identity: u64,
}

impl std::fmt::Debug for ServerTls {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ServerTls").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Every server alive in this process, by what identifies it.
#[derive(Debug, Default)]
pub struct Groups {
    servers: HashMap<Key, Weak<Server>>,
}

type Key = (Arc<str>, String, u32, Option<IpAddr>, Option<u64>, Option<(u32, u32)>);

impl Groups {
    /// The group of a configuration, with the servers that are already known.
    pub fn build(&mut self, upstream: &config::Upstream, tls: impl Fn(&Url) -> Option<ServerTls>) -> Arc<Group> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        self.servers.retain(|_, server| server.strong_count() > 0);
        let thresholds = upstream.health.as_ref().map(|health| Thresholds { fall: health.fall, rise: health.rise });
        let mut servers = Vec::with_capacity(upstream.servers.len());
        for server in &upstream.servers {
            let tls = tls(&server.url);
            let label = server.url.to_string();
            let identity = tls.as_ref().map(|tls| tls.identity);
            let probes = thresholds.map(|thresholds| (thresholds.fall, thresholds.rise));
            let key = (Arc::clone(&upstream.name), label.clone(), server.priority, upstream.bind, identity, probes);
            let known = self.servers.get(&key).and_then(Weak::upgrade);
            let server = known.unwrap_or_else(|| {
                let addresses = server.url.ip().map(|ip| SocketAddr::new(ip, server.url.port)).into_iter().collect();
                Arc::new(Server {
                    id: NEXT.fetch_add(1, Ordering::Relaxed),
                    group: Arc::clone(&upstream.name),
                    label: label.into(),
                    url: server.url.clone(),
                    priority: server.priority,
                    bind: upstream.bind,
                    tls,
                    addresses: ArcSwap::from_pointee(addresses),
                    health: Mutex::new(Health::new(thresholds)),
                    eligible: AtomicBool::new(true),
                    paused: AtomicBool::new(false),
                })
            });
            self.servers.insert(key, Arc::downgrade(&server));
            servers.push(server);
        }
        Arc::new(Group {
            name: Arc::clone(&upstream.name),
            servers,
            timeouts: upstream.timeouts,
            attempts: upstream.retry.attempts,
            health: upstream.health.clone(),
            turn: AtomicUsize::new(0),
        })
    }
}

impl Group {
    /// The next server for an exchange that has tried the servers with these ids.
    #[must_use]
    pub fn pick(&self, tried: &[u64], now: Instant) -> Option<&Arc<Server>> {
        // One server is the common case and needs no list.
        if let [only] = self.servers.as_slice() {
            return (tried.is_empty() && only.is_eligible(now)).then_some(only);
        }
        let candidate = |server: &Arc<Server>| Candidate {
            priority: server.priority,
            eligible: server.is_eligible(now),
            tried: tried.contains(&server.id),
        };
        let candidates: Vec<_> = self.servers.iter().map(candidate).collect();
        self.servers.get(pick(&candidates, self.turn.fetch_add(1, Ordering::Relaxed))?)
    }

    /// Whether every server is known to be down.
    #[must_use]
    pub fn is_down(&self, now: Instant) -> bool {
        !self.servers.iter().any(|server| server.is_eligible(now))
    }
}

impl Server {
    /// Whether requests may go there. Takes no lock while all is well.
    #[must_use]
    pub fn is_eligible(&self, now: Instant) -> bool {
        if self.paused.load(Ordering::Relaxed) {
            return self.with_health(|health| health.is_eligible(now));
        }
        self.eligible.load(Ordering::Relaxed)
    }

    /// Notes a probe's result; answers whether the state changed.
    pub fn on_probe(&self, ok: bool) -> Option<bool> {
        let now = Instant::now();
        let (before, after) = self.with_health(|health| {
            let before = health.is_eligible(now);
            health.on_probe(ok);
            (before, health.is_eligible(now))
        });
        (before != after).then_some(after)
    }

    /// Notes that a connection for a request could not be made.
    pub fn on_connect_failure(&self) {
        self.with_health(|health| health.on_connect_failure(Instant::now()));
    }

    /// Notes that a connection for a request was made.
    pub fn on_connect_success(&self) {
        if self.paused.load(Ordering::Relaxed) {
            self.with_health(Health::on_connect_success);
        }
    }

    /// The addresses of its name, as of the last look-up.
    #[must_use]
    pub fn addresses(&self) -> Arc<Vec<SocketAddr>> {
        self.addresses.load_full()
    }

    /// Looks its name up again. A failed look-up keeps the addresses that were known.
    pub async fn resolve(&self) {
        const PATIENCE: Duration = Duration::from_secs(5);
        if self.url.ip().is_some() {
            return;
        }
        let look_up = tokio::net::lookup_host((self.url.host.as_str(), self.url.port));
        match tokio::time::timeout(PATIENCE, look_up).await {
            Ok(Ok(found)) => {
                let addresses: Vec<_> = found.collect();
                if !addresses.is_empty() {
                    self.addresses.store(Arc::new(addresses));
                }
            }
            Ok(Err(error)) => tracing::warn!(upstream = &*self.group, server = &*self.label, "cannot resolve: {error}"),
            Err(_) => tracing::warn!(upstream = &*self.group, server = &*self.label, "cannot resolve: no answer"),
        }
    }

    fn with_health<T>(&self, change: impl FnOnce(&mut Health) -> T) -> T {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut health);
        let eligible = health.is_eligible(Instant::now());
        self.eligible.store(eligible, Ordering::Relaxed);
        self.paused.store(!eligible && !health.has_probes(), Ordering::Relaxed);
        changed
    }
}
