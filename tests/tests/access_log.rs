//! One line per exchange, whatever its end, with every documented field.

use serde_json::{Value, json};
use weir_tests::tls::{Authority, Kind};
use weir_tests::{LONG, Reply, Request, Setup, Upstream, eventually, geo};

const FIELDS: [&str; 26] = [
    "time",
    "request_id",
    "trace_id",
    "site",
    "listener",
    "client_ip",
    "peer_ip",
    "country",
    "class",
    "tls",
    "protocol",
    "method",
    "host",
    "path",
    "status",
    "decided_by",
    "reason",
    "rule",
    "policies",
    "findings",
    "upstream",
    "attempts",
    "bytes_in",
    "bytes_out",
    "duration_ms",
    "event",
];

#[test]
fn a_line_has_every_documented_field() {
    let origin = Upstream::text("four");
    let authority = Authority::new();
    let gateway = Setup::before(&origin)
        .behind_proxy()
        .countries()
        .certificate(&authority.issue(Kind::Ecdsa, &["site.test"]))
        .policy("acl", "agent-acl", "config = { model = \"all-traffic\" }")
        .policy("geo", "geoip", "config = { deny = [\"KP\"] }")
        .start();
    let mut client = authority.connect(gateway.tls(), "site.test").unwrap();
    let request = Request::post("/automate/x?token=secret", "text/plain", "12345").from(geo::US).header("cookie", "sid=secret");
    let answer = client.ask(&request).unwrap();
    let line = gateway.log_of(&answer);
    for field in FIELDS {
        assert!(line.get(field).is_some(), "{field} is missing: {line}");
    }
    for field in ["version", "suite", "sni", "alpn", "ja4", "legacy"] {
        assert!(line["tls"].get(field).is_some(), "tls.{field} is missing: {line}");
    }
    for field in ["name", "phase", "verdict", "rule", "us", "mode"] {
        assert!(line["policies"][0].get(field).is_some(), "policies.{field} is missing: {line}");
    }
    for field in ["server", "stage", "outcome", "ms"] {
        assert!(line["attempts"][0].get(field).is_some(), "attempts.{field} is missing: {line}");
    }
    let expected = [
        ("event", Value::from("request")),
        ("site", "site".into()),
        ("client_ip", geo::US.into()),
        ("peer_ip", "127.0.0.1".into()),
        ("country", "US".into()),
        ("class", "technician".into()),
        ("protocol", "HTTP/1.1".into()),
        ("method", "POST".into()),
        ("host", "site.test".into()),
        ("path", "/automate/x".into()),
        ("status", 200.into()),
        ("decided_by", "upstream".into()),
        ("reason", "".into()),
        ("upstream", "origin".into()),
        ("bytes_in", 5.into()),
        ("bytes_out", 4.into()),
    ];
    for (field, value) in expected {
        assert_eq!(line[field], value, "{field}: {line}");
    }
    assert!(!line.to_string().contains("secret"), "query strings and header values are not logged: {line}");
    assert!(line["duration_ms"].as_f64().is_some_and(|ms| ms > 0.0 && ms < 10_000.0), "{line}");
}

#[test]
fn every_kind_of_end_has_its_line() {
    let mut dead = Upstream::text("");
    let origin = Upstream::scripted(|request| match request.target() {
        "/rude" => Reply::Last(b"this is not HTTP\r\n\r\n".to_vec()),
        "/cut" => Reply::Last(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\ncut".to_vec()),
        "/gone" => Reply::Last(Vec::new()),
        _ => Reply::text("ok"),
    });
    let gateway = Setup::before(&origin)
        .site("dead", &["dead.test"], &dead)
        .policy("acl", "agent-acl", "config = { model = \"agent-only\", trusted = [], class.other.from = \"anywhere\" }")
        .start();
    dead.stop();
    let cases = [
        ("/ok", "site.test", 200, "upstream", ""),
        ("/automate/", "site.test", 403, "acl", "class_not_allowed"),
        ("/x", "nowhere.test", 404, "gateway", "no_site"),
        ("/x", "dead.test", 502, "gateway", "upstream_refused"),
        ("/rude", "site.test", 502, "gateway", "upstream_bad_response"),
        ("/gone", "site.test", 502, "gateway", "upstream_reset"),
    ];
    for (target, host, status, by, reason) in cases {
        let answer = gateway.ask(&Request::get(target).host(host));
        assert_eq!(answer.status, status, "{target} {host}");
        let line = gateway.log_of(&answer);
        assert_eq!((&line["decided_by"], &line["reason"], &line["path"]), (&by.into(), &reason.into(), &target.into()), "{line}");
        assert_eq!(line["status"], status);
    }
    gateway.connect().ask(&Request::get("/cut")).unwrap_err();
    assert_eq!(gateway.log_where(|line| line["path"] == "/cut")["reason"], "upstream_body_failed");
    let mut odd = gateway.connect();
    odd.send("GET /two HTTP/1.1\r\nhost: site.test\r\nhost: other.test\r\n\r\n").unwrap();
    assert_eq!(odd.answer().unwrap().status, 400);
    assert_eq!(gateway.log_where(|line| line["path"] == "/two")["reason"], "duplicate_host");
    assert_eq!(gateway.log().len(), cases.len() + 2, "one line each, no more: {:#?}", gateway.log());
}

#[test]
fn a_client_that_goes_away_is_recorded_once_and_the_origin_is_spared() {
    let origin = Upstream::scripted(|_| Reply::Stream { length: 1 << 30, chunked: false });
    let gateway = Setup::before(&origin).start();
    let mut client = gateway.connect();
    client.send(Request::get("/download?secret=1").bytes()).unwrap();
    client.head().unwrap();
    client.exactly(1 << 16).unwrap();
    drop(client);
    let line = gateway.log_where(|line| line["path"] == "/download");
    assert_eq!((&line["reason"], &line["status"]), (&"client_gone".into(), &200.into()), "{line}");
    let sent = line["bytes_out"].as_u64().unwrap();
    assert!((1 << 16..1 << 29).contains(&sent), "{line}");
    // The connection that was cut is not used again.
    let again = gateway.connect().ask(&Request::new("HEAD /next"));
    assert!(again.is_err() || again.is_ok_and(|answer| answer.status == 200));
    assert!(!line.to_string().contains("secret"));
}

#[test]
fn garbage_on_a_connection_has_a_line_of_its_own() {
    let origin = Upstream::text("ok");
    let gateway = Setup::before(&origin).start();
    let mut client = gateway.connect();
    client.send("\x16\x03\x01 this is not HTTP\r\n\r\n").unwrap();
    let told = client.answer();
    assert!(told.as_ref().map_or(true, |answer| answer.status == 400), "{told:?}");
    let line = gateway.log_where(|line| line["event"] == "connection");
    assert_eq!((&line["client_ip"], &line["decided_by"]), (&"127.0.0.1".into(), &"gateway".into()), "{line}");
    assert!(line["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{line}");
    assert_eq!(origin.count(), 0);
}

#[test]
fn the_log_can_go_to_a_file_or_nowhere() {
    let origin = Upstream::text("ok");
    let gateway = Setup::before(&origin).telemetry("access_log = \"access.log\"").start();
    let id = gateway.get("/").request_id();
    let file = gateway.directory().path().join("access.log");
    eventually(LONG, "the line is in the file", || std::fs::read_to_string(&file).is_ok_and(|text| text.contains(&id)));
    assert!(gateway.log().is_empty());

    let silent = Setup::before(&origin).telemetry("access_log = \"off\"").start();
    assert_eq!(silent.get("/").status, 200);
    assert!(silent.log().is_empty());
}

/// Findings of the connection phase are on record once: on the first request of the connection.
#[test]
fn what_matched_a_connection_is_on_the_record_of_its_first_request() {
    let origin = Upstream::text("ok");
    let gateway = Setup::before(&origin).guest("trial", "config = { version = \"one\", connection = \"pass\" }").start();
    let mut client = gateway.connect();
    let lines: Vec<Value> = (0..2).map(|_| gateway.log_of(&client.ask(&Request::get("/")).unwrap())).collect();
    let expected = json!([{
        "policy": "trial", "rule": "address", "category": "connection", "target": "client_ip", "evidence": "one", "score": 0,
    }]);
    assert_eq!((&lines[0]["findings"], &lines[1]["findings"]), (&expected, &json!([])));
    assert!(lines.iter().all(|line| line["tags"]["connected"] == "one"), "{lines:?}");
}

/// A connection that never has a request has a line that tells who closed it, and why.
#[test]
fn what_closed_a_connection_is_on_its_own_record() {
    let (origin, authority) = (Upstream::text("ok"), Authority::new());
    let gateway = Setup::before(&origin)
        .certificate(&authority.issue(Kind::Ecdsa, &["site.test"]))
        .guest("trial", "config = { version = \"one\", connection = \"close\" }")
        .start();
    let closed = authority.connect(gateway.tls(), "site.test").and_then(|mut connection| connection.ask(&Request::get("/")));
    assert!(closed.is_err(), "{closed:?}");
    let line = gateway.log_where(|line| line["event"] == "connection");
    assert_eq!((&line["site"], &line["decided_by"]), (&"site".into(), &"trial".into()), "{line}");
    assert_eq!((&line["reason"], &line["detail"]), (&"policy_denied".into(), &"address_is_listed".into()), "{line}");
    assert_eq!(
        (&line["policies"][0]["phase"], &line["policies"][0]["rule"]),
        (&"connection".into(), &"address".into()),
        "{line}"
    );
    assert_eq!(line["findings"][0]["evidence"], "one", "{line}");
    assert_eq!(gateway.metric("weir_connections_refused_total{reason=\"policy_denied\"}"), 1.0);
    let decided = "weir_policy_decisions_total{policy=\"trial\",phase=\"connection\",verdict=\"deny\",mode=\"enforce\"}";
    assert_eq!(gateway.metric(decided), 1.0);
}
