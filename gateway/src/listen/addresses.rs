//! Connections by client address: how many one may hold.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Locks are held for a look-up, at the accept and at the close of a connection, never while one is served. One table for all workers,
/// because a client's connections are spread over them; in parts, so that they rarely meet.
const PARTS: usize = 16;

/// Who is one client: an IPv4 address, or the /64 that an IPv6 customer gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Client(u64);

impl Client {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            // IPv4 addresses stand where no IPv6 prefix does: below 2^32 are ::/32 addresses, which nobody has.
            IpAddr::V4(v4) => Self(u64::from(v4.to_bits())),
            IpAddr::V6(v6) => Self(prefix(v6)),
        }
    }

    fn part(self) -> usize {
        // Neighbours fall into different parts: the product's top bits depend on all of the address.
        (self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60) as usize % PARTS
    }
}

fn prefix(address: Ipv6Addr) -> u64 {
    (address.to_bits() >> 64) as u64
}

/// Counts connections by client. Has an entry for each client with a connection, so it is never larger than their number.
#[derive(Clone, Debug, Default)]
pub struct Addresses(Arc<[Mutex<HashMap<Client, u32>>; PARTS]>);

impl Addresses {
    /// A place for one more connection from `address`; nothing when it has `most` already.
    #[must_use]
    pub fn take(&self, address: IpAddr, most: u32) -> Option<Place> {
        let client = Client::of(address);
        let mut part = self.part(client)?;
        if part.get(&client).copied().unwrap_or(0) >= most {
            return None;
        }
        *part.entry(client).or_insert(0) += 1;
        Some(Place { addresses: self.clone(), client })
    }

    /// Clients that hold a connection.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(|part| part.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    /// Whether nobody does.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn part(&self, client: Client) -> Option<MutexGuard<'_, HashMap<Client, u32>>> {
        self.0.get(client.part()).map(|part| part.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One of the connections that an address may hold.
#[derive(Debug)]
pub struct Place {
    addresses: Addresses,
    client: Client,
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(mut part) = self.addresses.part(self.client) else { return };
        if let Some(held) = part.get_mut(&self.client) {
            *held -= 1;
            if *held == 0 {
                part.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_client_has_its_own_places() {
        let addresses = Addresses::default();
        let held: Vec<_> = (0..2).map(|_| addresses.take(ip("192.0.2.1"), 2)).collect();
        assert!(held.iter().all(Option::is_some));
        assert!(addresses.take(ip("192.0.2.1"), 2).is_none());
        assert!(addresses.take(ip("::ffff:192.0.2.1"), 2).is_none(), "the same address, written as IPv6");
        assert!(addresses.take(ip("192.0.2.2"), 2).is_some());
        drop(held);
        assert!(addresses.take(ip("192.0.2.1"), 2).is_some());
    }

    #[test]
    fn addresses_of_one_network_of_ipv6_are_one_client() {
        let addresses = Addresses::default();
        let held = addresses.take(ip("2001:db8:1:2::1"), 1);
        assert!(held.is_some());
        assert!(addresses.take(ip("2001:db8:1:2:ffff::9"), 1).is_none());
        assert!(addresses.take(ip("2001:db8:1:3::1"), 1).is_some());
    }

    #[test]
    fn nothing_stays_of_clients_that_left() {
        let addresses = Addresses::default();
        let held: Vec<_> = (0..10_000u32).map(|bits| addresses.take(IpAddr::V4(bits.into()), 1)).collect();
        assert_eq!(addresses.len(), 10_000);
        drop(held);
        assert!(addresses.take(ip("192.0.2.1"), 0).is_none());
        assert!(addresses.is_empty());
    }
}
