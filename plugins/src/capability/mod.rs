//! What the host offers to policies, one module per interface of the contract. State is per plugin, bounded and evicting.

pub mod geoip;
pub mod kv;
pub mod log;
pub mod metrics;

use std::sync::Arc;

/// Granted to every policy: harmless, read-only or write-only.
pub(crate) const DEFAULT_GRANTS: [&str; 3] = ["log", "geoip", "metrics"];

/// All capabilities that a policy can be granted.
pub const CAPABILITIES: [&str; 4] = ["log", "geoip", "kv", "metrics"];

/// The capability state that instances of one plugin share.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) countries: Arc<geoip::Countries>,
    pub(crate) kv: Arc<kv::Kv>,
    pub(crate) counters: Arc<metrics::Counters>,
}

impl Shared {
    /// The same country database with empty state of its own.
    pub(crate) fn scratch(&self) -> Self {
        Self { countries: Arc::clone(&self.countries), kv: Arc::default(), counters: Arc::default() }
    }
}
