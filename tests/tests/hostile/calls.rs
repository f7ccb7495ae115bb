//! What one call may take: time, memory, stack, instances.

use std::time::{Duration, Instant};

use weir_tests::{LONG, Setup, Upstream, eventually, wasm};

use crate::stage::{Stage, order_of};

/// A busy machine makes a call longer than it is.
const SLACK: Duration = Duration::from_secs(15);

#[test]
fn cpu_time_has_a_limit() {
    // Pain 4
    let stage = Stage::with("cpu = \"50ms\", wall = \"60s\"");
    assert_eq!(stage.done("request spin 10").1, 10);
    for order in ["request loop", "request calls", "request spin 10000"] {
        stage.fails(order, &["policy_cpu_exceeded"]);
    }
}

#[test]
fn a_call_that_waits_ends_with_its_wall_time() {
    // Pains 2 and 4: the clock of guests does not tick for one that waits.
    let stage = Stage::with("wall = \"2s\"");
    assert_eq!(stage.done("request sleep 20").1, 20);
    let started = Instant::now();
    stage.fails("request sleep 600000", &["policy_timed_out"]);
    assert!(started.elapsed() < Duration::from_secs(2) + SLACK, "{:?}", started.elapsed());
    assert_eq!(stage.done("request sleep 20").1, 20, "the next call has an instance of its own");
}

#[test]
fn a_call_inside_long_operations_on_memory_ends_all_the_same() {
    let stage = Stage::with("cpu = \"10ms\", wall = \"50ms\"");
    let started = Instant::now();
    for _ in 0..5 {
        stage.fails("request fill 30", &["policy_cpu_exceeded", "policy_timed_out"]);
    }
    assert!(started.elapsed() < SLACK, "{:?}", started.elapsed());
}

#[test]
fn memory_has_a_limit_and_the_guest_is_told() {
    let stage = Stage::with("memory = \"32MiB\", cpu = \"2s\", wall = \"10s\"");
    assert_eq!(stage.done("request alloc 20").1, 20);
    stage.fails("request alloc 32", &["policy_trapped"]);
    stage.fails("request hoard", &["policy_trapped"]);
    assert_eq!(stage.done("request alloc 20").1, 20);
}

#[test]
fn the_stack_has_a_limit() {
    let stage = Stage::with("cpu = \"2s\", wall = \"10s\"");
    assert_eq!(stage.done("request recurse 1000").1, 1004);
    stage.fails("request recurse 100000000", &["policy_trapped"]);
}

#[test]
fn calls_at_once_have_a_limit() {
    let stage = Stage::with("instances = 2, wall = \"15s\"");
    assert_eq!(stage.gateway.metric("weir_policy_instances"), 1.0, "one is warm, and the other is made when it is needed");
    std::thread::scope(|scope| {
        let held = [0; 2].map(|_: i32| scope.spawn(|| stage.done("request sleep 3000").1));
        // Asking would take one of the two for a moment.
        eventually(LONG, "both instances are taken", || stage.gateway.metric("weir_policy_instances") == 2.0);
        stage.fails("request sleep 0", &["policy_exhausted"]);
        assert_eq!(held.map(|held| held.join().unwrap()), [3000, 3000], "those within the limit are not disturbed");
    });
    assert_eq!(stage.done("request sleep 0").1, 0);
}

/// The other side of a slow upstream: what a build does with its own time is its own doing.
#[test]
fn a_policy_that_takes_too_long_by_itself_is_quarantined() {
    for (order, limits) in [("request sleep 600000", "wall = \"50ms\""), ("request loop", "cpu = \"10ms\", wall = \"10s\"")] {
        let stage = Stage::of(&format!("limits = {{ {limits} }}\nquarantine = {{ calls = 10 }}"), &[]);
        eventually(LONG, &format!("{order} is enough of it"), || {
            let answer = stage.ask(order);
            answer.status == 503 && stage.gateway.log_of(&answer)["reason"] == "policy_quarantined"
        });
        let policy = stage.gateway.plugin("hostile")[0]["policies"][0].clone();
        assert!(policy["timeouts"].as_u64() >= Some(10) && policy["waited"] == 0, "{policy}");
    }
}

#[test]
fn calls_that_found_no_instance_are_no_reason_for_a_quarantine() {
    let stage = Stage::of("limits = { instances = 1, wall = \"15s\" }\nquarantine = { calls = 10 }", &[]);
    std::thread::scope(|scope| {
        let held = scope.spawn(|| stage.done("request sleep 4000").1);
        let policy = || stage.gateway.plugin("hostile")[0]["policies"][0].clone();
        eventually(LONG, "many find none", || {
            let _ = stage.ask("request sleep 0");
            policy()["exhausted"].as_u64() >= Some(30)
        });
        assert_eq!(held.join().unwrap(), 4000);
        assert_eq!(stage.done("request sleep 0").1, 0, "it is called as before");
        assert_eq!((&policy()["health"], &policy()["quarantined"]), (&"working".into(), &0.into()), "{}", policy());
    });
}

#[test]
fn tables_have_a_limit() {
    // The guest's table is just below it; the same guest with a larger one is refused.
    let file = wasm::guest("hostile");
    let bytes = std::fs::read(&file).unwrap();
    let place = table(&bytes);
    let origin = Upstream::text("ok");
    let with = |elements: u32| {
        let mut bytes = bytes.clone();
        for at in [place, place + 3] {
            bytes[at..at + 3].copy_from_slice(&leb128(elements));
        }
        Setup::before(&origin).guest("hostile", "grants = [\"kv\"]").file("plugins/hostile.wasm", bytes).check()
    };
    let largest = with(20_000);
    assert_eq!(largest.code, Some(0), "{}", largest.text());
    let larger = with(20_001);
    assert_eq!(larger.code, Some(1), "{}", larger.text());
    assert!(larger.text().contains("20001 elements exceeds table limits"), "{}", larger.text());
}

/// Where the limits of the function table stand: `funcref`, two limits, of three bytes each and equal, beyond 19,000.
fn table(bytes: &[u8]) -> usize {
    let fits = |window: &[u8]| {
        let number =
            |at: usize| u32::from(window[at] & 0x7f) | u32::from(window[at + 1] & 0x7f) << 7 | u32::from(window[at + 2]) << 14;
        window[..2] == [0x70, 1] && window[2..5] == window[5..8] && (19_000..20_000).contains(&number(2))
    };
    bytes.windows(8).position(fits).expect("a table with as many elements as it may ever have") + 2
}

fn leb128(number: u32) -> [u8; 3] {
    [number as u8 | 0x80, (number >> 7) as u8 | 0x80, (number >> 14) as u8]
}

#[test]
fn every_phase_is_under_the_limits() {
    let stage = Stage::of("", &["response", "complete"]);
    for (order, reason) in [("response loop", "policy_cpu_exceeded policy_timed_out"), ("response panic", "policy_trapped")] {
        let reasons: Vec<&str> = reason.split(' ').collect();
        stage.fails(order, &reasons);
    }
    for order in ["complete panic", "complete loop"] {
        let answer = stage.ask(order);
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"), "the exchange has ended already");
        let line = stage.gateway.log_of(&answer);
        let calls = line["policies"].as_array().cloned().unwrap_or_default();
        assert!(calls.iter().any(|call| call["phase"] == "complete" && call["verdict"] == "error"), "{line}");
    }
    assert_eq!(stage.gateway.ask(&order_of("none")).status, 200);
}

#[test]
fn what_a_runtime_imports_is_there_and_reaches_nothing() {
    // Pain 16
    let stage = Stage::with("cpu = \"1s\", wall = \"5s\"");
    assert_eq!(stage.done("request reach").1, 0);
}

#[test]
fn a_panic_is_logged_with_its_message_and_its_place() {
    // Pain 21
    let stage = Stage::with("cpu = \"1s\", wall = \"10s\"");
    stage.fails("request panic", &["policy_trapped"]);
    let said = stage.gateway.stderr();
    assert!(said.contains("asked to panic") && said.contains("hostile/src/lib.rs:"), "{said}");
}

#[test]
fn the_fail_mode_holds_for_every_way_to_fail() {
    // Pain 25
    let ways = [
        ("request panic", "policy_trapped"),
        ("request loop", "policy_cpu_exceeded"),
        ("request sleep 600000", "policy_timed_out"),
        ("request deny 200 5", "policy_broke_contract"),
        ("request reply 10 65", "policy_broke_contract"),
    ];
    for (word, mode, status) in
        [("deny", "enforce", 503), ("allow", "enforce", 200), ("deny", "observe", 200), ("allow", "observe", 200)]
    {
        let lines = format!("on_error = \"{word}\"\nmode = \"{mode}\"\nlimits = {{ cpu = \"20ms\", wall = \"1s\" }}");
        let stage = Stage::of(&lines, &[]);
        for (order, reason) in ways {
            let answer = stage.ask(order);
            let line = stage.gateway.log_of(&answer);
            assert_eq!((answer.status, line["policies"][0]["verdict"].as_str()), (status, Some("error")), "{order}: {line}");
            assert_eq!(line["reason"] == reason, status == 503, "{order}: {line}");
        }
    }
}
