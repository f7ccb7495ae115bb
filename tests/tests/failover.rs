//! Strict priority: the secondary serves while the primary cannot, and no longer; a request is lost or sent twice only where it must be.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use weir_tests::load::Load;
use weir_tests::tls::{Authority, Kind};
use weir_tests::{BlackHole, Connection, Gate, Gateway, Hostile, LONG, Reply, Request, Setup, Upstream, eventually};

const HEALTH: &str = "health = { path = \"/health\", every = \"100ms\", timeout = \"500ms\", fall = 2, rise = 2 }\n\
                      failback = { after = \"300ms\", ramp = \"200ms\" }";

/// A server's state in the admin API.
fn state(gateway: &Gateway, url: &str) -> Value {
    let answer: Value = serde_json::from_slice(&gateway.admin("GET /v1/upstreams").body).unwrap();
    let servers = answer["upstreams"][0]["servers"].as_array().unwrap();
    servers.iter().find(|server| server["server"] == url).unwrap_or_else(|| panic!("{answer}")).clone()
}

fn outcomes(line: &Value) -> Vec<String> {
    let attempts = line["attempts"].as_array().unwrap();
    attempts.iter().map(|attempt| attempt["outcome"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn requests_move_to_the_secondary_and_return_when_the_primary_does() {
    let mut primary = Upstream::text("primary");
    let secondary = Upstream::text("secondary");
    let gateway = Setup::before_servers(&[(&primary.url(), 0), (&secondary.url(), 1)]).upstream(HEALTH).start();
    assert_eq!(gateway.get("/").text(), "primary");

    primary.stop();
    for _ in 0..20 {
        let answer = gateway.get("/");
        assert_eq!((answer.status, answer.text().as_str()), (200, "secondary"), "no request fails");
    }

    primary.restart();
    eventually(LONG, "the primary has all requests again", || state(&gateway, &primary.url())["state"] == "ready");
    for _ in 0..20 {
        assert_eq!(gateway.get("/").text(), "primary", "and does not flap");
    }
    let asked = |origin: &Upstream| origin.requests().iter().filter(|request| request.target() == "/health").count();
    eventually(LONG, "both are probed", || asked(&primary) > 2 && asked(&secondary) > 2);
}

#[test]
fn equals_take_turns() {
    let (one, other) = (Upstream::text("one"), Upstream::text("other"));
    let gateway = Setup::before_servers(&[(&one.url(), 0), (&other.url(), 0)]).start();
    let mut client = gateway.connect();
    let mut by_one = 0;
    for _ in 0..20 {
        by_one += usize::from(client.ask(&Request::get("/")).unwrap().text() == "one");
    }
    assert_eq!(by_one, 10);
}

#[test]
fn the_log_shows_every_attempt() {
    let mut primary = Upstream::text("primary");
    let secondary = Upstream::text("secondary");
    let gateway = Setup::before_servers(&[(&primary.url(), 0), (&secondary.url(), 1)]).start();
    primary.stop();
    let answer = gateway.ask(&Request::post("/", "text/plain", "a body that is sent again"));
    assert_eq!(answer.text(), "secondary");
    assert_eq!(secondary.last().body, b"a body that is sent again");
    let line = gateway.log_of(&answer);
    let attempts = line["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 2, "{line}");
    assert_eq!((&attempts[0]["server"], &attempts[0]["outcome"]), (&primary.url().into(), &"refused".into()));
    assert_eq!((&attempts[1]["server"], &attempts[1]["outcome"]), (&secondary.url().into(), &"ok".into()));
}

#[test]
fn a_primary_that_dies_under_load_costs_no_get() {
    let mut primary = Upstream::text("primary");
    let secondary = Upstream::text("secondary");
    let gateway = Setup::before_servers(&[(&primary.url(), 0), (&secondary.url(), 1)]).upstream(HEALTH).start();
    let load = Load::start(gateway.plain(), 4, &Request::get("/"));
    for _ in 0..3 {
        eventually(LONG, "the primary serves", || state(&gateway, &primary.url())["state"] == "ready");
        let before = load.done();
        eventually(LONG, "traffic flows", || load.done() > before + 200);
        primary.stop();
        let before = load.done();
        eventually(LONG, "traffic goes on", || load.done() > before + 500);
        primary.restart();
    }
    let report = load.finish();
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    assert!(secondary.count() > 100);
}

#[test]
fn a_primary_that_dies_under_load_gets_no_post_twice() {
    let mut primary = Upstream::text("primary");
    let secondary = Upstream::text("secondary");
    let gateway = Setup::before_servers(&[(&primary.url(), 0), (&secondary.url(), 1)]).upstream(HEALTH).start();
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..4)
        .map(|client| {
            let (stop, done, address) = (Arc::clone(&stop), Arc::clone(&done), gateway.plain());
            std::thread::spawn(move || {
                let mut lost = Vec::new();
                let mut connection = Connection::open(address).unwrap();
                for number in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        return lost;
                    }
                    let answer = connection.ask(&Request::post("/", "text/plain", format!("{client}-{number}"))).unwrap();
                    if answer.status != 200 {
                        lost.push(answer.status);
                    }
                    done.fetch_add(1, Ordering::SeqCst);
                }
                lost
            })
        })
        .collect();
    eventually(LONG, "traffic flows", || done.load(Ordering::SeqCst) > 200);
    primary.stop();
    let before = done.load(Ordering::SeqCst);
    eventually(LONG, "traffic goes on", || done.load(Ordering::SeqCst) > before + 300);
    stop.store(true, Ordering::SeqCst);
    let lost: Vec<u16> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
    assert!(lost.len() <= 4 && lost.iter().all(|status| *status == 502), "only what the primary held: {lost:?}");
    let mut seen = HashSet::new();
    for request in primary.requests().iter().chain(&secondary.requests()).filter(|request| !request.body.is_empty()) {
        assert!(seen.insert(request.body.clone()), "{:?} came twice", String::from_utf8_lossy(&request.body));
    }
}

#[test]
fn what_may_be_sent_again_is_decided_by_method_and_client() {
    // Reads whole requests and ends the connection, with FIN or RST.
    for abort in [false, true] {
        let primary = Hostile::new(move |victim| {
            victim.read()?;
            if abort { victim.abort() } else { Ok(()) }
        });
        let secondary = Upstream::echo();
        let servers = [(primary.url(), 0), (secondary.url(), 1)];
        let servers: Vec<_> = servers.iter().map(|(url, priority)| (url.as_str(), *priority)).collect();
        let gateway = Setup::before_servers(&servers).start();

        let answer = gateway.get("/");
        assert_eq!(answer.status, 200, "abort {abort}");
        assert_eq!(outcomes(&gateway.log_of(&answer)), ["reset", "ok"]);

        let post = Request::post("/", "text/plain", "x".repeat(5000));
        let answer = gateway.ask(&post);
        assert_eq!(answer.status, 502);
        assert_eq!(gateway.log_of(&answer)["reason"], "upstream_reset");
        assert_eq!(secondary.requests().iter().filter(|request| request.length > 0).count(), 0, "never twice");

        let answer = gateway.ask(&post.clone().header("idempotency-key", "7"));
        assert_eq!((answer.status, answer.body.len()), (200, 5000));

        let large = Request::post("/", "text/plain", vec![b'x'; 100_000]).header("idempotency-key", "8");
        assert_eq!(gateway.ask(&large).status, 502, "too large to be kept");

        let gateway = Setup::before_servers(&servers).upstream("retry = { safe = false }").start();
        assert_eq!(gateway.get("/").status, 502, "as the operator wants");
        let gateway = Setup::before_servers(&servers).upstream("retry = { attempts = 0 }").start();
        assert_eq!(gateway.get("/").status, 502, "as the operator wants");
    }
}

#[test]
fn a_server_that_ends_half_of_its_connections_is_left_although_probes_like_it() {
    let primary = Hostile::new(|victim| match victim.read()? {
        Some(line) if line.contains("/health") => victim.answer("fine"),
        _ => Ok(()),
    });
    let secondary = Upstream::text("secondary");
    let health = "health = { path = \"/health\", every = \"100ms\", timeout = \"1s\", rise = 1 }\nfailback = { after = \"1h\" }";
    let gateway = Setup::before_servers(&[(&primary.url(), 0), (&secondary.url(), 1)]).upstream(health).start();
    let mut client = gateway.connect();
    for _ in 0..60 {
        assert_eq!(client.ask(&Request::get("/")).unwrap().text(), "secondary");
    }
    let condition = state(&gateway, &primary.url());
    assert!(condition["state"] == "down" || condition["state"] == "held", "{condition}");
    assert_eq!((&condition["reason"], &condition["counts"]["resets"]), (&"resets".into(), &20.into()), "{condition}");
}

#[test]
fn a_server_that_fails_gets_little_more_than_what_is_asked() {
    let origin = Hostile::new(|victim| victim.read().map(|_| ()));
    let gateway = Setup::before_servers(&[(&origin.url(), 0)]).start();
    let mut client = gateway.connect();
    for _ in 0..200 {
        let status = client.ask(&Request::get("/")).unwrap().status;
        assert!(matches!(status, 502 | 503), "{status}");
    }
    // Three a second for the window of ten, and a fifth.
    assert!(origin.count() <= 200 + 30 + 40, "{}", origin.count());
}

#[test]
fn a_head_that_broke_off_is_an_answer_that_had_begun() {
    for begun in [&b"HTTP/1.1 200 OK\r\ncontent-le"[..], b"HTTP/1.1 103 Early Hints\r\n\r\n"] {
        let primary = Upstream::scripted(move |_| Reply::Last(begun.to_vec()));
        let secondary = Upstream::text("secondary");
        let gateway = Setup::before_servers(&[(&primary.url(), 0), (&secondary.url(), 1)]).start();
        let answer = gateway.get("/");
        assert_eq!((answer.status, &gateway.log_of(&answer)["reason"]), (502, &"upstream_bad_response".into()));
        assert_eq!((primary.count(), secondary.count()), (1, 0), "{}", begun.escape_ascii());
    }
}

#[test]
fn a_response_that_broke_off_is_cut_and_never_sent_again() {
    let primary = Upstream::scripted(|_| Reply::Last(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf".to_vec()));
    let secondary = Upstream::text("secondary");
    let gateway = Setup::before_servers(&[(&primary.url(), 0), (&secondary.url(), 1)]).start();
    let mut client = gateway.connect();
    let broken = client.ask(&Request::get("/")).unwrap_err();
    assert!(matches!(broken.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset), "{broken}");
    assert_eq!((primary.count(), secondary.count()), (1, 0));
}

#[test]
fn a_black_hole_costs_a_quarter_of_a_second_once() {
    let mut primary = Upstream::text("primary");
    let secondary = Upstream::text("secondary");
    let gateway = Setup::before_servers(&[(&primary.url(), 0), (&secondary.url(), 1)]).start();
    assert_eq!(gateway.get("/").text(), "primary");
    primary.stop();
    let _hole = BlackHole::at(primary.address());
    let timed = || {
        let started = Instant::now();
        let answer = gateway.ask(&Request::post("/", "text/plain", "any method"));
        assert_eq!(answer.text(), "secondary");
        (started.elapsed(), outcomes(&gateway.log_of(&answer)))
    };
    let (took, tried) = timed();
    assert!(took < Duration::from_millis(900), "{took:?}");
    assert_eq!(tried, ["raced", "ok"]);
    for _ in 0..50 {
        assert_eq!(timed().1, ["ok"], "no other request finds out");
    }
    eventually(LONG, "the gateway finds out by itself", || state(&gateway, &primary.url())["state"] == "down");
    assert_eq!(state(&gateway, &primary.url())["reason"], "connect_timeout");
    for _ in 0..50 {
        assert_eq!(timed().1, ["ok"], "nor later");
    }
}

#[test]
fn a_stalled_application_keeps_its_clients_until_it_has_stalled_for_too_long() {
    for (stall, down) in [("60s", false), ("500ms", true)] {
        let gate = Gate::default();
        let hold = gate.clone();
        let primary = Upstream::scripted(move |_| Reply::Behind(hold.clone(), Box::new(Reply::text("primary"))));
        let secondary = Upstream::text("secondary");
        let health = format!(
            "health = {{ path = \"/\", every = \"50ms\", timeout = \"50ms\", stall = \"{stall}\", fall = 2, rise = 1 }}\n\
             failback = {{ after = \"100ms\", ramp = \"100ms\" }}"
        );
        let gateway = Setup::before_servers(&[(&primary.url(), 0), (&secondary.url(), 1)]).upstream(&health).start();
        let slow = |gateway: &Gateway| state(gateway, &primary.url())["counts"]["slow_probes"].as_u64().unwrap();
        let waiting = std::thread::spawn({
            let address = gateway.plain();
            move || Connection::open(address).unwrap().ask(&Request::get("/")).unwrap().text()
        });
        eventually(LONG, "many probes were slow", || slow(&gateway) > 15);
        assert_eq!(state(&gateway, &primary.url())["state"], if down { "down" } else { "ready" }, "stall = {stall}");
        if down {
            assert_eq!(state(&gateway, &primary.url())["reason"], "probe_stalled");
            assert_eq!(gateway.get("/").text(), "secondary");
            assert_eq!(waiting.join().unwrap(), "secondary", "who waited is taken back");
            gate.open();
        } else {
            gate.open();
            assert_eq!(waiting.join().unwrap(), "primary", "who waited is answered");
        }
        eventually(LONG, "the primary serves", || gateway.get("/").text() == "primary");
    }
}

#[test]
fn requests_that_wait_at_a_server_that_goes_down_are_taken_back() {
    // Answers probes on new connections until told otherwise, and requests never.
    let (alive, waiting) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let (answers, count) = (Arc::clone(&alive), Arc::clone(&waiting));
    let primary = Hostile::new(move |victim| {
        while let Some(line) = victim.read()? {
            if line.contains("/health") {
                victim.answer(if answers.load(Ordering::SeqCst) { "alive" } else { "dead" })?;
            } else {
                count.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(LONG);
            }
        }
        Ok(())
    });
    let secondary = Upstream::scripted(|request| match request.target() {
        "/health" => Reply::text("alive"),
        _ => Reply::text(request.body.clone()),
    });
    let health = "health = { path = \"/health\", every = \"50ms\", timeout = \"1s\", fall = 2, rise = 1, expect = \"alive\" }";
    let gateway = Setup::before_servers(&[(&primary.url(), 0), (&secondary.url(), 1)]).upstream(health).start();
    let ask = |request: Request| {
        let address = gateway.plain();
        std::thread::spawn(move || Connection::open(address).unwrap().ask(&request).unwrap())
    };
    let get = ask(Request::get("/"));
    let again = ask(Request::post("/", "text/plain", "again").header("idempotency-key", "1"));
    let started = Instant::now();
    eventually(LONG, "both wait", || waiting.load(Ordering::SeqCst) >= 2);
    alive.store(false, Ordering::SeqCst);
    let get = get.join().unwrap();
    assert_eq!(get.status, 200);
    assert_eq!(outcomes(&gateway.log_of(&get)), ["went_down", "ok"]);
    assert_eq!(again.join().unwrap().text(), "again");
    assert!(started.elapsed() < LONG / 2, "{:?}", started.elapsed());
}

#[test]
fn an_overall_deadline_ends_what_would_go_on() {
    let origin = Hostile::new(|victim| {
        victim.read()?;
        std::thread::sleep(LONG);
        Ok(())
    });
    let gateway = Setup::before_servers(&[(&origin.url(), 0)]).upstream("timeouts = { total = \"300ms\" }").start();
    let started = Instant::now();
    let answer = gateway.get("/");
    assert_eq!((answer.status, &gateway.log_of(&answer)["reason"]), (504, &"upstream_timeout".into()));
    assert!(started.elapsed() < LONG / 4);
}

#[test]
fn connections_that_end_as_they_are_used_again_cost_nothing_but_posts_that_left() {
    // Answers one request, and ends the connection when the next one comes.
    let origin = Hostile::new(|victim| {
        victim.read()?;
        victim.answer("once")?;
        victim.read()?;
        Ok(())
    });
    let gateway = Setup::before_servers(&[(&origin.url(), 0)]).start();
    let mut client = gateway.connect();
    for _ in 0..200 {
        assert_eq!(client.ask(&Request::get("/")).unwrap().text(), "once");
    }
    let line = gateway.log_where(|line| line["attempts"][0]["outcome"] == "stale");
    assert_eq!(outcomes(&line), ["stale", "ok"]);
    let before = origin.count();
    let statuses: Vec<_> = (0..50).map(|_| client.ask(&Request::post("/", "text/plain", "x")).unwrap().status).collect();
    assert!(statuses.iter().all(|status| matches!(status, 200 | 502)), "{statuses:?}");
    assert_eq!(origin.count() - before, 50, "every POST was sent once");
    assert_eq!(state(&gateway, &origin.url())["state"], "ready", "that is no outage");
}

#[test]
fn connections_that_were_closed_in_time_cost_nothing_at_all() {
    // Ends every connection after its answer without saying so.
    let origin = Upstream::scripted(|_| Reply::Last(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec()));
    let gateway = Setup::before(&origin).start();
    let mut client = gateway.connect();
    for _ in 0..200 {
        assert_eq!(client.ask(&Request::get("/")).unwrap().text(), "ok");
    }
    assert_eq!(origin.accepted(), origin.count());
}

#[test]
fn a_flapping_primary_is_left_once() {
    let up = Arc::new(AtomicBool::new(true));
    let answers = Arc::clone(&up);
    let primary = Upstream::scripted(move |_| {
        if answers.load(Ordering::SeqCst) { Reply::text("primary") } else { Reply::with("503 Service Unavailable", &[], "") }
    });
    let secondary = Upstream::text("secondary");
    let health = "health = { path = \"/health\", every = \"20ms\", timeout = \"1s\", fall = 2, rise = 3 }\n\
                  failback = { after = \"2s\", ramp = \"1ms\" }";
    let gateway = Setup::before_servers(&[(&primary.url(), 0), (&secondary.url(), 1)]).upstream(health).start();
    let ended = Arc::new(AtomicBool::new(false));
    let flapping = std::thread::spawn({
        let (up, ended) = (Arc::clone(&up), Arc::clone(&ended));
        move || {
            while !ended.load(Ordering::SeqCst) {
                up.fetch_xor(true, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(200));
            }
        }
    });
    let (started, mut switches, mut last) = (Instant::now(), 0, String::from("primary"));
    while started.elapsed() < Duration::from_secs(5) {
        let text = gateway.get("/").text();
        if !text.is_empty() && text != last {
            switches += 1;
            last = text;
        }
    }
    ended.store(true, Ordering::SeqCst);
    flapping.join().unwrap();
    assert!(switches <= 2, "{switches} switches");
    up.store(true, Ordering::SeqCst);
    eventually(LONG, "in the end the primary serves", || gateway.get("/").text() == "primary");
}

#[test]
fn a_primary_comes_back_bit_by_bit() {
    let mut primary = Upstream::text("primary");
    let secondary = Upstream::text("secondary");
    let health = "health = { path = \"/health\", every = \"50ms\", timeout = \"1s\", fall = 1, rise = 1 }\n\
                  failback = { after = \"100ms\", ramp = \"3s\" }";
    let gateway = Setup::before_servers(&[(&primary.url(), 0), (&secondary.url(), 1)]).upstream(health).start();
    primary.stop();
    eventually(LONG, "the primary is down", || state(&gateway, &primary.url())["state"] == "down");
    primary.restart();
    eventually(LONG, "the primary gets its first requests", || gateway.get("/").text() == "primary");
    let condition = state(&gateway, &primary.url());
    assert_eq!(condition["state"], "ramping", "{condition}");
    let share = condition["share"].as_f64().unwrap();
    assert!((0.1..1.0).contains(&share), "{condition}");
    let by_secondary = (0..20).filter(|_| gateway.get("/").text() == "secondary").count();
    assert!(by_secondary > 0, "the secondary takes the rest");
    eventually(LONG, "the ramp ends", || state(&gateway, &primary.url())["state"] == "ready");
    assert!((0..20).all(|_| gateway.get("/").text() == "primary"));
}

#[test]
fn a_held_primary_serves_at_once_when_the_secondary_cannot() {
    let mut primary = Upstream::text("primary");
    let mut secondary = Upstream::text("secondary");
    let health = "health = { path = \"/health\", every = \"50ms\", timeout = \"1s\", fall = 1, rise = 1 }\n\
                  failback = { after = \"1h\" }";
    let gateway = Setup::before_servers(&[(&primary.url(), 0), (&secondary.url(), 1)]).upstream(health).start();
    primary.stop();
    eventually(LONG, "the primary is down", || state(&gateway, &primary.url())["state"] == "down");
    primary.restart();
    eventually(LONG, "the primary is held", || state(&gateway, &primary.url())["state"] == "held");
    assert_eq!(gateway.get("/").text(), "secondary");
    secondary.stop();
    assert_eq!(gateway.get("/").text(), "primary");
}

#[test]
fn without_probes_no_request_finds_out_that_a_server_is_back() {
    let mut primary = Upstream::text("primary");
    let secondary = Upstream::text("secondary");
    let gateway = Setup::before_servers(&[(&primary.url(), 0), (&secondary.url(), 1)])
        .upstream("failback = { after = \"100ms\", ramp = \"100ms\" }")
        .start();
    primary.stop();
    assert_eq!(gateway.get("/").text(), "secondary");
    eventually(LONG, "the primary is down", || state(&gateway, &primary.url())["state"] == "down");
    primary.restart();
    eventually(LONG, "the primary serves again", || {
        let answer = gateway.get("/");
        assert_eq!(outcomes(&gateway.log_of(&answer)), ["ok"], "no request is a probe");
        answer.text() == "primary"
    });
}

#[test]
fn without_probes_an_outage_ends_soon_after_the_server_is_back() {
    let mut only = Upstream::text("only");
    let gateway = Setup::before(&only).start();
    only.stop();
    let failures = || state(&gateway, &only.url())["counts"]["connect_failures"].as_u64().unwrap();
    // Left alone, the gateway would be at pauses of half a minute by then.
    eventually(LONG, "connections are tried while requests find nobody", || {
        assert!(gateway.get("/").status >= 502);
        failures() >= 9
    });
    only.restart();
    let took = eventually(LONG, "the server serves", || gateway.get("/").status == 200);
    assert!(took < Duration::from_secs(6), "{took:?}");
}

#[test]
fn when_nobody_is_up_the_answer_says_so_at_once() {
    let mut only = Upstream::text("only");
    let gateway = Setup::before(&only).upstream(HEALTH).start();
    assert_eq!(gateway.get("/").status, 200);
    only.stop();
    eventually(LONG, "the server is known to be down", || {
        let answer = gateway.get("/");
        assert!(answer.status == 502 || answer.status == 503, "{answer:?}");
        gateway.log_of(&answer)["reason"] == "no_healthy_server"
    });
    let mut client = gateway.connect();
    let mut times: Vec<_> = (0..100)
        .map(|_| {
            let started = Instant::now();
            let answer = client.ask(&Request::get("/")).unwrap();
            assert_eq!(answer.status, 503);
            assert!(answer.header("retry-after").is_some());
            started.elapsed()
        })
        .collect();
    times.sort();
    assert!(times[50] < Duration::from_millis(5), "{:?}", times[50]);
    only.restart();
    eventually(LONG, "the server is known to be up", || gateway.get("/").status == 200);
}

#[test]
fn interim_answers_are_no_answer_and_do_no_harm() {
    let origin = Hostile::new(|victim| {
        while victim.read()?.is_some() {
            for _ in 0..1000 {
                victim.send("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n")?;
            }
            victim.answer("at last")?;
        }
        Ok(())
    });
    let gateway = Setup::before_servers(&[(&origin.url(), 0)]).start();
    let mut client = gateway.connect();
    assert!((0..3).all(|_| client.ask(&Request::get("/")).unwrap().text() == "at last"));
    let endless = Hostile::new(|victim| {
        victim.read()?;
        loop {
            victim.send("HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100))?;
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    let gateway = Setup::before_servers(&[(&endless.url(), 0)]).start();
    let answer = gateway.get("/");
    assert_eq!((answer.status, &gateway.log_of(&answer)["reason"]), (502, &"upstream_bad_response".into()));
}

#[test]
fn a_site_may_refuse_connections_while_it_is_down_so_that_agents_move_on() {
    let mut only = Upstream::text("only");
    let authority = Authority::new();
    let gateway = Setup::before(&only)
        .upstream(HEALTH)
        .replace("name = \"site\"", "name = \"site\"\nrefuse_when_down = true")
        .certificate(&authority.issue(Kind::Ecdsa, &["site.test"]))
        .start();
    assert!(authority.connect(gateway.tls(), "site.test").is_ok());
    only.stop();
    eventually(LONG, "handshakes are refused", || authority.connect(gateway.tls(), "site.test").is_err());
    let line = gateway.log_where(|line| line["event"] == "connection");
    assert_eq!((&line["reason"], &line["site"]), (&"upstream_down".into(), &"site".into()), "{line}");
    let unanswered = gateway.connect().ask(&Request::get("/")).unwrap_err();
    assert!(matches!(unanswered.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset), "{unanswered}");
    let line = gateway.log_where(|line| line["reason"] == "no_healthy_server");
    assert_eq!(line["status"], 0, "{line}");
    only.restart();
    eventually(LONG, "the site is served again", || authority.connect(gateway.tls(), "site.test").is_ok());
}
