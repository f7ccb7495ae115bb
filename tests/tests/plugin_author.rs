//! What a policy's author does: a new project, its tests, and the commands that look at a plugin file.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use weir_tests::setup::{Checked, run};
use weir_tests::{Author, LONG, Scratch, Upstream, eventually, wasm};

/// The partner's path: five commands, and the gateway refuses what the policy refuses. The first one is all that is needed to begin;
/// nothing but the `weir` binary, Rust and the crates that any Rust user can get.
#[test]
fn from_nothing_to_a_live_denial_in_five_commands() {
    let begun = Instant::now();
    let origin = Upstream::text("the application");
    let mut author = Author::new().port(8080).replace("http://127.0.0.1:3000", &origin.url());
    author.ok("weir plugin new block-agent"); // 1
    author.ok("cd block-agent"); // 2
    author.share_build();
    author.adapt("weir.toml");
    author.ok("cargo plugin"); // 3
    author.start("weir run"); // 4
    let refused = author.ok("curl -i -s -A sqlmap/1.8 http://127.0.0.1:8080/"); // 5
    assert!(refused.starts_with("HTTP/1.1 403 "), "{refused}");
    assert!(begun.elapsed() < Duration::from_secs(600), "{:?}", begun.elapsed());
    eventually(LONG, "the log says why", || author.heard().0.contains("\"decided_by\":\"block-agent\""));
    assert!(author.heard().0.contains("\"reason\":\"agent_blocked\",\"rule\":\"sqlmap\""), "{}", author.heard().0);
    assert!(author.ok("curl -s -A Mozilla/5.0 http://127.0.0.1:8080/").contains("the application"));

    // Another build is live without another command.
    let source = fs::read_to_string(author.here().join("src/lib.rs")).unwrap();
    author.write("src/lib.rs", &source.replace("\"agent_blocked\"", "\"agent_unwanted\""));
    author.ok("cargo plugin");
    eventually(LONG, "the new build is live", || {
        author.ok("curl -s -A sqlmap/1.8 http://127.0.0.1:8080/");
        author.heard().0.contains("\"reason\":\"agent_unwanted\"")
    });
}

/// As generated: its tests pass, and so do check, test and bench.
#[test]
fn a_new_project_passes_its_own_tests_here_and_in_the_real_host() {
    let mut author = Author::new();
    let said = author.ok("weir plugin new deny-tool");
    assert!(said.contains("cargo plugin") && said.contains("cd deny-tool"), "the next commands: {said}");
    author.ok("cd deny-tool");
    author.share_build();
    let tested = author.ok("cargo test");
    assert!(tested.contains("test tests::cases_pass ... ok"), "{tested}");
    author.ok("cargo plugin");
    author.ok("weir plugin check target/wasm32-wasip2/release/deny_tool.wasm --cases cases");
    let tested = author.ok("weir plugin test target/wasm32-wasip2/release/deny_tool.wasm --cases cases");
    assert!(tested.ends_with("4 passed, 0 failed\n"), "{tested}");
    author.ok("weir plugin bench target/wasm32-wasip2/release/deny_tool.wasm --cases cases");
    // Formatted as `cargo fmt` would.
    author.ok("cargo fmt --check");
    // Cargo adds the project to the versions that came with it, and changes none.
    let lock = fs::read_to_string(author.here().join("Cargo.lock")).unwrap();
    let known = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock")).unwrap();
    let pinned = |line: &&str| line.starts_with("checksum = ");
    let checksums: Vec<&str> = lock.lines().filter(pinned).collect();
    assert!(checksums.len() > 20 && checksums.iter().all(|checksum| known.contains(checksum)), "{lock}");

    // A case that fails says what differs, natively too.
    let cases = fs::read_to_string(author.here().join("cases/cases.toml")).unwrap();
    author.write("cases/cases.toml", &cases.replace("status = 403", "status = 401"));
    let failed = author.run("cargo test");
    assert!(failed.code != Some(0) && failed.text().contains("status: expected 401, found 403"), "{}", failed.text());
}

#[test]
fn a_project_that_cannot_be_written_says_why() {
    let scratch = Scratch::new();
    let new = |name: &str| run(&["plugin", "new", &scratch.path().join(name).display().to_string()]);
    check_error(&new("Block"), "\"Block\" is no name for a policy");
    check_error(&new("fn"), "\"fn\" is no name for a policy: it means something else to Rust");
    assert_eq!(new("taken").code, Some(0));
    check_error(&new("taken"), "taken exists already");
    scratch.write("file", "");
    check_error(&new("file/inside"), "cannot write to");
    check_error(&run(&["plugin", "new", "a", "--sdk", "/nowhere"]), "--sdk /nowhere");
    assert_eq!(run(&["plugin", "new"]).code, Some(2), "wrong usage");

    let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdk").canonicalize().unwrap();
    let own = scratch.path().join("own").display().to_string();
    assert_eq!(run(&["plugin", "new", &own, "--sdk", &sdk.display().to_string()]).code, Some(0));
    let manifest = fs::read_to_string(scratch.path().join("own/Cargo.toml")).unwrap();
    assert!(manifest.contains(&format!("weir-sdk = {{ path = {:?} }}", sdk.display().to_string())), "{manifest}");
    assert!(!scratch.path().join("own/vendor").exists());
}

fn check_error(done: &Checked, text: &str) {
    assert_eq!(done.code, Some(1), "{}", done.text());
    assert!(done.stderr.contains(text) && done.stderr.contains("hint: "), "{text}: {}", done.stderr);
}

fn plugin(command: &str, file: &Path, rest: &[&str]) -> Checked {
    let file = file.display().to_string();
    run(&[&["plugin", command, &file], rest].concat())
}

fn json(done: &Checked) -> Value {
    serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{error}: {}", done.text()))
}

/// State and text of a check.
fn row(report: &Value, name: &str) -> (String, String) {
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    let rows = report["checks"].as_array().expect("checks");
    let row = rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("no {name}: {report}"));
    (text(row, "state"), text(row, "text") + " " + &text(row, "limit"))
}

fn cases(policy: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../policies/{policy}/cases")).display().to_string()
}

/// Pain 20: every bundled policy is tested off the gateway, in the gateway's own host and natively, by the same files.
#[test]
fn the_cases_of_the_bundled_policies_pass_in_the_real_host() {
    for policy in ["geoip", "ips", "agent-acl", "sso-cors"] {
        let done = plugin("test", &wasm::policy(policy), &["--cases", &cases(policy), "--json"]);
        assert_eq!(done.code, Some(0), "{policy}: {}", done.text());
        let report = json(&done);
        assert!(report["passed"].as_u64().is_some_and(|passed| passed >= 3) && report["failed"] == 0, "{report}");
        for case in report["cases"].as_array().unwrap().iter().filter(|case| case["calls"] != Value::Array(Vec::new())) {
            assert!(case["us"].as_f64() > Some(0.0) && case["memory_bytes"].as_u64() >= Some(1 << 16), "{case}");
            assert!(case["host_calls"].as_u64() >= Some(1), "{case}");
        }
    }
}

/// Pain 16: what is missing or too much is named, with the remedy.
#[test]
fn check_names_what_a_gateway_would_refuse() {
    let scratch = Scratch::new();
    let done = plugin("check", &wasm::policy("ips"), &["--json", "--cases", &cases("ips")]);
    assert_eq!(done.code, Some(0), "{}", done.text());
    let report = json(&done);
    for name in
        ["size", "contract", "exports", "imports", "manifest", "schema", "load", "instantiate", "configure", "memory", "cases"]
    {
        assert_eq!(row(&report, name).0, "ok", "{name}: {report}");
    }
    assert!(row(&report, "manifest").1.contains("request, request-body, request body up to 64 KiB"));

    let kv = json(&plugin("check", &wasm::guest("kv"), &["--json"]));
    assert!(row(&kv, "imports").1.contains("needs grants = [\"kv\"]"), "{kv}");

    let unconfigured = json(&plugin("check", &wasm::policy("agent-acl"), &["--json"]));
    let (state, text) = row(&unconfigured, "configure");
    assert!(state == "skip" && text.contains("model") && text.contains("--settings"), "{text}");
    let settings = ["--json", "--settings", r#"{ "model": "agent-only" }"#];
    assert_eq!(row(&json(&plugin("check", &wasm::policy("agent-acl"), &settings)), "configure").0, "ok");
    let wrong = plugin("check", &wasm::policy("agent-acl"), &["--json", "--settings", r#"{ "model": "none" }"#]);
    assert_eq!((wrong.code, row(&json(&wrong), "configure").0), (Some(1), "FAIL".to_owned()));
    assert_eq!(plugin("check", &wasm::policy("agent-acl"), &["--settings", "{"]).code, Some(2));

    let bad = |name: &str, bytes: &[u8], check: &str, text: &str| {
        let done = plugin("check", &scratch.write(name, bytes), &["--json"]);
        assert_eq!(done.code, Some(1), "{name}: {}", done.text());
        let (state, found) = row(&json(&done), check);
        assert!(state == "FAIL" && found.contains(text), "{name}: {found}");
    };
    bad("core.wasm", wasm::CORE_MODULE, "component", "--target wasm32-wasip2");
    bad("text.wasm", b"not a component", "component", "not a WebAssembly file");
    let newer = replace(&fs::read(wasm::guest("hello")).unwrap(), b"@0.1.2", b"@0.3.0");
    bad("newer.wasm", &newer, "contract", "upgrade weir or rebuild with weir-sdk 0.1");
    let http = replace(&fs::read(wasm::guest("hello")).unwrap(), b"wasi:cli/terminal-stdin@", b"wasi:http/outgoing-call@");
    bad("http.wasm", &http, "load", "wasi:http/outgoing-call");
    check_error(&plugin("check", &scratch.path().join("none.wasm"), &[]), "none.wasm: No such file");
}

/// The same length, everywhere.
fn replace(bytes: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    assert_eq!(old.len(), new.len());
    let mut bytes = bytes.to_vec();
    while let Some(place) = bytes.windows(old.len()).position(|window| window == old) {
        bytes[place..place + new.len()].copy_from_slice(new);
    }
    bytes
}

fn case_file(scratch: &Scratch, text: &str) -> String {
    scratch.write("cases.toml", text).display().to_string()
}

fn test(scratch: &Scratch, guest: &Path, text: &str) -> Checked {
    plugin("test", guest, &["--cases", &case_file(scratch, text)])
}

/// Edits of request and response, the body's too.
const EDITS: &str = r#"
[[case]]
name = "edits reach both sides"
request = { target = "/original", headers = ["X-Secret: 1", "X-List: one"] }
response = { status = 200, headers = { server = "old" }, body = "shout it" }

[case.expect]
verdict = "next"
request = { target = "/edited?by=policy", headers = { x-secret = false, x-list = ["one", "two"], x-refused = "6" } }
response = { status = 203, headers = { server = false, x-response-refused = "5" }, body = "SHOUT IT" }
"#;

/// State between the steps of a case, and none between cases.
const COUNTS: &str = r#"
policy.grants = ["kv"]

[[case]]
name = "counts"
[[case.step]]
repeat = 3
response = {}
expect = { verdict = "next" }
[[case.step]]
response = {}
expect = { verdict = "next", response = { headers = { x-count = "4" } } }

[[case]]
name = "begins again"
response = {}
expect = { verdict = "next", response = { headers = { x-count = "1" } } }
"#;

/// Its own test runs them on the mock host.
const ASKS: &str = include_str!("../fixtures/guests/call-out/cases/upstreams.toml");

#[test]
fn cases_answer_for_upstreams() {
    let scratch = Scratch::new();
    let done = test(&scratch, &wasm::guest("call-out"), ASKS);
    assert_eq!(done.code, Some(0), "{}", done.text());
    let wrong = ASKS.replace("auth POST /check", "auth GET /check");
    let done = test(&scratch, &wasm::guest("call-out"), &wrong);
    assert_eq!(done.code, Some(1), "{}", done.text());
    assert!(done.text().contains("auth POST /check"), "{}", done.text());
    for (wrong, remedy) in [("{ error = \"late\" }", "timeout"), ("[]", "no_server"), ("{ status = 99 }", "200 to 599")] {
        let text = ASKS.replace("{ error = \"timeout\" }", wrong);
        check_error(&test(&scratch, &wasm::guest("call-out"), &text), remedy);
    }
    let text = ASKS.replace("[\"directory\", \"auth\"]", "[\"directory\"]");
    check_error(&test(&scratch, &wasm::guest("call-out"), &text), "http_out = { upstreams = [\"auth\"] }");
    let benched = plugin("bench", &wasm::guest("call-out"), &["--cases", &case_file(&scratch, ASKS)]);
    assert_eq!(benched.code, Some(0), "{}", benched.text());
}

#[test]
fn cases_see_edits_and_state_and_say_what_differs() {
    let scratch = Scratch::new();
    for (guest, text) in [("edits", EDITS), ("kv", COUNTS)] {
        let done = test(&scratch, &wasm::guest(guest), text);
        assert_eq!(done.code, Some(0), "{guest}: {}", done.text());
    }
    let done = test(&scratch, &wasm::guest("edits"), &EDITS.replace("SHOUT IT", "shout it").replace("\"6\"", "\"7\""));
    assert_eq!(done.code, Some(1), "{}", done.text());
    for line in [
        "FAIL  edits reach both sides (",
        "request.headers.x-refused\n          expected  \"7\"\n          found     \"6\"",
        "response.body\n          expected  \"shout it\"\n          found     \"SHOUT IT\"",
        "0 passed, 1 failed",
    ] {
        assert!(done.stdout.contains(line), "{line}:\n{}", done.stdout);
    }
    let step = test(&scratch, &wasm::guest("kv"), &COUNTS.replace("\"4\"", "\"5\""));
    assert!(step.stdout.contains("cases.toml:4, step 2)") && step.stdout.contains("1 passed, 1 failed"), "{}", step.stdout);
    check_error(&plugin("test", &wasm::guest("kv"), &["--cases", "/nowhere.toml"]), "/nowhere.toml");
    check_error(&test(&scratch, &wasm::guest("kv"), "[[case]]\nname = \"a\"\nexpct = 1"), "cases.toml:3: unknown field `expct`");
    let refused = test(&scratch, &wasm::guest("kv"), "[[case]]\nname = \"a\"\nexpect = { verdict = \"next\" }");
    assert!(refused.code == Some(1) && refused.stdout.contains("grants = [\"kv\"]"), "{}", refused.text());
}

/// Pain 21: a panic is shown with its message and its place in the source.
#[test]
fn a_panic_is_shown_with_message_and_place() {
    let scratch = Scratch::new();
    let text = "[[case]]\nname = \"traps\"\nrequest = { target = \"/trap\" }\nexpect = { verdict = \"next\" }\n";
    let done = test(&scratch, &wasm::guest("trap"), text);
    assert_eq!(done.code, Some(1), "{}", done.text());
    let line = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/guests/trap/src/lib.rs")).unwrap();
    let line = line.lines().position(|line| line.contains("asked to trap")).unwrap() + 1;
    let place = format!("trap/src/lib.rs:{line}:");
    for piece in ["error in request (policy_trapped): trapped: panicked at", &place, "asked to trap"] {
        assert!(done.stdout.contains(piece), "{piece}: {}", done.stdout);
    }
    let expected = text.replace("verdict = \"next\"", "verdict = \"error\", reason = \"policy_trapped\"");
    assert_eq!(test(&scratch, &wasm::guest("trap"), &expected).code, Some(0), "a case may expect it");
}

#[test]
fn bench_is_green_within_the_limits_and_red_over_them() {
    let scratch = Scratch::new();
    let done = plugin("bench", &wasm::policy("ips"), &["--cases", &cases("ips"), "--json"]);
    let report = json(&done);
    let request = &report["phases"][0];
    assert_eq!((done.code, &request["phase"]), (Some(0), &"request".into()), "{report}");
    assert!(request["p50_us"].as_f64() > Some(0.0) && request["p50_us"].as_f64() <= request["p99_us"].as_f64(), "{report}");
    assert!(report["memory_bytes"].as_u64() >= Some(1 << 16) && report["host_calls"].as_f64() >= Some(1.0), "{report}");

    let over = |guest: &str, path: &str, text: &str| {
        let file = format!("[[case]]\nname = \"over\"\nrequest = {{ target = \"{path}\" }}\nexpect = {{ verdict = \"next\" }}\n");
        let done = plugin("bench", &wasm::guest(guest), &["--cases", &case_file(&scratch, &file)]);
        assert!(done.code == Some(1) && done.stdout.contains(text), "{guest}: {}", done.text());
    };
    over("loop", "/loop", "more than its ");
    over("alloc", "/alloc", "FAIL over: ");
    over("trap", "/trap", "asked to trap");
}

/// What a policy does instead of what it should is not what the author wants to know the cost of.
#[test]
fn bench_says_which_case_fails_and_measures_the_others() {
    let scratch = Scratch::new();
    let case = |name: &str, verdict: &str| {
        format!("[[case]]\nname = \"{name}\"\nrequest = {{ target = \"/\" }}\nexpect = {{ verdict = \"{verdict}\" }}\n")
    };
    let file = case_file(&scratch, &format!("{}{}", case("is refused", "deny"), case("passes", "next")));
    let done = plugin("bench", &wasm::guest("noop"), &["--cases", &file, "--json"]);
    let report = json(&done);
    let told = report["over"].to_string();
    assert!(told.contains("is refused: not measured, it fails: verdict: expected deny, found next"), "{told}");
    assert!(told.contains("weir plugin test"), "{told}");
    assert_eq!((done.code, report["over"].as_array().map(Vec::len)), (Some(1), Some(1)), "{report}");
    let exchanges = report["exchanges"].as_u64();
    assert!(exchanges > Some(0) && exchanges <= Some(2_000), "only the other was measured: {report}");
}
