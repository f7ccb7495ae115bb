//! A WebSocket passes through all four policies and carries bytes both ways.

use weir_tests::tls::{Authority, Kind};
use weir_tests::{Connection, Reply, Request, Setup, Upstream};

fn upgrade() -> Request {
    Request::get("/socket")
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
}

/// A masked text frame of a client, from which the origin makes nothing: it sends back what comes.
const FRAME: &[u8] = &[0x81, 0x85, 1, 2, 3, 4, b'h' ^ 1, b'e' ^ 2, b'l' ^ 3, b'l' ^ 4, b'o' ^ 1];

fn echo(client: &mut Connection) {
    let answer = client.ask(&upgrade()).unwrap();
    assert_eq!((answer.status, answer.header("upgrade")), (101, Some("websocket")));
    assert!(answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("upgrade")));
    for _ in 0..100 {
        client.send(FRAME).unwrap();
        assert_eq!(client.exactly(FRAME.len()).unwrap(), FRAME);
    }
    let large = vec![0x5a; 1 << 20];
    for piece in large.chunks(1 << 14) {
        client.send(piece).unwrap();
        assert_eq!(client.exactly(piece.len()).unwrap(), piece);
    }
}

#[test]
fn a_websocket_echoes_through_four_policies_and_tls() {
    let origin = Upstream::scripted(|request| match request.header("upgrade") {
        Some("websocket") => Reply::Tunnel,
        _ => Reply::text("no upgrade"),
    });
    let authority = Authority::new();
    let gateway = Setup::before(&origin)
        .countries()
        .certificate(&authority.issue(Kind::Ecdsa, &["site.test"]))
        .policy("acl", "agent-acl", "config = { model = \"all-traffic\" }")
        .policy("geo", "geoip", "config = { deny = [\"KP\"] }")
        .policy("ips", "ips", "")
        .policy("sso", "sso-cors", "config = { public = \"site.test\", origin = \"automate.internal\" }")
        .start();

    let mut secure = authority.connect(gateway.tls(), "site.test").unwrap();
    echo(&mut secure);
    let received = origin.last();
    assert_eq!(received.header("sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
    assert_eq!(received.header("host"), Some("automate.internal"), "the policies took part");
    drop(secure);
    let line = gateway.log_where(|line| line["status"] == 101);
    assert!(line["bytes_out"].as_u64().is_some_and(|bytes| bytes > 1 << 20), "{line}");
    assert!(line["bytes_in"].as_u64().is_some_and(|bytes| bytes > 1 << 20), "{line}");

    let mut plain = gateway.connect();
    echo(&mut plain);
}

#[test]
fn the_end_of_one_side_is_the_end_of_the_other() {
    let mut origin = Upstream::scripted(|_| Reply::Tunnel);
    let gateway = Setup::before(&origin).start();
    let mut client = gateway.connect();
    assert_eq!(client.ask(&upgrade()).unwrap().status, 101);
    client.send("x").unwrap();
    assert_eq!(client.exactly(1).unwrap(), b"x");
    origin.stop();
    assert!(client.is_closed());
}

#[test]
fn an_upgrade_that_the_origin_declines_is_an_ordinary_answer() {
    let origin = Upstream::text("no upgrade");
    let gateway = Setup::before(&origin).start();
    let mut client = gateway.connect();
    assert_eq!(client.ask(&upgrade()).unwrap().text(), "no upgrade");
    assert_eq!(client.ask(&Request::get("/")).unwrap().text(), "no upgrade");
}
