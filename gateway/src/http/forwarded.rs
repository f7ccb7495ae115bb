//! Who the client is, as told by proxies before this one and to the upstream behind it.

use std::io::{Cursor, Write as _};
use std::net::{IpAddr, SocketAddr};

use bytes::{BufMut as _, BytesMut};
use http::header::{FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

/// The addresses a request came through, the client first.
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// `http` or `https`, as the client used it.
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// The authority as the client sent it.
pub const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// The client's address, in the manner of nginx.
pub const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

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
pub fn rewrite(headers: &mut HeaderMap, hop: &Hop<'_>) {
    if headers.keys().any(|name| is_foreign(name, hop.trusted)) {
        let foreign: Vec<HeaderName> = headers.keys().filter(|name| is_foreign(name, hop.trusted)).cloned().collect();
        for name in foreign {
            headers.remove(name);
        }
    }
    let address = hop.peer_text.clone();
    let proto = HeaderValue::from_static(if hop.tls { "https" } else { "http" });
    let host = host_value(headers, hop.host);
    if !hop.trusted {
        headers.insert(X_FORWARDED_FOR, address);
        headers.insert(X_FORWARDED_PROTO, proto);
        if let Some(host) = host {
            headers.insert(X_FORWARDED_HOST, host);
        }
        return;
    }
    if headers.contains_key(FORWARDED) {
        append(headers, &FORWARDED, &forwarded_element(hop.peer));
    }
    append(headers, &X_FORWARDED_FOR, &address);
    headers.entry(X_FORWARDED_PROTO).or_insert(proto);
    if let Some(host) = host {
        headers.entry(X_FORWARDED_HOST).or_insert(host);
    }
}

/// The client behind `peer`: the first address from the right of `X-Forwarded-For` that no trusted proxy has, when the peer itself is
/// trusted. An entry that is no address ends the walk at the last good one; so does the end of the list.
#[must_use]
pub fn client_ip(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let mut client = peer.to_canonical();
    if !is_trusted(client, trusted) {
        return client;
    }
    let entries = headers.get_all(&X_FORWARDED_FOR).iter().rev().flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','));
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

fn is_foreign(name: &HeaderName, trusted: bool) -> bool {
    let text = name.as_str().as_bytes();
    match text.first() {
        Some(b'f') => !trusted && *name == FORWARDED,
        Some(b'x') => (is_x_forwarded(text) || same_dashed(text, b"x-real-ip")) && (!trusted || text.contains(&b'_')),
        _ => false,
    }
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
fn append(headers: &mut HeaderMap, name: &HeaderName, last: &HeaderValue) {
    let values = headers.get_all(name);
    let length: usize = values.iter().map(|value| value.len() + 2).sum();
    let mut joined = BytesMut::with_capacity(length + last.len());
    for value in values.iter().filter(|value| !value.is_empty()) {
        joined.put_slice(value.as_bytes());
        joined.put_slice(b", ");
    }
    joined.put_slice(last.as_bytes());
    let joined = HeaderValue::from_maybe_shared(joined.freeze()).unwrap_or_else(|_| last.clone());
    headers.insert(name.clone(), joined);
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

/// The authority as a value, shared with the Host field when that has the same text.
fn host_value(headers: &HeaderMap, host: &str) -> Option<HeaderValue> {
    if host.is_empty() {
        return None;
    }
    match headers.get(HOST) {
        Some(value) if value.as_bytes() == host.as_bytes() => Some(value.clone()),
        _ => HeaderValue::from_str(host).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Fields<'a> = &'a [(&'static str, &'static str)];

    fn map(fields: Fields<'_>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
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
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(X_FORWARDED_FOR, HeaderValue::from_static(value));
            }
            let found = client_ip(peer.parse().unwrap(), &headers, &trusted());
            assert_eq!(found, client.parse::<IpAddr>().unwrap(), "{peer} {values:?}");
        }
    }

    #[test]
    fn without_trusted_proxies_the_peer_is_the_client() {
        let headers = map(&[("x-forwarded-for", "198.51.100.1")]);
        let peer = "10.0.0.1".parse().unwrap();
        assert_eq!(client_ip(peer, &headers, &[]), peer);
    }

    #[track_caller]
    fn check(hop: &Hop<'_>, before: Fields<'_>, after: Fields<'_>) {
        let mut headers = map(before);
        rewrite(&mut headers, hop);
        assert_eq!(headers, map(after), "{before:?}");
    }

    const SPOOFED: Fields<'static> = &[
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
