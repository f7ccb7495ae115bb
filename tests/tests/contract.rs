//! The released contract stays: `fixtures/contract-0.1` holds plugins built when its versions were released, and their text without
//! comments.

use std::fs;
use std::path::{Path, PathBuf};

use weir_tests::{Request, Setup, Upstream};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/contract-0.1").join(name)
}

/// The lines of the contract's text that mean something.
fn contract(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let is_code = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with("///");
    text.lines().filter(is_code).map(str::to_owned).collect()
}

fn version(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdk/wit").join(version).join("policy.wit")
}

/// Every interface by its first line.
fn interfaces(lines: &[String]) -> Vec<&[String]> {
    let begins = |line: &&[String]| line[0].starts_with("interface ");
    // The first line names the package.
    lines[1..].chunk_by(|line, _| line != "}").filter(begins).collect()
}

#[test]
fn a_plugin_built_for_0_1_0_still_loads_and_works() {
    let origin = Upstream::text("shout it");
    let gateway = Setup::before(&origin).plugin("edits", "edits", &fixture("edits.wasm"), "").start();
    let answer = gateway.ask(&Request::get("/original").header("x-secret", "1"));
    let received = origin.last();
    assert_eq!((received.target(), received.header("x-secret")), ("/edited?by=policy", None));
    assert_eq!((answer.status, answer.text().as_str()), (203, "SHOUT IT"));
}

#[test]
fn released_versions_are_what_was_released() {
    for (number, released) in [("0.1.0", "policy.wit"), ("0.1.1", "policy-0.1.1.wit"), ("0.1.2", "policy-0.1.2.wit")] {
        let message = "a changed record, variant or signature is a new package version, never an edit";
        assert_eq!(contract(&version(number)), contract(&fixture(released)), "{number}: {message}");
    }
}

/// Types match by structure, so what is not the same to the letter is another contract.
#[test]
fn a_version_adds_interfaces_and_changes_none() {
    let versions = ["0.1.0", "0.1.1", "0.1.2"].map(|number| contract(&version(number)));
    for pair in versions.windows(2) {
        let (before, after) = (interfaces(&pair[0]), interfaces(&pair[1]));
        assert!(before.len() >= 6, "{before:?}");
        for interface in before {
            assert!(after.contains(&interface), "{} of {} differs", interface[0], pair[1][0]);
        }
    }
}

/// The phases that cost least: a verdict that is no word is asked for, and one handle stands for every exchange.
#[test]
fn a_plugin_built_for_0_1_2_still_loads_and_works() {
    let origin = Upstream::text("shout it");
    let gateway = Setup::before(&origin).plugin("edits", "edits", &fixture("edits-0.1.2.wasm"), "").start();
    for path in ["/one", "/two"] {
        let answer = gateway.ask(&Request::get(path).header("x-secret", "1"));
        let received = origin.last();
        assert_eq!((received.target(), received.header("x-secret")), ("/edited?by=policy", None));
        assert_eq!((answer.status, answer.text().as_str()), (203, "SHOUT IT"));
    }
}

#[test]
fn plugins_built_for_0_1_1_still_load_and_work() {
    let (origin, auth) = (Upstream::text("welcome"), Upstream::text("yes"));
    let asking = "grants = [\"http-out\"]\nhttp_out = { upstreams = [\"auth\"] }\nlimits = { wall = \"20s\" }";
    let gateway = Setup::before(&origin)
        .plugin("call-out", "call-out", &fixture("call-out-0.1.1.wasm"), asking)
        .plugin("kv", "kv", &fixture("kv-0.1.1.wasm"), "grants = [\"kv\"]")
        .section(&format!("[upstream.auth]\nservers = [{{ url = \"{}\" }}]", auth.url()))
        .start();
    assert_eq!(gateway.get("/ask/auth").text(), "200 3");
    assert_eq!((gateway.get("/claim").text().as_str(), gateway.get("/claim").status), ("welcome", 409));
}
