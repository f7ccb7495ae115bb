//! What the gateway offers to a policy. Each is a capability: a policy that uses one names it in `#[policy(capabilities(..))]`.

/// Lines for the operator's log, cut at 8 KiB per exchange. Always granted.
pub mod log {
    use crate::host::log;

    /// Of interest while developing.
    pub fn debug(message: &str) {
        log::write(log::Level::Debug, message);
    }

    /// Of interest in operation.
    pub fn info(message: &str) {
        log::write(log::Level::Info, message);
    }

    /// Something an operator should look at.
    pub fn warn(message: &str) {
        log::write(log::Level::Warn, message);
    }

    /// Something that does not work.
    pub fn error(message: &str) {
        log::write(log::Level::Error, message);
    }
}

/// The country database of the gateway. Granted by default.
pub mod geoip {
    use std::net::IpAddr;

    /// The ISO 3166-1 alpha-2 code in upper case; `None` when the database does not know the address.
    #[must_use]
    pub fn country(ip: IpAddr) -> Option<String> {
        crate::host::geoip::country(crate::exchange::to_host(ip))
    }
}

/// Small state shared by all instances of one plugin: bounded, evicting, lost on restart. Needs `grants = ["kv"]`.
pub mod kv {
    use std::time::Duration;

    use crate::host::{kv, kv_atomic};

    /// The value of a key.
    #[must_use]
    pub fn get(key: &str) -> Option<Vec<u8>> {
        kv::get(key)
    }

    /// Keeps a value; without `ttl` until it is evicted.
    pub fn set(key: &str, value: &[u8], ttl: Option<Duration>) {
        kv::set(key, value, millis(ttl));
    }

    /// Forgets a key.
    pub fn delete(key: &str) {
        kv::delete(key);
    }

    /// Adds to a counter and returns the new value; a new counter starts at 0 and lives `ttl`.
    #[must_use]
    pub fn increment(key: &str, delta: i64, ttl: Option<Duration>) -> i64 {
        kv::increment(key, delta, millis(ttl))
    }

    /// Sets a key to `new`, or deletes it, if its value is `expected`; `None` stands for no such key. Answers whether it did: of many
    /// exchanges that try the same change at once, one succeeds.
    ///
    /// ```
    /// use weir_sdk::kv;
    /// assert!(kv::compare_and_set("ticket", None, Some(b"taken"), None));
    /// assert!(!kv::compare_and_set("ticket", None, Some(b"taken"), None));
    /// ```
    #[must_use]
    pub fn compare_and_set(key: &str, expected: Option<&[u8]>, new: Option<&[u8]>, ttl: Option<Duration>) -> bool {
        kv_atomic::compare_and_set(key, expected, new, millis(ttl))
    }

    fn millis(ttl: Option<Duration>) -> u64 {
        ttl.map_or(0, |ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1))
    }
}

/// Counters shown at the gateway's `/metrics` as `weir_plugin_counter_total{plugin,name,label}`. Always granted.
pub mod metrics {
    /// Adds to a counter; `name` and `label` in `[a-z0-9_]`.
    pub fn add(name: &str, label: &str, delta: u64) {
        crate::host::metrics::add(name, label, delta);
    }
}
