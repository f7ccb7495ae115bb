//! Response bodies that policies change as they pass.

use weir_tests::{Gateway, Reply, Request, Setup, Upstream};

/// A busy machine makes calls longer than they are, and a body of many pieces is many calls.
const PATIENT: &str = "limits = { cpu = \"1s\", wall = \"10s\" }";

/// A gateway whose policy does with bodies what the header `x-do` says.
fn gateway(origin: &Upstream, lines: &str) -> Gateway {
    Setup::before(origin)
        .guest("hostile", &format!("grants = [\"kv\"]\nconfig = {{ phases = [\"response-body\"] }}\n{PATIENT}\n{lines}"))
        .start()
}

fn marked(target: &str) -> Request {
    Request::get(target).header("x-do", "response-body mark")
}

#[test]
fn the_first_piece_goes_out_before_the_last_comes_in() {
    for head in ["content-length: 10\r\n\r\nfirst", "transfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n"] {
        let origin = Upstream::scripted(move |_| Reply::Raw(format!("HTTP/1.1 200 OK\r\n{head}").into_bytes()));
        let gateway = gateway(&origin, "");
        let mut client = gateway.connect();
        client.send(marked("/").bytes()).unwrap();
        let answer = client.head().unwrap();
        assert_eq!((answer.get("content-length"), answer.get("transfer-encoding")), (None, Some("chunked")));
        assert_eq!(client.exactly(10).unwrap(), b"5\r\nFIRST\r\n");
    }
}

#[test]
fn a_changed_body_has_its_own_length_and_the_connection_goes_on() {
    let origin = Upstream::scripted(|request| match request.target() {
        "/empty" => Reply::text(""),
        "/large" => Reply::Stream { length: 3_000_001, chunked: false },
        _ => Reply::text("some text"),
    });
    let gateway = gateway(&origin, "");
    let mut client = gateway.connect();
    for (target, length) in [("/text", 14), ("/empty", 5), ("/large", 3_000_006), ("/text", 14)] {
        let answer = client.ask(&marked(target)).unwrap();
        assert_eq!((answer.status, answer.body.len(), answer.body.ends_with(b"<end>")), (200, length, true), "{target}");
        assert!(!answer.body.contains(&b't') && !answer.body.contains(&b'w'), "{target}");
    }
}

#[test]
fn answers_without_a_body_get_none() {
    let origin = Upstream::scripted(|request| match request.target() {
        "/204" => Reply::with("204 No Content", &[], ""),
        "/304" => Reply::with("304 Not Modified", &[("etag", "\"1\"")], ""),
        _ => Reply::text("some text"),
    });
    let gateway = gateway(&origin, "");
    let mut client = gateway.connect();
    for (line, status) in [("HEAD /", 200), ("GET /204", 204), ("GET /304", 304)] {
        let answer = client.ask(&Request::new(line).header("x-do", "response-body mark")).unwrap();
        assert_eq!((answer.status, answer.body.len()), (status, 0), "{line}");
        assert_eq!(client.ask(&marked("/")).unwrap().text(), "SOME TEXT<end>", "after {line}");
    }
}

#[test]
fn what_is_compressed_is_left_alone() {
    const CODED: &[u8] = b"\x1f\x8b\x08\x00as gzip makes it";
    for (coding, changed) in [("gzip", false), ("br", false), ("identity", true), ("gzip, identity", false)] {
        let origin = Upstream::scripted(move |_| Reply::with("200 OK", &[("content-encoding", coding)], CODED));
        let gateway = gateway(&origin, "");
        let answer = gateway.ask(&marked("/"));
        let length = CODED.len().to_string();
        assert_eq!(answer.header("content-length"), if changed { None } else { Some(&*length) }, "{coding}");
        assert_eq!(answer.body == CODED, !changed, "{coding}");
    }
}

#[test]
fn trailers_stay_behind_a_changed_body() {
    let origin = Upstream::scripted(|_| {
        Reply::Raw(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n4\r\nbody\r\n0\r\nx-sum: abc\r\n\r\n"
                .to_vec(),
        )
    });
    let gateway = gateway(&origin, "");
    let mut client = gateway.connect();
    client.send(marked("/").header("te", "trailers").bytes()).unwrap();
    assert_eq!(client.head().unwrap().get("transfer-encoding"), Some("chunked"));
    let mut text = String::new();
    while !text.ends_with("\r\n\r\n") {
        text.push_str(&String::from_utf8_lossy(&client.next_within(weir_tests::LONG).unwrap()));
    }
    assert!(text.starts_with("4\r\nBODY\r\n5\r\n<end>\r\n0\r\n") && text.contains("x-sum: abc\r\n"), "{text:?}");
}

#[test]
fn a_policy_that_fails_in_the_middle_ends_the_body_or_leaves_it() {
    let origin = Upstream::scripted(|_| Reply::Stream { length: 1_000_000, chunked: true });
    let late = Request::get("/").header("x-do", "response-body late");
    let closed = gateway(&origin, "on_error = \"deny\"");
    let mut client = closed.connect();
    client.send(late.bytes()).unwrap();
    assert_eq!(client.head().unwrap().get("transfer-encoding"), Some("chunked"));
    let mut got = Vec::new();
    while let Ok(piece) = client.next_within(weir_tests::LONG) {
        if piece.is_empty() {
            break;
        }
        got.extend_from_slice(&piece);
    }
    // What was on its way when the connection was cut may be lost with it.
    assert!(!got.ends_with(b"0\r\n\r\n"), "the client sees that it is not whole");
    let line = closed.log_where(|line| line["reason"] == "policy_failed_on_body");
    assert_eq!(line["decided_by"], "hostile", "{line}");

    let open = gateway(&origin, "on_error = \"allow\"");
    let answer = open.ask(&late);
    assert_eq!((answer.status, answer.body.len()), (200, 1_000_000));
    let line = open.log_of(&answer);
    let calls = line["policies"].as_array().cloned().unwrap_or_default();
    assert!(calls.iter().any(|call| call["verdict"] == "error"), "{line}");
}
