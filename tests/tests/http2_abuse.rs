//! What an HTTP/2 client can do to a server frame by frame: each attack ends with its connection, early and cheaply, with a line and a
//! count, while others are served.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use weir_tests::h2::{Field, Frame, Http2, Outcome, block, flag, kind};
use weir_tests::tls::{Authority, Kind};
use weir_tests::upstream::Gate;
use weir_tests::{Connection, Gateway, LONG, Reply, Request, Setup, Upstream, eventually};

const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;
const INITIAL_WINDOW_SIZE: u16 = 4;
/// Memory that an attack may cost: a hundred streams, each with a piece of 64 KiB in three hands, and what the allocator keeps.
const GROWTH: u64 = 40 << 20;

struct Stage {
    origin: Upstream,
    gateway: Gateway,
    authority: Authority,
    /// Holds back what begins with `/held`.
    gate: Gate,
}

impl Stage {
    fn with(limits: &str) -> Self {
        let gate = Gate::default();
        let held = gate.clone();
        let origin = Upstream::scripted(move |request| match request.target() {
            "/large" => Reply::Stream { length: 256 << 10, chunked: false },
            "/small" => Reply::text("a".repeat(2000)),
            target if target.starts_with("/held") => Reply::Behind(held.clone(), Box::new(Reply::text("late"))),
            _ => Reply::text("ok"),
        });
        let authority = Authority::new();
        let pair = authority.issue(Kind::Ecdsa, &["site.test"]);
        let gateway = Setup::before(&origin).certificate(&pair).section(&format!("[limits]\n{limits}")).start();
        Self { origin, gateway, authority, gate }
    }

    fn client(&self) -> Http2 {
        Http2::open(&self.authority, self.gateway.tls(), "site.test").expect("a connection over HTTP/2")
    }

    /// The line of the connection that was ended.
    fn line(&self, reason: &str) -> Value {
        self.gateway.log_where(|line| line["event"] == "connection" && line["reason"] == reason)
    }

    /// Requests of the attacker that reached the origin.
    fn held(&self) -> usize {
        self.origin.requests().iter().filter(|request| request.target() == "/held").count()
    }

    fn metric(&self, name: &str, reason: &str) -> u64 {
        let text = self.gateway.admin("GET /metrics").text();
        let sample = format!("{name}{{reason=\"{reason}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&sample)).map_or(0, |value| value.parse().unwrap())
    }

    /// Attacks on one connection and sees what comes of it: the end with this reason, and nobody else notices.
    fn attack(&self, reason: &str, attack: impl FnOnce(&mut Http2)) -> Ended {
        let memory = self.gateway.memory();
        let bystander = Bystander::start(&self.gateway);
        let mut client = self.client();
        let started = Instant::now();
        attack(&mut client);
        let goaway = end(&mut client);
        let after = started.elapsed();
        let line = self.line(reason);
        assert_eq!(line["decided_by"], "gateway", "{line}");
        assert_eq!(line["site"], "site", "{line}");
        eventually(LONG, "the end is counted", || self.metric("weir_connections_closed_total", reason) > 0);
        bystander.stop();
        let grown = self.gateway.memory().saturating_sub(memory);
        assert!(grown < GROWTH, "{reason}: {grown} bytes more");
        let opened = line["detail"].as_str().and_then(|text| text.split(' ').next()?.parse().ok()).unwrap_or(u64::MAX);
        Ended { goaway, after, opened }
    }
}

struct Ended {
    /// The code of the last GOAWAY, if the attacker got to read one.
    goaway: Option<u32>,
    after: Duration,
    /// Streams, as the gateway counted them.
    opened: u64,
}

/// Somebody who asks all the time on connections of their own, and always gets an answer.
struct Bystander {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u32>,
}

impl Bystander {
    fn start(gateway: &Gateway) -> Self {
        let (stop, address) = (Arc::new(AtomicBool::new(false)), gateway.plain());
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut count = 0;
            while !stopped.load(Ordering::SeqCst) || count == 0 {
                let answer = Connection::open(address).and_then(|mut client| client.ask(&Request::get("/bystander")));
                assert_eq!(answer.expect("an answer").status, 200);
                count += 1;
                std::thread::sleep(Duration::from_millis(5));
            }
            count
        });
        Self { stop, thread }
    }

    fn stop(self) {
        self.stop.store(true, Ordering::SeqCst);
        assert!(self.thread.join().expect("every answer was good") > 0);
    }
}

/// Reads to the end of the connection; answers the code of the last GOAWAY.
fn end(client: &mut Http2) -> Option<u32> {
    let mut code = None;
    while let Some(frame) = client.receive().expect("the end of the connection") {
        if frame.kind == kind::GOAWAY {
            code = frame.payload.get(4..8).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes);
        }
    }
    code
}

fn fields(path: &str) -> [Field<'_>; 4] {
    [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"site.test"), (b":path", path.as_bytes())]
}

const POST: [Field<'_>; 4] = [(b":method", b"POST"), (b":scheme", b"https"), (b":authority", b"site.test"), (b":path", b"/post")];

fn get(stream: u32, path: &str) -> Vec<u8> {
    Frame::headers(stream, &fields(path), true).bytes()
}

/// The bytes of an attack's step.
type Piece<'a> = &'a dyn Fn(u32) -> Vec<u8>;

/// Sends pieces until the connection takes no more.
fn flood(client: &mut Http2, most: u32, piece: impl Fn(u32) -> Vec<u8>) {
    for number in 0..most {
        if client.raw(&piece(number)).is_err() {
            return;
        }
    }
}

/// Waits until the server has read everything sent so far: its answer to a PING comes after.
fn settle(client: &mut Http2) -> bool {
    if client.send(&Frame::new(kind::PING, 0, 0, [7; 8])).is_err() {
        return false;
    }
    while let Ok(Some(frame)) = client.receive() {
        if frame.kind == kind::PING && frame.flags & flag::ACK != 0 {
            return true;
        }
    }
    false
}

fn stream(number: u32) -> u32 {
    2 * number + 1
}

#[test]
fn rapid_reset_ends_within_five_hundred_streams() {
    // All at once: the parser sees the reset before anybody sees the stream.
    let stage = Stage::with("");
    let ended = stage.attack("h2_rapid_reset", |client| {
        flood(client, 2000, |batch| {
            (0..50)
                .flat_map(|number| {
                    [get(stream(50 * batch + number), "/held"), Frame::reset(stream(50 * batch + number), CANCEL).bytes()]
                        .concat()
                })
                .collect()
        });
    });
    assert!(ended.opened <= 500, "{} streams", ended.opened);
    assert!(ended.after < LONG);

    // One step later, when each request is on its way to the origin.
    let stage = Stage::with("");
    let ended = stage.attack("h2_rapid_reset", |client| {
        for batch in 0..100 {
            flood(client, 50, |number| get(stream(50 * batch + number), "/held"));
            if !settle(client) {
                return;
            }
            flood(client, 50, |number| Frame::reset(stream(50 * batch + number), CANCEL).bytes());
        }
    });
    assert!((100..=500).contains(&ended.opened), "{} streams", ended.opened);
    assert!(stage.held() <= 500, "{} requests reached the origin", stage.held());
    assert_eq!(ended.goaway.unwrap_or(ENHANCE_YOUR_CALM), ENHANCE_YOUR_CALM);
    eventually(LONG, "what was under way ends with the connection", || {
        let text = stage.gateway.admin("GET /metrics").text();
        text.lines().any(|line| line == "weir_active_requests 0")
    });
    stage.gate.open();
}

#[test]
fn streams_that_the_server_is_made_to_reset_end_the_connection() {
    let stage = Stage::with("");
    let ended = stage.attack("h2_made_you_reset", |client| {
        for batch in 0..100 {
            flood(client, 50, |number| get(stream(50 * batch + number), "/held"));
            if !settle(client) {
                return;
            }
            flood(client, 50, |number| Frame::window_update(stream(50 * batch + number), 0x7fff_ffff).bytes());
            if !settle(client) {
                return;
            }
        }
    });
    assert!((100..=200).contains(&ended.opened), "{} streams", ended.opened);
    assert_eq!(ended.goaway.unwrap_or(ENHANCE_YOUR_CALM), ENHANCE_YOUR_CALM);
    assert!(stage.held() <= 200, "{} requests reached the origin", stage.held());
    stage.gate.open();
}

#[test]
fn floods_of_frames_that_must_be_answered_or_mean_nothing_end_the_connection() {
    let stage = Stage::with("");
    let settings = Frame::settings(&[(INITIAL_WINDOW_SIZE, 65_535)]).bytes();
    let ping = Frame::new(kind::PING, 0, 0, [0; 8]).bytes();
    let update = Frame::window_update(0, 1).bytes();
    let cases: [(&str, Piece<'_>); 5] = [
        ("h2_settings_flood", &|_| settings.repeat(100)),
        ("h2_ping_flood", &|_| ping.repeat(100)),
        ("h2_window_update_flood", &|_| update.repeat(100)),
        ("h2_priority_flood", &|number| Frame::new(kind::PRIORITY, 0, stream(number), [0, 0, 0, 0, 9]).bytes().repeat(100)),
        ("h2_priority_flood", &|_| Frame::new(0xbe, 0, 0, [0; 20]).bytes().repeat(100)),
    ];
    for (number, (reason, piece)) in cases.into_iter().enumerate() {
        let before = stage.metric("weir_connections_closed_total", reason);
        let ended = stage.attack(reason, |client| flood(client, 1000, piece));
        assert_eq!(ended.opened, 0, "{reason}");
        assert_eq!(stage.metric("weir_connections_closed_total", reason), before + 1, "case {number}");
        assert_eq!(ended.goaway.unwrap_or(ENHANCE_YOUR_CALM), ENHANCE_YOUR_CALM, "{reason}");
    }
    assert!(stage.origin.requests().iter().all(|request| request.target() == "/bystander"));
}

#[test]
fn floods_of_frames_with_nothing_in_them_end_the_connection() {
    // Little enough that a thousand fit into the windows.
    let padded = [[100].as_slice(), b"x", &[0; 100]].concat();
    let cases: [(&str, Frame); 3] = [
        ("empty", Frame::data(1, b"", false)),
        ("one byte", Frame::data(1, b"x", false)),
        ("padded", Frame::new(kind::DATA, 8, 1, padded)),
    ];
    let stage = Stage::with("");
    for (what, frame) in cases {
        let before = stage.metric("weir_connections_closed_total", "h2_data_flood");
        let ended = stage.attack("h2_data_flood", |client| {
            assert!(settle(client), "the larger windows are acknowledged");
            client.send(&Frame::headers(1, &POST, false)).unwrap();
            flood(client, 200, |_| frame.bytes().repeat(50));
        });
        assert_eq!(ended.opened, 1, "{what}");
        assert_eq!(stage.metric("weir_connections_closed_total", "h2_data_flood"), before + 1, "{what}");
    }
}

#[test]
fn header_blocks_without_an_end_or_with_too_much_in_them_end_the_connection() {
    let stage = Stage::with("");
    stage.attack("h2_continuation_flood", |client| {
        client.send(&Frame::new(kind::HEADERS, flag::END_STREAM, 1, block(&fields("/")))).unwrap();
        flood(client, 1000, |_| Frame::new(kind::CONTINUATION, 0, 1, block(&[(b"x", b"y")])).bytes());
    });
    // A field of 2 KiB in the table, then a byte for each further one: 16 KiB on the wire are 32 MiB of fields.
    stage.attack("h2_header_flood", |client| {
        let mut bomb = block(&fields("/"));
        bomb.extend_from_slice(&[0x40, 1, b'x', 0x7f, 0xf1, 0x0e]);
        bomb.extend_from_slice(&[b'v'; 2032]);
        bomb.extend_from_slice(&[0xbe; 12_000]);
        flood(client, 10, |number| {
            Frame::new(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, stream(number), bomb.clone()).bytes()
        });
    });
    for (what, bytes) in [
        ("index 0", Frame::new(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, [0x80]).bytes()),
        ("a window of nothing", [get(1, "/held"), Frame::window_update(1, 0).bytes()].concat()),
        ("a frame too long", [0x00, 0x80, 0x00, 0, 0, 0, 0, 0, 1].to_vec()),
    ] {
        let before = stage.metric("weir_connections_closed_total", "h2_protocol_error");
        stage.attack("h2_protocol_error", |client| client.raw(&bytes).unwrap());
        assert_eq!(stage.metric("weir_connections_closed_total", "h2_protocol_error"), before + 1, "{what}");
    }
    assert!(stage.origin.requests().iter().all(|request| request.target() == "/bystander"));
}

#[test]
fn cookie_crumbs_count_as_fields_and_the_connection_ends_after_the_refusal() {
    let stage = Stage::with("fields = 50");
    let mut client = stage.client();
    let mut crumbs = fields("/").to_vec();
    crumbs.extend([(b"cookie".as_slice(), b"a=1".as_slice()); 60]);
    assert!(matches!(client.ask(1, &crumbs).unwrap(), Outcome::Answered(431, _)));
    assert_eq!(end(&mut client), Some(0));
    assert_eq!(stage.gateway.log_where(|line| line["status"] == 431)["reason"], "too_many_fields");
    assert_eq!(stage.origin.count(), 0);
}

#[test]
fn answers_that_the_client_does_not_let_flow_are_given_up() {
    for (what, drip) in [("closed windows", false), ("drops", true)] {
        let stage = Stage::with("write_idle = \"1s\"");
        let ended = stage.attack("h2_stalled", |client| {
            client.send(&Frame::settings(&[(INITIAL_WINDOW_SIZE, 0)])).unwrap();
            for number in 0..100 {
                client.raw(&get(stream(number), if number % 2 == 0 { "/small" } else { "/large" })).unwrap();
            }
            // As often as a window is looked at, for longer than it may stay closed.
            let started = Instant::now();
            while drip && started.elapsed() < Duration::from_secs(5) {
                if client.send(&Frame::window_update(1, 1)).and_then(|()| client.send(&Frame::window_update(3, 1))).is_err() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        assert!(ended.after < Duration::from_secs(4), "{what}: {:?}", ended.after);
        assert_eq!(ended.goaway.unwrap_or(ENHANCE_YOUR_CALM), ENHANCE_YOUR_CALM, "{what}");
        eventually(LONG, "what was under way ends with the connection", || {
            stage.gateway.admin("GET /metrics").text().lines().any(|line| line == "weir_active_requests 0")
        });
    }
}

#[test]
fn a_socket_that_takes_nothing_is_given_up() {
    let stage = Stage::with("write_idle = \"1s\"");
    let ended = stage.attack("h2_stalled", |client| {
        client.send(&Frame::settings(&[(INITIAL_WINDOW_SIZE, 0x7fff_ffff)])).unwrap();
        client.send(&Frame::window_update(0, 0x7000_0000)).unwrap();
        // More than the system holds between two sockets.
        for number in 0..90 {
            client.raw(&get(stream(number), "/large")).unwrap();
        }
        stage.line("h2_stalled");
    });
    assert!(ended.after < LONG, "{:?}", ended.after);
}

#[test]
fn a_slow_reader_and_a_long_poll_are_not_given_up() {
    let stage = Stage::with("write_idle = \"1s\"");
    let mut slow = stage.client();
    slow.send(&Frame::settings(&[(INITIAL_WINDOW_SIZE, 16 << 10)])).unwrap();
    slow.raw(&get(1, "/large")).unwrap();
    let mut poll = stage.client();
    poll.raw(&get(1, "/held")).unwrap();
    let (mut length, mut windows) = (0, 0);
    while length < 256 << 10 {
        let frame = slow.receive().unwrap().expect("more of the answer");
        if frame.kind == kind::DATA {
            length += frame.payload.len();
        }
        if frame.kind == kind::DATA && length >= 16 * 1024 * (windows + 1) {
            windows += 1;
            std::thread::sleep(Duration::from_millis(150));
            let room = [Frame::window_update(1, 16 << 10), Frame::window_update(0, 16 << 10)];
            room.iter().for_each(|frame| slow.send(frame).unwrap());
        }
    }
    stage.gate.open();
    assert_eq!(poll.outcome(1).unwrap(), Outcome::Answered(200, b"late".to_vec()));
    assert_eq!(stage.metric("weir_connections_closed_total", "h2_stalled"), 0);
}

#[test]
fn heads_that_do_not_come_to_their_end_are_not_waited_for() {
    let stage = Stage::with("request_head = \"400ms\"");
    for (what, bytes) in [
        ("a block without an end", Frame::new(kind::HEADERS, 0, 1, block(&fields("/"))).bytes()),
        ("half a frame", get(1, "/")[..20].to_vec()),
        ("half a frame's header", vec![0, 0]),
    ] {
        let before = stage.metric("weir_connections_closed_total", "request_head_timeout");
        let ended = stage.attack("request_head_timeout", |client| {
            assert!(settle(client), "settings are acknowledged before");
            client.raw(&bytes).unwrap();
        });
        assert!(ended.after < Duration::from_secs(5), "{what}: {:?}", ended.after);
        assert_eq!(stage.metric("weir_connections_closed_total", "request_head_timeout"), before + 1, "{what}");
    }
    assert!(stage.origin.requests().iter().all(|request| request.target() == "/bystander"));
}

#[test]
fn streams_whose_bodies_come_in_drops_are_each_cut() {
    let stage = Stage::with("body_idle = \"1s\"");
    let mut client = stage.client();
    for number in 0..20 {
        client.send(&Frame::headers(stream(number), &POST, false)).unwrap();
    }
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(2500) {
        for number in 0..20 {
            client.send(&Frame::data(stream(number), b"x", false)).unwrap();
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    let mut refused = 0;
    while refused < 20 {
        let frame = client.receive().unwrap().expect("more answers");
        refused += u32::from(frame.kind == kind::HEADERS);
    }
    let line = stage.gateway.log_where(|line| line["path"] == "/post");
    assert_eq!((&line["status"], &line["reason"]), (&408.into(), &"client_body_too_slow".into()), "{line}");
    assert_eq!(stage.origin.requests().len(), 0, "no body came whole");
    let next = client.ask(stream(20), &fields("/")).unwrap();
    assert_eq!(next, Outcome::Answered(200, b"ok".to_vec()), "the connection itself is in order");
}
