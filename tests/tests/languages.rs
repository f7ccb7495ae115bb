//! Policies in other languages than Rust, from the same contract: `sdk/examples`, built with their own tools and run in a gateway. They
//! are built in `target/languages`, so that tools are installed once; without tools or their registries the scenario says so and ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use weir_tests::setup::run;
use weir_tests::{Request, Setup, Upstream, eventually, tool, wasm};

/// Interpreters are components of 12 MB and more, compiled while other tests run.
const COMPILED: Duration = Duration::from_secs(400);

/// The example in a place where it may be built, with the contract beside it.
fn place(language: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let place = root.join("target/languages").join(language);
    fs::create_dir_all(place.join("wit/deps/weir")).unwrap();
    let place = place.canonicalize().unwrap();
    copy(&root.join("sdk/examples").join(language), &place);
    fs::copy(root.join("sdk/wit/0.1.1/policy.wit"), place.join("wit/deps/weir/policy.wit")).unwrap();
    place
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in from.read_dir().unwrap() {
        let entry = entry.unwrap().path();
        let target = to.join(entry.file_name().unwrap());
        if entry.is_dir() {
            copy(&entry, &target);
        } else {
            fs::copy(&entry, target).unwrap();
        }
    }
}

fn shell(place: &Path, script: &str) -> Output {
    let command = Command::new("sh").args(["-ec", script]).current_dir(place).stdin(Stdio::null()).output();
    command.expect("a shell")
}

/// Installs an example's tools and builds it; none, and said so, where they cannot be had.
fn built(language: &str, needs: &str, install: &str, build: &str) -> Option<PathBuf> {
    if !tool::has(needs) {
        return None;
    }
    let place = place(language);
    let installed = shell(&place, install);
    if !installed.status.success() {
        tool::skipped(&format!("{language}: its tools cannot be installed: {}", tool::text(&installed)));
        return None;
    }
    let done = shell(&place, build);
    assert!(done.status.success(), "{language}: {}", tool::text(&done));
    Some(place.join("block-agent.wasm"))
}

/// Its cases pass in the real host, and a running gateway that is given the file refuses what the policy refuses.
fn check(file: &Path) {
    let file_name = file.display().to_string();
    let cases = file.with_file_name("cases").display().to_string();
    let tested = run(&["plugin", "test", &file_name, "--cases", &cases]);
    assert_eq!(tested.code, Some(0), "{}", tested.text());

    let origin = Upstream::text("the application");
    let gateway = Setup::before(&origin).start();
    assert_eq!(gateway.ask(&Request::get("/").header("user-agent", "sqlmap/1.8")).status, 200);
    fs::copy(file, gateway.plugin_file("block-agent")).unwrap();
    eventually(COMPILED, "the file is compiled", || gateway.is_live("block-agent", &wasm::digest(file)));
    gateway.rewrite(|text| {
        let text = text.replace("chain = []", "chain = [\"block-agent\"]");
        format!("{text}\n[policy.block-agent]\nplugin = \"block-agent\"\nconfig = {{ agents = [\"sqlmap\"] }}\n")
    });
    let refused = || gateway.ask(&Request::get("/").header("user-agent", "SQLmap/1.8"));
    eventually(COMPILED, "the policy refuses", || refused().status == 403);
    let line = gateway.log_of(&refused());
    assert_eq!(
        (&line["decided_by"], &line["reason"], &line["rule"]),
        (&"block-agent".into(), &"agent_blocked".into(), &"sqlmap".into())
    );
    assert_eq!(gateway.ask(&Request::get("/").header("user-agent", "Mozilla/5.0")).status, 200);
}

/// Pain 16: what a runtime imports is there, with nothing behind it.
#[test]
fn a_policy_in_javascript_runs_in_a_gateway() {
    let install = "npm install --no-audit --no-fund";
    // An earlier installation that was interrupted looks whole to npm.
    let build = format!("npm run build || {{ rm -rf node_modules package-lock.json && {install} && npm run build; }}");
    if let Some(file) = built("javascript", "npm", install, &build) {
        check(&file);
    }
}

/// Pain 16: what a runtime imports is there, with nothing behind it.
#[test]
fn a_policy_in_python_runs_in_a_gateway() {
    let install = "test -x venv/bin/componentize-py || { python3 -m venv venv && venv/bin/pip install -q -r requirements.txt; }";
    let build = "venv/bin/componentize-py -d wit -w block-agent componentize app -o block-agent.wasm";
    if let Some(file) = built("python", "python3", install, build) {
        check(&file);
    }
}

/// WASI's sockets can be imported, and every one of them is refused when it is made.
#[test]
fn a_guest_that_imports_sockets_never_has_one() {
    let origin = Upstream::text("ok");
    let gateway = Setup::before(&origin).guest("network", "").start();
    let address = origin.url().replace("http://", "");
    let accepted = origin.accepted();
    let answer = gateway.ask(&Request::get("/").header("x-address", &address));
    let line = gateway.log_of(&answer);
    assert_eq!((answer.status, &line["reason"], &line["rule"]), (403, &"no_network".into(), &"network".into()), "{line}");
    assert_eq!(origin.accepted(), accepted, "nobody connected");
    assert_eq!(gateway.get("/").status, 200);
}

/// Pain 21: what a runtime writes to its standard error before it ends is why it ended.
#[test]
fn the_last_words_of_a_runtime_are_in_the_operators_log() {
    let origin = Upstream::text("ok");
    let gateway = Setup::before(&origin).guest("network", "").start();
    let answer = gateway.get("/explain");
    assert_eq!((answer.status, &gateway.log_of(&answer)["reason"]), (503, &"policy_trapped".into()));
    eventually(Duration::from_secs(10), "the operator is told", || {
        gateway.stderr().contains("trapped: the last words of a runtime")
    });
}
