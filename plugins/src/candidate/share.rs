//! Who takes part in a trial of a candidate: a pure function of what stays the same, so that nobody changes sides between two requests.

use std::net::IpAddr;

/// What decides whether an exchange takes part.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Key<'a> {
    /// A client of a site: a canary, whose verdicts clients notice. The same client gets the same version until the share changes.
    Client(&'a str, IpAddr),
    /// A request: a shadow, whose verdicts nobody notices. A sample of all clients says more than all of a few.
    Request(u128),
}

/// Whether `key` takes part in the trial of `policy`, of which `share` (0 to 1) shall. Whoever takes part in a small share takes part
/// in every larger one; different policies choose differently, so that the same clients are not first every time.
pub(crate) fn takes_part(policy: &str, key: Key<'_>, share: f64) -> bool {
    if share >= 1.0 {
        return true;
    }
    let mut hash = Hash::default();
    hash.text(policy);
    match key {
        Key::Client(site, address) => {
            hash.text(site);
            hash.number(network(address));
        }
        Key::Request(id) => hash.number(id),
    }
    // The upper 53 bits are as many as a float holds exactly.
    let place = (hash.mixed() >> 11) as f64 / (1_u64 << 53) as f64;
    place < share
}

/// The part of an address that stays: clients with IPv6 change the lower half of theirs every day.
fn network(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits() & (u128::MAX << 64),
    }
}

/// FNV-1a: the same on every machine and in every version, which the hashers of the standard library do not promise.
struct Hash(u64);

impl Default for Hash {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hash {
    fn byte(&mut self, byte: u8) {
        self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }

    fn text(&mut self, text: &str) {
        text.bytes().for_each(|byte| self.byte(byte));
        // No text holds it: `ab` and `c` is not `a` and `bc`.
        self.byte(0xff);
    }

    fn number(&mut self, number: u128) {
        number.to_le_bytes().into_iter().for_each(|byte| self.byte(byte));
    }

    /// Spread over all bits: FNV alone leaves neighbouring addresses close together (the last step of splitmix64).
    const fn mixed(&self) -> u64 {
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(policy: &str, site: &str, address: &str, share: f64) -> bool {
        takes_part(policy, Key::Client(site, address.parse().unwrap()), share)
    }

    #[test]
    fn nobody_and_everybody() {
        for address in ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1"] {
            assert!(!client("ips", "site", address, 0.0), "{address}: a share of nothing");
            assert!(client("ips", "site", address, 1.0), "{address}: a share of everything");
        }
    }

    #[test]
    fn these_addresses_stay_where_they_are_for_ever() {
        // From version to version: a client that is on the candidate today must be so after an upgrade of the gateway.
        let cases = [("ips", "a", "192.0.2.1"), ("ips", "a", "192.0.2.2"), ("ips", "b", "192.0.2.1"), ("acl", "a", "192.0.2.1")];
        let places = cases
            .map(|(policy, site, address)| (0..=100).find(|percent| client(policy, site, address, f64::from(*percent) / 100.0)));
        assert_eq!(places, [64, 45, 35, 60].map(Some), "the percentage at which each takes part");
    }

    #[test]
    fn whoever_takes_part_in_a_small_share_takes_part_in_a_larger_one() {
        for last in 0..=255 {
            let address = format!("198.51.100.{last}");
            let mut before = false;
            for percent in 0..=100 {
                let now = client("ips", "site", &address, f64::from(percent) / 100.0);
                assert!(now || !before, "{address} left at {percent} %");
                before = now;
            }
        }
    }

    #[test]
    fn a_share_is_about_that_share() {
        let addresses = || (0..=255).flat_map(|third| (0..=255).map(move |last| IpAddr::from([10, 0, third, last])));
        for share in [0.01, 0.1, 0.5, 0.9] {
            let taken = addresses().filter(|address| takes_part("ips", Key::Client("site", *address), share)).count();
            let got = taken as f64 / 65_536.0;
            assert!((got - share).abs() < 0.01, "{share}: {got} of neighbouring addresses");
            let taken = (0..65_536).filter(|id| takes_part("ips", Key::Request(*id), share)).count();
            let got = taken as f64 / 65_536.0;
            assert!((got - share).abs() < 0.01, "{share}: {got} of requests");
        }
    }

    #[test]
    fn one_client_with_many_addresses_is_one_client() {
        for (one, other) in [("2001:db8::1", "2001:db8::ffff:1234"), ("192.0.2.7", "::ffff:192.0.2.7")] {
            for percent in 0..100 {
                let share = f64::from(percent) / 100.0;
                assert_eq!(
                    client("ips", "site", one, share),
                    client("ips", "site", other, share),
                    "{one} and {other} at {share}"
                );
            }
        }
    }
}
