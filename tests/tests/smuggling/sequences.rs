//! Rows that need more than bytes: somebody waits, answers early, or asks to leave HTTP.

use std::time::Duration;

use weir_tests::recording::{Recording, Seen, Strict, answer};
use weir_tests::{Connection, Gateway, Reply, Request, Setup, Upstream, eventually, setup};

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nhost: site.test\r\n\r\n";

fn gateway(origin: &Recording, sections: &str) -> Gateway {
    Setup::empty().section(&setup::site("site", &["site.test"], &origin.url())).section(sections).start()
}

/// Bystanders on several connections, so that every idle connection to the origin is used: each gets its own answer. Answers what else
/// the origin saw.
fn bystanders(gateway: &Gateway, origin: &Recording) -> Seen {
    let mut clients: Vec<Connection> = (0..4).map(|_| gateway.connect()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        let target = format!("/canary/{number}");
        assert_eq!(client.ask(&Request::get(&target)).unwrap().text(), format!("GET {target}"));
    }
    let mut seen = origin.take();
    seen.requests.retain(|request| !request.asked().contains("/canary/"));
    seen
}

fn asked(seen: &Seen) -> Vec<&str> {
    seen.requests.iter().map(Strict::asked).collect()
}

/// Rows K1: 401 while the body is under way, which looks like a request.
#[test]
fn the_rest_of_a_body_that_was_answered_early_is_never_a_request() {
    let origin = Recording::scripted(|request| match request.asked() {
        "POST /early" => b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\n\r\nno".to_vec(),
        asked => answer(asked),
    });
    let gateway = gateway(&origin, "");
    let chunked = format!("{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len());
    let length = format!("content-length: {}", SMUGGLED.len());
    for (framing, body) in [(length.as_str(), SMUGGLED), ("transfer-encoding: chunked", &chunked)] {
        for pieces in [vec![body], vec![&body[..20], &body[20..]]] {
            let mut client = gateway.connect();
            client.send(format!("POST /early HTTP/1.1\r\nhost: site.test\r\n{framing}\r\n\r\n")).unwrap();
            if pieces.len() > 1 {
                client.send(pieces[0]).unwrap();
            }
            assert_eq!(client.answer().unwrap().status, 401, "{framing}");
            drop(client.send(pieces[pieces.len() - 1]));
            // The connection goes on in step, or it ends.
            if let Ok(after) = client.ask(&Request::get("/after")) {
                assert_eq!((after.status, after.text().as_str()), (200, "GET /after"), "{framing}");
                client.finish().unwrap();
                assert!(client.is_closed(), "{framing}: more answers than requests");
            }
            eventually(Duration::from_secs(10), "the origin is not left within a request", || origin.pending() == 0);
            let seen = bystanders(&gateway, &origin);
            assert!(seen.faults.is_empty(), "{seen:?}");
            assert!(asked(&seen).iter().all(|asked| ["POST /early", "GET /after"].contains(asked)), "{framing}: {seen:?}");
        }
    }
}

/// Row K2: a head, a pause, and a body that looks like a request.
#[test]
fn a_pause_within_a_body_ends_both_connections() {
    let origin = Recording::start();
    let gateway = gateway(&origin, "[limits]\nbody_idle = \"300ms\"");
    let chunked = format!("{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len());
    let length = format!("content-length: {}", SMUGGLED.len());
    for (framing, body) in [(length.as_str(), SMUGGLED), ("transfer-encoding: chunked", chunked.as_str())] {
        let mut client = gateway.connect();
        client.send(format!("POST /pause HTTP/1.1\r\nhost: site.test\r\n{framing}\r\n\r\n")).unwrap();
        let told = client.answer().unwrap();
        assert_eq!((told.status, told.header("connection")), (408, Some("close")), "{told:?}");
        drop(client.send(body));
        assert!(client.is_closed(), "{framing}");
        assert_eq!(gateway.log_of(&told)["reason"], "client_body_stalled");
        eventually(Duration::from_secs(10), "the origin's connection ends", || origin.pending() == 0);
        let seen = bystanders(&gateway, &origin);
        assert!(seen.requests.is_empty() && seen.faults.is_empty() && seen.broken == 1, "{seen:?}");
    }
}

/// Rows K3: the origin answers instead of asking for the body.
#[test]
fn an_expectation_that_is_answered_is_not_a_body_that_was_sent() {
    let origin = Recording::scripted(|request| match request.asked() {
        "PUT /early/417" => b"HTTP/1.1 417 Expectation Failed\r\ncontent-length: 0\r\n\r\n".to_vec(),
        "PUT /early/200" => answer("early"),
        asked => answer(asked),
    });
    let gateway = gateway(&origin, "");
    for (target, status) in [("/early/417", 417), ("/early/200", 200)] {
        let mut client = gateway.connect();
        let length = SMUGGLED.len();
        client
            .send(format!("PUT {target} HTTP/1.1\r\nhost: site.test\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n"))
            .unwrap();
        assert_eq!(client.answer().unwrap().status, status);
        // Whoever has the answer need not send the body: what comes now is a body, or the connection is closed.
        drop(client.send(SMUGGLED));
        eventually(Duration::from_secs(10), "the origin is not left within a request", || origin.pending() == 0);
        let seen = bystanders(&gateway, &origin);
        assert!(asked(&seen).iter().all(|asked| asked.contains(target)) && seen.faults.is_empty(), "{seen:?}");
    }
}

/// Rows U1: bytes behind a request for an upgrade are judged like any others when the answer is no upgrade.
#[test]
fn bytes_behind_a_refused_upgrade_are_judged() {
    let origin = Recording::start();
    let gateway = gateway(&origin, "");
    let upgrade = "GET /socket HTTP/1.1\r\nhost: site.test\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    let mut client = gateway.connect();
    client.send(format!("{upgrade}GET /second HTTP/1.1\r\nhost: site.test\r\n\r\n")).unwrap();
    assert_eq!(client.answer().unwrap().text(), "GET /socket");
    assert_eq!(client.answer().unwrap().text(), "GET /second");
    let mut client = gateway.connect();
    client.send(format!("{upgrade}GET /second HTTP/1.1\r\nhost: site.test\r\nhost: other.test\r\n\r\n")).unwrap();
    assert_eq!(client.answer().unwrap().text(), "GET /socket");
    assert_eq!(client.answer().unwrap().status, 400);
    assert!(client.is_closed());
    let seen = bystanders(&gateway, &origin);
    assert_eq!(asked(&seen), ["GET /socket", "GET /second", "GET /socket"]);
    assert!(seen.faults.is_empty(), "{seen:?}");
}

/// Row U3: the tunnel opens with 101 and not before, and what came early goes through it.
#[test]
fn bytes_behind_an_upgrade_that_is_granted_are_the_tunnels() {
    let origin = Upstream::scripted(|_| Reply::Tunnel);
    let gateway = Setup::before(&origin).start();
    let mut client = gateway.connect();
    let head = "GET /socket HTTP/1.1\r\nhost: site.test\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    client.send(format!("{head}{SMUGGLED}")).unwrap();
    assert!(client.head().unwrap().first_line.starts_with("HTTP/1.1 101 "));
    assert_eq!(client.exactly(SMUGGLED.len()).unwrap(), SMUGGLED.as_bytes());
    assert_eq!(origin.count(), 1);
}

/// Row P1.
#[test]
fn a_pipeline_ends_at_its_first_malformed_request() {
    let origin = Recording::start();
    let gateway = gateway(&origin, "");
    let pipeline: String = (1..=20)
        .map(|number| {
            let odd = if number == 10 { "x : y\r\n" } else { "" };
            format!("GET /{number} HTTP/1.1\r\nhost: site.test\r\n{odd}\r\n")
        })
        .collect();
    for pieces in [1, pipeline.len()] {
        let mut client = gateway.connect();
        for piece in pipeline.as_bytes().chunks(pipeline.len().div_ceil(pieces)) {
            drop(client.send(piece));
        }
        for number in 1..10 {
            assert_eq!(client.answer().unwrap().text(), format!("GET /{number}"));
        }
        assert_eq!(client.answer().unwrap().status, 400);
        assert!(client.is_closed());
        let seen = bystanders(&gateway, &origin);
        assert_eq!((seen.requests.len(), seen.faults.len(), seen.broken), (9, 0, 0), "{seen:?}");
    }
}
