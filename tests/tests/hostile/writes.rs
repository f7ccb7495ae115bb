//! What a policy writes: log, tags, findings, edits, answers, bodies, and whatever else it hands to the host.

use weir_tests::{Answer, Request};

use crate::stage::{Stage, order_of};

/// Lines of the operator's log that a guest wrote, by the letter it fills them with.
fn lines(stage: &Stage, letter: char) -> Vec<usize> {
    let text = stage.gateway.stderr();
    let run = |line: &str| line.matches(letter).count();
    let full = |line: &&str| line.contains("policy=\"hostile\"") && line.contains(&format!("WARN {letter}"));
    text.lines()
        .filter(full)
        .map(|line| run(line.split("WARN ").nth(1).and_then(|rest| rest.split(" policy").next()).unwrap_or_default()))
        .collect()
}

#[test]
fn the_log_of_an_exchange_has_a_limit() {
    let stage = Stage::with("log = \"1KiB\"");
    stage.done("request log 1 1024");
    assert_eq!((lines(&stage, 'l'), stage.dropped("log_lines")), (vec![1024], 0.0));
    stage.done("request log 1 3000");
    assert_eq!(lines(&stage, 'l'), [1024, 1024], "cut");
    stage.done("request log 20 10");
    assert_eq!(lines(&stage, 'l').len(), 2 + 16, "a line counts as 64 bytes at least");
    assert_eq!(stage.dropped("log_lines"), 4.0);
}

#[test]
fn a_flood_of_lines_is_cut_whatever_the_exchanges() {
    let stage = Stage::with("log = \"1MiB\", cpu = \"2s\", wall = \"10s\"");
    stage.done("request log 100 1");
    assert_eq!((lines(&stage, 'l').len(), stage.dropped("log_lines")), (100, 0.0));
    for _ in 0..5 {
        stage.done("request log 1000 1");
    }
    let (written, dropped) = (lines(&stage, 'l').len(), stage.dropped("log_lines"));
    assert_eq!(written as f64 + dropped, 5_100.0);
    assert!(dropped >= 2_000.0, "{written} lines written, {dropped} dropped");
}

#[test]
fn tags_have_a_limit() {
    let stage = Stage::with("tags = 4");
    let (line, _) = stage.done("request tags 2");
    assert_eq!(line["tags"].as_object().map(serde_json::Map::len), Some(4), "{line}");
    assert_eq!(stage.dropped("tags"), 0.0);
    let answer = stage.ask("request tags 10");
    let line = stage.gateway.log_of(&answer);
    assert_eq!((answer.status, line["tags"].as_object().map(serde_json::Map::len)), (200, Some(4)), "{line}");
    assert_eq!(stage.dropped("tags"), 8.0, "seven, and `done`");
}

#[test]
fn findings_have_a_limit() {
    let stage = Stage::with("findings = 3");
    for (asked, kept, dropped) in [(3, 3, 0.0), (5, 3, 2.0)] {
        let (line, _) = stage.done(&format!("request findings {asked}"));
        assert_eq!(line["findings"].as_array().map(Vec::len), Some(kept), "{line}");
        assert_eq!(stage.dropped("findings"), dropped);
    }
}

#[test]
fn edits_of_heads_have_a_limit() {
    let stage = Stage::of("limits = { edits = \"1KiB\" }", &["response"]);
    // Ten fields of a hundred bytes fit, and of twenty, ten.
    for asked in [10, 20] {
        assert_eq!(stage.done(&format!("request edits {asked} 96")).1, 10);
        assert_eq!(stage.origin.last().head.all("x-09").len(), 1);
        assert_eq!(stage.origin.last().head.all("x-10").len(), 0);
    }
    assert_eq!(stage.done("response edits 20 96").1, 10);
    let stage = Stage::with("edits = \"1MiB\", cpu = \"1s\", wall = \"5s\"");
    assert_eq!(stage.done("request edits 1 16384").1, 1, "a value has 16 KiB at most");
    assert_eq!(stage.done("request edits 1 16385").1, 0);
    assert_eq!(stage.done("request target 8192").1, 1);
    assert_eq!(stage.done("request target 8193").1, 0);
}

#[test]
fn state_between_phases_has_a_limit() {
    let stage = Stage::with("");
    assert_eq!(stage.done("request state 4096").1, 1);
    assert_eq!(stage.done("request state 4097").1, 0);
}

#[test]
fn answers_have_a_limit() {
    let stage = Stage::with("reply = \"10KiB\", cpu = \"1s\", wall = \"5s\"");
    let answer = stage.ask("request reply 10240 0");
    assert_eq!((answer.status, answer.body.len()), (200, 10_240));
    stage.fails("request reply 10241 0", &["policy_broke_contract"]);
    // What is far beyond the limit is not even taken from the guest.
    stage.fails("request reply 20000000 0", &["policy_trapped"]);
    assert_eq!(stage.ask("request reply 10 64").header("x-63"), Some("1"));
    stage.fails("request reply 10 65", &["policy_broke_contract"]);
    assert_eq!(stage.origin.count(), 0);
}

#[test]
fn reasons_are_cut_and_statuses_checked() {
    let stage = Stage::with("");
    for (asked, kept) in [(64, 64), (5_000, 64)] {
        let line = stage.gateway.log_of(&stage.ask(&format!("request deny 403 {asked}")));
        assert_eq!((line["reason"].as_str().map(str::len), line["rule"].as_str().map(str::len)), (Some(kept), Some(kept)));
    }
    assert_eq!([400, 599].map(|status| stage.ask(&format!("request deny {status} 5")).status), [400, 599]);
    for status in [1, 200, 399, 600, 65_535] {
        stage.fails(&format!("request deny {status} 5"), &["policy_broke_contract"]);
    }
}

#[test]
fn what_a_guest_hands_over_in_one_call_has_a_limit() {
    let stage = Stage::with("cpu = \"1s\", wall = \"5s\"");
    assert_eq!(stage.done("request argument 1000000").1, 1_000_000);
    stage.fails("request argument 30000000", &["policy_trapped"]);
    assert_eq!(stage.done("request argument 10").1, 10);
}

#[test]
fn a_response_body_may_grow_by_so_much() {
    let stage = Stage::of("limits = { growth = \"1KiB\", cpu = \"1s\", wall = \"5s\" }", &["response-body"]);
    // Twice the two bytes that came, and a KiB, less the two that went.
    let grown = |bytes: usize| -> std::io::Result<Answer> { stage.gateway.connect().ask(&grow(bytes)) };
    assert_eq!(grown(1026).unwrap().body.len(), 1028);
    assert!(grown(1027).is_err(), "the body is cut, not ended");
    let line = stage.gateway.log_where(|line| line["reason"] == "policy_failed_on_body");
    let calls = line["policies"].as_array().cloned().unwrap_or_default();
    assert!(calls.iter().any(|call| call["phase"] == "response-body" && call["verdict"] == "error"), "{line}");
    assert!(grown(40_000_000).is_err());
    assert_eq!(grown(0).unwrap().body.len(), 2);
}

fn grow(bytes: usize) -> Request {
    order_of(&format!("response-body grow {bytes}"))
}
