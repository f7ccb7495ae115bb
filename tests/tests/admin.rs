//! The admin API, outside every policy.

use weir_tests::{Setup, Upstream};

#[test]
fn the_process_says_that_it_lives_and_is_ready() {
    let origin = Upstream::text("ok");
    let gateway = Setup::before(&origin).start();
    assert_eq!((gateway.admin("GET /livez").status, gateway.admin("GET /readyz").status), (200, 200));
    assert_eq!(gateway.admin("GET /nothing").status, 404);
}

#[test]
fn metrics_count_what_happened() {
    let origin = Upstream::text("ok");
    let gateway = Setup::before(&origin).policy("acl", "agent-acl", "config = { model = \"agent-only\" }").start();
    for _ in 0..7 {
        let answer = gateway.get("/LabTech/agent.aspx");
        assert_eq!(gateway.log_of(&answer)["status"], 200);
    }
    let denied = gateway.get("/automate/");
    assert_eq!(gateway.log_of(&denied)["status"], 403);
    let answer = gateway.admin("GET /metrics");
    let text = answer.text();
    let value = |needles: &[&str]| {
        let line = text.lines().find(|line| !line.starts_with('#') && needles.iter().all(|needle| line.contains(needle)));
        line.and_then(|line| line.rsplit(' ').next()).and_then(|number| number.parse::<f64>().ok())
    };
    assert_eq!(value(&["weir_requests_total", "site=\"site\"", "2"]).filter(|count| *count >= 7.0), Some(7.0), "{text}");
    assert!(text.contains("# TYPE weir_requests_total counter"), "{text}");
}

#[test]
fn plugins_are_listed_with_what_their_calls_cost() {
    let origin = Upstream::text("ok");
    let gateway = Setup::before(&origin).policy("acl", "agent-acl", "config = { model = \"agent-only\" }").start();
    for target in ["/LabTech/agent.aspx", "/LabTech/agent.aspx", "/automate/"] {
        let answer = gateway.get(target);
        assert_eq!(gateway.log_of(&answer)["path"], target);
    }
    let plugins = gateway.plugin("agent-acl");
    let live = plugins.iter().find(|plugin| plugin["state"] == "live").unwrap();
    assert_eq!(live["version"], env!("CARGO_PKG_VERSION"));
    let policy = &live["policies"][0];
    assert_eq!((&policy["policy"], &policy["denials"]), (&"acl".into(), &1.into()), "{live}");
    assert!(policy["calls"].as_u64().is_some_and(|calls| calls >= 3), "{live}");
    assert!(policy["p50_us"].as_f64().is_some_and(|us| us > 0.0 && us < 50_000.0), "{live}");
}
