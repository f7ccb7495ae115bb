//! What HTTP/1 can say, through all four policies: it arrives as it was sent.

use std::time::Duration;

use weir_tests::recording::{Body, Recording, answer};
use weir_tests::wire::{Framing, Wire};
use weir_tests::{Request, eventually};

use crate::origin::{self, FILE, GZIP};
use crate::stage::{Stage, noise, rest};

#[test]
fn answers_arrive_as_they_were_sent() {
    let origin = origin::site();
    let stage = Stage::guarded(&origin.url());
    for mut client in [stage.gateway.connect(), stage.secure()] {
        let zipped = client.ask(&Request::get("/gzip").header("accept-encoding", "gzip")).unwrap();
        assert_eq!((zipped.header("content-encoding"), zipped.body.as_slice()), (Some("gzip"), GZIP));
        assert_eq!((zipped.header("vary"), zipped.header("content-length")), (Some("accept-encoding"), Some("46")));
        assert_eq!(origin.last().header("accept-encoding"), Some("gzip"));

        let part = client.ask(&Request::get("/file").header("range", "bytes=100-199")).unwrap();
        assert_eq!((part.status, part.body.as_slice()), (206, &origin::file()[100..200]));
        assert_eq!(part.header("content-range"), Some("bytes 100-199/5000"));
        assert_eq!((part.header("accept-ranges"), part.header("etag")), (Some("bytes"), Some("\"f1\"")));
        let beyond = client.ask(&Request::get("/file").header("range", "bytes=9999-")).unwrap();
        assert_eq!((beyond.status, beyond.header("content-range"), beyond.body.len()), (416, Some("bytes */5000"), 0));

        let head = client.ask(&Request::new("HEAD /file")).unwrap();
        let whole = client.ask(&Request::get("/file")).unwrap();
        assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some("5000"), 0));
        assert_eq!((whole.body.len(), &whole.body), (FILE, &origin::file()));
        let told = |answer: &weir_tests::Answer| {
            let changing = |name: &str| matches!(name, "x-request-id" | "date");
            answer.head.fields.iter().filter(|(name, _)| !changing(name)).cloned().collect::<Vec<_>>()
        };
        assert_eq!(told(&head), told(&whole), "HEAD says what GET would");

        let empty = client.ask(&Request::get("/204")).unwrap();
        assert_eq!((empty.status, empty.header("etag"), empty.header("content-length")), (204, Some("\"none\""), None));
        assert_eq!(empty.header("transfer-encoding"), None);
        let same = client.ask(&Request::get("/304").header("if-none-match", "\"v1\"")).unwrap();
        assert_eq!((same.status, same.header("etag"), same.header("content-length")), (304, Some("\"v1\""), Some("1234")));
        assert_eq!(origin.last().header("if-none-match"), Some("\"v1\""));

        // Interim answers end at the gateway; the final one is the answer.
        client.send(Request::get("/early").bytes()).unwrap();
        assert_eq!(client.head().unwrap().first_line, "HTTP/1.1 200 OK");
        assert_eq!(client.exactly(5).unwrap(), b"final");
    }
}

#[test]
fn trailers_of_an_answer_follow_its_body() {
    let origin = origin::site();
    let stage = Stage::guarded(&origin.url());
    let mut client = stage.secure();
    client.send(Request::get("/trailers").header("te", "trailers").header("connection", "close, te").bytes()).unwrap();
    let head = client.head().unwrap();
    assert_eq!((head.get("trailer"), head.get("transfer-encoding")), (Some("x-sum, x-count"), Some("chunked")));
    let text = String::from_utf8(rest(&mut client)).unwrap();
    assert_eq!(text, "4\r\nbody\r\n0\r\nx-sum: abc=\r\nx-count: 1\r\n\r\n", "those that were announced");
    assert_eq!(origin.last().header("te"), Some("trailers"));

    let mut old = stage.gateway.connect();
    old.send(Request::get("/trailers").version("HTTP/1.0").bytes()).unwrap();
    assert_eq!(old.head().unwrap().get("transfer-encoding"), None);
    assert_eq!(rest(&mut old), b"body", "HTTP/1.0 has neither chunks nor trailers");
}

#[test]
fn trailers_of_a_request_follow_its_body() {
    let origin = Recording::start();
    let stage = Stage::guarded(&origin.url());
    let mut client = stage.gateway.connect();
    client
        .send(
            "PUT /x HTTP/1.1\r\nhost: site.test\r\ntransfer-encoding: chunked\r\ntrailer: X-Sum\r\ntrailer: x-count\r\n\r\n\
             4\r\nbody\r\n0\r\nX-Sum: abc=\r\nx-count: 1\r\nx-forwarded-for: 192.0.2.1\r\n\r\n",
        )
        .unwrap();
    assert_eq!(client.answer().unwrap().text(), "PUT /x");
    let seen = origin.take();
    assert_eq!(seen.faults, [""; 0]);
    let trailers = vec!["x-sum: abc=".to_owned(), "x-count: 1".to_owned()];
    assert_eq!(seen.requests[0].body, Body::Chunked(b"body".to_vec(), trailers));
    assert_eq!(seen.requests[0].all("trailer"), ["x-sum, x-count"]);
}

#[test]
fn a_body_waits_until_the_origin_asks_for_it() {
    let url = origin::serve(|stream| {
        let mut wire = Wire::new(Box::new(stream));
        while let Some(head) = wire.head()? {
            std::thread::sleep(Duration::from_millis(200));
            wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            let mut body = Vec::new();
            wire.body(head.framing().unwrap_or(Framing::Empty), &mut |piece| body.extend_from_slice(piece))?;
            wire.send(&answer(&String::from_utf8_lossy(&body)))?;
        }
        Ok(())
    });
    let stage = Stage::plain(&url);
    let mut client = stage.gateway.connect();
    let framings = [("content-length: 4", "late"), ("transfer-encoding: chunked", "4\r\nlate\r\n0\r\n\r\n")];
    for (framing, body) in framings.into_iter().cycle().take(4) {
        client.send(format!("PUT /x HTTP/1.1\r\nhost: site.test\r\n{framing}\r\nexpect: 100-continue\r\n\r\n")).unwrap();
        assert_eq!(client.head().unwrap().first_line, "HTTP/1.1 100 Continue");
        // Longer than the gateway waits for an origin that never asks.
        std::thread::sleep(Duration::from_millis(1200));
        client.send(body).unwrap();
        let head = client.head().unwrap();
        assert_eq!((head.first_line.as_str(), client.exactly(4).unwrap()), ("HTTP/1.1 200 OK", b"late".to_vec()));
    }
    // One that expects and does not wait gets one answer, too; 100 in between is allowed and skipped.
    client.send("PUT /x HTTP/1.1\r\nhost: site.test\r\ncontent-length: 3\r\nexpect: 100-continue\r\n\r\nnow").unwrap();
    assert_eq!(client.answer().unwrap().text(), "now");
}

#[test]
fn an_origin_may_refuse_a_body_instead_of_asking_for_it() {
    let origin = Recording::scripted(|request| match request.asked() {
        "PUT /early" => b"HTTP/1.1 417 Expectation Failed\r\ncontent-length: 2\r\n\r\nno".to_vec(),
        asked => answer(asked),
    });
    let stage = Stage::plain(&origin.url());
    for _ in 0..3 {
        let mut client = stage.gateway.connect();
        client.send("PUT /early HTTP/1.1\r\nhost: site.test\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n").unwrap();
        let head = client.head().unwrap();
        assert_eq!(head.first_line, "HTTP/1.1 417 Expectation Failed", "and no 100 before");
        assert_eq!(head.get("connection"), Some("close"), "nobody knows whether the body comes");
        assert_eq!(client.exactly(2).unwrap(), b"no");
        assert!(client.is_closed());
        assert_eq!(stage.gateway.get("/next").text(), "GET /next");
    }
    eventually(weir_tests::LONG, "no upstream connection is left waiting for a body", || origin.pending() == 0);
    assert_eq!(origin.take().faults, [""; 0]);
}

/// HTTP/1.0 knows no 100 (RFC 9110, section 10.1.1): a client would take it for the answer.
#[test]
fn a_client_of_http_1_0_is_never_told_to_continue() {
    let stage = Stage::plain(&origin::mirror());
    let mut client = stage.gateway.connect();
    client.send("PUT /x HTTP/1.0\r\nhost: site.test\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n").unwrap();
    std::thread::sleep(Duration::from_millis(300));
    client.send("body").unwrap();
    assert_eq!(client.head().unwrap().first_line, "HTTP/1.0 200 OK");
    assert_eq!(rest(&mut client), b"body");
}

#[test]
fn eight_mebibytes_come_back_unchanged() {
    let stage = Stage::plain(&origin::mirror());
    let sent = noise(8 << 20);
    for mut client in [stage.gateway.connect(), stage.secure()] {
        for target in ["/chunked", "/length"] {
            client.send(Request::post(target, "application/octet-stream", sent.clone()).bytes()).unwrap();
            assert!(client.answer().unwrap().body == sent, "{target}");
        }
        client.send("POST /chunked HTTP/1.1\r\nhost: site.test\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
        for piece in sent.chunks(77_777) {
            client.send([format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat()).unwrap();
        }
        client.send("0\r\n\r\n").unwrap();
        assert!(client.answer().unwrap().body == sent, "in chunks both ways");
    }
}
