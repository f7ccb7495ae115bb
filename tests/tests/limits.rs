//! What one client may cost.

use std::time::{Duration, Instant};

use weir_tests::{Connection, LONG, Reply, Request, Setup, Upstream, eventually};

#[test]
fn heads_over_a_limit_are_refused_and_logged() {
    let origin = Upstream::text("ok");
    let gateway = Setup::before(&origin).section("[limits]\nhead_bytes = \"8KiB\"\nuri_bytes = \"1KiB\"\nfields = 20").start();
    let fields = |count: usize| (0..count).fold(Request::get("/"), |request, number| request.header(&format!("x-{number}"), "1"));
    let cases = [
        (Request::get(&format!("/{}", "a".repeat(2000))), 414),
        (fields(40), 431),
        (Request::get("/").header("x-long", &"a".repeat(9000)), 431),
    ];
    for (request, status) in cases {
        let mut client = gateway.connect();
        assert_eq!(client.ask(&request).unwrap().status, status);
        assert!(client.is_closed());
    }
    assert_eq!(gateway.ask(&fields(15)).status, 200);
    assert_eq!(origin.count(), 1);
}

#[test]
fn whoever_is_slow_with_a_head_or_idle_is_cut_off() {
    let origin = Upstream::text("ok");
    let gateway = Setup::before(&origin).section("[limits]\nrequest_head = \"300ms\"\nidle = \"300ms\"").start();
    let started = Instant::now();
    let mut slow = gateway.connect();
    slow.send("GET / HTTP/1.1\r\nhost: si").unwrap();
    let told = slow.answer();
    assert!(told.as_ref().map_or(true, |answer| answer.status == 408), "{told:?}");
    let mut idle = gateway.connect();
    assert_eq!(idle.ask(&Request::get("/")).unwrap().status, 200);
    assert!(idle.is_closed());
    let mut silent = gateway.connect();
    assert!(silent.is_closed());
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert_eq!(origin.count(), 1);
}

#[test]
fn a_body_that_stalls_does_not_hold_the_origin() {
    let origin = Upstream::text("ok");
    let gateway = Setup::before(&origin).section("[limits]\nbody_idle = \"300ms\"").start();
    let mut client = gateway.connect();
    client.send("POST /stall HTTP/1.1\r\nhost: site.test\r\ncontent-length: 100\r\n\r\nonly this").unwrap();
    let told = client.answer().unwrap();
    assert_eq!(told.status, 408);
    assert!(client.is_closed());
    assert_eq!(gateway.log_of(&told)["reason"], "client_body_stalled");
}

#[test]
fn connections_over_the_limit_are_closed_and_others_served() {
    let origin = Upstream::text("ok");
    let gateway = Setup::before(&origin).section("[limits]\nconnections = 4").start();
    let mut held: Vec<Connection> = (0..4).map(|_| gateway.connect()).collect();
    for client in &mut held {
        assert_eq!(client.ask(&Request::get("/")).unwrap().status, 200);
    }
    let refused = Connection::open(gateway.plain()).and_then(|mut client| client.ask(&Request::get("/")));
    assert!(refused.is_err(), "{refused:?}");
    let line = gateway.log_where(|line| line["reason"] == "too_many_connections");
    assert_eq!(line["event"], "connection", "{line}");
    assert_eq!(gateway.metric("weir_connections_refused_total{reason=\"too_many_connections\"}"), 1.0);
    assert_eq!(held[0].ask(&Request::get("/")).unwrap().status, 200);
    held.pop();
    eventually(LONG, "a place is free again", || {
        Connection::open(gateway.plain()).and_then(|mut client| client.ask(&Request::get("/"))).is_ok()
    });
}

#[test]
fn an_agent_that_aborts_its_download_poisons_nobody() {
    let origin = Upstream::scripted(|_| Reply::Stream { length: 64 << 20, chunked: false });
    let gateway = Setup::before(&origin).start();
    let update = Request::get("/labtech/updates/LabtechUpdate_250.204.zip").version("HTTP/1.0").header("connection", "close");
    for _ in 0..5 {
        let mut client = gateway.connect();
        client.send(update.bytes()).unwrap();
        client.head().unwrap();
        client.exactly(64 * 1024).unwrap();
    }
    let whole = gateway.ask(&update);
    assert_eq!((whole.status, whole.body.len()), (200, 64 << 20));
    assert!(whole.body.iter().all(|byte| *byte == b'w'));
    eventually(LONG, "every abort has its line", || {
        gateway.log().iter().filter(|line| line["reason"] == "client_gone").count() == 5
    });
}
