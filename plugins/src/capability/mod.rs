//! What the host offers to policies, one module per interface of the contract. State is per plugin, bounded and evicting.

pub mod cuts;
pub mod geoip;
pub mod http_out;
pub mod kv;
pub mod log;
pub mod metrics;

use std::sync::Arc;

/// Granted to every policy: harmless, read-only or write-only.
pub const DEFAULT_GRANTS: [&str; 3] = ["log", "geoip", "metrics"];

/// All capabilities that a policy can be granted.
pub const CAPABILITIES: [&str; 5] = ["log", "geoip", "kv", "metrics", "http-out"];

/// The capability that lets a policy import an interface of the contract.
#[must_use]
pub fn of_interface(interface: &str) -> &str {
    match interface {
        "kv-atomic" => "kv",
        other => other,
    }
}

/// The capability state that instances of one plugin share.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) countries: Arc<geoip::Countries>,
    pub(crate) kv: Arc<kv::Kv>,
    pub(crate) counters: Arc<metrics::Counters>,
    pub(crate) calls: Arc<http_out::CallCounts>,
    /// Of one generation, unlike the others.
    pub(crate) http_out: Arc<http_out::Allowance>,
    pub(crate) cuts: Arc<cuts::Cuts>,
}

impl Shared {
    /// The state of a plugin before it has any.
    pub(crate) fn new(countries: &Arc<geoip::Countries>) -> Self {
        Self {
            countries: Arc::clone(countries),
            kv: Arc::default(),
            counters: Arc::default(),
            calls: Arc::default(),
            cuts: Arc::default(),
            http_out: Arc::default(),
        }
    }

    /// The same country database with empty state of its own.
    pub(crate) fn scratch(&self) -> Self {
        Self::new(&self.countries)
    }

    /// The same state for a generation that may ask these upstreams.
    pub(crate) fn granted(self, http_out: &http_out::HttpOut) -> Self {
        Self { http_out: http_out::Allowance::new(http_out), ..self }
    }

    /// State for a `configure` that may fail: reads see what is there, writes take effect with [`Staged::commit`].
    pub(crate) fn staged(&self) -> Staged {
        let (kv, begin) = self.kv.copy();
        let own = Self { kv: Arc::new(kv), counters: Arc::default(), ..self.clone() };
        Staged { own, begin, shared: self.clone() }
    }
}

/// Capability state of one `configure`.
pub(crate) struct Staged {
    pub(crate) own: Shared,
    begin: u64,
    shared: Shared,
}

impl Staged {
    /// Makes its writes those of the plugin.
    pub(crate) fn commit(&self) {
        self.shared.kv.adopt(&self.own.kv, self.begin);
        self.shared.counters.adopt(&self.own.counters);
    }
}
