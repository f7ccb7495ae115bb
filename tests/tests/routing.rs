//! Which site answers.

use weir_tests::tls::{Authority, Kind};
use weir_tests::{Request, Setup, Upstream};

#[test]
fn the_most_specific_host_wins() {
    let (exact, wild, any) = (Upstream::text("exact"), Upstream::text("wild"), Upstream::text("any"));
    let gateway = Setup::empty()
        .site("exact", &["a.example.test"], &exact)
        .site("wild", &["*.example.test"], &wild)
        .site("any", &["*"], &any)
        .start();
    let cases = [
        ("a.example.test", "exact"),
        ("A.Example.TEST", "exact"),
        ("a.example.test:8080", "exact"),
        ("b.example.test", "wild"),
        ("x.y.example.test", "wild"),
        ("example.test", "any"),
        ("127.0.0.1", "any"),
        ("other.test", "any"),
    ];
    for (host, expected) in cases {
        let answer = gateway.ask(&Request::get("/").host(host));
        assert_eq!(answer.text(), expected, "{host}");
        assert_eq!(gateway.log_of(&answer)["site"], expected, "{host}");
    }
    assert_eq!(exact.last().header("host"), Some("a.example.test:8080"), "Host stays as the client sent it");
}

#[test]
fn a_host_without_a_site_is_told_nothing() {
    let origin = Upstream::text("ok");
    let gateway = Setup::before(&origin).start();
    let answer = gateway.ask(&Request::get("/secret").host("unknown.test"));
    assert_eq!(answer.status, 404);
    assert!(answer.text().contains(&answer.request_id()), "{}", answer.text());
    assert!(!answer.text().contains("site"), "{}", answer.text());
    let line = gateway.log_of(&answer);
    assert_eq!((&line["reason"], &line["decided_by"], &line["site"]), (&"no_site".into(), &"gateway".into(), &().into()));
    assert_eq!(origin.count(), 0);
}

#[test]
fn a_connection_made_for_one_site_does_not_reach_another() {
    let (one, two) = (Upstream::text("one"), Upstream::text("two"));
    let authority = Authority::new();
    let both = authority.issue(Kind::Ecdsa, &["one.test", "www.one.test", "two.test"]);
    let gateway = Setup::empty()
        .site("one", &["one.test", "www.one.test"], &one)
        .site("two", &["two.test"], &two)
        .certificate(&both)
        .start();
    let mut client = authority.connect(gateway.tls(), "one.test").unwrap();
    assert_eq!(client.ask(&Request::get("/").host("one.test")).unwrap().text(), "one");
    assert_eq!(client.ask(&Request::get("/").host("www.one.test")).unwrap().text(), "one", "another name of the same site");
    let misdirected = client.ask(&Request::get("/").host("two.test")).unwrap();
    assert_eq!(misdirected.status, 421);
    assert_eq!(gateway.log_of(&misdirected)["reason"], "misdirected");
    assert_eq!(client.ask(&Request::get("/").host("one.test")).unwrap().text(), "one");
    assert_eq!(two.count(), 0);
}
