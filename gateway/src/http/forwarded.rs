//! Who the client is, as told by proxies before this one and to the upstream behind it.

use std::io::{Cursor, Write as _};
use std::net::{IpAddr, SocketAddr};

use http::HeaderValue;
use ipnet::IpNet;

use crate::fields::{Fields, Known, KnownSet, Name};

/// What says who the client is.
const TELLING: KnownSet =
    KnownSet::of(&[Known::Forwarded, Known::XForwardedFor, Known::XForwardedProto, Known::XForwardedHost, Known::XRealIp]);

/// Longest text of an address: IPv6 with an IPv4 tail.
const ADDRESS_TEXT: usize = 45;

/// The step of a request that ends at this gateway.
#[derive(Clone, Copy, Debug)]
pub struct Hop<'a> {
    /// The other end of the connection; with PROXY protocol, the address it names.
    pub peer: IpAddr,
    /// `peer` as [`address_value`] writes it.
    pub peer_text: &'a HeaderValue,
    /// Whether the peer is a proxy whose forwarding fields are believed.
    pub trusted: bool,
    /// Whether the client side of this gateway is TLS.
    pub tls: bool,
    /// The authority as the client sent it; empty when it sent none.
    pub host: &'a str,
}

/// Rewrites the forwarding fields of a request for the upstream. What an untrusted peer sent of them is removed, and
/// `X-Forwarded-For`, `-Proto` and `-Host` are set from the hop. From a trusted proxy all are kept, the peer is appended to
/// `X-Forwarded-For` and to `Forwarded` if there is one, and only missing fields are set. Variants spelled with `_`, which some
/// applications read as the real ones, are removed in any case. Must run before Host is rewritten.
pub fn rewrite(headers: &mut Fields, hop: &Hop<'_>) {
    if !hop.trusted {
        headers.remove_known(TELLING);
    }
    if headers.any(|name| is_foreign(name, hop.trusted)) {
        headers.retain(|name| !is_foreign(name, hop.trusted));
    }
    let address = hop.peer_text.as_bytes();
    let proto: &[u8] = if hop.tls { b"https" } else { b"http" };
    if !hop.trusted {
        headers.append(Known::XForwardedFor, address);
        headers.append(Known::XForwardedProto, proto);
        if !hop.host.is_empty() {
            headers.append(Known::XForwardedHost, hop.host.as_bytes());
        }
        return;
    }
    if headers.contains(Known::Forwarded) {
        append(headers, Known::Forwarded, forwarded_element(hop.peer).as_bytes());
    }
    append(headers, Known::XForwardedFor, address);
    if !headers.contains(Known::XForwardedProto) {
        headers.append(Known::XForwardedProto, proto);
    }
    if !hop.host.is_empty() && !headers.contains(Known::XForwardedHost) {
        headers.append(Known::XForwardedHost, hop.host.as_bytes());
    }
}

/// The client behind `peer`: the first address from the right of `X-Forwarded-For` that no trusted proxy has, when the peer itself is
/// trusted. An entry that is no address ends the walk at the last good one; so does the end of the list.
#[must_use]
pub fn client_ip(peer: IpAddr, headers: &Fields, trusted: &[IpNet]) -> IpAddr {
    let mut client = peer.to_canonical();
    if !is_trusted(client, trusted) {
        return client;
    }
    let entries = headers.get_all(Known::XForwardedFor).rev().flat_map(|value| value.rsplit(|byte| *byte == b','));
    for entry in entries {
        let Some(address) = parse_address(entry) else { break };
        client = address;
        if !is_trusted(client, trusted) {
            break;
        }
    }
    client
}

/// Whether one of the networks holds the address. An IPv4 address mapped into IPv6 counts as IPv4.
#[must_use]
pub fn is_trusted(address: IpAddr, networks: &[IpNet]) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| network.contains(&address))
}

/// Whether a lower-case field name is one of the `x-forwarded-` family, or would be read as one where `_` equals `-`.
pub(super) fn is_x_forwarded(name: &[u8]) -> bool {
    let family = b"x-forwarded-";
    name.get(..family.len()).is_some_and(|start| same_dashed(start, family))
}

/// Whether a name, beside the [`TELLING`] ones, is removed: one of the family from somebody who is not believed, and every spelling with
/// `_`, which no proxy uses and some application reads.
fn is_foreign(name: Name<'_>, trusted: bool) -> bool {
    let Name::Other(name) = name else { return false };
    name.first() == Some(&b'x') && (is_x_forwarded(name) || same_dashed(name, b"x-real-ip")) && (!trusted || name.contains(&b'_'))
}

fn same_dashed(name: &[u8], dashed: &[u8]) -> bool {
    name.len() == dashed.len() && name.iter().zip(dashed).all(|(byte, other)| byte == other || (*byte == b'_' && *other == b'-'))
}

/// An entry of `X-Forwarded-For`: an address, in brackets or with a port as some proxies write it.
fn parse_address(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry.trim_ascii()).ok()?;
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).filter(|inner| inner.contains(':')).unwrap_or(text);
    let address = bare.parse().or_else(|_| text.parse::<SocketAddr>().map(|socket| socket.ip())).ok()?;
    Some(IpAddr::to_canonical(&address))
}

/// Joins all values of a list field with one more.
fn append(headers: &mut Fields, name: Known, last: &[u8]) {
    let mut joined = Vec::new();
    for value in headers.get_all(name).filter(|value| !value.is_empty()) {
        joined.extend_from_slice(value);
        joined.extend_from_slice(b", ");
    }
    joined.extend_from_slice(last);
    headers.insert(name, &joined);
}

/// An address in its usual form; IPv4 mapped into IPv6 as IPv4.
#[must_use]
pub fn address_value(address: IpAddr) -> HeaderValue {
    let mut text = Cursor::new([0_u8; ADDRESS_TEXT]);
    // The longest address fits.
    let _ = write!(text, "{}", address.to_canonical());
    value_of(&text)
}

/// `for=192.0.2.1`, or quoted in brackets for IPv6 (RFC 7239, section 6).
fn forwarded_element(address: IpAddr) -> HeaderValue {
    let mut text = Cursor::new([0_u8; ADDRESS_TEXT + "for=\"[]\"".len()]);
    let _ = match address.to_canonical() {
        IpAddr::V4(address) => write!(text, "for={address}"),
        IpAddr::V6(address) => write!(text, "for=\"[{address}]\""),
    };
    value_of(&text)
}

fn value_of<const N: usize>(text: &Cursor<[u8; N]>) -> HeaderValue {
    let written = usize::try_from(text.position()).unwrap_or(0);
    let bytes = text.get_ref().get(..written).unwrap_or_default();
    HeaderValue::from_bytes(bytes).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

#[cfg(test)]
mod tests {
    use super::*;

    type List<'a> = &'a [(&'static str, &'static str)];

    fn of(fields: List<'_>) -> Fields {
        fields.iter().copied().collect()
    }

    fn trusted() -> Vec<IpNet> {
        ["10.0.0.0/8", "2001:db8:ffff::/48"].map(|network| network.parse().unwrap()).to_vec()
    }

    #[test]
    fn the_client_is_the_last_address_no_trusted_proxy_has() {
        for (peer, values, client) in [
            ("192.0.2.9", &["198.51.100.1"][..], "192.0.2.9"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["1.1.1.1, 198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["1.1.1.1, 198.51.100.1, 10.0.0.2,10.0.0.3"], "198.51.100.1"),
            ("10.0.0.1", &["198.51.100.1", "10.0.0.2"], "198.51.100.1"),
            ("10.0.0.1", &["198.51.100.1", "203.0.113.5"], "203.0.113.5"),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("10.0.0.1", &["198.51.100.1, junk, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["junk"], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1,"], "10.0.0.1"),
            ("10.0.0.1", &[""], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.300"], "10.0.0.1"),
            ("10.0.0.1", &["\t198.51.100.1:4711 "], "198.51.100.1"),
            ("10.0.0.1", &["2001:DB8::7"], "2001:db8::7"),
            ("10.0.0.1", &["[2001:db8::7]"], "2001:db8::7"),
            ("10.0.0.1", &["[2001:db8::7]:443"], "2001:db8::7"),
            ("10.0.0.1", &["[198.51.100.1]"], "10.0.0.1"),
            ("10.0.0.1", &["::ffff:198.51.100.1"], "198.51.100.1"),
            ("::ffff:10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            ("2001:db8:ffff::1", &["198.51.100.1, 10.1.1.1"], "198.51.100.1"),
        ] {
            let headers = values.iter().map(|value| ("x-forwarded-for", value)).collect();
            let found = client_ip(peer.parse().unwrap(), &headers, &trusted());
            assert_eq!(found, client.parse::<IpAddr>().unwrap(), "{peer} {values:?}");
        }
    }

    #[test]
    fn without_trusted_proxies_the_peer_is_the_client() {
        let headers = of(&[("x-forwarded-for", "198.51.100.1")]);
        let peer = "10.0.0.1".parse().unwrap();
        assert_eq!(client_ip(peer, &headers, &[]), peer);
    }

    #[track_caller]
    fn check(hop: &Hop<'_>, before: List<'_>, after: List<'_>) {
        let mut headers = of(before);
        rewrite(&mut headers, hop);
        assert_eq!(headers, of(after), "{before:?}");
    }

    const SPOOFED: List<'static> = &[
        ("host", "a.example"),
        ("x-forwarded-for", "1.1.1.1"),
        ("x-forwarded-for", "2.2.2.2"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "evil.example"),
        ("x-forwarded-port", "443"),
        ("x_forwarded_for", "1.1.1.1"),
        ("x-forwarded_proto", "https"),
        ("x_real_ip", "1.1.1.1"),
        ("x-real-ip", "1.1.1.1"),
        ("forwarded", "for=1.1.1.1"),
        ("x-forwarder", "kept"),
    ];

    fn hop(peer: &str, trusted: bool, tls: bool) -> Hop<'static> {
        let peer = peer.parse().unwrap();
        Hop { peer, peer_text: Box::leak(Box::new(address_value(peer))), trusted, tls, host: "a.example" }
    }

    #[test]
    fn an_untrusted_peer_says_nothing_of_the_client() {
        check(
            &hop("192.0.2.1", false, false),
            SPOOFED,
            &[
                ("host", "a.example"),
                ("x-forwarder", "kept"),
                ("x-forwarded-for", "192.0.2.1"),
                ("x-forwarded-proto", "http"),
                ("x-forwarded-host", "a.example"),
            ],
        );
    }

    #[test]
    fn a_trusted_proxy_is_appended_to_the_chain() {
        check(
            &hop("2001:db8::1", true, false),
            SPOOFED,
            &[
                ("host", "a.example"),
                ("x-forwarded-for", "1.1.1.1, 2.2.2.2, 2001:db8::1"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-host", "evil.example"),
                ("x-forwarded-port", "443"),
                ("x-real-ip", "1.1.1.1"),
                ("forwarded", "for=1.1.1.1, for=\"[2001:db8::1]\""),
                ("x-forwarder", "kept"),
            ],
        );
        check(
            &hop("10.0.0.1", true, true),
            &[("forwarded", ""), ("x-forwarded-for", "")],
            &[
                ("forwarded", "for=10.0.0.1"),
                ("x-forwarded-for", "10.0.0.1"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-host", "a.example"),
            ],
        );
    }

    #[test]
    fn addresses_are_written_in_their_usual_form() {
        for (address, text) in [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ] {
            assert_eq!(address_value(address.parse().unwrap()), text);
        }
    }

    #[test]
    fn a_request_without_host_tells_none() {
        let hop = Hop { host: "", ..hop("192.0.2.1", false, true) };
        check(&hop, &[], &[("x-forwarded-for", "192.0.2.1"), ("x-forwarded-proto", "https")]);
    }
}
