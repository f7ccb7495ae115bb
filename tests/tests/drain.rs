//! The end of the process: what runs may finish, nothing new begins.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use weir_tests::h2::{Frame, Http2, Outcome, kind};
use weir_tests::tls::{Authority, Kind};
use weir_tests::{Connection, Gate, LONG, Reply, Request, Setup, Upstream, eventually};

fn tunnel(client: &mut Connection) {
    let upgrade = Request::get("/socket").header("connection", "Upgrade").header("upgrade", "websocket");
    assert_eq!(client.ask(&upgrade).unwrap().status, 101);
    echo(client);
}

fn echo(client: &mut Connection) {
    client.send("still").unwrap();
    assert_eq!(client.exactly(5).unwrap(), b"still");
}

#[test]
fn a_request_in_progress_finishes_before_the_process_ends() {
    let gate = Gate::default();
    let behind = gate.clone();
    let origin = Upstream::scripted(move |_| Reply::Behind(behind.clone(), Box::new(Reply::text("finished"))));
    let mut gateway = Setup::before(&origin).start();
    let mut client = gateway.connect();
    client.send(Request::get("/slow").bytes()).unwrap();
    eventually(LONG, "the request reaches the origin", || origin.count() == 1);

    gateway.signal("TERM");
    let address = gateway.plain();
    eventually(LONG, "nothing new is accepted", || Connection::open(address).is_err());
    assert!(gateway.is_running());
    gate.open();
    let answer = client.answer().unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "finished"));
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(gateway.wait().success());
    assert_eq!(gateway.log_of(&answer)["status"], 200, "its line is written before the end");
}

#[test]
fn an_idle_connection_gets_one_more_answer_which_says_that_it_is_the_last() {
    let (origin, authority) = (Upstream::text("ok"), Authority::new());
    let mut gateway = Setup::before(&origin).certificate(&authority.issue(Kind::Ecdsa, &["site.test"])).start();
    let mut clients = [
        gateway.connect(),
        authority.connect(gateway.tls(), "site.test").unwrap(),
        gateway.connect(),
        authority.connect(gateway.tls(), "site.test").unwrap(),
    ];
    // Two have asked before, two are new.
    for client in clients.iter_mut().take(2) {
        assert_eq!(client.ask(&Request::get("/")).unwrap().header("connection"), None);
    }
    gateway.signal("TERM");
    eventually(LONG, "it drains", || gateway.admin("GET /readyz").status == 503);
    for client in &mut clients {
        let answer = client.ask(&Request::get("/")).unwrap();
        assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
        assert!(client.is_closed());
    }
    assert!(gateway.wait().success());
}

#[test]
fn idle_connections_are_closed_one_after_another_and_do_not_keep_the_process() {
    let origin = Upstream::text("ok");
    let mut gateway = Setup::before(&origin).section("[limits]\ndrain_idle = \"3s\"").start();
    let mut clients: Vec<Connection> = (0..8).map(|_| gateway.connect()).collect();
    for client in clients.iter_mut().take(4) {
        assert_eq!(client.ask(&Request::get("/")).unwrap().status, 200);
    }
    let began = Instant::now();
    gateway.signal("TERM");
    let waiting = clients.into_iter().map(|mut client| {
        std::thread::spawn(move || {
            assert!(client.is_closed());
            began.elapsed()
        })
    });
    let mut times: Vec<Duration> = waiting.collect::<Vec<_>>().into_iter().map(|thread| thread.join().unwrap()).collect();
    times.sort();
    assert!(gateway.wait().success());
    assert!(times[0] >= Duration::from_millis(500), "none at once: {times:?}");
    assert!(times[7] - times[0] >= Duration::from_millis(700), "not all together: {times:?}");
}

#[test]
fn a_request_that_never_ends_is_cut_when_the_time_is_over() {
    let origin = Upstream::scripted(|_| Reply::Behind(Gate::default(), Box::new(Reply::text("never"))));
    let mut gateway = Setup::before(&origin).section("[limits]\ndrain = \"500ms\"").start();
    let mut client = gateway.connect();
    client.send(Request::get("/").bytes()).unwrap();
    eventually(LONG, "the request reaches the origin", || origin.count() == 1);
    gateway.signal("TERM");
    assert!(gateway.wait().success());
    assert!(client.is_closed());
}

#[test]
fn tunnels_of_a_stopped_process_end_with_its_requests_and_sooner_when_told_again() {
    let origin = Upstream::scripted(|_| Reply::Tunnel);
    for (limit, signals) in [("1500ms", 1), ("10m", 2)] {
        let limits = format!("[limits]\ndrain = \"{limit}\"");
        let mut gateway = Setup::before(&origin).section(&limits).start();
        let mut client = gateway.connect();
        tunnel(&mut client);
        gateway.signal("TERM");
        eventually(LONG, "it drains", || gateway.admin("GET /readyz").status == 503);
        echo(&mut client);
        if signals == 2 {
            gateway.signal("TERM");
        }
        assert!(client.is_closed(), "its end is told");
        assert!(gateway.wait().success());
    }
}

#[test]
fn with_a_grace_the_process_says_no_before_it_stops_accepting() {
    let origin = Upstream::text("ok");
    let mut gateway = Setup::before(&origin).section("[limits]\ndrain_grace = \"1s\"\ndrain_idle = \"100ms\"").start();
    let mut kept = gateway.connect();
    gateway.signal("TERM");
    eventually(LONG, "it says no", || gateway.admin("GET /readyz").status == 503);
    assert_eq!(gateway.get("/").status, 200, "a new connection");
    assert_eq!(kept.ask(&Request::get("/")).unwrap().header("connection"), None, "nothing ends yet");
    assert!(gateway.wait().success());
}

/// Opens connections as fast as it can, until one is refused; a connection that was made must be answered.
fn knock(address: SocketAddr, stop: &AtomicBool, answered: &AtomicUsize) -> Result<(), io::Error> {
    while !stop.load(Ordering::SeqCst) {
        let Ok(mut connection) = Connection::open(address) else { return Ok(()) };
        let answer = connection.ask(&Request::get("/").header("connection", "close"))?;
        assert_eq!(answer.status, 200);
        answered.fetch_add(1, Ordering::SeqCst);
    }
    Ok(())
}

#[test]
fn no_connection_that_was_made_is_reset() {
    let origin = Upstream::text("ok");
    for round in 0..3 {
        let mut gateway = Setup::before(&origin).telemetry("access_log = \"off\"").start();
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let failures = Arc::new(Mutex::new(Vec::new()));
        let address = gateway.plain();
        let clients: Vec<_> = (0..8)
            .map(|_| {
                let (stop, answered, failures) = (Arc::clone(&stop), Arc::clone(&answered), Arc::clone(&failures));
                std::thread::spawn(move || {
                    if let Err(error) = knock(address, &stop, &answered) {
                        failures.lock().unwrap().push(error.to_string());
                    }
                })
            })
            .collect();
        eventually(LONG, "traffic flows", || answered.load(Ordering::SeqCst) > 100);
        gateway.signal("TERM");
        assert!(gateway.wait().success());
        stop.store(true, Ordering::SeqCst);
        clients.into_iter().for_each(|client| client.join().unwrap());
        assert_eq!(*failures.lock().unwrap(), Vec::<String>::new(), "round {round}");
    }
}

#[test]
fn http_2_says_no_more_in_two_steps_and_loses_no_stream() {
    let gate = Gate::default();
    let behind = gate.clone();
    let origin = Upstream::scripted(move |_| Reply::Behind(behind.clone(), Box::new(Reply::text("served"))));
    let authority = Authority::new();
    let mut gateway = Setup::before(&origin)
        .certificate(&authority.issue(Kind::Ecdsa, &["site.test"]))
        .section("[limits]\ndrain_idle = \"300ms\"")
        .start();
    let fields: [(&[u8], &[u8]); 4] =
        [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"site.test"), (b":path", b"/")];
    let request = |stream| Frame::headers(stream, &fields, true);
    let last_stream = |frame: &Frame| u32::from_be_bytes(frame.payload[..4].try_into().unwrap());
    let mut client = Http2::open(&authority, gateway.tls(), "site.test").unwrap();
    client.send(&request(1)).unwrap();
    eventually(LONG, "the request reaches the origin", || origin.count() == 1);
    gateway.signal("TERM");

    let go_away = |client: &mut Http2| loop {
        let frame = client.receive().unwrap().expect("GOAWAY");
        if frame.kind == kind::GOAWAY {
            return last_stream(&frame);
        }
    };
    assert_eq!(go_away(&mut client), 0x7fff_ffff, "no stream is refused yet");
    // It was on its way.
    client.send(&request(3)).unwrap();
    assert_eq!(go_away(&mut client), 3, "after a round trip");
    gate.open();
    let mut bodies = Vec::new();
    while let Some(frame) = client.receive().unwrap() {
        if frame.kind == kind::DATA && !frame.payload.is_empty() {
            bodies.push((frame.stream, frame.payload));
        }
    }
    bodies.sort();
    assert_eq!(bodies, [(1, b"served".to_vec()), (3, b"served".to_vec())]);
    assert!(gateway.wait().success());
}

#[test]
fn uploads_over_http_2_that_never_end_are_cut_when_the_time_is_over() {
    let origin = Upstream::scripted(|_| Reply::Behind(Gate::default(), Box::new(Reply::text("never"))));
    let authority = Authority::new();
    let mut gateway = Setup::before(&origin)
        .certificate(&authority.issue(Kind::Ecdsa, &["site.test"]))
        .section("[limits]\ndrain = \"500ms\"")
        .start();
    let mut client = Http2::open(&authority, gateway.tls(), "site.test").unwrap();
    let post = |host: &'static [u8]| -> [(&[u8], &[u8]); 4] {
        [(b":method", b"POST"), (b":scheme", b"https"), (b":authority", host), (b":path", b"/upload")]
    };
    // One is on its way to the origin, and one has its answer already: its body is thrown away for a while.
    client.send(&Frame::headers(1, &post(b"site.test"), false)).unwrap();
    client.send(&Frame::data(1, b"begun", false)).unwrap();
    client.send(&Frame::headers(3, &post(b"other.test"), false)).unwrap();
    assert!(matches!(client.outcome(3).unwrap(), Outcome::Answered(404, _)));
    gateway.signal("TERM");
    assert!(gateway.wait().success());
    assert!(!gateway.stderr().contains("panicked"), "{}", gateway.stderr());
}
