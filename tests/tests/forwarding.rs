//! With an empty chain the gateway is a complete reverse proxy.

use weir_tests::{Connection, Gate, Reply, Request, Setup, Upstream, eventually};

#[test]
fn every_method_reaches_the_origin_with_its_body_and_its_target() {
    let origin = Upstream::echo();
    let gateway = Setup::before(&origin).start();
    let mut client = gateway.connect();
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"] {
        let target = "/a%20b/%C3%A4//x?q=1&q=2&&r=%2F+%27";
        let body = format!("the body of {method}");
        let answer = client.ask(&Request::new(&format!("{method} {target}")).body(body.clone())).unwrap();
        assert_eq!((answer.status, answer.text()), (200, body), "{method}");
        let received = origin.last();
        assert_eq!(received.head.first_line, format!("{method} {target} HTTP/1.1"));
        assert_eq!(received.header("host"), Some("site.test"));
    }
    assert_eq!(origin.count(), 7);
}

#[test]
fn a_failure_is_told_in_the_form_the_client_accepts() {
    let origin = Upstream::scripted(|_| Reply::Raw(b"garbage\r\n\r\n".to_vec()));
    let gateway = Setup::before(&origin).start();
    for (accept, kind) in [("application/json", "application/json"), ("text/html, application/json", "text/plain; charset=utf-8")]
    {
        let answer = gateway.ask(&Request::get("/").header("accept", accept));
        assert_eq!((answer.status, answer.header("content-type")), (502, Some(kind)), "{accept}");
        assert!(answer.text().contains(answer.header("x-request-id").unwrap()), "{}", answer.text());
    }
}

#[test]
fn bodies_pass_in_chunks_and_with_a_length_both_ways() {
    let origin = Upstream::scripted(|request| match request.target() {
        "/chunked" => Reply::Raw(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n".to_vec(),
        ),
        "/to-the-end" => Reply::Last(b"HTTP/1.1 200 OK\r\n\r\nuntil I close".to_vec()),
        _ => Reply::text(request.body.clone()),
    });
    let gateway = Setup::before(&origin).start();
    let mut client = gateway.connect();

    assert_eq!(client.ask(&Request::get("/chunked")).unwrap().text(), "hello world");
    assert_eq!(client.ask(&Request::get("/to-the-end")).unwrap().text(), "until I close");

    client.send("POST /up HTTP/1.1\r\nhost: site.test\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n").unwrap();
    client.send("4\r\ndefg\r\n0\r\n\r\n").unwrap();
    assert_eq!(client.answer().unwrap().text(), "abcdefg");
    assert_eq!(origin.last().header("content-length"), None);

    let long = "0123456789abcdef".repeat(16 * 1024);
    let answer = client.ask(&Request::post("/up", "text/plain", long.clone())).unwrap();
    assert!(answer.text() == long, "256 KiB both ways");
    assert_eq!(answer.header("content-length"), Some("262144"));
}

#[test]
fn a_client_that_expects_100_continue_gets_it() {
    let origin = Upstream::echo();
    let gateway = Setup::before(&origin).start();
    let mut client = gateway.connect();
    client.send("PUT /x HTTP/1.1\r\nhost: site.test\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n").unwrap();
    assert_eq!(client.head().unwrap().first_line, "HTTP/1.1 100 Continue");
    client.send("body").unwrap();
    assert_eq!(client.answer().unwrap().text(), "body");
}

#[test]
fn answers_without_a_body_keep_the_connection_in_step() {
    let origin = Upstream::scripted(|request| match request.target() {
        "/204" => Reply::with("204 No Content", &[("x-kind", "empty")], ""),
        "/304" => Reply::with("304 Not Modified", &[("etag", "\"v1\"")], ""),
        _ => Reply::text("twelve bytes"),
    });
    let gateway = Setup::before(&origin).start();
    let mut client = gateway.connect();
    for round in 0..3 {
        let head = client.ask(&Request::new("HEAD /")).unwrap();
        assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some("12"), 0), "round {round}");
        let empty = client.ask(&Request::get("/204")).unwrap();
        assert_eq!((empty.status, empty.header("x-kind")), (204, Some("empty")));
        let same = client.ask(&Request::get("/304")).unwrap();
        assert_eq!((same.status, same.header("etag")), (304, Some("\"v1\"")));
        assert_eq!(client.ask(&Request::get("/")).unwrap().text(), "twelve bytes");
    }
}

#[test]
fn a_client_of_http_1_0_is_served_and_its_connection_closed() {
    let origin = Upstream::scripted(|_| {
        Reply::Raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nold\r\n0\r\n\r\n".to_vec())
    });
    let gateway = Setup::before(&origin).start();
    let mut client = gateway.connect();
    let answer = client.ask(&Request::get("/").version("HTTP/1.0")).unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "old"));
    assert_eq!(answer.header("transfer-encoding"), None, "HTTP/1.0 has no chunks");
    assert!(client.is_closed());
    assert!(origin.last().head.first_line.ends_with("HTTP/1.1"));
}

#[test]
fn one_connection_carries_many_requests_and_upstream_connections_are_kept() {
    let origin = Upstream::text("again");
    let gateway = Setup::before(&origin).replace("workers = 2", "workers = 1").start();
    let mut client = gateway.connect();
    for _ in 0..50 {
        assert_eq!(client.ask(&Request::get("/")).unwrap().text(), "again");
    }
    assert_eq!((origin.count(), origin.accepted()), (50, 1));
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let origin = Upstream::echo();
    let gateway = Setup::before(&origin).start();
    let mut client = gateway.connect();
    let first = Request::post("/1", "text/plain", "first").bytes();
    let second = Request::post("/2", "text/plain", "second").bytes();
    client.send([first, second].concat()).unwrap();
    assert_eq!(client.answer().unwrap().text(), "first");
    assert_eq!(client.answer().unwrap().text(), "second");
}

#[test]
fn hop_by_hop_fields_end_at_the_gateway_in_both_directions() {
    let origin = Upstream::scripted(|_| {
        let fields = [
            ("connection", "x-origin-secret, keep-alive"),
            ("keep-alive", "timeout=5"),
            ("x-origin-secret", "1"),
            ("proxy-authenticate", "Basic"),
            ("x-kept", "1"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
        ];
        Reply::with("200 OK", &fields, "ok")
    });
    let gateway = Setup::before(&origin).start();
    let request = Request::get("/")
        .header("connection", "keep-alive, x-client-secret")
        .header("x-client-secret", "1")
        .header("proxy-authorization", "Basic eA==")
        .header("te", "gzip")
        .header("proxy", "http://evil.test")
        .header("x-kept", "1")
        .header("x-kept", "2");
    let answer = gateway.ask(&request);
    let received = origin.last();
    for name in ["x-client-secret", "proxy-authorization", "te", "proxy", "keep-alive"] {
        assert_eq!(received.header(name), None, "{name} reached the origin");
    }
    assert_eq!(received.head.all("x-kept"), ["1", "2"]);
    for name in ["x-origin-secret", "proxy-authenticate", "keep-alive"] {
        assert_eq!(answer.header(name), None, "{name} reached the client");
    }
    assert_eq!(answer.header("x-kept"), Some("1"));
    assert_eq!(answer.head.all("set-cookie"), ["a=1", "b=2"]);
}

#[test]
fn the_origin_learns_who_asked_and_what_strangers_claim_is_dropped() {
    let origin = Upstream::text("ok");
    let gateway = Setup::before(&origin).start();
    let lies = Request::get("/")
        .header("x-forwarded-for", "203.0.113.9")
        .header("x-forwarded-proto", "https")
        .header("x_forwarded_for", "203.0.113.9")
        .header("forwarded", "for=203.0.113.9")
        .header("x-real-ip", "203.0.113.9")
        .header("x-request-id", "mine");
    let answer = gateway.ask(&lies);
    let received = origin.last();
    assert_eq!(received.head.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(received.head.all("x-forwarded-proto"), ["http"]);
    assert_eq!(received.head.all("x-forwarded-host"), ["site.test"]);
    for name in ["x_forwarded_for", "forwarded", "x-real-ip"] {
        assert_eq!(received.header(name), None, "{name}");
    }
    let id = answer.request_id();
    assert_eq!(received.head.all("x-request-id"), [id.as_str()]);
    assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    assert_eq!(gateway.log_of(&answer)["client_ip"], "127.0.0.1");
}

#[test]
fn a_trusted_proxy_is_believed() {
    let origin = Upstream::text("ok");
    let gateway = Setup::before(&origin).behind_proxy().start();
    let answer = gateway.ask(&Request::get("/").from("192.0.2.9, 203.0.113.9").header("x-forwarded-proto", "https"));
    let received = origin.last();
    assert_eq!(received.header("x-forwarded-for"), Some("192.0.2.9, 203.0.113.9, 127.0.0.1"));
    assert_eq!(received.header("x-forwarded-proto"), Some("https"));
    let line = gateway.log_of(&answer);
    assert_eq!((&line["client_ip"], &line["peer_ip"]), (&"203.0.113.9".into(), &"127.0.0.1".into()));
}

#[test]
fn an_origin_that_breaks_off_breaks_the_answer_off() {
    let origin = Upstream::scripted(|_| Reply::Last(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this".to_vec()));
    let gateway = Setup::before(&origin).start();
    let mut client = gateway.connect();
    client.ask(&Request::get("/")).unwrap_err();
    let line = gateway.log_where(|line| line["status"] == 200);
    assert_eq!(line["reason"], "upstream_body_failed");
}

#[test]
fn a_slow_answer_holds_up_nobody_else() {
    let gate = Gate::default();
    let behind = gate.clone();
    let origin = Upstream::scripted(move |request| {
        let now = Reply::text("done");
        if request.target() == "/slow" { Reply::Behind(behind.clone(), Box::new(now)) } else { now }
    });
    let gateway = Setup::before(&origin).replace("workers = 2", "workers = 1").start();
    let mut slow = Connection::open(gateway.plain()).unwrap();
    slow.send(Request::get("/slow").bytes()).unwrap();
    eventually(weir_tests::LONG, "the slow request reaches the origin", || origin.count() == 1);
    for _ in 0..20 {
        assert_eq!(gateway.get("/quick").text(), "done");
    }
    gate.open();
    assert_eq!(slow.answer().unwrap().text(), "done");
}
