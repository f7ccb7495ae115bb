//! Sets of IP networks.

use std::net::IpAddr;

/// Networks of both families as sorted ranges that do not overlap: a lookup is one binary search.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Networks {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl Networks {
    /// Parses networks (`198.51.100.0/24`, `2001:db8::/32`) and addresses. `place` is the key that errors name.
    pub(crate) fn parse(place: &str, texts: &[String]) -> Result<Self, String> {
        let mut networks = Self::default();
        for text in texts {
            let (address, bits) = parse_network(text).map_err(|problem| format!("{place}: \"{text}\" {problem}"))?;
            match address {
                IpAddr::V4(first) => {
                    let hosts = u32::MAX.checked_shr(bits).unwrap_or(0);
                    networks.v4.push((first.to_bits(), first.to_bits() | hosts));
                }
                IpAddr::V6(first) => {
                    let hosts = u128::MAX.checked_shr(bits).unwrap_or(0);
                    networks.v6.push((first.to_bits(), first.to_bits() | hosts));
                }
            }
        }
        merge(&mut networks.v4);
        merge(&mut networks.v6);
        Ok(networks)
    }

    /// Whether an address, in canonical form, is in one of the networks.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => find(&self.v4, address.to_bits()),
            IpAddr::V6(address) => find(&self.v6, address.to_bits()),
        }
    }
}

/// The first address and the length of the prefix.
fn parse_network(text: &str) -> Result<(IpAddr, u32), String> {
    let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
    let address: IpAddr =
        address.parse().map_err(|_| "is no network: write it like \"198.51.100.0/24\" or \"2001:db8::/32\"".to_owned())?;
    if address.to_canonical() != address {
        return Err(format!("is IPv4 written as IPv6: write \"{}\"", address.to_canonical()));
    }
    let width = if address.is_ipv4() { 32 } else { 128 };
    let bits = prefix.map_or(Some(width), |prefix| prefix.parse().ok().filter(|bits| *bits <= width));
    let bits = bits.ok_or_else(|| format!("has no prefix length of 0 to {width} after the slash"))?;
    let first = match address {
        IpAddr::V4(address) => IpAddr::V4((address.to_bits() & !u32::MAX.checked_shr(bits).unwrap_or(0)).into()),
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() & !u128::MAX.checked_shr(bits).unwrap_or(0)).into()),
    };
    if first == address { Ok((first, bits)) } else { Err(format!("has bits after its prefix: write \"{first}/{bits}\"")) }
}

fn merge<T: Ord + Copy>(ranges: &mut Vec<(T, T)>) {
    ranges.sort_unstable();
    ranges.dedup_by(|next, kept| {
        let overlaps = next.0 <= kept.1;
        if overlaps {
            kept.1 = kept.1.max(next.1);
        }
        overlaps
    });
}

fn find<T: Ord + Copy>(ranges: &[(T, T)], value: T) -> bool {
    let after = ranges.partition_point(|(first, _)| *first <= value);
    after.checked_sub(1).and_then(|at| ranges.get(at)).is_some_and(|(_, last)| value <= *last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(texts: &str) -> Result<Networks, String> {
        Networks::parse("trusted", &texts.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn an_address_is_in_its_networks_only() {
        for (networks, address, expected) in [
            ("198.51.100.0/24", "198.51.100.0", true),
            ("198.51.100.0/24", "198.51.100.255", true),
            ("198.51.100.0/24", "198.51.101.0", false),
            ("198.51.100.0/24", "198.51.99.255", false),
            ("203.0.113.7", "203.0.113.7", true),
            ("203.0.113.7", "203.0.113.8", false),
            ("0.0.0.0/0", "255.255.255.255", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "10.0.0.1", false),
            ("::/0", "2001:db8::1", true),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::", false),
            ("10.0.0.0/8 10.1.0.0/16 192.0.2.0/25", "10.200.0.1", true),
            ("10.0.0.0/8 10.1.0.0/16 192.0.2.0/25", "192.0.2.127", true),
            ("10.0.0.0/8 10.1.0.0/16 192.0.2.0/25", "192.0.2.128", false),
            ("", "192.0.2.1", false),
        ] {
            assert_eq!(parse(networks).unwrap().contains(address.parse().unwrap()), expected, "{address} in {networks:?}");
        }
    }

    #[test]
    fn mistakes_name_key_value_and_remedy() {
        for (text, remedy) in [
            ("office", "198.51.100.0/24"),
            ("10.0.0.0/33", "0 to 32"),
            ("10.0.0.0/", "0 to 32"),
            ("2001:db8::/129", "0 to 128"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("2001:db8::1/64", "2001:db8::/64"),
            ("::ffff:10.0.0.1", "\"10.0.0.1\""),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(&format!("trusted: \"{text}\"")) && error.contains(remedy), "{error}");
        }
    }
}
