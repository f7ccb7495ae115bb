//! What a policy is told of a connection.

use weir_tests::tls::{Authority, Kind};
use weir_tests::{Setup, Upstream};

use crate::stage::order_of;

#[test]
fn a_policy_is_told_who_is_connected_and_how() {
    // Pain 28
    let (origin, authority) = (Upstream::text("ok"), Authority::new());
    let gateway = Setup::before(&origin)
        .behind_proxy()
        .certificate(&authority.issue(Kind::Ecdsa, &["site.test"]))
        .guest("hostile", "grants = [\"kv\"]\nlimits = { wall = \"10s\" }")
        .start();
    let mut secure = authority.connect(gateway.tls(), "site.test").unwrap();
    assert_eq!(secure.ask(&order_of("request facts").from("203.0.113.7")).unwrap().status, 200);
    let received = origin.last();
    let facts: Vec<&str> = received.header("x-facts").unwrap_or_default().split(' ').collect();
    let [client, peer, listener, name, version, ja4, protocol, scheme, site] = facts[..] else { panic!("{facts:?}") };
    assert_eq!((client, peer, listener), ("203.0.113.7", "127.0.0.1", &*gateway.tls().to_string()));
    assert_eq!((name, version, protocol, scheme, site), ("site.test", "1.3", "HTTP/1.1", "https", "site"));
    assert!(ja4.starts_with("t13d") && ja4.len() == 36, "{ja4}");
}
