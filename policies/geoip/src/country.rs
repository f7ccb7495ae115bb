//! Sets of countries, and the addresses that belong to none.

use std::net::{IpAddr, Ipv4Addr};

/// A set of ISO 3166-1 alpha-2 codes, one bit for each of the 26 × 26 codes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Countries {
    bits: [u64; 11],
    every: bool,
}

impl Countries {
    /// Parses codes in either case, or `*` for every country. `place` is the key that errors name.
    pub(crate) fn parse(place: &str, codes: &[String]) -> Result<Self, String> {
        let mut countries = Self::default();
        for code in codes {
            if code == "*" {
                countries.every = true;
                continue;
            }
            let (word, bit) = position(&code.to_ascii_uppercase()).ok_or_else(|| {
                format!("{place}: \"{code}\" is not a country: write two letters (ISO 3166-1 alpha-2) such as \"US\", or \"*\" for all")
            })?;
            if let Some(word) = countries.bits.get_mut(word) {
                *word |= bit;
            }
        }
        Ok(countries)
    }

    pub(crate) const fn is_every(&self) -> bool {
        self.every
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.every && self.bits.iter().all(|word| *word == 0)
    }

    /// Whether a code in upper case is a member.
    pub(crate) fn contains(&self, code: &str) -> bool {
        self.every || position(code).is_some_and(|(word, bit)| self.bits.get(word).is_some_and(|own| own & bit != 0))
    }
}

/// Private, loopback, link-local, shared (carrier-grade NAT), unspecified and unique local addresses.
pub(crate) fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_private_v4(ip),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unspecified() || ip.is_unicast_link_local() || ip.is_unique_local(),
    }
}

fn is_private_v4(ip: Ipv4Addr) -> bool {
    let [first, second, ..] = ip.octets();
    let shared = first == 100 && second & 0xc0 == 64;
    first == 0 || shared || ip.is_private() || ip.is_loopback() || ip.is_link_local()
}

/// Word and bit of a code; `None` unless it is two upper-case letters.
fn position(code: &str) -> Option<(usize, u64)> {
    let &[first, second] = code.as_bytes() else { return None };
    if !first.is_ascii_uppercase() || !second.is_ascii_uppercase() {
        return None;
    }
    let index = usize::from(first - b'A') * 26 + usize::from(second - b'A');
    Some((index / 64, 1 << (index % 64)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_listed_and_nothing_else() {
        let codes: Vec<String> = ["AA", "us", "ZZ", "KP"].map(String::from).to_vec();
        let countries = Countries::parse("allow", &codes).unwrap();
        let all =
            || (b'A'..=b'Z').flat_map(|first| (b'A'..=b'Z').map(move |second| String::from_utf8(vec![first, second]).unwrap()));
        let members: Vec<String> = all().filter(|code| countries.contains(code)).collect();
        assert_eq!(members, ["AA", "KP", "US", "ZZ"]);
        for odd in ["", "U", "USA", "us", "1A", "É"] {
            assert!(!countries.contains(odd), "{odd}");
        }
    }

    #[test]
    fn addresses_without_a_country_are_known() {
        let private = "0.0.0.0 10.0.0.1 100.64.0.1 100.127.255.255 127.0.0.1 169.254.1.1 172.16.0.1 172.31.255.255 192.168.9.9 \
                       :: ::1 fe80::1 febf::1 fc00::1 fdff::1";
        let public =
            "9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 172.32.0.0 192.0.2.1 203.0.113.9 2001:db8::1 fec0::1 ff02::1";
        for (addresses, expected) in [(private, true), (public, false)] {
            for ip in addresses.split_whitespace() {
                assert_eq!(is_private(ip.parse().unwrap()), expected, "{ip}");
            }
        }
    }
}
