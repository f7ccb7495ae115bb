//! HTTP/2 from clients.

use std::time::{Duration, Instant};

use weir_tests::h2::{Field, Frame, Http2, Outcome, flag, kind};
use weir_tests::tls::{Authority, Kind};
use weir_tests::{Gateway, Setup, Upstream, tool};

fn gateway(origin: &Upstream) -> (Gateway, String) {
    let authority = Authority::new();
    // A machine that is busy with other scenarios lets calls wait.
    let patient = |config: &str| format!("limits = {{ wall = \"5s\" }}\n{config}");
    let gateway = Setup::before(origin)
        .countries()
        .certificate(&authority.issue(Kind::Ecdsa, &["site.test"]))
        .policy("acl", "agent-acl", &patient("config = { model = \"all-traffic\" }"))
        .policy("geo", "geoip", &patient("config = { deny = [\"KP\"] }"))
        .policy("ips", "ips", &patient(""))
        .policy("sso", "sso-cors", &patient("config = { public = \"site.test\", origin = \"automate.internal\" }"))
        .start();
    let ca = gateway.directory().write("ca.pem", &authority.pem).display().to_string();
    (gateway, ca)
}

/// What curl prints of a POST over HTTP/2, and then what `format` asks for; `None`, said loudly, when it has no HTTP/2.
fn post_with_curl(gateway: &Gateway, ca: &str, target: &str, body: &str, format: &str) -> Option<String> {
    if !tool::has("curl") || !tool::text(&tool::run("curl", &["--version"])).contains("HTTP2") {
        tool::skipped("this curl has no HTTP/2");
        return None;
    }
    let port = gateway.tls().port();
    let (resolve, url) = (format!("site.test:{port}:127.0.0.1"), format!("https://site.test:{port}{target}"));
    let options =
        ["--silent", "--show-error", "--http2", "--cacert", ca, "--resolve", &resolve, "--data", body, "-w", format, &url];
    Some(tool::text(&tool::run("curl", &options)))
}

#[test]
fn curl_speaks_http_2_and_the_origin_http_1() {
    let origin = Upstream::echo();
    let (gateway, ca) = gateway(&origin);
    let Some(said) = post_with_curl(&gateway, &ca, "/path?q=1", "a=b", " %{http_version}") else { return };
    assert_eq!(said, "a=b 2");
    let received = origin.last();
    assert_eq!(received.head.first_line, "POST /path?q=1 HTTP/1.1");
    assert_eq!(received.header("x-forwarded-proto"), Some("https"));
    let line = gateway.log_where(|line| line["event"] == "request");
    assert_eq!(
        (&line["protocol"], &line["tls"]["alpn"], &line["host"]),
        (&"HTTP/2".into(), &"h2".into(), &format!("site.test:{}", gateway.tls().port()).into())
    );
}

#[test]
fn thousands_of_multiplexed_requests_all_succeed() {
    if !tool::has("h2load") {
        return;
    }
    let origin = Upstream::text("ok");
    let (gateway, _) = gateway(&origin);
    let port = gateway.tls().port();
    let url = format!("https://site.test:{port}/automate/login");
    let address = format!("--connect-to=127.0.0.1:{port}");
    let options = ["-n", "4000", "-c", "8", "-m", "16", address.as_str(), url.as_str()];
    let output = tool::run("h2load", &options);
    let text = tool::text(&output);
    assert!(text.contains("4000 succeeded, 0 failed, 0 errored, 0 timeout"), "{text}");
    assert!(text.contains("status codes: 4000 2xx, 0 3xx, 0 4xx, 0 5xx"), "{text}");
    assert_eq!(origin.count(), 4000);
}

/// A request whose body follows its head.
const POST: [Field<'_>; 4] =
    [(b":method", b"POST"), (b":scheme", b"https"), (b":authority", b"other.test"), (b":path", b"/agent")];
const NO_ERROR: u32 = 0;

/// The code with which the server reset the stream before it acknowledged the ping that the client had just sent.
fn reset_before_ping(client: &mut Http2, stream: u32) -> Option<u32> {
    client.send(&Frame::new(kind::PING, 0, 0, [0; 8])).unwrap();
    let mut code = None;
    loop {
        let frame = client.receive().unwrap().expect("an acknowledgement");
        match frame.kind {
            kind::PING if frame.flags & flag::ACK != 0 => return code,
            kind::RST_STREAM if frame.stream == stream => code = frame.payload.try_into().ok().map(u32::from_be_bytes),
            _ => {}
        }
    }
}

#[test]
fn whoever_is_refused_may_send_its_body_to_the_end_within_bounds() {
    let origin = Upstream::text("ok");
    let authority = Authority::new();
    let gateway = Setup::before(&origin).certificate(&authority.issue(Kind::Ecdsa, &["site.test"])).start();
    let mut client = Http2::open(&authority, gateway.tls(), "site.test").unwrap();

    // A body that comes after the answer: the stream ends as if it had been read.
    client.send(&Frame::headers(1, &POST, false)).unwrap();
    let Outcome::Answered(status, _) = client.outcome(1).unwrap() else { panic!("no answer") };
    assert_eq!(status, 404);
    assert_eq!(reset_before_ping(&mut client, 1), None, "reset while the client was still sending");
    client.send(&Frame::data(1, b"agent=1&computer=abc", true)).unwrap();
    assert_eq!(reset_before_ping(&mut client, 1), None, "reset though the body had come to its end");

    // More than is thrown away: the stream is reset, and nothing is wrong with it.
    client.send(&Frame::headers(3, &POST, false)).unwrap();
    assert!(matches!(client.outcome(3).unwrap(), Outcome::Answered(404, _)));
    let (mut sent, mut code) = (0, None);
    while code.is_none() && sent < 4 << 20 {
        for _ in 0..8 {
            client.send(&Frame::data(3, &[b'x'; 16 << 10], false)).unwrap();
            sent += 16 << 10;
        }
        code = reset_before_ping(&mut client, 3);
    }
    assert_eq!(code, Some(NO_ERROR), "after {sent} bytes");
    assert!(sent >= 1 << 20, "after {sent} bytes");

    // Nothing comes: the stream is reset after a moment, and the connection goes on.
    client.send(&Frame::headers(5, &POST, false)).unwrap();
    assert!(matches!(client.outcome(5).unwrap(), Outcome::Answered(404, _)));
    let answered = Instant::now();
    assert_eq!(client.outcome(5).unwrap(), Outcome::Reset(NO_ERROR));
    assert!(answered.elapsed() >= Duration::from_secs(1), "{:?}", answered.elapsed());
    let get = [(b":method".as_slice(), b"GET".as_slice()), POST[1], (b":authority", b"site.test"), POST[3]];
    assert_eq!(client.ask(7, &get).unwrap(), Outcome::Answered(200, b"ok".to_vec()));
    assert_eq!(origin.count(), 1);
}

#[test]
fn curl_reads_its_refusal_while_it_sends() {
    let origin = Upstream::echo();
    let (gateway, ca) = gateway(&origin);
    for round in 0..10 {
        let Some(said) = post_with_curl(&gateway, &ca, "/.git/config", "agent=1", "%{http_code}") else { return };
        assert!(said.contains("403 Forbidden") && said.ends_with("403"), "round {round}: {said}");
    }
    assert_eq!(origin.count(), 0);
}
