//! What the configuration changes: mode, threshold, exclusions, window; and what findings say.

use crate::sample::{Sample, check_denied, form, get, policy, post, query};
use ips::Ips;
use weir_sdk::prelude::*;
use weir_sdk::testing;

fn is_denied(config: &str, sample: &Sample) -> bool {
    matches!(sample.send(&policy(config)).verdict, Verdict::Deny(_))
}

/// Pain 20: the cases that `weir plugin test` runs in the gateway's own host run natively too.
#[test]
fn cases_pass_on_the_mock_host() {
    testing::run_cases::<Ips>("cases");
}

#[test]
fn detect_reports_and_passes() {
    let outcome = query("' or 1=1--").send(&policy(r#"{"mode": "detect"}"#));
    assert_eq!(outcome.verdict, Verdict::Next);
    let finding = &outcome.findings[0];
    assert_eq!(
        (finding.rule.as_str(), finding.category.as_str(), finding.target.as_str()),
        ("sqli-5", "sql_injection", "query:q")
    );
    assert_eq!((finding.evidence.as_str(), finding.score), ("or 1=1", 5));
}

#[test]
fn the_threshold_and_exclusions_decide() {
    let cases = [
        (r"{}", true),
        (r#"{"threshold": 100}"#, false),
        (r#"{"disable": ["sqli-*"]}"#, false),
        (r#"{"disable": ["xss-*"]}"#, true),
        (r#"{"exclude": [{"path": "/wcc2/*"}]}"#, false),
        (r#"{"exclude": [{"path": "/WCC2/*", "rules": ["sqli-*"]}]}"#, false),
        (r#"{"exclude": [{"path": "/WCC2/*", "rules": ["xss-*"]}]}"#, true),
        (r#"{"exclude": [{"path": "/WCC2/*", "target": "query:q"}]}"#, false),
        (r#"{"exclude": [{"path": "/WCC2/*", "target": "body*"}]}"#, true),
        (r#"{"exclude": [{"path": "/other"}]}"#, true),
    ];
    for (config, denied) in cases {
        assert_eq!(is_denied(config, &query("' or 1=1--")), denied, "{config}");
    }
    assert!(!is_denied("{}", &get("/x?a=../b")), "a warning is below the threshold");
    assert!(is_denied(r#"{"threshold": 3}"#, &get("/x?a=../b")));
}

#[test]
fn the_profile_can_be_turned_off() {
    let filter = get("/cwa/api/v1/computers?condition=Name%20like%20'x'%20and%20Status%20=%20'Online'");
    assert!(!is_denied("{}", &filter));
    assert!(is_denied(r#"{"profile": "none"}"#, &filter));
}

#[test]
fn a_rule_counts_once_and_the_head_counts_for_the_body() {
    let warning = "a=..%2Fb&c=..%2Fd";
    let once = get(&format!("/x?{warning}")).send(&policy("{}"));
    assert_eq!(once.findings.iter().filter(|finding| finding.rule == "lfi-3").count(), 1);
    assert!(!is_denied("{}", &form("/x", warning)));
    assert!(!is_denied("{}", &form(&format!("/x?{warning}"), warning)), "the same rule in head and body counts once");
    let both = form("/x?a=..%2Fb", "c=<img>");
    check_denied(&both, "xss");
    assert!(!is_denied("{}", &form("/x", "c=<img>")));
}

#[test]
fn long_bodies_are_inspected_at_their_beginning() {
    let padding = "a".repeat(70_000);
    let late = form("/x", &format!("a={padding}&b=' or 1=1--")).send(&policy("{}"));
    assert_eq!(late.verdict, Verdict::Next);
    assert_eq!(
        late.findings.iter().map(|finding| (finding.rule.as_str(), finding.score)).collect::<Vec<_>>(),
        [("protocol-11", 0)]
    );
    assert!(is_denied("{}", &form("/x", &format!("b=' or 1=1--&a={padding}"))));
}

#[test]
fn a_policy_asks_for_the_phases_it_needs() {
    assert_eq!(policy("{}").needs(), Needs { request_body: Some(65536), ..Needs::default() });
    assert_eq!(policy(r#"{"body_window": "8KiB"}"#).needs().request_body, Some(8192));
    assert_eq!(policy(r#"{"body_window": 0}"#).needs(), Needs::only(&[Phase::Request]));
    assert!(testing::configure::<Ips>(r#"{"disable": ["nothing"]}"#).unwrap_err().contains("nothing"));
}

#[test]
fn the_schema_describes_every_key() {
    let schema: serde_json::Value = serde_json::from_str(include_str!("../../schema.json")).unwrap();
    let keys: Vec<_> = schema["properties"].as_object().unwrap().keys().cloned().collect();
    for key in &keys {
        let property = &schema["properties"][key];
        assert!(property["title"].is_string() && property["description"].as_str().unwrap().contains("Default"), "{key}");
        let config = serde_json::json!({ key: property["default"] }).to_string();
        assert!(testing::configure::<Ips>(&config).is_ok(), "the default of {key} is accepted");
    }
    let error = testing::configure::<Ips>(r#"{"no-such-key": 1}"#).unwrap_err();
    assert!(keys.iter().all(|key| error.contains(&format!("`{key}`"))), "{error}");
}

#[test]
fn hostile_input_costs_no_more_than_its_length() {
    let policy = policy(r#"{"mode": "detect"}"#);
    let units = [
        "'", "' or ", "';", "'--", ".", "../", "${", "${a:-", "}", "{{", "<", "<a ", "\"", "(", "or 1", "%", "&#", "\\u", "/*",
        ":", " ", "on", "|", "union ",
    ];
    let started = std::time::Instant::now();
    for unit in units {
        let text = unit.repeat(65536 / unit.len());
        for content_type in [
            "text/plain",
            "application/json",
            "text/xml",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=b",
            "x/y",
        ] {
            post("/x", content_type, &text).send(&policy);
        }
    }
    let each = started.elapsed() / u32::try_from(units.len() * 6).unwrap();
    assert!(each < std::time::Duration::from_millis(250), "{each:?} per body, in a build without optimisation");
}

#[test]
fn the_catalogue_is_public() {
    let rules: Vec<_> = ips::rules().collect();
    assert!(rules.len() >= 60);
    assert!(rules.iter().any(|rule| (rule.id, rule.category, rule.score) == ("log4j-1", "jndi_injection", 5)));
}
