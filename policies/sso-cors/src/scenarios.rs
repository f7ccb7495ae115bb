//! Whole exchanges through the policy, as the gateway drives it.

use weir_sdk::prelude::*;
use weir_sdk::testing::{self, TestRequest, TestResponse};

use crate::SsoCors;

const NAMES: &str = r#"{ "public": "pub.example", "origin": "org.partner.test" }"#;
const LISTED: &str =
    r#"{ "public": "pub.example", "origin": "org.partner.test", "allowed_origins": ["https://home.connectwise.com"] }"#;

fn policy(config: &str) -> SsoCors {
    testing::configure(config).unwrap()
}

fn get(target: &str) -> TestRequest {
    TestRequest::get(target).authority("pub.example")
}

fn preflight(origin: &str) -> TestRequest {
    let request = TestRequest::new("OPTIONS", "/cwa/api/v1/computers").authority("pub.example");
    request.header("origin", origin).header("access-control-request-method", "POST")
}

/// Values of a header after the policy's edits.
fn check_request(config: &str, request: &TestRequest, header: &str, expected: &[&str]) {
    assert_eq!(policy(config).request(request.view()), Verdict::Next);
    let values = match header {
        "host" => vec![request.view().authority()],
        "target" => vec![String::from_utf8(request.view().target()).unwrap()],
        header => request.values(header),
    };
    assert_eq!(values, expected, "{header} of {request:?}");
}

/// Runs both phases, then compares the values of a response header and the findings' targets.
fn check_exchange(config: &str, request: &TestRequest, response: &TestResponse, expected: &[(&str, &[&str])], findings: &[&str]) {
    let policy = policy(config);
    assert_eq!(policy.request(request.view()), Verdict::Next);
    assert_eq!(policy.response(request.view(), response.view()), Verdict::Next);
    for (header, values) in expected {
        assert_eq!(response.values(header), *values, "{header} of {response:?}");
    }
    let reported = request.findings();
    assert_eq!(reported.iter().map(|finding| finding.target.as_str()).collect::<Vec<_>>(), findings, "{response:?}");
    assert!(
        reported.iter().all(|finding| finding.rule == "mismatch" && finding.category == "sso" && !finding.evidence.is_empty())
    );
}

fn check_response(config: &str, response: &TestResponse, expected: &[(&str, &[&str])], findings: &[&str]) {
    check_exchange(config, &get("/automate/"), response, expected, findings);
}

/// Pain 20: the cases that `weir plugin test` runs in the gateway's own host run natively too.
#[test]
fn cases_pass_on_the_mock_host() {
    testing::run_cases::<SsoCors>("cases");
}

#[test]
fn the_host_is_renamed() {
    let port = r#"{ "public": "pub.example:8443", "origin": "org.partner.test:8080" }"#;
    check_request(NAMES, &get("/"), "host", &["org.partner.test"]);
    check_request(NAMES, &get("/").authority("PUB.example:8443"), "host", &["org.partner.test"]);
    check_request(NAMES, &get("/").header("host", "pub.example").authority("ignored"), "host", &["org.partner.test"]);
    check_request(NAMES, &get("/").authority("203.0.113.10"), "host", &["203.0.113.10"]);
    check_request(NAMES, &get("/").authority("pub.example.evil.test"), "host", &["pub.example.evil.test"]);
    check_request(NAMES, &get("/").authority(""), "host", &[""]);
    check_request(port, &get("/").authority("pub.example:8443"), "host", &["org.partner.test:8080"]);
    check_request(port, &get("/").authority("pub.example:9443"), "host", &["pub.example:9443"]);
}

#[test]
fn origin_and_referer_are_renamed_when_they_are_public() {
    let https = r#"{ "public": "pub.example", "origin": "org.partner.test:8080", "origin_scheme": "http" }"#;
    let origin = |value: &str| get("/").header("origin", value);
    check_request(NAMES, &origin("https://pub.example"), "origin", &["https://org.partner.test"]);
    check_request(NAMES, &origin("https://pub.example").header("upgrade", "websocket"), "origin", &["https://org.partner.test"]);
    check_request(
        NAMES,
        &origin("https://pub.example:8443").authority("pub.example:8443"),
        "origin",
        &["https://org.partner.test"],
    );
    check_request(NAMES, &origin("http://pub.example").plaintext(), "origin", &["http://org.partner.test"]);
    check_request(https, &origin("https://pub.example"), "origin", &["http://org.partner.test:8080"]);
    for untouched in [
        "null",
        "https://home.connectwise.com",
        "http://pub.example",
        "https://pub.example.evil.test",
        "https://evil.test/?https://pub.example",
    ] {
        check_request(NAMES, &origin(untouched), "origin", &[untouched]);
    }
    check_request(
        NAMES,
        &origin("https://pub.example").header("origin", "https://evil.test"),
        "origin",
        &["https://pub.example", "https://evil.test"],
    );

    let referer = |value: &str| get("/").header("referer", value);
    let twice = referer("https://pub.example/a").header("referer", "https://pub.example/b");
    check_request(NAMES, &twice, "referer", &["https://pub.example/a", "https://pub.example/b"]);
    check_request(
        NAMES,
        &referer("https://pub.example/a?b=https://pub.example/"),
        "referer",
        &["https://org.partner.test/a?b=https://pub.example/"],
    );
    check_request(
        NAMES,
        &referer("https://idp.example/?u=https://pub.example/"),
        "referer",
        &["https://idp.example/?u=https://pub.example/"],
    );
    check_request(NAMES, &referer("https://pub.example@evil.test/"), "referer", &["https://pub.example@evil.test/"]);
}

#[test]
fn return_addresses_of_the_query_are_renamed() {
    check_request(
        NAMES,
        &get("/login?x=1&ReturnUrl=https%3A%2F%2Fpub.example%3A8443%2Fa&y=https%3A%2F%2Fpub.example")
            .authority("pub.example:8443"),
        "target",
        &["/login?x=1&ReturnUrl=https%3A%2F%2Forg.partner.test%2Fa&y=https%3A%2F%2Fpub.example"],
    );
    let signed = "/saml?SAMLRequest=x&RelayState=https%3A%2F%2Fpub.example%2F&SigAlg=y&Signature=z";
    check_request(NAMES, &get(signed), "target", &[signed]);
    check_request(
        r#"{ "public": "pub.example", "origin": "org.partner.test", "rewrite_query": ["next"] }"#,
        &get("/?next=https://pub.example/&RelayState=https://pub.example/"),
        "target",
        &["/?next=https://org.partner.test/&RelayState=https://pub.example/"],
    );
}

fn check_preflight(config: &str, request: &TestRequest, origin: Option<&str>, findings: usize) {
    let Verdict::Reply(reply) = policy(config).request(request.view()) else { panic!("{request:?} was not answered") };
    let header = |name: &str| {
        reply.headers.iter().find(|(own, _)| own == name).map(|(_, value)| String::from_utf8(value.clone()).unwrap())
    };
    assert_eq!((reply.status, header("vary").as_deref()), (204, Some("Origin")));
    assert_eq!(header("access-control-allow-origin").as_deref(), origin, "{request:?}");
    let granted = origin.is_some();
    assert_eq!(header("access-control-allow-methods").is_some(), granted);
    assert_eq!(header("access-control-allow-credentials").as_deref(), granted.then_some("true"));
    assert_eq!(header("access-control-max-age").as_deref(), granted.then_some("600"));
    assert_eq!(reply.reason, if granted { "preflight_answered" } else { "preflight_unknown_origin" });
    assert_eq!(request.findings().len(), findings, "{request:?}");
}

#[test]
fn preflights_are_answered_at_the_edge() {
    check_preflight(NAMES, &preflight("https://pub.example"), Some("https://pub.example"), 0);
    check_preflight(
        NAMES,
        &preflight("https://pub.example:8443").authority("pub.example:8443"),
        Some("https://pub.example:8443"),
        0,
    );
    check_preflight(LISTED, &preflight("https://home.connectwise.com"), Some("https://home.connectwise.com"), 0);
    check_preflight(NAMES, &preflight("https://home.connectwise.com"), None, 1);
    check_preflight(LISTED, &preflight("https://home.connectwise.com.evil.example"), None, 1);
    check_preflight(NAMES, &preflight("https://evil.example"), None, 1);
    check_preflight(NAMES, &preflight("http://pub.example"), None, 1);
    check_preflight(NAMES, &preflight("http://pub.example").plaintext(), Some("http://pub.example"), 0);
    check_preflight(NAMES, &preflight("https://org.partner.test"), None, 1);
    check_preflight(NAMES, &preflight("null"), None, 0);
}

#[test]
fn preflights_echo_only_header_names() {
    let request = preflight("https://pub.example").header("access-control-request-headers", "content-type, x y, clientid");
    let Verdict::Reply(reply) = policy(NAMES).request(request.view()) else { panic!("not answered") };
    assert!(
        reply.headers.contains(&("access-control-allow-headers".to_owned(), b"content-type, clientid".to_vec())),
        "{reply:?}"
    );
}

#[test]
fn what_is_no_preflight_passes() {
    let pass = r#"{ "public": "pub.example", "origin": "org.partner.test", "preflight": "pass" }"#;
    check_request(pass, &preflight("https://pub.example"), "origin", &["https://org.partner.test"]);
    check_request(NAMES, &TestRequest::new("OPTIONS", "/").header("origin", "null"), "origin", &["null"]);
    let not_options = get("/").header("origin", "https://pub.example").header("access-control-request-method", "POST");
    check_request(NAMES, &not_options, "origin", &["https://org.partner.test"]);
    check_request(NAMES, &TestRequest::new("OPTIONS", "*").authority("pub.example"), "host", &["org.partner.test"]);
}

#[test]
fn a_redirect_with_two_cookies() {
    let response = TestResponse::new(302)
        .header("location", "https://org.partner.test/automate/")
        .header("set-cookie", "a=b; Domain=org.partner.test; Path=/")
        .header("content-type", "text/html")
        .header("set-cookie", "c=d; Expires=Wed, 21 Oct 2026 07:28:00 GMT; Secure")
        .header("set-cookie", "e=f; SameSite=None");
    let cookies: &[&str] =
        &["a=b; Path=/; Secure", "c=d; Expires=Wed, 21 Oct 2026 07:28:00 GMT; Secure", "e=f; SameSite=None; Secure"];
    let expected: &[(&str, &[&str])] =
        &[("location", &["https://pub.example/automate/"]), ("set-cookie", cookies), ("content-type", &["text/html"])];
    check_response(NAMES, &response, expected, &[]);
}

#[test]
fn cookies_of_plain_clients_and_of_those_who_keep_them() {
    let insecure = r#"{ "public": "pub.example", "origin": "org.partner.test", "secure_cookies": false }"#;
    let cookie = || TestResponse::new(200).header("set-cookie", "a=b");
    check_exchange(NAMES, &get("/").plaintext(), &cookie(), &[("set-cookie", &["a=b"])], &[]);
    check_response(insecure, &cookie(), &[("set-cookie", &["a=b"])], &[]);
    check_response(NAMES, &cookie(), &[("set-cookie", &["a=b; Secure"])], &[]);
}

#[test]
fn urls_take_the_scheme_and_port_of_the_client() {
    let redirect = || TestResponse::new(302).header("location", "https://org.partner.test/a");
    let fixed = r#"{ "public": "pub.example:9443", "origin": "org.partner.test" }"#;
    check_exchange(
        NAMES,
        &get("/").authority("pub.example:8443"),
        &redirect(),
        &[("location", &["https://pub.example:8443/a"])],
        &[],
    );
    check_exchange(
        NAMES,
        &get("/").authority("pub.example:8080").plaintext(),
        &redirect(),
        &[("location", &["http://pub.example:8080/a"])],
        &[],
    );
    check_exchange(
        NAMES,
        &get("/").authority("203.0.113.10:8080"),
        &redirect(),
        &[("location", &["https://pub.example/a"])],
        &[],
    );
    check_exchange(
        fixed,
        &get("/").authority("pub.example:9443"),
        &redirect(),
        &[("location", &["https://pub.example:9443/a"])],
        &[],
    );
}

#[test]
fn an_origin_on_a_port_of_its_own() {
    let config = r#"{ "public": "pub.example", "origin": "org.partner.test:8443" }"#;
    let check = |from: &str, to: &str, findings: &[&str]| {
        check_response(config, &TestResponse::new(302).header("location", from), &[("location", &[to])], findings);
    };
    check("https://org.partner.test:8443/a", "https://pub.example/a", &[]);
    check("http://org.partner.test:8443/a", "https://pub.example/a", &[]);
    check("https://org.partner.test/a", "https://org.partner.test/a", &["header:location"]);
    check("https://org.partner.test:8444/a", "https://org.partner.test:8444/a", &["header:location"]);
}

#[test]
fn every_header_that_names_the_origin() {
    let authorize =
        |host: &str| format!("https://idp.example/authorize?redirect_uri=https%3A%2F%2F{host}%2Fautomate%2Fcb&state=a%2Fb");
    let csp = |host: &str| format!("connect-src 'self' https://{host} https://files.connectwise.com; frame-ancestors {host}");
    for (header, template) in [
        ("location", authorize as fn(&str) -> String),
        ("content-location", |host| format!("https://{host}/a")),
        ("refresh", |host| format!("0; url=https://{host}/a")),
        ("link", |host| format!("<https://{host}/a>; rel=preload")),
        ("content-security-policy", csp),
        ("content-security-policy-report-only", csp),
        ("x-frame-options", |host| format!("ALLOW-FROM https://{host}/")),
        ("access-control-allow-origin", |host| format!("https://{host}")),
    ] {
        let expected = template("pub.example");
        check_response(
            NAMES,
            &TestResponse::new(200).header(header, template("ORG.partner.test")),
            &[(header, &[&expected])],
            &[],
        );
    }
    let two = TestResponse::new(200).header("link", "</a>").header("link", "<https://org.partner.test/b>").header("link", "</c>");
    check_response(NAMES, &two, &[("link", &["</a>", "<https://pub.example/b>", "</c>"])], &[]);
}

#[test]
fn what_still_names_the_origin_is_reported() {
    let response = |header, value: &str| TestResponse::new(200).header(header, value);
    let check = |header: &'static str, value: &str, target: &[&str]| {
        check_response(NAMES, &response(header, value), &[(header, &[value])], target);
    };
    check("location", "https://org.partner.test:8040/relay", &["header:location"]);
    check("location", "https://idp.example/?RelayState=https%3A%2F%2Forg.partner.test&Signature=x", &["header:location"]);
    check("location", "https://user@org.partner.test/", &["header:location"]);
    check("x-server", "org.partner.test", &["header:x-server"]);
    check("access-control-allow-origin", "https://org.partner.test:8040", &["header:access-control-allow-origin"]);
    check("location", "https://org.partner.test.evil.example/", &[]);
    check("location", "https://my.org.partner.test/", &[]);
    check("strict-transport-security", "max-age=31536000", &[]);
    let twice = TestResponse::new(200).header("via", "1.1 org.partner.test").header("via", "1.0 org.partner.test");
    check_response(NAMES, &twice, &[], &["header:via"]);
    let same = r#"{ "public": "pub.example", "origin": "pub.example" }"#;
    check_response(same, &response("location", "https://pub.example/a"), &[("location", &["https://pub.example/a"])], &[]);

    let latin1 = TestResponse::new(200).header("x-name", b"caf\xe9 \xff").header("location", b"https://org.partner.test/\xe9");
    let policy = policy(NAMES);
    let request = get("/");
    policy.response(request.view(), latin1.view());
    assert_eq!(latin1.view().header("x-name").unwrap(), b"caf\xe9 \xff");
    assert_eq!(latin1.view().header("location").unwrap(), b"https://pub.example/\xe9");
}

#[test]
fn cross_origin_answers() {
    let home = "https://home.connectwise.com";
    let from = |origin: &str| get("/").header("origin", origin);
    let answer = |allow: &str| {
        TestResponse::new(200).header("access-control-allow-origin", allow).header("access-control-allow-credentials", "true")
    };
    let acao = "access-control-allow-origin";
    let acac = "access-control-allow-credentials";

    let granted: &[(&str, &[&str])] = &[(acao, &[home]), (acac, &["true"]), ("vary", &["Origin"])];
    check_exchange(LISTED, &from(home), &TestResponse::new(200), granted, &[]);
    check_exchange(LISTED, &from(home), &answer("*"), granted, &[]);
    check_exchange(LISTED, &from(home), &answer(home), granted, &[]);
    check_exchange(LISTED, &from(home).authority("pub.example:8443"), &TestResponse::new(200), granted, &[]);
    let varied = || answer("https://org.partner.test").header("vary", "Accept-Encoding, origin");
    check_exchange(LISTED, &from(home), &varied(), &[(acao, &[home]), ("vary", &["Accept-Encoding, origin"])], &[]);
    check_exchange(
        NAMES,
        &from("https://pub.example"),
        &varied(),
        &[(acao, &["https://pub.example"]), ("vary", &["Accept-Encoding, origin"])],
        &[],
    );

    let none: &[(&str, &[&str])] = &[(acao, &[]), (acac, &[]), ("vary", &[])];
    check_exchange(NAMES, &from(home), &TestResponse::new(200), none, &["header:origin"]);
    check_exchange(LISTED, &from("https://evil.example"), &TestResponse::new(200), none, &["header:origin"]);
    check_exchange(LISTED, &from("null"), &TestResponse::new(200), none, &[]);
    check_exchange(NAMES, &from("https://pub.example"), &answer("*"), &[(acao, &[]), ("vary", &["Origin"])], &[]);
    let public = TestResponse::new(200).header(acao, "*");
    check_exchange(NAMES, &from("https://pub.example"), &public, &[(acao, &["*"]), ("vary", &[])], &[]);
    check_exchange(
        NAMES,
        &from("https://pub.example"),
        &answer("https://org.partner.test.evil.example"),
        &[(acao, &["https://org.partner.test.evil.example"])],
        &[],
    );
}

#[test]
fn a_cross_site_post_back_passes_untouched() {
    let request = TestRequest::post("/saml/acs", "application/x-www-form-urlencoded", 900)
        .authority("pub.example")
        .header("origin", "null");
    let request = request.header("cookie", "sso=1");
    let response = TestResponse::new(302).header("set-cookie", "sso=1; SameSite=None; Secure").header("location", "/automate/");
    let expected: &[(&str, &[&str])] = &[("set-cookie", &["sso=1; SameSite=None; Secure"]), ("location", &["/automate/"])];
    check_exchange(NAMES, &request, &response, expected, &[]);
    assert_eq!(request.values("origin"), ["null"]);
    assert_eq!(request.values("cookie"), ["sso=1"]);
}

#[test]
fn a_hint_is_logged_once_per_host() {
    let policy = policy(NAMES);
    for origin in ["https://evil.example", "https://evil.example", "https://other.example"] {
        policy.request(get("/").header("origin", origin).view());
    }
    for _ in 0..2 {
        policy.response(get("/").view(), TestResponse::new(200).header("via", "1.1 org.partner.test").view());
    }
    let texts: Vec<_> = testing::logs().into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts.len(), 3, "{texts:?}");
    assert!(texts.iter().all(|text| text.contains("add pub.example as alternate FQDN")), "{texts:?}");
    assert!(texts[2].contains("header via"), "{texts:?}");

    for number in 0..1000 {
        policy.request(get("/").header("origin", format!("https://h{number}.example")).view());
    }
    assert_eq!(testing::logs().len(), crate::MAX_HINTS);
}
