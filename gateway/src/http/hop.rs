//! Fields that concern one connection and must not travel further.

use http::HeaderName;

use super::forwarded::is_x_forwarded;
use crate::fields::{Fields, Known, KnownSet, Name};

/// Everything that ends here, named in Connection or not.
const HOP_BY_HOP: KnownSet = KnownSet::of(&[
    Known::Connection,
    Known::TransferEncoding,
    Known::KeepAlive,
    Known::Te,
    Known::Trailer,
    Known::Upgrade,
    Known::ProxyConnection,
    Known::ProxyAuthenticate,
    Known::ProxyAuthorization,
    Known::Http2Settings,
    // CGI turns this into the variable that names an outgoing proxy (CVE-2016-5385). No client has a use for it.
    Known::Proxy,
]);

/// Fields that no other field can have removed, beside those of [`HOP_BY_HOP`] and the forwarding ones: a later hop relies on them.
const PROTECTED: KnownSet =
    KnownSet::of(&[Known::Host, Known::ContentLength, Known::Authorization, Known::Cookie, Known::Forwarded, Known::XRealIp]);

/// Removes the hop-by-hop fields of a request or response in place, and those its Connection names, except fields a peer may not take
/// from others: Host, framing, credentials and forwarding fields. `TE` keeps `trailers`, `Trailer` the names that are harmless. Must run before the gateway adds fields of its
/// own.
///
/// `upgrade` says that this exchange really is an upgrade ([`asks_upgrade`] on the request, 101 on the response): then `Upgrade` stays,
/// with a Connection field of ours. An upgrade to `h2c` never stays.
pub fn strip(headers: &mut Fields, upgrade: bool) {
    if !headers.known().meets(HOP_BY_HOP) {
        return;
    }
    remove_named(headers);
    let trailers = headers.get_all(Known::Te).flat_map(tokens).any(|token| token.eq_ignore_ascii_case(b"trailers"));
    let announced = harmless_trailers(headers);
    let protocol =
        if upgrade { headers.get(Known::Upgrade).filter(|value| is_upgradable(value)).map(<[u8]>::to_vec) } else { None };
    headers.remove_known(HOP_BY_HOP);
    if trailers {
        headers.append(Known::Te, b"trailers");
    }
    if let Some(announced) = announced {
        headers.append(Known::Trailer, announced.as_bytes());
    }
    if let Some(protocol) = protocol {
        headers.append(Known::Upgrade, &protocol);
        headers.append(Known::Connection, b"upgrade");
    }
}

/// The trailers that may follow the body: announced ones that no later reader takes for routing, framing, credentials or the client's
/// address. Nothing that is not announced here is sent.
fn harmless_trailers(headers: &Fields) -> Option<String> {
    if !headers.contains(Known::Trailer) {
        return None;
    }
    let names = headers.get_all(Known::Trailer).flat_map(tokens).filter_map(|token| HeaderName::from_bytes(token).ok());
    let harmless: Vec<HeaderName> = names.filter(|name| !is_protected(name.as_str().as_bytes())).take(MAX_TRAILERS).collect();
    let text = harmless.iter().map(HeaderName::as_str).collect::<Vec<_>>().join(", ");
    Some(text).filter(|text| !text.is_empty())
}

/// Announced trailers that are looked at.
const MAX_TRAILERS: usize = 32;

/// Joins the cookie pieces of an HTTP/2 request into the one field that HTTP/1 servers expect.
pub fn join_cookies(headers: &mut Fields) {
    let mut pieces = headers.get_all(Known::Cookie);
    let (Some(first), Some(second)) = (pieces.next(), pieces.next()) else { return };
    let mut joined = first.to_vec();
    for piece in std::iter::once(second).chain(pieces) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(piece);
    }
    headers.insert(Known::Cookie, &joined);
}

/// Whether an HTTP/1.1 request asks for an upgrade the gateway would relay: `Connection: upgrade`, and one Upgrade field without `h2c`.
#[must_use]
pub fn asks_upgrade(headers: &Fields) -> bool {
    let mut protocols = headers.get_all(Known::Upgrade);
    protocols.next().is_some_and(is_upgradable)
        && protocols.next().is_none()
        && headers.get_all(Known::Connection).flat_map(tokens).any(|token| token.eq_ignore_ascii_case(b"upgrade"))
}

fn is_upgradable(protocols: &[u8]) -> bool {
    let mut protocols = tokens(protocols).filter(|token| !token.is_empty()).peekable();
    protocols.peek().is_some() && protocols.all(|token| !token.eq_ignore_ascii_case(b"h2c"))
}

/// Removes the fields that Connection names. The usual `keep-alive` or `close` costs no allocation.
fn remove_named(headers: &mut Fields) {
    if headers.get_all(Known::Connection).all(|value| matches!(value, b"keep-alive" | b"close")) {
        return;
    }
    let naming = headers.get_all(Known::Connection).filter(|value| !tokens(value).all(is_option));
    let naming: Vec<Vec<u8>> = naming.map(<[u8]>::to_ascii_lowercase).collect();
    let mut named: Vec<&[u8]> = naming.iter().flat_map(|value| tokens(value)).filter(|name| !is_protected(name)).collect();
    // A head has room for thousands of names: each field is looked for among them, and not each of them among the fields.
    named.sort_unstable();
    if !named.is_empty() {
        headers.retain(|name| named.binary_search(&name.as_bytes()).is_err());
    }
}

/// Whether a Connection token names nothing that still has to be removed.
fn is_option(token: &[u8]) -> bool {
    [&b"keep-alive"[..], b"close", b"upgrade", b"te", b""].iter().any(|option| token.eq_ignore_ascii_case(option))
}

/// Fields, in lower case, that a Connection token does not remove: either a later hop relies on them, or they are dealt with afterwards.
fn is_protected(name: &[u8]) -> bool {
    match name.into() {
        Name::Known(known) if PROTECTED.has(known) || HOP_BY_HOP.has(known) => true,
        name => is_x_forwarded(name.as_bytes()),
    }
}

fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(fields: &[(&'static str, &'static str)]) -> Fields {
        fields.iter().copied().collect()
    }

    #[track_caller]
    fn check(upgrade: bool, before: &[(&'static str, &'static str)], after: &[(&'static str, &'static str)]) {
        let mut headers = of(before);
        strip(&mut headers, upgrade);
        assert_eq!(headers, of(after), "{before:?}");
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
            assert_eq!(asks_upgrade(&of(fields)), asks, "{fields:?}");
        }
        let twice = [("connection", "upgrade"), ("upgrade", "websocket"), ("upgrade", "h2c")];
        assert!(!asks_upgrade(&of(&twice)));
    }

    #[test]
    fn cookie_pieces_become_one_field() {
        let mut headers = of(&[("cookie", "a=1"), ("accept", "*/*"), ("cookie", "b=2"), ("cookie", "c=3")]);
        join_cookies(&mut headers);
        assert_eq!(headers, of(&[("cookie", "a=1; b=2; c=3"), ("accept", "*/*")]));
    }
}
