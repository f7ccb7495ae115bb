//! Configuration × request, with the request fixtures of the protected application.

use agent_acl::AgentAcl;
use weir_sdk::prelude::*;
use weir_sdk::testing::{self, TestRequest, TestResponse};

const ALL_TRAFFIC: &str = r#"{"model": "all-traffic"}"#;
const AGENT_ONLY: &str = r#"{"model": "agent-only"}"#;
const OFFICE: &str = r#"{"model": "agent-only", "trusted": ["198.51.100.0/24", "2001:db8:1::/48"]}"#;
const TOKEN: &str = "/LabTech/Deployment.aspx?InstallerToken=0123456789abcdef0123456789abcdef";
const LEGACY: [&str; 3] = [
    "/LabTech/Deployment.aspx?Probe=1&installType=msi&MSILocations=1",
    "/LabTech/Deployment.aspx?LINUX=4&ID=146",
    "/LabTech/Deployment.aspx?installType=mac&ID=146",
];

fn configure(config: &str) -> AgentAcl {
    testing::configure(config).unwrap_or_else(|error| panic!("{config}: {error}"))
}

/// `CLASS pass` or `CLASS rule reason`.
fn judge(config: &str, request: &TestRequest) -> String {
    let verdict = configure(config).request(request.view());
    let class = request.tag("class").unwrap_or_default();
    match verdict {
        Verdict::Next => format!("{class} pass"),
        Verdict::Deny(denial) => {
            assert_eq!(denial.status, 403);
            format!("{class} {} {}", denial.rule, denial.reason)
        }
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn check_request(config: &str, request: &TestRequest, expected: &str) {
    assert_eq!(judge(config, request), expected, "{:?} under {config}", request.view().target().escape_ascii().to_string());
}

/// `line` is `METHOD target`, from an address nobody listed.
#[track_caller]
fn check(config: &str, line: &str, expected: &str) {
    let (method, target) = line.split_once(' ').unwrap();
    check_request(config, &TestRequest::new(method, target), expected);
}

/// A check-in as agents send it.
fn check_in(target: &str, length: usize) -> TestRequest {
    TestRequest::post(target, "application/x-www-form-urlencoded", length)
        .header("host", "052d3c3287c38201.exampledomain.com")
        .header("user-agent", "LabTech Agent v250.204")
        .header("contentlength", length.to_string())
}

/// Pain 20: the cases that `weir plugin test` runs in the gateway's own host run natively too.
#[test]
fn cases_pass_on_the_mock_host() {
    testing::run_cases::<AgentAcl>("cases");
}

#[test]
fn agents_pass_in_both_models() {
    for config in [ALL_TRAFFIC, AGENT_ONLY, OFFICE] {
        for request in [check_in("/LabTech/agent.aspx?31=&272c1=", 564), check_in("/LabTech/agent.aspx?3p819=", 919)] {
            check_request(config, &request, "agent pass");
            assert_eq!(request.findings(), []);
        }
        check(config, "GET /Labtech/Agent.aspx", "agent pass");
        check(config, "HEAD /Labtech/Agent.aspx", "agent pass");
        check(config, "POST /LABTECH/AGENT.ASPX?31=", "agent pass");
        check(config, "GET /labtech/updates/LabtechUpdate_250.204.zip", "agent pass");
        check(config, "GET /LabTech/Transfer/installers/tool.bat", "transfer pass");
        check(config, "HEAD /labtech/transfer/installers/Reader_en_install.exe", "transfer pass");
    }
}

#[test]
fn agents_use_known_methods_only() {
    for config in [ALL_TRAFFIC, AGENT_ONLY] {
        for method in ["PUT", "DELETE", "OPTIONS", "PROPFIND", "post"] {
            check(config, &format!("{method} /LabTech/agent.aspx"), "agent agent-method method_not_allowed");
        }
        check(config, "POST /labtech/updates/LabtechUpdate_1.zip", "agent agent-method method_not_allowed");
        check(config, &format!("POST {TOKEN}"), "deployment deployment-method method_not_allowed");
    }
    check(AGENT_ONLY, "PUT /LabTech/Transfer/x.bat", "transfer transfer-method method_not_allowed");
    check(ALL_TRAFFIC, "PUT /LabTech/Transfer/x.bat", "transfer pass");
}

#[test]
fn disguised_targets_never_pass_as_agents() {
    let mixed = r#"{"model": "all-traffic", "trusted": ["198.51.100.0/24"], "class": {"technician": {"from": "trusted"}}}"#;
    for target in [
        "/LabTech/agent.aspx/../ControlCenter.asmx",
        "/LabTech/agent.aspx%2f..%2fControlCenter.asmx",
        "/LabTech/agent.aspx;/x",
        "/LabTech/agent.aspx/x",
        "/LabTech\\ControlCenter.asmx",
        "//LabTech//ControlCenter.asmx",
        "/LabTech/./controlcenter.asmx.",
        "/LabTech/agent.aspx::$DATA",
    ] {
        let from_office = || TestRequest::new("POST", target).client("198.51.100.7");
        let line = format!("POST {target}");
        check(ALL_TRAFFIC, &line, "other pass");
        check(AGENT_ONLY, &line, "other ambiguous-path ambiguous_path");
        check(mixed, &line, "other ambiguous-path ambiguous_path");
        check_request(mixed, &from_office(), "other pass");
        check_request(OFFICE, &from_office(), "other pass");
    }
    let path_info = "POST /LabTech/ControlCenter.asmx/agent.aspx";
    check(ALL_TRAFFIC, path_info, "technician pass");
    check(AGENT_ONLY, path_info, "technician technician-from-untrusted class_not_allowed");
    for target in
        ["/LabTech/Transfer/%255c..%255cweb.config", "/LabTech/Transfer/..%c0%afweb.config", "/LabTech/./Deployment.aspx"]
    {
        check(ALL_TRAFFIC, &format!("GET {target}"), "other ambiguous-path ambiguous_path");
    }
}

#[test]
fn consoles_and_interfaces_need_a_trusted_network_in_agent_only() {
    for (line, class) in [
        ("POST /LabTech/ControlCenter.asmx", "technician"),
        ("GET /WCC2/", "technician"),
        ("POST /WCC2/Home/Login", "technician"),
        ("GET /automate/login", "technician"),
        ("GET /", "technician"),
        ("GET /LabTech/Updates/ControlCenterInstaller.exe", "technician"),
        ("POST /cwa/api/v1/apitoken", "api"),
        ("DELETE /cwa/api/v1/Computers/12", "api"),
        ("GET /WCC2/api/Computers?$filter=Name%20eq%20%27PC1%27", "api"),
        ("GET /anything", "other"),
        ("GET /LabTech/Transfer/shell.aspx", "other"),
        ("GET /LabTech/Service/LabTechRemoteAgent.msi", "deployment"),
    ] {
        check(ALL_TRAFFIC, line, &format!("{class} pass"));
        let denied = format!("{class} {class}-from-untrusted class_not_allowed");
        check(AGENT_ONLY, line, &denied);
        check(OFFICE, line, &denied);
        let (method, target) = line.split_once(' ').unwrap();
        for office in ["198.51.100.200", "2001:db8:1::7"] {
            check_request(OFFICE, &TestRequest::new(method, target).client(office), &format!("{class} pass"));
        }
    }
}

#[test]
fn models_mix() {
    let config = r#"{"model": "all-traffic", "trusted": ["198.51.100.0/24"], "class": {
        "technician": {"from": "trusted"}, "api": {"from": ["203.0.113.0/24"]}, "other": {"from": "nowhere"}}}"#;
    let get = |target: &str, client: &str| TestRequest::get(target).client(client);
    check_request(config, &get("/automate/", "198.51.100.1"), "technician pass");
    check_request(config, &get("/automate/", "203.0.113.1"), "technician technician-from-untrusted class_not_allowed");
    check_request(config, &get("/cwa/api/v1/x", "203.0.113.1"), "api pass");
    check_request(config, &get("/cwa/api/v1/x", "198.51.100.1"), "api api-from-unlisted class_not_allowed");
    check_request(config, &get("/x", "198.51.100.1"), "other other-from-anywhere class_not_allowed");
    check_request(config, &get(TOKEN, "192.0.2.9"), "deployment pass");
    let closed = r#"{"model": "agent-only", "class": {"transfer": {"from": "nowhere"}, "technician": {"from": "anywhere"}}}"#;
    check(closed, "GET /LabTech/Transfer/a.zip", "transfer transfer-from-anywhere class_not_allowed");
    check(closed, "GET /automate/", "technician pass");
}

#[test]
fn the_deployment_page_needs_a_token() {
    let probe = "deployment deployment-without-token deployment_probe";
    for config in [ALL_TRAFFIC, AGENT_ONLY, OFFICE] {
        for query in ["", "?", "?InstallerToken=x'%20or%201=1", "?InstallerToken=x", "?Probe=1"] {
            check_request(config, &TestRequest::get(&format!("/LabTech/Deployment.aspx{query}")).client("198.51.100.7"), probe);
        }
        check(config, &format!("GET {TOKEN}&InstallerToken=0123456789abcdef0123456789abcdef"), probe);
    }
    check(ALL_TRAFFIC, &format!("GET {TOKEN}"), "deployment pass");
    check(AGENT_ONLY, &format!("GET {TOKEN}"), "deployment deployment-from-untrusted class_not_allowed");
    check_request(OFFICE, &TestRequest::get(TOKEN).client("198.51.100.7"), "deployment pass");
}

#[test]
fn legacy_deployment_is_a_switch() {
    let denied = "deployment legacy-deployment-from-untrusted legacy_deployment";
    for target in LEGACY {
        let line = format!("GET {target}");
        let from_office = TestRequest::get(target).client("198.51.100.7");
        check(ALL_TRAFFIC, &line, "deployment pass");
        check(r#"{"model": "all-traffic", "legacy_deployment": false}"#, &line, denied);
        check(AGENT_ONLY, &line, denied);
        check(
            r#"{"model": "agent-only", "legacy_deployment": true}"#,
            &line,
            "deployment deployment-from-untrusted class_not_allowed",
        );
        check_request(OFFICE, &from_office, "deployment pass");
    }
}

#[test]
fn a_deployment_window_opens_installers_until_it_ends() {
    let window =
        |until: &str, from: &str| format!(r#"{{"model": "agent-only", "deployment_window": {{"until": "{until}"{from}}}}}"#);
    let open = window("2999-01-01T00:00:00Z", "");
    let over = window("2020-01-01T00:00:00Z", "");
    let branch = window("2999-01-01T00:00:00+02:00", r#", "from": ["192.0.2.0/28"]"#);
    let denied = "deployment deployment-from-untrusted class_not_allowed";
    for target in [TOKEN, "/LabTech/Service/LabTechRemoteAgent.msi"] {
        check(&open, &format!("GET {target}"), "deployment pass");
        check(&over, &format!("GET {target}"), denied);
        check(&branch, &format!("GET {target}"), "deployment pass");
        check_request(&branch, &TestRequest::get(target).client("192.0.2.99"), denied);
    }
    check(&open, "GET /LabTech/Deployment.aspx", "deployment deployment-without-token deployment_probe");
    check(&open, &format!("GET {}", LEGACY[0]), "deployment legacy-deployment-from-untrusted legacy_deployment");
    check(&open, "GET /automate/", "technician technician-from-untrusted class_not_allowed");
}

#[test]
fn a_secret_parameter_opens_its_class() {
    let config = r#"{"model": "agent-only", "parameter": {"class": "technician", "name": "authtoken", "value": "s3cret-x"}}"#;
    let denied = "technician technician-from-untrusted class_not_allowed";
    check(config, "GET /automate/login?authtoken=s3cret-x", "technician pass");
    check(config, "GET /automate/login?a=b&authtoken=s3cret-x&c", "technician pass");
    for query in ["", "?authtoken=", "?authtoken=s3cret-", "?authtoken=s3cret-xx", "?authtoken=S3cret-x", "?xauthtoken=s3cret-x"]
    {
        check(config, &format!("GET /automate/login{query}"), denied);
    }
    check(config, "POST /cwa/api/v1/apitoken?authtoken=s3cret-x", "api api-from-untrusted class_not_allowed");
    check(config, "GET /automate//login?authtoken=s3cret-x", "other ambiguous-path ambiguous_path");
}

#[test]
fn the_browser_keeps_the_secret_in_a_cookie() {
    let config = r#"{"model": "agent-only", "parameter": [
        {"class": "api", "name": "key", "value": "once", "remember": false},
        {"class": "technician", "name": "authtoken", "value": "s3cret-x"}]}"#;
    let policy = configure(config);
    let remembered = ResponseWhen { state: true, ..ResponseWhen::default() };
    assert_eq!(policy.needs(), Needs::only(&[Phase::Request, Phase::Response]).response_when(remembered));
    let cookies = |request: &TestRequest| {
        assert_eq!(policy.request(request.view()), Verdict::Next);
        let response = TestResponse::new(200);
        assert_eq!(policy.response(request.view(), response.view()), Verdict::Next);
        response.values("set-cookie")
    };
    let cookie = "weir-acl-technician=s3cret-x; Path=/; Secure; HttpOnly; SameSite=Lax";
    assert_eq!(cookies(&TestRequest::get("/automate/?authtoken=s3cret-x")), [cookie]);
    assert_eq!(cookies(&TestRequest::get("/automate/app.js").header("cookie", "a=b; weir-acl-technician=s3cret-x")), [""; 0]);
    assert_eq!(cookies(&TestRequest::get("/cwa/api/v1/x?key=once")), [""; 0]);
    assert_eq!(cookies(&TestRequest::get("/LabTech/agent.aspx?authtoken=s3cret-x")), [""; 0]);
    let denied = |target: &str, cookie: &str| judge(config, &TestRequest::get(target).header("cookie", cookie));
    assert_eq!(denied("/automate/", "weir-acl-technician=wrong"), "technician technician-from-untrusted class_not_allowed");
    assert_eq!(denied("/cwa/api/v1/x", "weir-acl-api=once"), "api api-from-untrusted class_not_allowed");
    assert_eq!(denied("/cwa/api/v1/x", "weir-acl-technician=s3cret-x"), "api api-from-untrusted class_not_allowed");
    assert_eq!(configure(AGENT_ONLY).needs(), Needs::only(&[Phase::Request]));
}

#[test]
fn a_secret_header_opens_its_class() {
    let config = r#"{"model": "agent-only", "header": [{"class": "api", "name": "X-Integration-Key", "value": "k 1/2"}]}"#;
    let get = |target: &str, value: &str| TestRequest::get(target).header("X-Integration-Key", value);
    check_request(config, &get("/cwa/api/v1/x", "k 1/2"), "api pass");
    check_request(config, &get("/cwa/api/v1/x", "k 1/3"), "api api-from-untrusted class_not_allowed");
    check_request(config, &get("/automate/", "k 1/2"), "technician technician-from-untrusted class_not_allowed");
    check(config, "GET /cwa/api/v1/x", "api api-from-untrusted class_not_allowed");
}

#[test]
fn a_secret_closes_its_class_to_everybody_else() {
    let config = r#"{"model": "all-traffic", "trusted": ["198.51.100.0/24"],
        "parameter": {"class": "technician", "name": "authtoken", "value": "s3cret-x"}}"#;
    check(config, "GET /automate/login", "technician technician-from-untrusted class_not_allowed");
    check(config, "GET /automate/login?authtoken=s3cret-x", "technician pass");
    check_request(config, &TestRequest::get("/automate/login").client("198.51.100.7"), "technician pass");
    check(config, "GET /cwa/api/v1/x", "api pass");
}

#[test]
fn plain_http_can_be_refused() {
    let config = r#"{"model": "all-traffic", "require_tls": true}"#;
    let plain = || check_in("/LabTech/agent.aspx", 564).plaintext();
    check_request(config, &plain(), "agent plain-http tls_required");
    check_request(ALL_TRAFFIC, &plain(), "agent pass");
    check_request(config, &check_in("/LabTech/agent.aspx", 564), "agent pass");
}

#[test]
fn odd_check_ins_pass_and_are_reported() {
    let odd = |request: TestRequest| {
        check_request(AGENT_ONLY, &request, "agent pass");
        request.findings().into_iter().map(|finding| finding.rule).collect::<Vec<_>>()
    };
    let post = |agent: &str, host: &str| {
        TestRequest::post("/LabTech/agent.aspx", "text/plain", 564).header("host", host).header("user-agent", agent)
    };
    assert_eq!(odd(post("LabTech Agent v240.46", "203.0.113.10")), ["agent-host-address"]);
    assert_eq!(odd(post("LabTech Agent v240.46", "a.example").header("contentlength", "10")), ["agent-contentlength"]);
    assert_eq!(odd(post("curl/8", "a.example")), ["agent-user-agent"]);
    let chunked = TestRequest::new("POST", "/LabTech/agent.aspx").header("user-agent", "LabTech Agent v250.204");
    assert_eq!(odd(chunked.header("transfer-encoding", "chunked")), ["agent-length-undeclared"]);
    let ambiguous = TestRequest::get("/automate//x?authtoken=s3cret-x");
    check_request(ALL_TRAFFIC, &ambiguous, "other pass");
    let [finding] = ambiguous.findings().try_into().unwrap();
    assert_eq!((finding.rule.as_str(), finding.evidence.as_str()), ("ambiguous-path", "/automate//x"));
}

#[test]
fn mistakes_are_named_all_at_once() {
    let error = |config: &str| testing::configure::<AgentAcl>(config).err().unwrap_or_else(|| panic!("{config} was accepted"));
    let all = error(
        r#"{"model": "all-traffic", "trusted": ["office"],
            "class": {"api": {"from": "everywhere"}, "other": {"from": ["10.0.0.1/8"]}, "agent": {"from": []}},
            "parameter": {"class": "api", "name": "a b", "value": "x"}, "header": {"class": "api", "name": "x:", "value": "v"},
            "deployment_window": {"until": "tomorrow"}}"#,
    );
    for piece in [
        "trusted: \"office\"",
        "class.api.from: \"everywhere\"",
        "class.other.from: \"10.0.0.1/8\"",
        "class.agent.from: the list is empty",
        "parameter: name and value of \"a b\"",
        "header: \"x:\"",
        "deployment_window.until: \"tomorrow\"",
    ] {
        assert!(all.contains(piece), "{all:?} does not name {piece:?}");
    }
    assert!(error("{}").contains("model"));
    assert!(error(r#"{"model": "some"}"#).contains("some"));
    assert!(error(r#"{"model": "agent-only", "clas": {}}"#).contains("clas"));
    let open = r#"{"model": "agent-only", "class": {"api": {"from": "anywhere"}}, "header": {"class": "api", "name": "x", "value": "v"}}"#;
    assert!(error(open).contains("class.api.from: a secret opens nothing"));
    let empty = r#"{"model": "agent-only", "header": {"class": "api", "name": "x", "value": ""}}"#;
    assert!(error(empty).contains("the value of \"x\""));
}

#[test]
fn the_schema_knows_every_key() {
    let schema: serde_json::Value = serde_json::from_str(include_str!("../schema.json")).unwrap();
    let unknown = testing::configure::<AgentAcl>(r#"{"x": 1}"#).err().unwrap();
    let described = schema["properties"].as_object().unwrap();
    assert_eq!(unknown.matches('`').count() / 2, described.len() + 1, "{unknown}");
    for (key, about) in described {
        assert!(unknown.contains(&format!("`{key}`")), "serde does not know {key}");
        assert!(about["title"].is_string() && about["description"].is_string(), "{key} is undocumented");
    }
    let classes: Vec<_> = agent_acl::Class::ALL.iter().map(|class| class.name()).collect();
    assert_eq!(schema["$defs"]["class"]["enum"], serde_json::json!(classes));
    assert!(classes.iter().all(|class| schema["properties"]["class"]["properties"][class].is_object()));
}
