//! One server: where it is, how to speak to it, and how it is doing. Shared by all snapshots that name it alike.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::sync::Notify;

use super::health::{Cause, Health, Probed, Rules, Standing};
use crate::config::Url;

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
    /// What happened to it so far.
    pub counts: Counts,
    addresses: ArcSwap<Vec<SocketAddr>>,
    /// The index of the address that answered last.
    answering: AtomicUsize,
    health: Mutex<Health>,
    /// What `health` said last, for the hot path: a [`Standing`], or [`ASK`] while it changes with time.
    seen: AtomicU8,
    /// Whether successes matter at the moment.
    watched: AtomicBool,
    /// Whether somebody tries connections in the background.
    checking: AtomicBool,
    /// Tells whoever does that somebody waits for the result.
    wanted: Arc<Notify>,
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

/// What happened to a server, counted off the common path.
#[derive(Debug, Default)]
pub struct Counts {
    /// Connections made, those of probes not among them.
    pub connects: AtomicU64,
    /// Connections that could not be made.
    pub connect_failures: AtomicU64,
    /// Connections that took so long that another server was tried too.
    pub slow_connects: AtomicU64,
    /// New connections that ended before a response to their request.
    pub resets: AtomicU64,
    /// Kept connections that ended just as they were used again.
    pub stale: AtomicU64,
    /// Probes that were answered as expected.
    pub good_probes: AtomicU64,
    /// Probes with the wrong answer or none.
    pub failed_probes: AtomicU64,
    /// Probes that connected and got no answer in time.
    pub slow_probes: AtomicU64,
    /// Times it went down.
    pub outages: AtomicU64,
}

impl Counts {
    /// Counts one.
    pub fn note(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Every number with its name.
    #[must_use]
    pub fn all(&self) -> [(&'static str, u64); 9] {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("connects", read(&self.connects)),
            ("connect_failures", read(&self.connect_failures)),
            ("slow_connects", read(&self.slow_connects)),
            ("resets", read(&self.resets)),
            ("stale", read(&self.stale)),
            ("good_probes", read(&self.good_probes)),
            ("failed_probes", read(&self.failed_probes)),
            ("slow_probes", read(&self.slow_probes)),
            ("outages", read(&self.outages)),
        ]
    }
}

/// How a server is doing, in words and numbers.
#[derive(Clone, Copy, Debug)]
pub struct Condition {
    /// `ready`, `ramping`, `held`, `suspect`, `returning` or `down`.
    pub state: &'static str,
    /// For how long.
    pub lasting: Duration,
    /// Why, when it is not ready.
    pub cause: Option<Cause>,
    /// The share of requests it gets by its priority, 0 to 1.
    pub share: f64,
}

/// `seen` while the standing changes with time.
const ASK: u8 = u8::MAX;

impl Server {
    pub(super) fn new(
        id: u64,
        group: &Arc<str>,
        url: &Url,
        priority: u32,
        bind: Option<IpAddr>,
        tls: Option<ServerTls>,
        rules: Rules,
    ) -> Self {
        let addresses = url.ip().map(|ip| SocketAddr::new(ip, url.port)).into_iter().collect();
        Self {
            id,
            group: Arc::clone(group),
            label: url.to_string().into(),
            url: url.clone(),
            priority,
            bind,
            tls,
            counts: Counts::default(),
            addresses: ArcSwap::from_pointee(addresses),
            answering: AtomicUsize::new(0),
            health: Mutex::new(Health::new(rules, Instant::now())),
            seen: AtomicU8::new(Standing::Ready as u8),
            watched: AtomicBool::new(false),
            checking: AtomicBool::new(false),
            wanted: Arc::default(),
        }
    }

    /// Where it stands. `draw` is from 0 to 1: a server in its ramp is ready for a share of the draws. Takes no lock while it is ready or
    /// down.
    #[must_use]
    pub fn standing(&self, now: Instant, draw: f64) -> Standing {
        self.seen_standing().unwrap_or_else(|| self.health(now, |health| health.standing(now, draw)))
    }

    /// The standing, unless it changes with time. Takes no lock.
    #[must_use]
    pub fn seen_standing(&self) -> Option<Standing> {
        const STANDINGS: [Standing; 4] = [Standing::Ready, Standing::Spare, Standing::Suspect, Standing::Down];
        STANDINGS.get(usize::from(self.seen.load(Ordering::Relaxed))).copied()
    }

    /// Whether requests may go there at all.
    #[must_use]
    pub fn is_eligible(&self, now: Instant) -> bool {
        self.standing(now, 0.0) != Standing::Down
    }

    /// How it is doing.
    #[must_use]
    pub fn condition(&self, now: Instant) -> Condition {
        self.health(now, |health| {
            let (state, since, cause) = health.describe(now);
            Condition { state, lasting: now.saturating_duration_since(since), cause, share: health.share(now) }
        })
    }

    /// Notes a probe's result.
    pub fn on_probe(&self, probed: Probed) {
        match probed {
            Probed::Good => Counts::note(&self.counts.good_probes),
            Probed::Slow => Counts::note(&self.counts.slow_probes),
            Probed::Bad(_) => Counts::note(&self.counts.failed_probes),
        }
        let now = Instant::now();
        self.health(now, |health| health.on_probe(probed, now));
    }

    /// Notes that a connection could not be made.
    pub fn on_connect_failed(&self, cause: Cause) {
        Counts::note(&self.counts.connect_failures);
        let now = Instant::now();
        self.health(now, |health| health.on_connect_failed(cause, now));
    }

    /// Notes that the process before this one knew it to be down, or held it. What brings servers back brings it back.
    pub fn on_inherited(&self, held: bool) {
        let now = Instant::now();
        self.health(now, |health| health.on_inherited(held, now));
    }

    /// Notes that a connection takes longer than another server deserves to wait for it.
    pub fn on_connect_slow(&self) {
        Counts::note(&self.counts.slow_connects);
        let now = Instant::now();
        self.health(now, |health| health.on_connect_slow(now));
    }

    /// Notes that a connection was made.
    pub fn on_connected(&self) {
        Counts::note(&self.counts.connects);
        if self.watched.load(Ordering::Relaxed) {
            let now = Instant::now();
            self.health(now, |health| health.on_connected(now));
        }
    }

    /// Notes that a request was answered. Costs one load while all is well.
    pub fn on_answered(&self) {
        if self.watched.load(Ordering::Relaxed) {
            let now = Instant::now();
            self.health(now, |health| health.on_result(true, now));
        }
    }

    /// Notes that a new connection ended without an answer to its request.
    pub fn on_reset(&self) {
        Counts::note(&self.counts.resets);
        let now = Instant::now();
        self.health(now, |health| health.on_result(false, now));
    }

    /// When somebody should try a connection in the background.
    #[must_use]
    pub fn check_after(&self) -> Option<Duration> {
        if !self.watched.load(Ordering::Relaxed) {
            return None;
        }
        self.health(Instant::now(), |health| health.check_after())
    }

    /// Somebody would need the server: the next background connection comes soon.
    pub fn want(&self) {
        self.wanted.notify_waiters();
    }

    /// Wakes when the server is wanted.
    #[must_use]
    pub fn wanted(&self) -> Arc<Notify> {
        Arc::clone(&self.wanted)
    }

    /// Takes the right to try connections in the background, which one task of the process has at a time.
    #[must_use]
    pub fn begin_checking(self: &Arc<Self>) -> Option<Checking> {
        (!self.checking.swap(true, Ordering::Relaxed)).then(|| Checking(Arc::downgrade(self)))
    }

    /// The addresses of its name, as of the last look-up.
    #[must_use]
    pub fn addresses(&self) -> Arc<Vec<SocketAddr>> {
        self.addresses.load_full()
    }

    /// The index of the address that answered last.
    #[must_use]
    pub fn answering_address(&self) -> usize {
        self.answering.load(Ordering::Relaxed)
    }

    /// Notes which address answered.
    pub fn address_answered(&self, index: usize) {
        self.answering.store(index, Ordering::Relaxed);
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
                let addresses: Vec<_> = found.take(MAX_ADDRESSES).collect();
                if !addresses.is_empty() {
                    self.addresses.store(Arc::new(addresses));
                }
            }
            Ok(Err(error)) => tracing::warn!(upstream = &*self.group, server = &*self.label, "cannot resolve: {error}"),
            Err(_) => tracing::warn!(upstream = &*self.group, server = &*self.label, "cannot resolve: no answer"),
        }
    }

    /// The one place that changes the health, tells the hot path, and tells the operator.
    fn health<T>(&self, now: Instant, change: impl FnOnce(&mut Health) -> T) -> T {
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        let was_out = health.is_out();
        let changed = change(&mut health);
        let standing = health.standing(now, 0.0);
        let seen = if health.is_settled(now) || standing == Standing::Down { standing as u8 } else { ASK };
        self.seen.store(seen, Ordering::Relaxed);
        self.watched.store(health.is_watched(), Ordering::Relaxed);
        let (state, _, cause) = health.describe(now);
        let is_out = health.is_out();
        drop(health);
        if was_out != is_out {
            let (upstream, server) = (&*self.group, &*self.label);
            if was_out {
                tracing::info!(upstream, server, state, "server is up");
            } else {
                Counts::note(&self.counts.outages);
                tracing::warn!(upstream, server, "server is down: {}", cause.map_or("unknown", Cause::as_str));
            }
        }
        changed
    }
}

/// Addresses of one name that are tried; a name with a thousand must not make a connect take forever.
const MAX_ADDRESSES: usize = 16;

/// The right to try connections in the background.
#[derive(Debug)]
pub struct Checking(Weak<Server>);

impl Drop for Checking {
    fn drop(&mut self) {
        if let Some(server) = self.0.upgrade() {
            server.checking.store(false, Ordering::Relaxed);
        }
    }
}
