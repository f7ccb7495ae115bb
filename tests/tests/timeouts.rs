//! How long a client may take, how much it may send, and how many connections it may hold.

use std::thread;
use std::time::{Duration, Instant};

use weir_tests::h2::{Frame, Http2, Outcome, kind};
use weir_tests::tls::{Authority, Kind};
use weir_tests::upstream::Gate;
use weir_tests::{Connection, Gateway, LONG, Reply, Request, Setup, Upstream, eventually, tool};

const REFUSED_OF_ADDRESS: &str = "weir_connections_refused_total{reason=\"too_many_connections_per_address\"}";

fn lines(gateway: &Gateway, reason: &str) -> usize {
    gateway.log().iter().filter(|line| line["reason"] == reason).count()
}

fn can_ask(gateway: &Gateway) -> bool {
    Connection::open(gateway.plain()).and_then(|mut client| client.ask(&Request::get("/"))).is_ok()
}

fn http2(origin: &Upstream, limits: &str) -> (Gateway, Http2) {
    let authority = Authority::new();
    let pair = authority.issue(Kind::Ecdsa, &["site.test"]);
    let gateway = Setup::before(origin).certificate(&pair).section(&format!("[limits]\n{limits}")).start();
    let client = Http2::open(&authority, gateway.tls(), "site.test").unwrap();
    (gateway, client)
}

fn ask(client: &mut Http2, stream: u32) -> Outcome {
    let fields: [(&[u8], &[u8]); 4] =
        [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"site.test"), (b":path", b"/")];
    client.ask(stream, &fields).unwrap()
}

/// The code of the GOAWAY with which the connection ends.
fn goaway(client: &mut Http2) -> Option<u8> {
    let mut code = None;
    while let Some(frame) = client.receive().unwrap() {
        if frame.kind == kind::GOAWAY {
            code = frame.payload.get(7).copied();
        }
    }
    code
}

#[test]
fn one_address_holds_so_many_connections_and_others_are_served() {
    let origin = Upstream::text("ok");
    let gateway = Setup::before(&origin).section("[limits]\nconnections_per_address = 4").start();
    let mut held: Vec<Connection> = (0..4).map(|_| gateway.connect()).collect();
    for client in &mut held {
        assert_eq!(client.ask(&Request::get("/")).unwrap().status, 200);
    }
    for _ in 0..50 {
        assert!(!can_ask(&gateway));
    }
    assert_eq!(gateway.metric(REFUSED_OF_ADDRESS), 50.0);
    let line = gateway.log_where(|line| line["reason"] == "too_many_connections_per_address");
    assert_eq!((&line["event"], &line["client_ip"]), (&"connection".into(), &"127.0.0.1".into()), "{line}");
    assert!(lines(&gateway, "too_many_connections_per_address") < 50, "a flood of connections is none of lines");
    if tool::has("curl") {
        let url = format!("http://{}/", gateway.plain());
        let other = tool::run("curl", &["--silent", "--interface", "127.0.0.7", "--header", "host: site.test", &url]);
        assert_eq!(tool::text(&other), "ok", "another address has its own places");
    }
    assert_eq!(held[0].ask(&Request::get("/")).unwrap().status, 200);
    held.pop();
    eventually(LONG, "a place is free again", || can_ask(&gateway));
}

#[test]
fn proxies_that_speak_for_many_are_not_counted_as_one() {
    let origin = Upstream::text("ok");
    let gateway = Setup::before(&origin).behind_proxy().section("[limits]\nconnections_per_address = 2").start();
    let mut held: Vec<Connection> = (0..10).map(|_| gateway.connect()).collect();
    for client in &mut held {
        assert_eq!(client.ask(&Request::get("/")).unwrap().status, 200);
    }
}

#[test]
fn running_out_of_files_costs_no_cpu_and_passes() {
    let origin = Upstream::text("ok");
    let gateway = Setup::before(&origin).open_files(100).section("[limits]\nconnections = 1000").start();
    let mut first = gateway.connect();
    assert_eq!(first.ask(&Request::get("/")).unwrap().status, 200);
    // The system completes handshakes that nobody accepts yet.
    let crowd: Vec<Connection> = (0..150).map(|_| gateway.connect()).collect();
    eventually(LONG, "no file is left", || gateway.stderr().contains("cannot accept"));
    let (before, started) = (gateway.cpu(), Instant::now());
    thread::sleep(Duration::from_secs(2));
    let share = (gateway.cpu() - before).as_secs_f64() / started.elapsed().as_secs_f64();
    assert!(share < 0.2, "{share} of a CPU while there is nothing to do");
    assert_eq!(first.ask(&Request::get("/")).unwrap().status, 200, "who is connected is served");
    drop(crowd);
    eventually(LONG, "it accepts again", || can_ask(&gateway));
    assert!(gateway.metric("weir_accept_failures_total") > 0.0);
}

#[test]
fn heads_in_drops_are_cut_and_others_served() {
    let origin = Upstream::text("ok");
    let gateway = Setup::before(&origin).section("[limits]\nrequest_head = \"500ms\"").start();
    let mut slow: Vec<Connection> = (0..50).map(|_| gateway.connect()).collect();
    let started = Instant::now();
    slow.iter_mut().for_each(|client| client.send("GET / HTTP/1.1\r\nhost: site.test\r\n").unwrap());
    while lines(&gateway, "request_head_timeout") < 50 {
        assert!(started.elapsed() < LONG, "{} of 50 were cut", lines(&gateway, "request_head_timeout"));
        slow.iter_mut().for_each(|client| drop(client.send("x: y\r\n")));
        assert!(can_ask(&gateway));
        thread::sleep(Duration::from_millis(50));
    }
    assert!(origin.requests().iter().all(|request| request.header("x").is_none()));
}

#[test]
fn a_body_in_drops_is_cut() {
    let origin = Upstream::text("ok");
    let gateway = Setup::before(&origin).section("[limits]\nbody_idle = \"1s\"").start();
    let mut client = gateway.connect();
    client.send("POST /drops HTTP/1.1\r\nhost: site.test\r\ncontent-length: 1000\r\n\r\n").unwrap();
    let started = Instant::now();
    while lines(&gateway, "client_body_too_slow") == 0 {
        assert!(started.elapsed() < LONG, "it is still waited for");
        drop(client.send("x"));
        thread::sleep(Duration::from_millis(50));
    }
    let line = gateway.log_where(|line| line["path"] == "/drops");
    assert_eq!((&line["status"], &line["reason"]), (&408.into(), &"client_body_too_slow".into()), "{line}");
    assert_eq!(origin.requests().len(), 0, "it never came whole");
}

#[test]
fn any_pace_will_do_if_the_operator_says_so() {
    let origin = Upstream::echo();
    let gateway = Setup::before(&origin).section("[limits]\nbody_idle = \"1s\"\nbody_rate = 0").start();
    let mut client = gateway.connect();
    client.send("POST / HTTP/1.1\r\nhost: site.test\r\ncontent-length: 20\r\n\r\n").unwrap();
    for _ in 0..20 {
        client.send("x").unwrap();
        thread::sleep(Duration::from_millis(150));
    }
    assert_eq!(client.answer().unwrap().body, [b'x'; 20]);
}

#[test]
fn who_does_not_read_the_answer_is_cut() {
    let origin = Upstream::scripted(|_| Reply::Stream { length: 256 << 20, chunked: false });
    let gateway = Setup::before(&origin).section("[limits]\nwrite_idle = \"500ms\"").start();
    let memory = gateway.memory();
    let mut clients: Vec<Connection> = (0..20).map(|_| gateway.connect()).collect();
    clients.iter_mut().for_each(|client| client.send(Request::get("/").bytes()).unwrap());
    eventually(LONG, "each is cut", || lines(&gateway, "client_stalled") == 20);
    let grown = gateway.memory().saturating_sub(memory);
    assert!(grown < 64 << 20, "{grown} bytes for 20 answers of 256 MiB");
}

#[test]
fn half_a_handshake_is_not_waited_for() {
    let origin = Upstream::text("ok");
    let authority = Authority::new();
    let pair = authority.issue(Kind::Ecdsa, &["site.test"]);
    let gateway = Setup::before(&origin).certificate(&pair).section("[limits]\ntls_handshake = \"1s\"").start();
    let open = || Connection::open(gateway.tls()).unwrap();
    let mut silent: Vec<Connection> = (0..100).map(|_| open()).collect();
    // Every other one sends the start of a record.
    silent.iter_mut().step_by(2).for_each(|client| client.send([0x16, 3, 1, 2, 0, 1]).unwrap());
    while lines(&gateway, "tls_handshake_timeout") < 100 {
        let answer = authority.connect(gateway.tls(), "site.test").and_then(|mut client| client.ask(&Request::get("/")));
        assert_eq!(answer.unwrap().status, 200);
    }
    assert!(silent.iter_mut().all(Connection::is_closed));
    assert!(gateway.metric("weir_connections_refused_total{reason=\"tls_handshake_timeout\"}") >= 100.0);
}

#[test]
fn a_long_poll_outlives_every_limit_of_the_client() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Upstream::scripted(move |_| Reply::Behind(held.clone(), Box::new(Reply::text("late"))));
    let limits =
        "idle = \"200ms\"\nrequest_head = \"200ms\"\nbody_idle = \"200ms\"\nwrite_idle = \"200ms\"\nconnection_age = \"200ms\"";
    let gateway = Setup::before(&origin).section(&format!("[limits]\n{limits}")).start();
    let mut client = gateway.connect();
    client.send(Request::get("/").bytes()).unwrap();
    eventually(LONG, "the origin has it", || origin.count() == 1);
    thread::sleep(Duration::from_secs(1));
    gate.open();
    let answer = client.answer().unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "late"));
}

#[test]
fn a_connection_carries_so_many_requests() {
    let origin = Upstream::text("ok");
    let gateway = Setup::before(&origin).section("[limits]\nconnection_requests = 3").start();
    let mut client = gateway.connect();
    for last in [false, false, true] {
        let answer = client.ask(&Request::get("/")).unwrap();
        assert_eq!((answer.status, answer.header("connection") == Some("close")), (200, last));
    }
    assert!(client.is_closed());

    let (_gateway, mut client) = http2(&origin, "connection_requests = 3");
    for stream in [1, 3, 5] {
        assert_eq!(ask(&mut client, stream), Outcome::Answered(200, b"ok".to_vec()));
    }
    assert_eq!(goaway(&mut client), Some(0));
}

#[test]
fn a_connection_lives_so_long() {
    let origin = Upstream::text("ok");
    let gateway = Setup::before(&origin).section("[limits]\nconnection_age = \"500ms\"").start();
    let (mut client, started) = (gateway.connect(), Instant::now());
    while client.ask(&Request::get("/")).unwrap().header("connection") != Some("close") {
        assert!(started.elapsed() < LONG, "it does not get old");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(started.elapsed() > Duration::from_millis(400));
    assert!(client.is_closed());

    let (_gateway, mut client) = http2(&origin, "connection_age = \"500ms\"");
    assert_eq!(ask(&mut client, 1), Outcome::Answered(200, b"ok".to_vec()));
    assert_eq!(goaway(&mut client), Some(0), "it is told when it is time");
}

#[test]
fn an_idle_connection_of_http_2_is_told_its_end() {
    let origin = Upstream::text("ok");
    let (gateway, mut client) = http2(&origin, "idle = \"300ms\"");
    assert_eq!(ask(&mut client, 1), Outcome::Answered(200, b"ok".to_vec()));
    assert_eq!(goaway(&mut client), Some(0));
    assert!(gateway.log().iter().all(|line| line["event"] == "request"), "an ordinary end has no line");
}

#[test]
fn bodies_over_the_limit_are_refused() {
    let origin = Upstream::echo();
    let gateway = Setup::before(&origin).section("[limits]\nbody_bytes = 1000").start();
    let whole = |bytes: usize| Request::post("/", "text/plain", vec![b'x'; bytes]);
    let mut client = gateway.connect();
    client.send("POST /told HTTP/1.1\r\nhost: site.test\r\ncontent-length: 1001\r\n\r\n").unwrap();
    assert_eq!(client.answer().unwrap().status, 413, "before a byte of it was sent");
    assert!(client.is_closed());
    assert_eq!(origin.accepted(), 0, "and before anybody connected");
    assert_eq!(gateway.log_where(|line| line["path"] == "/told")["reason"], "body_too_large");

    assert_eq!(gateway.ask(&whole(1000)).body.len(), 1000);
    let chunks = |count: usize| {
        format!(
            "POST /chunks HTTP/1.1\r\nhost: site.test\r\ntransfer-encoding: chunked\r\n\r\n{}0\r\n\r\n",
            format!("64\r\n{}\r\n", "x".repeat(100)).repeat(count)
        )
    };
    let mut client = gateway.connect();
    client.send(chunks(10)).unwrap();
    assert_eq!(client.answer().unwrap().body.len(), 1000);
    let seen = origin.requests().len();
    client.send(chunks(11)).unwrap();
    assert_eq!(client.answer().unwrap().status, 413);
    assert!(client.is_closed());
    assert_eq!(origin.requests().len(), seen, "the origin got no whole request");
}

#[test]
fn bodies_over_the_limit_are_refused_on_http_2() {
    let origin = Upstream::echo();
    let (_gateway, mut client) = http2(&origin, "body_bytes = 1000");
    let post: [(&[u8], &[u8]); 4] =
        [(b":method", b"POST"), (b":scheme", b"https"), (b":authority", b"site.test"), (b":path", b"/")];
    client.send(&Frame::headers(1, &post, false)).unwrap();
    for _ in 0..11 {
        client.send(&Frame::data(1, &[b'x'; 100], false)).unwrap();
    }
    assert!(matches!(client.outcome(1).unwrap(), Outcome::Answered(413, _)));
    assert_eq!(origin.requests().len(), 0);
    assert_eq!(ask(&mut client, 3), Outcome::Answered(200, Vec::new()), "the connection goes on");
}

/// Whether an ordinary client got its answers all the while a tool attacked for a few seconds.
fn slowhttptest(mode: &[&str], target: &str) {
    if !tool::has("slowhttptest") {
        return;
    }
    let origin = Upstream::scripted(|request| match request.target() {
        "/large" => Reply::Stream { length: 4 << 20, chunked: false },
        _ => Reply::text("ok"),
    });
    let limits = "request_head = \"1s\"\nbody_idle = \"1s\"\nwrite_idle = \"1s\"";
    let gateway = Setup::before(&origin).replace("\"site.test\"", "\"*\"").section(&format!("[limits]\n{limits}")).start();
    let url = format!("http://{}{target}", gateway.plain());
    let arguments = [mode, &["-c", "200", "-r", "200", "-i", "1", "-l", "5", "-p", "3", "-u", &url]].concat();
    let attack = thread::scope(|scope| {
        let attack = scope.spawn(|| tool::run("slowhttptest", &arguments));
        let mut count = 0;
        while !attack.is_finished() {
            let (asked, answer) = (Instant::now(), gateway.get("/"));
            assert_eq!((answer.status, answer.text().as_str()), (200, "ok"), "{mode:?} after {count} answers");
            assert!(asked.elapsed() < Duration::from_secs(2), "{mode:?}: {:?}", asked.elapsed());
            count += 1;
            thread::sleep(Duration::from_millis(10));
        }
        assert!(count > 20, "{mode:?}: {count} answers");
        attack.join().unwrap()
    });
    assert!(tool::text(&attack).contains("connected"), "{mode:?}: {}", tool::text(&attack));
    drop(attack);
    eventually(LONG, "nothing of it stays", || gateway.metric("weir_active_connections") <= 1.0);
}

#[test]
fn slowhttptest_in_headers_hurts_nobody() {
    slowhttptest(&["-H"], "/");
}

#[test]
fn slowhttptest_in_bodies_hurts_nobody() {
    slowhttptest(&["-B"], "/");
}

#[test]
fn slowhttptest_in_reading_hurts_nobody() {
    slowhttptest(&["-X", "-w", "10", "-y", "20", "-n", "1", "-z", "1", "-k", "3"], "/large");
}

#[test]
fn slowhttptest_in_ranges_hurts_nobody() {
    slowhttptest(&["-R", "-a", "5", "-b", "3000"], "/");
}
