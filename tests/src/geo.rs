//! A country database of documentation networks.

use ipnet::IpNet;

#[path = "../../gateway/src/demo/mmdb.rs"]
#[allow(unreachable_pub, reason = "public in the gateway, whose file it is")]
mod mmdb;

/// A client in the United States.
pub const US: &str = "192.0.2.77";
/// A client in Canada.
pub const CA: &str = "198.51.100.77";
/// A client in North Korea.
pub const KP: &str = "203.0.113.77";

/// The bytes of a database in which the addresses above have their countries and others none.
#[must_use]
pub fn database() -> Vec<u8> {
    of(&[("192.0.2.0/24", "US"), ("198.51.100.0/24", "CA"), ("203.0.113.0/24", "KP")])
}

/// The bytes of a database of these networks.
///
/// # Panics
/// A network is none.
#[must_use]
pub fn of(networks: &[(&str, &str)]) -> Vec<u8> {
    let networks: Vec<(IpNet, &str)> = networks.iter().map(|(network, code)| (network.parse().unwrap(), *code)).collect();
    mmdb::country_database(&networks)
}
