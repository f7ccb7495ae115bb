//! Clients that break off: whoever comes next gets an answer of their own, from upstream connections that are in step.

use std::time::Duration;

use weir_tests::recording::{Recording, answer};
use weir_tests::{LONG, Request, eventually};

use crate::origin;
use crate::stage::{Stage, rest};

/// The agent's probe of a download: HTTP/1.0, a few bytes, and gone; then the real one.
#[test]
fn a_download_that_is_broken_off_poisons_nobody() {
    let origin = origin::site();
    let stage = Stage::plain(&origin.url());
    for (round, target) in ["/large", "/stream"].into_iter().cycle().take(20).enumerate() {
        let mut probe = if round % 4 < 2 { stage.gateway.connect() } else { stage.secure() };
        probe.send(Request::get(target).version("HTTP/1.0").bytes()).unwrap();
        let head = probe.head().unwrap();
        assert_eq!(head.first_line, "HTTP/1.0 200 OK", "{target}");
        assert_eq!(head.get("content-length"), (target == "/large").then_some("8388608"));
        assert_eq!(probe.exactly(1000).unwrap(), [b'w'; 1000]);
        drop(probe);
        for name in ["a", "b"] {
            let next = stage.gateway.get(&format!("/whose/{name}"));
            assert_eq!((next.status, next.text()), (200, format!("the answer of {name}")), "after {target}");
        }
    }
    let lines = || stage.gateway.log().into_iter().filter(|line| line["reason"] == "client_gone").count();
    eventually(LONG, "each probe is in the log as a client that went", || lines() == 20);

    let mut whole = stage.gateway.connect();
    whole.send(Request::get("/stream").version("HTTP/1.0").bytes()).unwrap();
    assert_eq!(whole.head().unwrap().get("connection"), Some("close"));
    assert_eq!(rest(&mut whole).len(), 8 << 20, "HTTP/1.0 ends with its connection");
}

#[test]
fn an_upload_that_is_broken_off_is_not_finished_with_the_next_request() {
    let origin = Recording::scripted(|request| answer(request.asked()));
    let stage = Stage::plain(&origin.url());
    let length = "POST /cut HTTP/1.0\r\nhost: site.test\r\ncontent-length: 1000\r\n\r\nonly this";
    let chunks = "POST /cut HTTP/1.1\r\nhost: site.test\r\ntransfer-encoding: chunked\r\n\r\n9\r\nonly this\r\n";
    for begun in [length, chunks].into_iter().cycle().take(10) {
        let mut client = stage.gateway.connect();
        client.send(begun).unwrap();
        eventually(LONG, "the origin has some of it", || origin.pending() == 1);
        drop(client);
        for target in ["/a", "/b"] {
            assert_eq!(stage.gateway.get(target).text(), format!("GET {target}"), "after {begun:?}");
        }
        eventually(LONG, "the origin notices", || origin.pending() == 0);
    }
    let seen = origin.take();
    assert_eq!((seen.faults, seen.broken, seen.requests.len()), (Vec::new(), 10, 20));
}

/// What TLS has taken and the socket has not is sent as well, on a connection that stays open.
#[test]
fn a_slow_reader_over_tls_gets_the_last_byte() {
    let origin = origin::site();
    let stage = Stage::plain(&origin.url());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = stage.secure();
                client.send(Request::get("/large").bytes()).unwrap();
                assert_eq!(client.head().unwrap().get("connection"), None);
                let mut left = 8 << 20;
                while left > 0 {
                    left -= client.next_within(LONG).unwrap_or_else(|error| panic!("{error} with {left} bytes left")).len();
                    // Slower than the gateway: its socket is full to the end.
                    std::thread::sleep(Duration::from_micros(500));
                }
            });
        }
    });
}
