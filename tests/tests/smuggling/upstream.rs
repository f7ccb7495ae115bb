//! Rows Q: an origin whose answers two clients could read differently.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use weir_tests::{Gate, Reply, Request, Setup, Upstream, setup};

/// What the client gets.
#[derive(Clone, Copy, Debug)]
enum Told {
    /// 502, or a connection that breaks off within the answer.
    Failed,
    /// 200 with this body.
    Body(&'static str),
    /// This status, without a body.
    Empty(u16),
}

use Told::{Body, Empty, Failed};

/// Row, method, the origin's bytes, what the client gets, and whether the origin's connection may be used again.
const CASES: &[(&str, &str, &[u8], Told, bool)] = &[
    ("Q1", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", Body("ok"), false),
    ("Q1", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n2\r\nok\r\n0\r\n\r\n", Body("ok"), false),
    ("Q2", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!", Failed, false),
    ("Q2", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", Body("ok"), true),
    ("Q2", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok", Failed, false),
    ("Q2", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 2x\r\n\r\nok", Failed, false),
    ("Q2", "GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", Empty(204), true),
    ("Q2", "GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", Empty(204), false),
    ("Q2", "GET", b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", Empty(204), false),
    ("Q2", "GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", Empty(304), true),
    ("Q2", "GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello", Empty(304), false),
    ("Q2", "HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Empty(200), true),
    ("Q2", "HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", Empty(200), false),
    ("Q2", "GET", b"HTTP/1.1 200 OK\r\nX: a\r\n folded\r\nContent-Length: 2\r\n\r\nok", Failed, false),
    ("Q2", "GET", b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok", Failed, false),
    ("Q2", "GET", b"HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 2\r\n\r\nok", Failed, false),
    ("Q2", "GET", b"HTTP/1.1 200 OK\r\nX: a\rContent-Length: 2\r\n\r\nok", Failed, false),
    ("Q2", "GET", b"hello, this is no HTTP\r\n\r\n", Failed, false),
    ("Q2", "GET", b"HTTP/2 200 OK\r\nContent-Length: 2\r\n\r\nok", Failed, false),
    ("Q2", "GET", b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok", Failed, false),
    ("Q2", "GET", b"HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nok", Failed, false),
    ("Q2", "GET", b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", Failed, false),
    ("Q2", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x2\r\nok\r\n0\r\n\r\n", Failed, false),
    ("Q2", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokXX\r\n0\r\n\r\n", Failed, false),
    ("Q2", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\nok\r\n0\r\n\r\n", Failed, false),
    ("Q2", "GET", b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", Failed, false),
    ("Q3", "GET", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", Body("ok"), false),
    ("Q3", "GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", Body("ok"), false),
    ("Q3", "HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", Empty(200), false),
    ("Q3", "GET", b"HTTP/1.1 304 Not Modified\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", Empty(304), false),
    ("Q4", "GET", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Body("ok"), true),
];

#[test]
fn an_answer_has_one_reading_or_none() {
    let origin = Upstream::scripted(|request| {
        let case = request.target().strip_prefix("/case/").and_then(|number| number.parse::<usize>().ok());
        case.and_then(|case| CASES.get(case)).map_or_else(|| Reply::text(request.target()), |case| Reply::Raw(case.2.to_vec()))
    });
    let gateway = Setup::before(&origin).replace("workers = 2", "workers = 1").start();
    let mut bystander = gateway.connect();
    bystander.ask(&Request::get("/warm")).unwrap();
    let mut failures = Vec::new();
    for (number, (row, method, bytes, told, reusable)) in CASES.iter().enumerate() {
        let name = format!("{row} {method} {}", bytes.escape_ascii());
        let before = origin.accepted();
        let mut client = gateway.connect();
        client.send(Request::new(&format!("{method} /case/{number}")).bytes()).unwrap();
        let answer = if *method == "HEAD" { client.answer_to_head() } else { client.answer() };
        let own = match (told, &answer) {
            (Failed, Ok(answer)) => answer.status == 502,
            (Failed, Err(_)) => true,
            (Body(text), Ok(answer)) => answer.status == 200 && answer.text() == *text && has_one_length(&answer.head.fields),
            (Empty(status), Ok(answer)) => answer.status == *status,
            (_, Err(_)) => false,
        };
        if !own {
            failures.push(format!("{name}: {answer:?}"));
        }
        // Nothing of it is left for the next one on the same connection, nor for anybody else.
        let next = if answer.is_ok() { client.ask(&Request::get("/next")).ok() } else { None };
        if let Some(next) = next.filter(|next| next.text() != "/next") {
            failures.push(format!("{name}: then {next:?}"));
        }
        let canary = format!("/canary/{number}");
        let answer = bystander.ask(&Request::get(&canary)).unwrap();
        if answer.text() != canary {
            failures.push(format!("{name}: the bystander got {answer:?}"));
        }
        let opened = origin.accepted() - before;
        // The connection that was idle carried the case; a new one means that it was given up.
        if *reusable != (opened == 0) {
            failures.push(format!("{name}: {opened} connections were opened"));
        }
    }
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), CASES.len(), failures.join("\n"));
}

fn has_one_length(fields: &[(String, String)]) -> bool {
    let is = |name: &str| matches!(name, "content-length" | "transfer-encoding");
    fields.iter().filter(|(name, _)| is(&name.to_ascii_lowercase())).count() == 1
}

/// Row Q3: an answer that nobody asked for arrives while the connection is idle.
#[test]
fn an_answer_before_its_request_is_nobodys() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (gate, sent) = (Gate::default(), Gate::default());
    let (behind, told) = (gate.clone(), sent.clone());
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().map_while(Result::ok).enumerate() {
            let (behind, told, mut stream) = (behind.clone(), told.clone(), stream);
            std::thread::spawn(move || {
                let mut piece = [0; 4096];
                while stream.read(&mut piece).is_ok_and(|read| read > 0) {
                    let text = if number == 0 { "first" } else { "own" };
                    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len());
                    drop(stream.write_all(answer.as_bytes()));
                    if number == 0 {
                        behind.wait();
                        drop(stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"));
                        // The other end closes when it has seen that.
                        drop(stream.read(&mut piece));
                        told.open();
                        return;
                    }
                }
            });
        }
    });
    let gateway = Setup::empty().section(&setup::site("site", &["site.test"], &url)).start();
    assert_eq!(gateway.get("/").text(), "first");
    gate.open();
    sent.wait();
    for _ in 0..4 {
        assert_eq!(gateway.get("/").text(), "own");
    }
}

/// Rows Q4: interim answers, many and without end.
#[test]
fn interim_answers_end_in_time() {
    let origin = Upstream::scripted(|request| {
        let hints = b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>\r\n\r\n".repeat(1000);
        match request.target() {
            "/many" => Reply::Raw([hints.as_slice(), b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"].concat()),
            "/endless" => Reply::Raw(hints),
            target => Reply::text(target),
        }
    });
    let gateway = Setup::before(&origin).upstream("timeouts = { first_byte = \"500ms\" }").start();
    assert_eq!(gateway.get("/many").text(), "ok");
    let answer = gateway.get("/endless");
    assert_eq!((answer.status, gateway.log_of(&answer)["reason"].as_str()), (504, Some("upstream_timeout")));
    assert_eq!(gateway.get("/next").text(), "/next");
}
