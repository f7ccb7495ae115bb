//! A policy that misbehaves costs its own requests, at most.

use std::time::Duration;

use weir_tests::load::Load;
use weir_tests::{Gateway, LONG, Request, Setup, Upstream, eventually};

const BAD: [(&str, &str, &str); 4] = [
    ("loop", "/loop", "policy_cpu_exceeded policy_timed_out"),
    ("trap", "/trap", "policy_trapped"),
    ("trap", "/recurse", "policy_trapped"),
    ("alloc", "/alloc", "policy_trapped policy_cpu_exceeded policy_timed_out"),
];

/// Good requests after which the policy is trusted on both workers (`plugins/src/stack.rs`).
const SHORT: usize = 5_000;

/// Requests that meet the misbehaviour.
const BAD_REQUESTS: usize = 40;

/// Sends bad requests beside good ones and checks what each gets.
fn check(guest: &str, path: &str, reasons: &str, on_error: &str, expected: u16) {
    let origin = Upstream::text("ok");
    // On a slow machine the neighbours are too few for it to stay in service.
    let lines = format!("on_error = \"{on_error}\"\nquarantine = {{ failures = 0 }}");
    let gateway = Setup::before(&origin).guest(guest, &lines).start();
    let neighbours = Load::start(gateway.plain(), 4, &Request::get("/neighbour"));
    // Enough for calls to be made on the stack of the worker, which is the gateway's own.
    eventually(LONG, "traffic flows", || neighbours.done() > SHORT);
    for _ in 0..BAD_REQUESTS {
        let answer = gateway.get(path);
        assert_eq!(answer.status, expected, "{guest}");
        let line = gateway.log_of(&answer);
        let call = line["policies"].as_array().and_then(|calls| calls.first()).unwrap_or_else(|| panic!("{line}"));
        assert_eq!((&call["name"], &call["verdict"]), (&guest.into(), &"error".into()), "{line}");
        if expected == 503 {
            let reason = line["reason"].as_str().unwrap();
            assert!(reasons.split(' ').any(|known| known == reason), "{guest}: {reason}");
            assert_eq!(line["decided_by"], guest, "{line}");
            assert!(answer.text().contains(&answer.request_id()));
        }
    }
    let report = neighbours.finish();
    assert!(report.failures.is_empty(), "{guest}: {} failed: {:?}", report.failures.len(), report.failures.first());
    assert!(report.p99() < Duration::from_millis(500), "{guest}: neighbours waited {:?}", report.p99());
    counted(&gateway, guest);
}

fn counted(gateway: &Gateway, guest: &str) {
    let plugin = gateway.plugin(guest).into_iter().next().expect("the plugin");
    let policy = &plugin["policies"][0];
    let failed = policy["traps"].as_u64().unwrap_or(0) + policy["timeouts"].as_u64().unwrap_or(0);
    assert_eq!((&policy["policy"], failed), (&guest.into(), BAD_REQUESTS as u64), "{plugin}");
    assert!(policy["calls"].as_u64().is_some_and(|calls| calls > failed), "{plugin}");
}

#[test]
fn requests_that_meet_a_broken_policy_are_refused_and_all_others_served() {
    for (guest, path, reasons) in BAD {
        check(guest, path, reasons, "deny", 503);
    }
}

#[test]
fn requests_that_meet_a_broken_policy_pass_when_the_operator_says_so() {
    for (guest, path, reasons) in BAD {
        check(guest, path, reasons, "allow", 200);
    }
}

#[test]
fn a_policy_that_allocates_without_end_does_not_take_the_gateways_memory() {
    let origin = Upstream::text("ok");
    let gateway = Setup::before(&origin).guest("alloc", "limits = { memory = \"32MiB\" }").start();
    assert_eq!(gateway.get("/").status, 200);
    let before = gateway.memory();
    for _ in 0..20 {
        assert_eq!(gateway.get("/alloc").status, 503);
    }
    let grown = gateway.memory().saturating_sub(before);
    assert!(grown < 256 << 20, "memory grew by {grown} bytes");
}

#[test]
fn a_broken_policy_of_one_site_leaves_other_sites_alone() {
    let (one, two) = (Upstream::text("one"), Upstream::text("two"));
    let mut gateway = Setup::before(&one).guest("loop", "").site("two", &["two.test"], &two).start();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(gateway.get("/loop").status, 503));
        }
        for _ in 0..50 {
            assert_eq!(gateway.ask(&Request::get("/loop").host("two.test")).text(), "two");
        }
    });
    assert!(gateway.is_running());
}
