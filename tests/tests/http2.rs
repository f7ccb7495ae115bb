//! HTTP/2 from clients.

use weir_tests::tls::{Authority, Kind};
use weir_tests::{Gateway, Setup, Upstream, tool};

fn gateway(origin: &Upstream) -> (Gateway, String) {
    let authority = Authority::new();
    let gateway = Setup::before(origin)
        .countries()
        .certificate(&authority.issue(Kind::Ecdsa, &["site.test"]))
        .policy("acl", "agent-acl", "config = { model = \"all-traffic\" }")
        .policy("geo", "geoip", "config = { deny = [\"KP\"] }")
        .policy("ips", "ips", "")
        .policy("sso", "sso-cors", "config = { public = \"site.test\", origin = \"automate.internal\" }")
        .start();
    let ca = gateway.directory().write("ca.pem", &authority.pem).display().to_string();
    (gateway, ca)
}

#[test]
fn curl_speaks_http_2_and_the_origin_http_1() {
    if !tool::has("curl") || !tool::text(&tool::run("curl", &["--version"])).contains("HTTP2") {
        tool::skipped("this curl has no HTTP/2");
        return;
    }
    let origin = Upstream::echo();
    let (gateway, ca) = gateway(&origin);
    let port = gateway.tls().port();
    let resolve = format!("site.test:{port}:127.0.0.1");
    let url = format!("https://site.test:{port}/path?q=1");
    let output = tool::run(
        "curl",
        &[
            "--silent",
            "--show-error",
            "--http2",
            "--cacert",
            &ca,
            "--resolve",
            &resolve,
            "--data",
            "a=b",
            "-w",
            " %{http_version}",
            &url,
        ],
    );
    assert_eq!(tool::text(&output), "a=b 2");
    let received = origin.last();
    assert_eq!(received.head.first_line, "POST /path?q=1 HTTP/1.1");
    assert_eq!(received.header("x-forwarded-proto"), Some("https"));
    let line = gateway.log_where(|line| line["event"] == "request");
    assert_eq!(
        (&line["protocol"], &line["tls"]["alpn"], &line["host"]),
        (&"HTTP/2".into(), &"h2".into(), &format!("site.test:{port}").into())
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
