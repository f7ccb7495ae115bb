//! What a policy may change, and what the gateway does not let it.

use weir_tests::{Reply, Request, Setup, Upstream};

#[test]
fn edits_are_applied_and_forbidden_ones_are_refused() {
    let origin = Upstream::scripted(|_| {
        Reply::with("200 OK", &[("server", "secret/1.0"), ("x-kept", "1"), ("content-type", "text/plain")], "shout it")
    });
    let gateway = Setup::before(&origin).guest("edits", "").start();
    let request = Request::get("/original?q=1").header("x-secret", "1").header("x-list", "one").header("x-kept", "1");
    let answer = gateway.ask(&request);

    let received = origin.last();
    assert_eq!(received.target(), "/edited?by=policy");
    assert_eq!(received.header("x-refused"), Some("6"), "framing, hop-by-hop, Host and broken fields");
    assert_eq!(received.head.all("x-list"), ["one", "two"]);
    assert_eq!((received.header("x-secret"), received.header("x-smuggled")), (None, None));
    assert_eq!((received.header("x-kept"), received.header("host")), (Some("1"), Some("site.test")));
    assert_eq!(received.header("transfer-encoding"), None);

    assert_eq!((answer.status, answer.text().as_str()), (203, "SHOUT IT"));
    assert_eq!((answer.header("server"), answer.header("x-kept")), (None, Some("1")));
    assert_eq!(answer.header("x-response-refused"), Some("5"));
    assert_eq!(answer.header("x-smuggled"), None);
}

#[test]
fn a_body_is_transformed_piece_by_piece_whatever_its_size() {
    let origin = Upstream::scripted(|_| Reply::Stream { length: 5_000_001, chunked: true });
    let gateway = Setup::before(&origin).guest("edits", "").start();
    let mut client = gateway.connect();
    for _ in 0..2 {
        let answer = client.ask(&Request::get("/")).unwrap();
        assert_eq!(answer.body.len(), 5_000_001);
        assert!(answer.body.iter().all(|byte| *byte == b'W'));
    }
}

#[test]
fn observed_edits_change_nothing() {
    let origin = Upstream::text("quiet");
    let gateway = Setup::before(&origin).guest("edits", "mode = \"observe\"").start();
    let answer = gateway.ask(&Request::get("/original").header("x-secret", "1"));
    let received = origin.last();
    assert_eq!((received.target(), received.header("x-secret"), received.header("x-refused")), ("/original", Some("1"), None));
    assert_eq!((answer.status, answer.text().as_str()), (200, "quiet"));
}

#[test]
fn a_hello_world_of_a_dozen_lines_answers() {
    let origin = Upstream::text("ok");
    let gateway = Setup::before(&origin).guest("hello", "").start();
    assert_eq!(gateway.get("/").header("x-hello"), Some("weir"));
}

#[test]
fn a_granted_store_is_shared_by_all_instances() {
    let origin = Upstream::text("ok");
    let gateway = Setup::before(&origin).guest("kv", "grants = [\"kv\"]").start();
    let count = || gateway.get("/").header("x-count").and_then(|count| count.parse::<i64>().ok()).unwrap();
    let first = count();
    for later in 1..=20 {
        assert_eq!(count(), first + later);
    }
}
