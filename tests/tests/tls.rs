//! The TLS edge: which certificate, which versions, and what becomes of handshakes that fail.

use weir_tests::tls::{Authority, Kind};
use weir_tests::{LONG, Request, Setup, Upstream, eventually, tool};

#[test]
fn the_server_name_picks_the_certificate() {
    let origin = Upstream::text("ok");
    let authority = Authority::new();
    let exact = authority.issue(Kind::Ecdsa, &["site.test"]);
    let other = authority.issue(Kind::Rsa, &["other.test"]);
    let wild = authority.issue(Kind::Ecdsa, &["*.wild.test"]);
    let gateway = Setup::before(&origin)
        .site("other", &["other.test"], &origin)
        .site("wild", &["*.wild.test"], &origin)
        .certificate(&exact)
        .certificate(&other)
        .certificate(&wild)
        .start();
    for (name, pair) in [("site.test", &exact), ("other.test", &other), ("a.wild.test", &wild)] {
        let mut client = authority.connect(gateway.tls(), name).unwrap();
        assert_eq!(client.certificate.as_ref(), Some(&pair.der), "{name}");
        let answer = client.ask(&Request::get("/").host(name)).unwrap();
        assert_eq!(answer.text(), "ok", "{name}");
        let line = gateway.log_of(&answer);
        assert_eq!((&line["tls"]["sni"], &line["tls"]["version"]), (&name.into(), &"1.3".into()));
        assert!(line["tls"]["ja4"].as_str().is_some_and(|ja4| ja4.starts_with("t13d")), "{line}");
        assert_eq!(origin.last().header("x-forwarded-proto"), Some("https"));
    }
}

#[test]
fn new_certificate_files_are_served_without_a_restart() {
    let origin = Upstream::text("ok");
    let authority = Authority::new();
    let gateway = Setup::before(&origin).certificate(&authority.issue(Kind::Ecdsa, &["site.test"])).start();
    let mut kept = authority.connect(gateway.tls(), "site.test").unwrap();
    assert_eq!(kept.ask(&Request::get("/")).unwrap().status, 200);

    let renewed = authority.issue(Kind::Ecdsa, &["site.test"]);
    gateway.directory().write("tls/0.pem", &renewed.cert);
    gateway.directory().write("tls/0.key", &renewed.key);
    eventually(LONG, "the new certificate is served", || {
        let client = authority.connect(gateway.tls(), "site.test");
        client.is_ok_and(|client| client.certificate.as_ref() == Some(&renewed.der))
    });
    assert_eq!(kept.ask(&Request::get("/")).unwrap().status, 200, "an old connection goes on");
}

#[test]
fn both_kinds_of_key_and_both_versions_are_spoken() {
    if !tool::has("openssl") {
        return;
    }
    let origin = Upstream::text("ok");
    let authority = Authority::new();
    let gateway = Setup::before(&origin)
        .certificate(&authority.issue(Kind::Ecdsa, &["site.test"]))
        .certificate(&authority.issue(Kind::Rsa, &["site.test"]))
        .start();
    let address = gateway.tls().to_string();
    let ca = gateway.directory().write("ca.pem", &authority.pem).display().to_string();
    let cases = [
        (&["-tls1_3"][..], "TLSv1.3", "ECDSA"),
        (&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"], "TLSv1.2", "ECDSA"),
        (&["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"], "TLSv1.2", "RSA"),
        (&["-tls1_3", "-sigalgs", "rsa_pss_rsae_sha256"], "TLSv1.3", "RSA"),
    ];
    for (options, version, key) in cases {
        let common = ["s_client", "-connect", &address, "-servername", "site.test", "-CAfile", &ca, "-verify_return_error"];
        let text = tool::text(&tool::run("openssl", &[&common[..], options].concat()));
        assert!(text.contains("Verify return code: 0 (ok)"), "{options:?}: {text}");
        assert!(text.contains(version), "{options:?}: {text}");
        let signed = text.lines().find(|line| line.starts_with("Peer signature type")).unwrap_or_default().to_owned();
        assert!(signed.contains(key), "{options:?}: {signed}\n{text}");
    }
}

#[test]
fn old_versions_are_refused_and_the_log_says_why() {
    if !tool::has("openssl") {
        return;
    }
    let origin = Upstream::text("ok");
    let authority = Authority::new();
    let gateway = Setup::before(&origin).certificate(&authority.issue(Kind::Rsa, &["site.test"])).start();
    let address = gateway.tls().to_string();
    let options = ["s_client", "-connect", &address, "-servername", "site.test", "-tls1_1", "-cipher", "DEFAULT:@SECLEVEL=0"];
    let output = tool::run("openssl", &options);
    assert!(!output.status.success(), "{}", tool::text(&output));
    let line = gateway.log_where(|line| line["event"] == "connection");
    assert_eq!((&line["reason"], &line["client_ip"]), (&"tls_handshake_failed".into(), &"127.0.0.1".into()));
    assert!(line["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{line}");
}

#[test]
fn plain_http_on_the_tls_port_ends_with_a_record_and_harms_nobody() {
    let origin = Upstream::text("ok");
    let authority = Authority::new();
    let gateway = Setup::before(&origin).certificate(&authority.issue(Kind::Ecdsa, &["site.test"])).start();
    let mut client = weir_tests::Connection::open(gateway.tls()).unwrap();
    client.send(Request::get("/").bytes()).unwrap();
    // Whatever it is told, it is not served.
    let told = client.answer();
    assert!(told.as_ref().map_or(true, |answer| answer.status >= 400), "{told:?}");
    assert_eq!(origin.count(), 0);
    let line = gateway.log_where(|line| line["event"] == "connection");
    assert!(line["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{line}");
    let mut client = authority.connect(gateway.tls(), "site.test").unwrap();
    assert_eq!(client.ask(&Request::get("/")).unwrap().status, 200);
}

#[test]
fn an_origin_with_a_certificate_of_a_private_authority_is_verified() {
    let front = Upstream::text("through two gateways");
    let authority = Authority::new();
    let inner = Setup::before(&front).certificate(&authority.issue(Kind::Ecdsa, &["site.test"])).start();
    let url = format!("https://{}", inner.tls());
    let outer = |server_name: &str, ca: &str| {
        Setup::before_servers(&[(&url, 0)])
            .file("origin-ca.pem", ca)
            .upstream(&format!("tls = {{ ca = \"origin-ca.pem\", server_name = \"{server_name}\" }}"))
            .start()
    };
    assert_eq!(outer("site.test", &authority.pem).get("/").text(), "through two gateways");

    let wrong_name = outer("another.test", &authority.pem);
    let answer = wrong_name.get("/");
    assert_eq!((answer.status, &wrong_name.log_of(&answer)["reason"]), (502, &"upstream_certificate_invalid".into()));
    let stranger = outer("site.test", &Authority::new().pem);
    let answer = stranger.get("/");
    assert_eq!((answer.status, &stranger.log_of(&answer)["reason"]), (502, &"upstream_certificate_invalid".into()));
    assert_eq!(front.count(), 1);
}
