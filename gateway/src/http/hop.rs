//! Fields that concern one connection and must not travel further.

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};

use super::forwarded::{X_REAL_IP, is_x_forwarded};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// CGI turns this into the variable that names an outgoing proxy (CVE-2016-5385). No client has a use for it.
const PROXY: HeaderName = HeaderName::from_static("proxy");

/// Everything that ends here, named in Connection or not.
static HOP_BY_HOP: [HeaderName; 11] = [
    CONNECTION,
    TRANSFER_ENCODING,
    KEEP_ALIVE,
    TE,
    TRAILER, // the fifth: TRAILER_BIT
    UPGRADE,
    PROXY_CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    HTTP2_SETTINGS,
    PROXY,
];

const TRAILER_BIT: u16 = 1 << 4;

/// Removes the hop-by-hop fields of a request or response in place, and those its Connection names, except fields a peer may not take
/// from others: Host, framing, credentials and forwarding fields. `TE` keeps `trailers`, `Trailer` the names that are harmless. Must run before the gateway adds fields of its
/// own.
///
/// `upgrade` says that this exchange really is an upgrade ([`asks_upgrade`] on the request, 101 on the response): then `Upgrade` stays,
/// with a Connection field of ours. An upgrade to `h2c` never stays.
pub fn strip(headers: &mut HeaderMap, upgrade: bool) {
    let mut found = 0_u16;
    for name in headers.keys().filter(|name| may_be_hop_by_hop(name)) {
        if let Some(bit) = HOP_BY_HOP.iter().position(|hop| hop == name) {
            found |= 1 << bit;
        }
    }
    if found == 0 {
        return;
    }
    remove_named(headers);
    let trailers = headers.get_all(TE).iter().flat_map(tokens).any(|token| token.eq_ignore_ascii_case(b"trailers"));
    let announced = if found & TRAILER_BIT != 0 { harmless_trailers(headers) } else { None };
    let protocol = if upgrade { headers.remove(UPGRADE).filter(is_upgradable) } else { None };
    for (bit, name) in HOP_BY_HOP.iter().enumerate() {
        if found & 1 << bit != 0 {
            headers.remove(name);
        }
    }
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if let Some(announced) = announced {
        headers.insert(TRAILER, announced);
    }
    if let Some(protocol) = protocol {
        headers.insert(UPGRADE, protocol);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

/// The trailers that may follow the body: announced ones that no later reader takes for routing, framing, credentials or the client's
/// address. Nothing that is not announced here is sent.
fn harmless_trailers(headers: &HeaderMap) -> Option<HeaderValue> {
    let names = headers.get_all(TRAILER).iter().flat_map(tokens).filter_map(|token| HeaderName::from_bytes(token).ok());
    let harmless: Vec<HeaderName> = names.filter(|name| !is_protected(name)).take(MAX_TRAILERS).collect();
    let text = harmless.iter().map(HeaderName::as_str).collect::<Vec<_>>().join(", ");
    if text.is_empty() { None } else { HeaderValue::from_str(&text).ok() }
}

/// Announced trailers that are looked at.
const MAX_TRAILERS: usize = 32;

/// Most fields can be told by their length and first letter not to be one of [`HOP_BY_HOP`], which saves eleven comparisons for each.
fn may_be_hop_by_hop(name: &HeaderName) -> bool {
    let name = name.as_str().as_bytes();
    matches!(
        (name.len(), name.first()),
        (10 | 14 | 17, Some(b'c' | b'h' | b'k' | b't')) | (2 | 7, Some(b't' | b'u')) | (5 | 16 | 18 | 19, Some(b'p'))
    )
}

/// Joins the cookie pieces of an HTTP/2 request into the one field that HTTP/1 servers expect.
pub fn join_cookies(headers: &mut HeaderMap) {
    let mut pieces = headers.get_all(COOKIE).iter();
    let (Some(first), Some(second)) = (pieces.next(), pieces.next()) else { return };
    let mut joined = first.as_bytes().to_vec();
    for piece in std::iter::once(second).chain(pieces) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(piece.as_bytes());
    }
    if let Ok(value) = HeaderValue::from_bytes(&joined) {
        headers.insert(COOKIE, value);
    }
}

/// Whether an HTTP/1.1 request asks for an upgrade the gateway would relay: `Connection: upgrade`, and one Upgrade field without `h2c`.
#[must_use]
pub fn asks_upgrade(headers: &HeaderMap) -> bool {
    let mut protocols = headers.get_all(UPGRADE).iter();
    protocols.next().is_some_and(is_upgradable)
        && protocols.next().is_none()
        && headers.get_all(CONNECTION).iter().flat_map(tokens).any(|token| token.eq_ignore_ascii_case(b"upgrade"))
}

fn is_upgradable(protocols: &HeaderValue) -> bool {
    let mut protocols = tokens(protocols).filter(|token| !token.is_empty()).peekable();
    protocols.peek().is_some() && protocols.all(|token| !token.eq_ignore_ascii_case(b"h2c"))
}

/// Removes the fields that Connection names. The usual `keep-alive` or `close` costs no allocation.
fn remove_named(headers: &mut HeaderMap) {
    let naming: Vec<HeaderValue> =
        headers.get_all(CONNECTION).iter().filter(|value| !tokens(value).all(is_option)).cloned().collect();
    for token in naming.iter().flat_map(tokens) {
        if let Ok(name) = HeaderName::from_bytes(token)
            && !is_protected(&name)
        {
            headers.remove(name);
        }
    }
}

/// Whether a Connection token names nothing that still has to be removed.
fn is_option(token: &[u8]) -> bool {
    [&b"keep-alive"[..], b"close", b"upgrade", b"te", b""].iter().any(|option| token.eq_ignore_ascii_case(option))
}

/// Fields a Connection token does not remove: either a later hop relies on them, or they are dealt with afterwards.
fn is_protected(name: &HeaderName) -> bool {
    [HOST, CONTENT_LENGTH, AUTHORIZATION, COOKIE, FORWARDED, X_REAL_IP].contains(name)
        || HOP_BY_HOP.contains(name)
        || is_x_forwarded(name.as_str().as_bytes())
}

fn tokens(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[track_caller]
    fn check(upgrade: bool, before: &[(&'static str, &'static str)], after: &[(&'static str, &'static str)]) {
        let mut headers = HeaderMap::new();
        for (name, value) in before {
            headers.append(*name, HeaderValue::from_static(value));
        }
        strip(&mut headers, upgrade);
        assert_eq!(headers, map(after), "{before:?}");
    }

    #[test]
    fn hop_by_hop_fields_end_here() {
        check(
            false,
            &[
                ("connection", "keep-alive"),
                ("keep-alive", "timeout=5"),
                ("proxy-connection", "keep-alive"),
                ("proxy-authorization", "Basic eA=="),
                ("proxy-authenticate", "Basic"),
                ("proxy", "evil.example"),
                ("te", "gzip"),
                ("trailer", "transfer-encoding"),
                ("transfer-encoding", "chunked"),
                ("upgrade", "websocket"),
                ("http2-settings", "AAMAAABk"),
                ("x-kept", "1"),
            ],
            &[("x-kept", "1")],
        );
        check(false, &[("host", "a.example"), ("accept", "*/*")], &[("host", "a.example"), ("accept", "*/*")]);
        check(false, &[], &[]);
    }

    #[test]
    fn connection_removes_what_it_names() {
        check(false, &[("connection", "close, X-One"), ("x-one", "1"), ("x-two", "2")], &[("x-two", "2")]);
        check(
            false,
            &[("connection", "x-one"), ("connection", "keep-alive"), ("connection", ", X-TWO ,"), ("x-one", "1"), ("x-two", "2")],
            &[],
        );
        check(false, &[("connection", "a b, (, x-one"), ("x-one", "1")], &[]);
    }

    #[test]
    fn connection_cannot_remove_what_others_rely_on() {
        let kept = [
            ("host", "a.example"),
            ("content-length", "5"),
            ("authorization", "Basic eA=="),
            ("cookie", "a=b"),
            ("forwarded", "for=192.0.2.1"),
            ("x-real-ip", "192.0.2.1"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-anything", "1"),
        ];
        let names = "Host, content-length, Authorization, cookie, Forwarded, X-Real-IP, X-Forwarded-For, x-forwarded-anything";
        let mut fields = vec![("connection", names)];
        fields.extend(kept);
        check(false, &fields, &kept);
    }

    #[test]
    fn announced_trailers_stay_when_they_are_harmless() {
        let announced =
            [("trailer", "X-Checksum, host, Content-Length, x-forwarded-for, Authorization, ("), ("trailer", "grpc-status")];
        check(false, &announced, &[("trailer", "x-checksum, grpc-status")]);
        check(false, &[("trailer", "Cookie")], &[]);
    }

    #[test]
    fn te_keeps_trailers_alone() {
        check(false, &[("connection", "te"), ("te", "gzip, Trailers")], &[("te", "trailers")]);
        check(false, &[("te", "gzip"), ("te", "trailers")], &[("te", "trailers")]);
        check(false, &[("te", "trailers;q=0.5")], &[]);
    }

    #[test]
    fn a_real_upgrade_stays_and_h2c_never_does() {
        let websocket = [("upgrade", "websocket"), ("connection", "upgrade")];
        check(true, &[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket"), ("keep-alive", "1")], &websocket);
        check(true, &[("connection", "x-one, upgrade"), ("upgrade", "websocket"), ("x-one", "1")], &websocket);
        check(true, &[("connection", "upgrade"), ("upgrade", "websocket"), ("upgrade", "h2c")], &websocket);
        check(false, &websocket, &[]);
        for protocols in ["h2c", "H2C", "websocket, h2c", "", ","] {
            let fields = [("connection", "upgrade, http2-settings"), ("upgrade", protocols), ("http2-settings", "AAMAAABk")];
            check(true, &fields, &[]);
        }
    }

    #[test]
    fn what_asks_for_an_upgrade() {
        for (fields, asks) in [
            (&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")][..], true),
            (&[("connection", "upgrade")], false),
            (&[("upgrade", "websocket")], false),
            (&[("connection", "upgrade"), ("upgrade", "h2c")], false),
            (&[("connection", "upgrades"), ("upgrade", "websocket")], false),
            (&[], false),
        ] {
            assert_eq!(asks_upgrade(&map(fields)), asks, "{fields:?}");
        }
        let mut twice = map(&[("connection", "upgrade"), ("upgrade", "websocket")]);
        twice.append(UPGRADE, HeaderValue::from_static("h2c"));
        assert!(!asks_upgrade(&twice));
    }

    #[test]
    fn cookie_pieces_become_one_field() {
        let mut headers = HeaderMap::new();
        for piece in ["a=1", "b=2", "c=3"] {
            headers.append(COOKIE, HeaderValue::from_static(piece));
        }
        join_cookies(&mut headers);
        assert_eq!(headers.get_all(COOKIE).iter().collect::<Vec<_>>(), ["a=1; b=2; c=3"]);
    }
}
