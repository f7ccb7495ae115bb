//! Writes a country database in the MaxMind DB format, version 2.0, for the demo's made-up networks.

use std::time::{SystemTime, UNIX_EPOCH};

use ipnet::IpNet;

/// Zero bytes between the search tree and the data section.
const SEPARATOR: usize = 16;

/// Precedes the metadata, which readers search for from the end of the file.
const METADATA_MARKER: &[u8] = b"\xab\xcd\xefMaxMind.com";

/// A country database of `networks`, each with its ISO 3166-1 code, as the bytes of an `.mmdb` file. Where networks nest, the longest
/// prefix wins; of equal ones the last. The tree is an IPv6 one with IPv4 under `::/96`; a record is
/// `{"country": {"iso_code": code}}`, and addresses in no network have none. Meant for thousands of networks, not millions.
#[must_use]
pub fn country_database(networks: &[(IpNet, &str)]) -> Vec<u8> {
    let mut by_length: Vec<(u128, u8, &str)> = networks.iter().map(|(network, code)| placed(network, code)).collect();
    by_length.sort_by_key(|(_, length, _)| *length);

    let mut tree = Tree::default();
    let mut data = Data::default();
    for (bits, length, code) in by_length {
        tree.insert(bits, length, data.country(code));
    }
    let width = tree.record_width(data.bytes.len());
    let mut file = tree.encode(width);
    file.extend_from_slice(&[0; SEPARATOR]);
    file.append(&mut data.bytes);
    file.extend_from_slice(METADATA_MARKER);
    file.append(&mut metadata(tree.nodes.len(), width));
    file
}

/// A network as the leading bits of an IPv6 address and their number.
fn placed<'a>(network: &IpNet, code: &'a str) -> (u128, u8, &'a str) {
    match network.trunc() {
        IpNet::V4(network) => (u128::from(u32::from(network.network())), 96 + network.prefix_len(), code),
        IpNet::V6(network) => (u128::from(network.network()), network.prefix_len(), code),
    }
}

/// Where one bit of an address leads.
#[derive(Clone, Copy)]
enum Record {
    Nothing,
    Node(usize),
    /// Offset of a country in the data section.
    Country(usize),
}

/// The binary search tree over address bits, the root first.
struct Tree {
    nodes: Vec<[Record; 2]>,
}

impl Default for Tree {
    fn default() -> Self {
        Self { nodes: vec![[Record::Nothing; 2]] }
    }
}

impl Tree {
    /// Sets all addresses that begin with the first `length` of `bits`. Shorter prefixes must have been inserted before.
    fn insert(&mut self, bits: u128, length: u8, country: usize) {
        let Some(last) = length.checked_sub(1) else {
            self.nodes = vec![[Record::Country(country); 2]];
            return;
        };
        let side = |depth: u8| bits << depth >> 127 == 1;
        let mut node = 0;
        for depth in 0..last {
            node = self.child(node, side(depth));
        }
        self.set(node, side(last), Record::Country(country));
    }

    /// The node below `node`, made when there is none. It inherits the country of the shorter prefix it divides.
    fn child(&mut self, node: usize, side: bool) -> usize {
        let inherited = match self.get(node, side) {
            Record::Node(child) => return child,
            inherited => inherited,
        };
        let child = self.nodes.len();
        self.nodes.push([inherited; 2]);
        self.set(node, side, Record::Node(child));
        child
    }

    fn get(&self, node: usize, side: bool) -> Record {
        self.nodes.get(node).map_or(Record::Nothing, |[zero, one]| if side { *one } else { *zero })
    }

    fn set(&mut self, node: usize, side: bool, record: Record) {
        if let Some([zero, one]) = self.nodes.get_mut(node) {
            *(if side { one } else { zero }) = record;
        }
    }

    /// Bytes per record: three, or four when the numbers do not fit.
    fn record_width(&self, data_length: usize) -> usize {
        if self.nodes.len() + SEPARATOR + data_length < 1 << 24 { 3 } else { 4 }
    }

    fn encode(&self, width: usize) -> Vec<u8> {
        let count = self.nodes.len();
        let mut bytes = Vec::with_capacity(2 * width * count);
        for record in self.nodes.iter().flatten() {
            let value = match record {
                Record::Nothing => count,
                Record::Node(node) => *node,
                Record::Country(offset) => count + SEPARATOR + offset,
            };
            push_low_bytes(&mut bytes, value, width);
        }
        bytes
    }
}

/// The data section: each country once.
#[derive(Default)]
struct Data {
    bytes: Vec<u8>,
    offsets: std::collections::BTreeMap<String, usize>,
}

impl Data {
    fn country(&mut self, code: &str) -> usize {
        if let Some(offset) = self.offsets.get(code) {
            return *offset;
        }
        let offset = self.bytes.len();
        self.offsets.insert(code.to_owned(), offset);
        push_header(&mut self.bytes, Kind::Map, 1);
        push_text(&mut self.bytes, "country");
        push_header(&mut self.bytes, Kind::Map, 1);
        push_text(&mut self.bytes, "iso_code");
        push_text(&mut self.bytes, code);
        offset
    }
}

fn metadata(node_count: usize, width: usize) -> Vec<u8> {
    let built = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut bytes = Vec::with_capacity(256);
    push_header(&mut bytes, Kind::Map, 9);
    push_text(&mut bytes, "binary_format_major_version");
    push_number(&mut bytes, Kind::Uint16, 2);
    push_text(&mut bytes, "binary_format_minor_version");
    push_number(&mut bytes, Kind::Uint16, 0);
    push_text(&mut bytes, "build_epoch");
    push_number(&mut bytes, Kind::Uint64, built);
    push_text(&mut bytes, "database_type");
    push_text(&mut bytes, "Weir-Demo-Country");
    push_text(&mut bytes, "description");
    push_header(&mut bytes, Kind::Map, 1);
    push_text(&mut bytes, "en");
    push_text(&mut bytes, "Countries of the Weir demo's documentation networks");
    push_text(&mut bytes, "ip_version");
    push_number(&mut bytes, Kind::Uint16, 6);
    push_text(&mut bytes, "languages");
    push_header(&mut bytes, Kind::Array, 1);
    push_text(&mut bytes, "en");
    push_text(&mut bytes, "node_count");
    push_number(&mut bytes, Kind::Uint32, node_count as u64);
    push_text(&mut bytes, "record_size");
    push_number(&mut bytes, Kind::Uint16, 8 * width as u64);
    bytes
}

/// The field types used here, by their numbers in the format.
#[derive(Clone, Copy)]
enum Kind {
    Text = 2,
    Uint16 = 5,
    Uint32 = 6,
    Map = 7,
    Uint64 = 9,
    Array = 11,
}

/// The control byte of a field and, where the type or the size does not fit in it, the bytes that extend it.
fn push_header(bytes: &mut Vec<u8>, kind: Kind, size: usize) {
    let (short, extra, extra_width) = match size {
        0..29 => (size as u8, 0, 0),
        29..285 => (29, size - 29, 1),
        285..65_821 => (30, size - 285, 2),
        _ => (31, size - 65_821, 3),
    };
    match kind as u8 {
        number @ 0..8 => bytes.push(number << 5 | short),
        number => bytes.extend_from_slice(&[short, number - 7]),
    }
    push_low_bytes(bytes, extra, extra_width);
}

fn push_text(bytes: &mut Vec<u8>, text: &str) {
    push_header(bytes, Kind::Text, text.len());
    bytes.extend_from_slice(text.as_bytes());
}

/// An unsigned number in as few bytes as it needs, none for zero.
fn push_number(bytes: &mut Vec<u8>, kind: Kind, value: u64) {
    let width = 8 - value.leading_zeros() as usize / 8;
    push_header(bytes, kind, width);
    bytes.extend(value.to_be_bytes().iter().skip(8 - width));
}

fn push_low_bytes(bytes: &mut Vec<u8>, value: usize, width: usize) {
    let value = (value as u64).to_be_bytes();
    bytes.extend(value.iter().skip(8 - width));
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use maxminddb::{Reader, path};

    use super::*;

    #[track_caller]
    fn check(networks: &[(&str, &str)], expected: &[(&str, Option<&str>)]) {
        let networks: Vec<(IpNet, &str)> = networks.iter().map(|(network, code)| (network.parse().unwrap(), *code)).collect();
        let reader = Reader::from_source(country_database(&networks)).unwrap();
        for (address, country) in expected {
            let address: IpAddr = address.parse().unwrap();
            let found = reader.lookup(address).unwrap().decode_path::<&str>(&path!["country", "iso_code"]).unwrap();
            assert_eq!(found, *country, "{address}");
        }
    }

    #[test]
    fn documentation_networks_have_their_countries_and_others_none() {
        check(
            &[("192.0.2.0/24", "US"), ("198.51.100.0/24", "CA"), ("203.0.113.0/24", "KP"), ("2001:db8::/32", "US")],
            &[
                ("192.0.2.0", Some("US")),
                ("192.0.2.255", Some("US")),
                ("192.0.3.0", None),
                ("192.0.1.255", None),
                ("198.51.100.7", Some("CA")),
                ("203.0.113.200", Some("KP")),
                ("127.0.0.1", None),
                ("0.0.0.0", None),
                ("255.255.255.255", None),
                ("2001:db8::1", Some("US")),
                ("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", Some("US")),
                ("2001:db9::", None),
                ("::1", None),
                ("ffff::", None),
            ],
        );
    }

    #[test]
    fn the_longest_prefix_wins_in_whatever_order_they_come() {
        let networks = [
            ("10.1.2.3/32", "FR"),
            ("10.0.0.0/8", "US"),
            ("10.1.0.0/16", "DE"),
            ("2001:db8:1::/48", "SE"),
            ("2001:db8::/32", "NO"),
        ];
        let expected = [
            ("10.0.0.1", Some("US")),
            ("10.255.255.255", Some("US")),
            ("10.1.0.1", Some("DE")),
            ("10.1.2.2", Some("DE")),
            ("10.1.2.3", Some("FR")),
            ("10.1.2.4", Some("DE")),
            ("11.0.0.0", None),
            ("2001:db8:1::9", Some("SE")),
            ("2001:db8:2::9", Some("NO")),
        ];
        check(&networks, &expected);
        let reversed: Vec<_> = networks.into_iter().rev().collect();
        check(&reversed, &expected);
    }

    #[test]
    fn of_equal_networks_the_last_wins_and_host_bits_are_ignored() {
        check(&[("192.0.2.0/24", "US"), ("192.0.2.77/24", "CA")], &[("192.0.2.1", Some("CA")), ("192.0.2.200", Some("CA"))]);
    }

    #[test]
    fn whole_address_families_and_single_addresses_are_networks_too() {
        check(&[("::/0", "US")], &[("8.8.8.8", Some("US")), ("ffff::1", Some("US"))]);
        check(&[("0.0.0.0/0", "US")], &[("8.8.8.8", Some("US")), ("2001:db8::1", None)]);
        check(&[("2001:db8::1/128", "US"), ("::/0", "CA")], &[("2001:db8::1", Some("US")), ("2001:db8::2", Some("CA"))]);
        check(&[], &[("8.8.8.8", None), ("2001:db8::1", None)]);
    }

    #[test]
    fn many_networks_and_long_texts_keep_their_records() {
        let long = "x".repeat(300);
        let networks: Vec<(IpNet, &str)> = (0..=255_u8)
            .flat_map(|a| (0..=15_u8).map(move |b| (a, b)))
            .map(|(a, b)| (format!("10.{a}.{b}.0/24").parse().unwrap(), if b == 3 { long.as_str() } else { "US" }))
            .collect();
        let reader = Reader::from_source(country_database(&networks)).unwrap();
        let country = |address: &str| {
            let found = reader.lookup(address.parse().unwrap()).unwrap();
            found.decode_path::<String>(&path!["country", "iso_code"]).unwrap()
        };
        assert_eq!(country("10.200.3.1"), Some(long.clone()));
        assert_eq!(country("10.200.4.1"), Some("US".to_owned()));
        assert_eq!(country("10.200.16.1"), None);
    }

    #[test]
    fn numbers_past_24_bits_take_the_wider_record() {
        let mut tree = Tree::default();
        tree.insert(1 << 127, 1, 0);
        assert_eq!((tree.record_width(100), tree.record_width(1 << 24)), (3, 4));
        assert_eq!(tree.encode(4), [0, 0, 0, 1, 0, 0, 0, 17]);
    }

    #[test]
    fn the_metadata_says_what_the_file_is() {
        let reader = Reader::from_source(country_database(&[("192.0.2.0/24".parse().unwrap(), "US")])).unwrap();
        let metadata = reader.metadata();
        assert_eq!((metadata.binary_format_major_version, metadata.ip_version, metadata.record_size), (2, 6, 24));
        assert_eq!((metadata.node_count, metadata.database_type.as_str()), (120, "Weir-Demo-Country"));
        assert!(metadata.build_epoch > 1_700_000_000);
        assert!(reader.verify().is_ok());
    }
}
