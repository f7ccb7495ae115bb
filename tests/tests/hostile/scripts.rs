//! Any sequence of host calls ends, within the deadline, with an answer.

use std::time::Duration;

use weir_tests::load::Load;
use weir_tests::{LONG, Request, eventually};

use crate::stage::{Stage, order_of};

/// Sequences of host calls.
const SCRIPTS: u64 = 250;
/// Their deadline: longer than the default, so that neighbours meet it only when they are held up.
const WALL: Duration = Duration::from_millis(300);
/// A busy machine makes a call longer than it is.
const SLACK: Duration = Duration::from_secs(15);

/// Every reason of a refused request that a script can lead to: its own, or the host's.
const REASONS: [&str; 5] =
    ["policy_trapped", "policy_cpu_exceeded", "policy_timed_out", "policy_broke_contract", "policy_exhausted"];

/// Numbers that are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        // Marsaglia's xorshift with the shifts 13, 7, 17.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn script(&mut self) -> String {
        let length = 1 + self.next() % 120;
        (0..length).map(|_| format!("{:02x}", self.next() as u8)).collect()
    }
}

#[test]
fn any_sequence_of_host_calls_ends_with_an_answer() {
    // Pain 2: a failure is an error, never a hang. Pain 17: an answer is a value, so that nothing answers twice.
    let stage = Stage::with("cpu = \"10ms\", wall = \"300ms\"");
    let neighbours = Load::start(stage.gateway.plain(), 2, &Request::get("/neighbour"));
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let (mut passed, mut failed) = (0, 0);
    for number in 0..SCRIPTS {
        let script = numbers.script();
        let answer = stage.gateway.ask(&order_of(&format!("request script {script}")));
        let line = stage.gateway.log_of(&answer);
        let calls = line["policies"].as_array().cloned().unwrap_or_default();
        assert_eq!(calls.len(), 1, "{script}: one call, one verdict: {line}");
        let took = calls[0]["us"].as_f64().map_or(Duration::MAX, |us| Duration::from_secs_f64(us / 1e6));
        assert!(took < WALL + SLACK, "script {number} ({script}) took {took:?}: {line}");
        if calls[0]["verdict"] == "error" {
            failed += 1;
            assert_eq!(answer.status, 503, "{script}: {line}");
            assert!(REASONS.iter().any(|reason| line["reason"] == *reason), "{script}: {line}");
        } else {
            passed += 1;
            assert!(matches!(answer.status, 200..600), "{script}: {line}");
        }
    }
    assert!(passed > 30 && failed > 30, "scripts of both kinds: {passed} passed, {failed} failed");
    let report = neighbours.finish();
    assert!(report.failures.is_empty(), "{} neighbours failed: {:?}", report.failures.len(), report.failures.first());
}

#[test]
fn a_refusal_without_an_answer_is_not_a_hang_either() {
    let stage = Stage::of("", &[]);
    let mut client = stage.gateway.connect();
    client.send(order_of("request deny 0 5").bytes()).unwrap();
    assert!(client.is_closed());
    eventually(LONG, "it is logged", || stage.gateway.log().iter().any(|line| line["reason"] == "xxxxx"));
}
