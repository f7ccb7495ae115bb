use weir_tests::Setup;
use weir_tests::recording::Recording;

use super::mutations;
use super::stage::{DELIVERIES, Delivery, play};
use super::table::cases;

#[test]
fn every_row_has_its_verdict_however_its_bytes_arrive() {
    play(&cases(), &DELIVERIES);
}

#[test]
fn no_byte_in_any_place_makes_two_readings() {
    play(&mutations::cases(), &[Delivery::Whole, Delivery::Lines]);
}

/// Rows H6: what is one path to us and another one to the origin is refused to strangers when an ACL decides by path.
#[test]
fn paths_with_two_readings_do_not_pass_an_acl() {
    let origin = Recording::start();
    let config = "config = { model = \"agent-only\", trusted = [\"198.51.100.0/24\"] }";
    let gateway = Setup::before_servers(&[(&origin.url(), 0)]).policy("acl", "agent-acl", config).start();
    assert_eq!(gateway.get("/LabTech/agent.aspx").status, 200);
    for path in [
        "/LabTech/agent.aspx/..;/admin",
        "/LabTech/agent.aspx/%2e%2e/admin",
        "/LabTech/agent.aspx/../admin",
        "//LabTech/agent.aspx",
        "/LabTech/agent.aspx%2fb",
        "/LabTech/agent.aspx%5c..%5cadmin",
        "/LabTech\\agent.aspx",
        "/LabTech/agent.aspx%00.png",
        "/LabTech/agent.aspx%zz",
        "/LabTech/agent.aspx;x=1/b",
        "/LabTech/agent.aspx%252e",
        "/LabTech/agent.aspx::$DATA",
        "/LabTech/agent.aspx.",
        "/LabTech/agent.aspx%c0%af",
        "/%2e%2e/LabTech/agent.aspx",
    ] {
        let answer = gateway.get(path);
        let line = gateway.log_of(&answer);
        assert_eq!((answer.status, &line["decided_by"]), (403, &"acl".into()), "{path}: {line}");
    }
    let seen = origin.take();
    assert_eq!((seen.requests.len(), seen.faults.len()), (1, 0), "{seen:?}");
}
