//! Configuration × address × class, against the mock country database.

use ::geoip::GeoIp;
use weir_sdk::prelude::*;
use weir_sdk::testing::{self, TestConnection, TestRequest};

const US: &str = "198.51.100.1";
const CANADA: &str = "2001:db8::ca";
const NORTH_KOREA: &str = "203.0.113.75";
const NOWHERE: &str = "192.0.2.200";

/// `expected` is `pass` or `STATUS rule reason`. Judges in the phase the configuration asks for.
#[track_caller]
fn check(config: &str, client: &str, class: &str, expected: &str) {
    for (ip, country) in [(US, "US"), (CANADA, "CA"), (NORTH_KOREA, "KP"), ("10.0.0.1", "KP")] {
        testing::country(ip, country);
    }
    let policy = testing::configure::<GeoIp>(config).unwrap_or_else(|error| panic!("{config}: {error}"));
    let verdict = if policy.needs() == Needs::only(&[Phase::Connection]) {
        policy.connection(TestConnection::from(client).view())
    } else {
        let request = TestRequest::get("/").client(client);
        let request = if class.is_empty() { request } else { request.with_tag("class", class) };
        policy.request(request.view())
    };
    let got = match verdict {
        Verdict::Next => "pass".to_owned(),
        Verdict::Deny(denial) => format!("{} {} {}", denial.status, denial.rule, denial.reason),
        other => panic!("{other:?}"),
    };
    assert_eq!(got, expected, "{config} from {client} as {class:?}");
}

/// The configuration is refused, and the error holds every piece.
#[track_caller]
fn check_error(config: &str, pieces: &[&str]) {
    let error = testing::configure::<GeoIp>(config).err().unwrap_or_else(|| panic!("{config} was accepted"));
    for piece in pieces {
        assert!(error.contains(piece), "{config}: {error:?} does not name {piece:?}");
    }
}

/// Pain 20: the cases that `weir plugin test` runs in the gateway's own host run natively too.
#[test]
fn cases_pass_on_the_mock_host() {
    testing::run_cases::<GeoIp>("cases");
}

#[test]
fn an_allow_list_refuses_every_other_country() {
    for config in [r#"{"allow": ["US", "ca"]}"#, r#"{"allow": ["US", "CA"], "phase": "request"}"#] {
        check(config, US, "", "pass");
        check(config, CANADA, "", "pass");
        check(config, NORTH_KOREA, "", "403 KP country_not_allowed");
        check(config, NOWHERE, "", "403 unknown country_unknown");
    }
}

#[test]
fn a_deny_list_lets_the_rest_through() {
    let config = r#"{"deny": ["KP"]}"#;
    check(config, US, "", "pass");
    check(config, NOWHERE, "", "pass");
    check(config, NORTH_KOREA, "", "403 KP country_denied");
    check(r#"{"allow": ["*"], "deny": ["KP"]}"#, NORTH_KOREA, "", "403 KP country_denied");
    check(r#"{"allow": ["*"], "deny": ["KP"]}"#, NOWHERE, "", "pass");
    check(r#"{"deny": ["*"]}"#, US, "", "403 US country_denied");
    check(r#"{"deny": ["*"]}"#, NOWHERE, "", "403 unknown country_unknown");
}

#[test]
fn unknown_addresses_follow_their_switch() {
    check(r#"{"allow": ["US"], "unknown": "allow"}"#, NOWHERE, "", "pass");
    check(r#"{"deny": ["KP"], "unknown": "deny"}"#, NOWHERE, "", "403 unknown country_unknown");
    check(r#"{"unknown": "deny"}"#, NOWHERE, "", "403 unknown country_unknown");
    check("{}", NOWHERE, "", "pass");
    check("{}", NORTH_KOREA, "", "pass");
}

#[test]
fn private_addresses_are_never_looked_up() {
    check(r#"{"allow": ["US"]}"#, "10.0.0.1", "", "pass");
    check(r#"{"deny": ["KP"]}"#, "10.0.0.1", "", "pass");
    check(r#"{"deny": ["KP"], "private": "deny"}"#, "10.0.0.1", "", "403 private private_denied");
    check(r#"{"private": "deny"}"#, "::1", "", "403 private private_denied");
    check(r#"{"private": "deny"}"#, US, "", "pass");
}

#[test]
fn a_class_has_its_own_countries() {
    let config = r#"{"allow": ["US"], "class": {"agent": {"allow": ["*"]}, "technician": {"deny": ["US"]}}}"#;
    check(config, NORTH_KOREA, "agent", "pass");
    check(config, NOWHERE, "agent", "pass");
    check(config, US, "technician", "403 US country_denied");
    check(config, CANADA, "technician", "pass");
    check(config, CANADA, "api", "403 CA country_not_allowed");
    check(config, CANADA, "", "403 CA country_not_allowed");
    check(config, US, "api", "pass");
    let private = r#"{"private": "deny", "class": {"agent": {"allow": ["*"]}}}"#;
    check(private, "192.168.0.1", "agent", "403 private private_denied");
}

#[test]
fn the_status_is_the_operators() {
    check(r#"{"deny": ["KP"], "status": 0}"#, NORTH_KOREA, "", "0 KP country_denied");
    check(r#"{"deny": ["KP"], "status": 451}"#, NORTH_KOREA, "", "451 KP country_denied");
}

#[test]
fn only_the_phase_that_decides_is_asked_for() {
    let phase = |config| testing::configure::<GeoIp>(config).unwrap().needs().phases.unwrap();
    assert_eq!(phase(r#"{"allow": ["US"]}"#), [Phase::Connection]);
    assert_eq!(phase(r#"{"allow": ["US"], "phase": "request"}"#), [Phase::Request]);
    assert_eq!(phase(r#"{"class": {"agent": {"allow": ["US"]}}}"#), [Phase::Request]);
}

#[test]
fn mistakes_are_named_all_at_once() {
    check_error(
        r#"{"allow": ["USA"], "class": {"api": {"deny": ["1"]}}, "status": 200}"#,
        &["allow: \"USA\"", "class.api.deny: \"1\"", "status: 200"],
    );
    check_error(r#"{"allow": ["US"], "deny": ["us"]}"#, &["allow: \"US\" is also denied"]);
    check_error(r#"{"allow": ["US"], "deny": ["*"]}"#, &["allow: \"US\" is also denied"]);
    check_error(r#"{"class": {"api": {}}}"#, &["class.api: give it"]);
    check_error(r#"{"class": {"api": {"allow": ["US"]}}, "phase": "connection"}"#, &["phase:"]);
    check_error(r#"{"alow": ["US"]}"#, &["alow"]);
    check_error(r#"{"unknown": "maybe"}"#, &["maybe"]);
}

#[test]
fn the_schema_knows_every_key() {
    let schema: serde_json::Value = serde_json::from_str(include_str!("../schema.json")).unwrap();
    let every_key = r#"{"allow": ["*"], "deny": ["KP"], "class": {"a": {"allow": ["US"]}}, "unknown": "deny", "private": "deny", "status": 404, "phase": "request"}"#;
    testing::configure::<GeoIp>(every_key).unwrap();
    let written: serde_json::Value = serde_json::from_str(every_key).unwrap();
    let described = schema["properties"].as_object().unwrap();
    assert_eq!(described.keys().collect::<Vec<_>>(), written.as_object().unwrap().keys().collect::<Vec<_>>());
    for (key, about) in described {
        assert!(about["title"].is_string() && about["description"].is_string(), "{key} is undocumented");
    }
    let unknown = testing::configure::<GeoIp>(r#"{"x": 1}"#).err().unwrap();
    for key in described.keys() {
        assert!(unknown.contains(&format!("`{key}`")), "serde does not know {key}");
    }
}
