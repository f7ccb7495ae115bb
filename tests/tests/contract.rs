//! The released contract stays: `fixtures/contract-0.1` holds a plugin built when it was released, and its text without comments.

use std::fs;
use std::path::Path;

use weir_tests::{Request, Setup, Upstream};

fn fixture(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/contract-0.1").join(name)
}

#[test]
fn a_plugin_built_for_0_1_still_loads_and_works() {
    let origin = Upstream::text("shout it");
    let gateway = Setup::before(&origin).plugin("edits", "edits", &fixture("edits.wasm"), "").start();
    let answer = gateway.ask(&Request::get("/original").header("x-secret", "1"));
    let received = origin.last();
    assert_eq!((received.target(), received.header("x-secret")), ("/edited?by=policy", None));
    assert_eq!((answer.status, answer.text().as_str()), (203, "SHOUT IT"));
}

#[test]
fn the_contract_is_what_was_released() {
    let now = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdk/wit/policy.wit")).unwrap();
    let is_code = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with("///");
    let now: Vec<&str> = now.lines().filter(is_code).collect();
    let released = fs::read_to_string(fixture("policy.wit")).unwrap();
    let released: Vec<&str> = released.lines().collect();
    assert_eq!(now, released, "a changed record, variant or signature is a new package version, never an edit");
}
