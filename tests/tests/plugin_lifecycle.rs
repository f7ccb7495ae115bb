//! From the drop of a file to its end: what replaced it, the way back, what is never tried twice, and what a restart remembers.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;
use weir_tests::load::Load;
use weir_tests::setup::run;
use weir_tests::{Gate, Gateway, LONG, Reply, Request, Setup, Upstream, eventually, wasm};

/// A machine that is busy with other scenarios lets calls wait.
const PATIENT: &str = "limits = { wall = \"5s\" }";

/// The policy `hello`, whose build says hello in a header.
fn greeting(origin: &Upstream) -> Gateway {
    Setup::before(origin).guest("hello", PATIENT).start()
}

fn greets(gateway: &Gateway) -> bool {
    gateway.get("/").header("x-hello").is_some()
}

/// Puts a guest into the place of `hello.wasm` and answers its digest.
fn put(gateway: &Gateway, guest: &str) -> String {
    put_bytes(gateway, &fs::read(wasm::guest(guest)).unwrap())
}

fn put_bytes(gateway: &Gateway, bytes: &[u8]) -> String {
    let file = gateway.plugin_file("hello");
    wasm::move_over(bytes, &file);
    wasm::digest(&file)
}

fn swap(gateway: &Gateway, guest: &str) -> String {
    let digest = put(gateway, guest);
    eventually(LONG, &format!("{guest} is live"), || gateway.is_live("hello", &digest));
    digest
}

/// Waits until the file was refused for this reason.
fn refused(gateway: &Gateway, reason: &str) {
    eventually(LONG, &format!("it is refused: {reason}"), || gateway.rejection("hello").contains(reason));
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn policy(gateway: &Gateway) -> Value {
    gateway.plugin("hello")[0]["policies"][0].clone()
}

#[test]
fn a_rollback_restores_the_build_before_and_no_request_notices() {
    let origin = Upstream::text("ok");
    let gateway = greeting(&origin);
    let old = wasm::digest(&gateway.plugin_file("hello"));
    let new = swap(&gateway, "noop");
    assert_eq!((gateway.builds("hello", "previous"), greets(&gateway)), (vec![old.clone()], false));

    let load = Load::start(gateway.plain(), 2, &Request::get("/"));
    eventually(LONG, "traffic flows", || load.done() > 50);
    let done = gateway.command("plugin rollback hello");
    assert_eq!(done.code, Some(0), "{}", done.text());
    assert!(done.stdout.contains(&old[..12]) && done.stdout.contains("0.1.0"), "it says what is live: {}", done.stdout);
    assert!(gateway.is_live("hello", &old) && greets(&gateway), "at once");
    assert_eq!(gateway.builds("hello", "rolled_back"), [new]);
    let report = load.finish();
    assert!(report.failures.is_empty(), "{:?}", report.failures.first());
    assert_eq!(gateway.metric("weir_plugin_rollbacks_total{plugin=\"hello\",cause=\"operator\"}"), 1.0);
    eventually(LONG, "it is said", || gateway.stderr().contains("plugin rolled back by the operator"));
    assert!(gateway.command("plugins").stdout.contains("rolled_back"));
}

#[test]
fn after_a_rollback_the_file_is_not_taken_until_it_changes() {
    let origin = Upstream::text("ok");
    let mut gateway = greeting(&origin);
    let old = wasm::digest(&gateway.plugin_file("hello"));
    let bad = swap(&gateway, "noop");
    assert_eq!(gateway.admin("POST /v1/plugins/hello/rollback").status, 200);

    // The same content arrives again: as a new file, and after a removal.
    put(&gateway, "noop");
    eventually(LONG, "it says that the file is held back", || gateway.stderr().contains("not taken until it changes"));
    fs::remove_file(gateway.plugin_file("hello")).unwrap();
    eventually(LONG, "the removal is seen", || gateway.plugin("hello")[0]["state"] == "removed");
    put(&gateway, "noop");
    eventually(LONG, "it is seen again", || gateway.plugin("hello")[0]["state"] == "live");
    assert!(gateway.is_live("hello", &old) && greets(&gateway));

    gateway.restart();
    assert!(gateway.is_live("hello", &old) && greets(&gateway), "a restart does not bring it back");
    assert_eq!(gateway.builds("hello", "rolled_back"), [bad]);
    assert!(gateway.plugin("hello")[0]["reason"].as_str().unwrap().contains("rolled back by the operator"));

    let newest = put_bytes(&gateway, &wasm::changed(&wasm::guest("noop"), "fixed"));
    eventually(LONG, "another build is taken", || gateway.is_live("hello", &newest));
    assert_eq!(gateway.builds("hello", "previous"), vec![old.clone()]);
    assert_eq!(gateway.admin("POST /v1/plugins/hello/rollback").status, 200);
    assert!(gateway.is_live("hello", &old), "and rolled back from in turn");
}

#[test]
fn a_rollback_works_after_a_restart() {
    let origin = Upstream::text("ok");
    let mut gateway = greeting(&origin);
    let old = wasm::digest(&gateway.plugin_file("hello"));
    swap(&gateway, "noop");
    gateway.restart();
    assert_eq!((gateway.builds("hello", "previous"), greets(&gateway)), (vec![old.clone()], false));
    let done = json(&gateway.command("plugin rollback hello --json").stdout);
    assert_eq!(done["live"]["digest"], old.as_str());
    assert!(greets(&gateway));
}

#[test]
fn a_configuration_that_is_being_edited_keeps_nobody_from_the_way_back() {
    let origin = Upstream::text("ok");
    let gateway = greeting(&origin);
    let old = wasm::digest(&gateway.plugin_file("hello"));
    swap(&gateway, "noop");
    gateway.rewrite(|text| format!("{text}[upstream.new]\nservers = [\"to be filled in\"]\n"));
    assert_eq!(gateway.command("check").code, Some(1), "it is not whole");
    let listed = gateway.command("plugins");
    assert!(listed.stdout.contains("previous"), "{}", listed.text());
    let refused = gateway.command("plugin abandon hello");
    assert!(
        !refused.stderr.contains("upstream.new") && refused.stderr.contains("what runs"),
        "the gateway says so: {}",
        refused.text()
    );
    let done = gateway.command("plugin rollback hello");
    assert_eq!((done.code, gateway.is_live("hello", &old)), (Some(0), true), "{}", done.text());

    gateway.rewrite(|text| text.replace("[server]", "[server]\nadmin = \"nowhere\""));
    let lost = gateway.command("plugins");
    assert_eq!(lost.code, Some(1));
    assert!(lost.stderr.contains("server.admin") && !lost.stderr.contains("upstream.new"), "{}", lost.text());
}

#[test]
fn a_damaged_private_copy_is_noticed_and_replaced_where_it_can_be() {
    let origin = Upstream::text("ok");
    let mut gateway = greeting(&origin);
    let old = wasm::digest(&gateway.plugin_file("hello"));
    let new = swap(&gateway, "noop");
    let copies = gateway.directory().path().join("state/plugins");
    let copy = |digest: &str| copies.join(format!("{digest}.wasm"));
    let spoil = |digest: &str| {
        // Of the same length: only the digest tells.
        let mut bytes = fs::read(copy(digest)).unwrap();
        let last = bytes.last_mut().unwrap();
        *last ^= 1;
        fs::write(copy(digest), bytes).unwrap();
    };
    // As a power failure may leave it.
    gateway.restart_after(|| fs::write(copy(&new), "").unwrap());
    assert_eq!(wasm::digest(&copy(&new)), new, "what runs is whole in memory");
    assert!(gateway.stderr().contains("a private copy was damaged, and is written again"), "{}", gateway.stderr());

    gateway.restart_after(|| spoil(&old));
    let told = format!("{old}.wasm is damaged: put that build into the plugin directory");
    assert!(gateway.stderr().contains(&told), "{}", gateway.stderr());
    let refused = gateway.command("plugin rollback hello");
    assert_eq!(refused.code, Some(1), "{}", refused.text());
    assert!(refused.stderr.contains(&told), "{}", refused.text());
    assert!(gateway.is_live("hello", &new), "what was running keeps running");

    // The build of the way back lies in the directory again, and is refused there by nobody: it is live.
    assert_eq!(swap(&gateway, "hello"), old);
    assert_eq!(wasm::digest(&copy(&old)), old);
    assert_eq!(gateway.command("plugin rollback hello").code, Some(0));
}

#[test]
fn a_rollback_that_cannot_be_done_says_why() {
    let origin = Upstream::text("ok");
    let gateway = greeting(&origin);
    let cannot = |name: &str, status: u16, reason: &str| {
        let answer = gateway.admin(&format!("POST /v1/plugins/{name}/rollback"));
        assert_eq!(answer.status, status, "{}", answer.text());
        assert!(answer.text().contains(reason), "{}", answer.text());
        let told = gateway.command(&format!("plugin rollback {name}"));
        assert_eq!(told.code, Some(1));
        assert!(told.stderr.contains(reason) && told.stderr.contains("hint: "), "{}", told.stderr);
    };
    cannot("nobody", 404, "there is no plugin or policy ");
    cannot("hello", 409, "no policy ran another build");
    let old = wasm::digest(&gateway.plugin_file("hello"));
    swap(&gateway, "noop");
    assert_eq!(gateway.admin("POST /v1/plugins/hello/rollback").status, 200);
    cannot("hello", 409, "is what the last rollback restored");
    assert!(gateway.is_live("hello", &old), "rolling back twice changes nothing");
    assert_eq!(gateway.command("plugin rollback").code, Some(2), "a name is needed");

    let config = gateway.config().display().to_string();
    assert!(gateway.command("plugin rollback nobody").stderr.contains("policy \"nobody\""));
    let empty = run(&["plugin", "rollback", "", "--config", &config]);
    assert!(empty.code == Some(1) && empty.stderr.contains("not a name (\"\")"), "{}", empty.text());
    let told = gateway.command("plugin rollback hello --json");
    assert_eq!((told.code, json(&told.stdout)["hint"].is_string()), (Some(1), true), "{}", told.text());
    assert!(told.stderr.contains("error: nothing to roll back to") && told.stderr.contains("hint: "), "{}", told.stderr);
}

/// The policy `hello`, which has a build to go back to, and a file with so many new policies, which take half a second each to be configured.
fn with_slow_policies(origin: &Upstream, count: usize) -> Gateway {
    let slow = fs::read(wasm::guest("configures")).unwrap();
    let gateway = Setup::before(origin).guest("hello", PATIENT).file("plugins/slow.wasm", slow).start();
    swap(&gateway, "noop");
    let config = "plugin = \"slow\"\ngrants = [\"kv\"]\nconfig = { rounds = 300_000_000 }";
    let policies: String = (0..count).map(|number| format!("\n[policy.slow{number}]\n{config}\n")).collect();
    gateway.rewrite(|text| text.to_owned() + &policies);
    gateway
}

/// A configuration with many policies, or large ones, takes as long as their compiler.
#[test]
fn a_rollback_does_not_wait_for_a_configuration_that_is_being_prepared() {
    let origin = Upstream::text("ok");
    let gateway = with_slow_policies(&origin, 6);
    std::thread::scope(|scope| {
        let reload = scope.spawn(|| gateway.admin("POST /v1/reload"));
        eventually(LONG, "policies are being prepared", || gateway.has_thread("weir-prepare"));
        assert_eq!(gateway.command("plugin rollback hello").code, Some(0));
        assert!(!reload.is_finished(), "the order was carried out before the configuration was live");
        assert!(greets(&gateway), "what was restored answers");
        let answer = reload.join().unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    });
    assert!(greets(&gateway), "the configuration came to the plugins as they were by then");
    let policies = gateway.plugin("slow")[0]["policies"].as_array().map(Vec::len);
    assert_eq!(policies, Some(6));
}

/// The plugins have changed while it was prepared, and so has the file, which is read again for that.
#[test]
fn all_who_wait_for_a_configuration_are_told_that_it_has_become_a_bad_one() {
    let origin = Upstream::text("ok");
    let gateway = with_slow_policies(&origin, 3);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| gateway.admin("POST /v1/reload"));
        eventually(LONG, "policies are being prepared", || gateway.has_thread("weir-prepare"));
        gateway.rewrite(|text| text.to_owned() + "\nnonsense = 1\n");
        let second = scope.spawn(|| gateway.admin("POST /v1/reload"));
        assert_eq!(gateway.admin("POST /v1/plugins/hello/rollback").status, 200);
        for told in [first, second] {
            let answer = told.join().unwrap();
            assert!(answer.status == 422 && answer.text().contains("nonsense"), "{}", answer.text());
        }
    });
    assert!(greets(&gateway), "what was running keeps running");
}

#[test]
fn a_policys_name_means_its_plugin() {
    let origin = Upstream::text("ok");
    let gateway = Setup::before(&origin).plugin("greeter", "hello", &wasm::guest("hello"), PATIENT).start();
    let old = wasm::digest(&gateway.plugin_file("hello"));
    swap(&gateway, "noop");
    let done = gateway.command("plugin rollback greeter");
    assert_eq!(done.code, Some(0), "{}", done.text());
    assert!(done.stdout.starts_with("hello: ") && gateway.is_live("hello", &old), "{}", done.stdout);
}

#[test]
fn the_old_file_put_back_is_a_way_back_too() {
    let origin = Upstream::text("ok");
    let gateway = greeting(&origin);
    let old = wasm::digest(&gateway.plugin_file("hello"));
    let new = swap(&gateway, "noop");
    assert_eq!(swap(&gateway, "hello"), old);
    assert_eq!((gateway.builds("hello", "previous"), greets(&gateway)), (vec![new.clone()], true));
    assert_eq!(swap(&gateway, "noop"), new, "and forth again: nobody held it back");
}

/// Sends requests that make the guest `trap` panic, until `done`.
fn traps_until(gateway: &Gateway, what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    let mut client = gateway.connect();
    while !done() {
        assert!(started.elapsed() < LONG, "not in time: {what}");
        for _ in 0..20 {
            if client.ask(&Request::get("/trap")).is_err() {
                client = gateway.connect();
            }
        }
    }
}

#[test]
fn a_build_that_fails_too_often_is_quarantined_and_the_one_before_restored() {
    let origin = Upstream::text("ok");
    let mut gateway = greeting(&origin);
    let old = wasm::digest(&gateway.plugin_file("hello"));
    let bad = swap(&gateway, "trap");
    assert_eq!(gateway.get("/").status, 200);
    traps_until(&gateway, "the old build is restored", || gateway.is_live("hello", &old));
    assert_eq!(gateway.builds("hello", "quarantined"), vec![bad.clone()]);
    assert_eq!((gateway.get("/trap").status, greets(&gateway)), (200, true));
    let reason = gateway.plugin("hello")[0]["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("quarantined: policy hello:") && reason.contains("calls within 30s"), "{reason}");
    assert_eq!(gateway.metric("weir_plugin_rollbacks_total{plugin=\"hello\",cause=\"quarantine\"}"), 1.0);
    assert_eq!(gateway.metric("weir_policy_quarantines_total{policy=\"hello\"}"), 1.0);

    gateway.restart();
    assert!(gateway.is_live("hello", &old), "a restart does not bring it back");
    assert_eq!(gateway.builds("hello", "quarantined"), [bad]);
    let fixed = put_bytes(&gateway, &wasm::changed(&wasm::guest("noop"), "fixed"));
    eventually(LONG, "another build is taken", || gateway.is_live("hello", &fixed));
}

/// Pain 3: a query of death replayed for ever costs a bounded number of instances.
#[test]
fn pain_3_a_query_of_death_causes_a_bounded_number_of_calls_when_there_is_nothing_to_restore() {
    let origin = Upstream::text("ok");
    let mut gateway = Setup::before(&origin).plugin("hello", "hello", &wasm::guest("trap"), "").start();
    let state = |gateway: &Gateway| gateway.plugin("hello")[0]["state"].clone();
    traps_until(&gateway, "it is in quarantine", || state(&gateway) == "quarantined");
    assert_eq!(gateway.metric("weir_policy_quarantined{policy=\"hello\"}"), 1.0);

    let made = |gateway: &Gateway| {
        let policy = policy(gateway);
        policy["calls"].as_u64().unwrap() - policy["quarantined"].as_u64().unwrap()
    };
    let (before, asked, started) = (made(&gateway), origin.count(), Instant::now());
    let load = Load::start(gateway.plain(), 2, &Request::get("/trap"));
    // Rests of 1, 2 and 4 s.
    eventually(LONG, "a while has passed", || started.elapsed() > Duration::from_secs(5) && load.done() > 200);
    let calls = made(&gateway) - before;
    drop(load.finish());
    assert!(calls <= 5 * 4, "{calls} calls were made");
    assert_eq!(origin.count(), asked, "its fail mode holds: nothing passes");
    let refused = gateway.get("/trap");
    assert_eq!((refused.status, gateway.log_of(&refused)["reason"].clone()), (503, "policy_quarantined".into()));

    gateway.restart();
    assert_eq!(state(&gateway), "quarantined", "a restart remembers");
    let load = Load::start(gateway.plain(), 1, &Request::get("/harmless"));
    eventually(LONG, "probes that work end it", || state(&gateway) == "live");
    drop(load.finish());
    assert_eq!((gateway.get("/").status, policy(&gateway)["health"].clone()), (200, "working".into()));
    gateway.restart();
    assert_eq!(state(&gateway), "live", "and that is remembered too");
}

#[test]
fn a_quarantined_policy_that_may_fail_open_lets_requests_pass() {
    let origin = Upstream::text("ok");
    let gateway = Setup::before(&origin).plugin("hello", "hello", &wasm::guest("trap"), "on_error = \"allow\"").start();
    traps_until(&gateway, "it is in quarantine", || gateway.plugin("hello")[0]["state"] == "quarantined");
    let (before, passed) = (policy(&gateway)["traps"].clone(), origin.count());
    let answer = gateway.get("/trap");
    assert_eq!((answer.status, origin.count()), (200, passed + 1));
    assert_eq!(gateway.log_of(&answer)["policies"][0]["verdict"], "error");
    assert_eq!(policy(&gateway)["traps"], before, "it was not called");
}

#[test]
fn a_few_failures_among_many_calls_are_no_reason_for_a_quarantine() {
    let origin = Upstream::text("ok");
    let gateway = Setup::before(&origin).plugin("hello", "hello", &wasm::guest("trap"), "").start();
    let mut client = gateway.connect();
    for number in 0..1_000 {
        let (target, expected) = if number % 40 == 39 { ("/trap", 503) } else { ("/", 200) };
        assert_eq!(client.ask(&Request::get(target)).unwrap().status, expected, "request {number}");
    }
    assert_eq!(gateway.plugin("hello")[0]["state"], "live");
    assert_eq!(policy(&gateway)["traps"], 25);
}

#[test]
fn a_refused_digest_is_not_tried_again() {
    let origin = Upstream::text("ok");
    let mut gateway = greeting(&origin);
    let good = wasm::digest(&gateway.plugin_file("hello"));
    let rejected = |gateway: &Gateway| gateway.metric("weir_plugin_loads_total{plugin=\"hello\",result=\"rejected\"}");
    put_bytes(&gateway, b"no WebAssembly");
    refused(&gateway, "not a WebAssembly file");
    assert_eq!(rejected(&gateway), 1.0);
    fs::remove_file(gateway.plugin_file("hello")).unwrap();
    eventually(LONG, "the removal is seen", || gateway.plugin("hello")[0]["state"] == "removed");
    put_bytes(&gateway, b"no WebAssembly at all");
    refused(&gateway, "not a WebAssembly file");
    assert_eq!(rejected(&gateway), 2.0);
    // Another inode, the same content.
    put_bytes(&gateway, b"no WebAssembly at all");
    let other = gateway.plugin_file("other");
    wasm::move_over(&fs::read(wasm::guest("noop")).unwrap(), &other);
    eventually(LONG, "the directory was looked at", || gateway.is_live("other", &wasm::digest(&other)));
    assert_eq!(rejected(&gateway), 2.0);

    // What was live goes on after a restart, and a check says what is wrong.
    gateway.restart();
    assert!(gateway.is_live("hello", &good) && greets(&gateway));
    refused(&gateway, "not a WebAssembly file");
    let checked = gateway.command("check");
    assert_eq!(checked.code, Some(1));
    assert!(checked.text().contains("hello.wasm was refused"), "{}", checked.text());
}

#[test]
fn a_file_that_was_refused_for_a_grant_is_taken_when_the_grant_is_there() {
    let origin = Upstream::text("ok");
    let mut gateway = Setup::before(&origin).guest("hello", "on_error = \"deny\"").start();
    let digest = put(&gateway, "kv");
    refused(&gateway, "grants = [\"kv\"]");
    gateway.restart();
    assert!(greets(&gateway), "what was live goes on after a restart");
    gateway.rewrite(|text| text.replace("on_error = \"deny\"", "grants = [\"kv\"]"));
    eventually(LONG, "the file is live", || gateway.is_live("hello", &digest));
    assert_eq!(gateway.get("/").header("x-count"), Some("1"));
}

#[test]
fn a_bad_file_that_came_while_nobody_looked_does_not_keep_the_gateway_from_starting() {
    let origin = Upstream::text("ok");
    let mut gateway = greeting(&origin);
    let good = wasm::digest(&gateway.plugin_file("hello"));
    for (content, reason) in [(fs::read(wasm::guest("kv")).unwrap(), "grants"), (b"garbage".to_vec(), "not a WebAssembly file")] {
        gateway.signal("STOP");
        put_bytes(&gateway, &content);
        gateway.restart();
        assert!(gateway.is_live("hello", &good) && greets(&gateway));
        refused(&gateway, reason);
    }
    fs::remove_file(gateway.plugin_file("hello")).unwrap();
    assert_eq!(gateway.command("check").code, Some(1), "without a file nothing stands in for it");
}

#[test]
fn a_file_can_be_removed_added_again_and_renamed() {
    let origin = Upstream::text("ok");
    let gateway = greeting(&origin);
    let (file, other) = (gateway.plugin_file("hello"), gateway.plugin_file("renamed"));
    let digest = wasm::digest(&file);
    fs::rename(&file, &other).unwrap();
    eventually(LONG, "the new name is there", || gateway.is_live("renamed", &digest));
    eventually(LONG, "the old one is removed", || gateway.plugin("hello")[0]["state"] == "removed");
    assert!(greets(&gateway), "a policy still uses it");
    assert!(gateway.plugin("hello")[0]["reason"].as_str().unwrap().contains("the file is gone"));
    assert!(gateway.command("plugins").stdout.contains("removed"));

    gateway.rewrite(|text| text.replace("plugin = \"hello\"", "plugin = \"renamed\""));
    eventually(LONG, "the policy follows, nothing is left", || gateway.plugin("hello").is_empty());
    assert!(greets(&gateway));
    fs::rename(&other, &file).unwrap();
    eventually(LONG, "it is back", || gateway.is_live("hello", &digest));
    eventually(LONG, "the other is removed", || gateway.plugin("renamed")[0]["state"] == "removed");
    assert!(greets(&gateway));
}

#[test]
fn two_files_whose_plugins_give_themselves_one_name_do_not_meet() {
    let origin = Upstream::text("ok");
    let grant = "grants = [\"kv\"]";
    let setup = Setup::before(&origin).plugin("one", "one", &wasm::guest("kv"), grant);
    let gateway = setup.plugin("two", "two", &wasm::guest("kv"), grant).start();
    fs::copy(wasm::guest("kv"), gateway.plugin_file("one@new")).unwrap();
    eventually(LONG, "a third is there", || gateway.plugin("one@new").iter().any(|plugin| plugin["state"] == "live"));
    let names: Vec<Value> = ["one", "two", "one@new"].map(|name| gateway.plugin(name)[0]["calls_itself"].clone()).into();
    assert!(names.iter().all(|name| *name == names[0]), "{names:?}");
    // Each counts for itself: the policy that comes first in the chain has the last word in the response.
    for expected in ["1", "2"] {
        assert_eq!(gateway.get("/").header("x-count"), Some(expected));
    }
    let new = {
        wasm::move_over(&wasm::changed(&wasm::guest("kv"), "new"), &gateway.plugin_file("two"));
        wasm::digest(&gateway.plugin_file("two"))
    };
    eventually(LONG, "one of them is replaced", || gateway.is_live("two", &new));
    assert_eq!(gateway.admin("POST /v1/plugins/one/rollback").status, 409, "the other was not");
    assert_eq!(gateway.command("plugin rollback two").code, Some(0));
    let answer = gateway.command("plugin rollback one@new");
    assert!(answer.stderr.contains("no policy ran another build"), "{}", answer.text());
}

/// Pain 6: what a swap replaces is freed, and the count of generations says so. Pain 22: no request fails while builds are made and
/// replaced.
/// Pain 6: downloads and tunnels last for hours, and each keeps the build that it began with. The engine has room for a thousand instances.
#[test]
fn pain_6_exchanges_that_last_keep_their_builds_but_no_idle_instances() {
    const HELD: usize = 10;
    let gate = Gate::default();
    let behind = gate.clone();
    let origin = Upstream::scripted(move |received| match received.target() {
        "/held" => Reply::Behind(behind.clone(), Box::new(Reply::text("ok"))),
        _ => Reply::text("ok"),
    });
    let gateway = greeting(&origin);
    let held: Vec<_> = (0..HELD)
        .map(|number| {
            let mut client = gateway.connect();
            client.send(Request::get("/held").bytes()).unwrap();
            eventually(LONG, "the request reaches the origin", || origin.count() == number + 1);
            let digest = put_bytes(&gateway, &wasm::changed(&wasm::guest("hello"), &format!("held {number}")));
            eventually(LONG, "the next build is live", || gateway.is_live("hello", &digest));
            client
        })
        .collect();
    assert_eq!(gateway.metric("weir_policy_generations{policy=\"hello\"}"), HELD as f64 + 1.0, "all are alive");
    eventually(LONG, "only the live one has instances", || (1.0..=4.0).contains(&gateway.metric("weir_policy_instances")));
    assert!(greets(&gateway), "and serves");
    gate.open();
    for mut client in held {
        assert_eq!(client.answer().unwrap().header("x-hello"), Some("weir"), "an instance was had for its response");
    }
    eventually(LONG, "one is alive", || gateway.metric("weir_policy_generations{policy=\"hello\"}") == 1.0);
}

#[test]
fn pain_6_and_22_after_many_swaps_one_generation_is_alive_and_no_request_has_failed() {
    let origin = Upstream::text("ok");
    let gateway = greeting(&origin);
    let load = Load::start(gateway.plain(), 2, &Request::get("/"));
    for number in 0..20 {
        let digest = put_bytes(&gateway, &wasm::changed(&wasm::guest("hello"), &format!("swap {number}")));
        eventually(LONG, "it is live", || gateway.is_live("hello", &digest));
    }
    let report = load.finish();
    assert!(report.failures.is_empty(), "{:?}", report.failures.first());
    eventually(LONG, "one is alive", || gateway.metric("weir_policy_generations{policy=\"hello\"}") == 1.0);
    eventually(LONG, "and nothing drains", || gateway.builds("hello", "draining").is_empty());
    let kept = fs::read_dir(gateway.directory().path().join("state/plugins")).unwrap().flatten();
    let kept = kept.filter(|entry| entry.path().extension().is_some_and(|ending| ending == "wasm")).count();
    assert_eq!(kept, 2, "the live build and the one before it");
}

#[test]
fn a_plugin_built_for_another_contract_is_refused_with_the_remedy() {
    let origin = Upstream::text("ok");
    let gateway = greeting(&origin);
    let mut bytes = fs::read(wasm::guest("noop")).unwrap();
    // Versions in the names of imports and exports; the length stays.
    let (old, new) = (b"@0.1.", b"@0.7.");
    let places: Vec<usize> = bytes.windows(old.len()).enumerate().filter(|(_, window)| window == old).map(|(at, _)| at).collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at..at + new.len()].copy_from_slice(new);
    }
    put_bytes(&gateway, &bytes);
    let reason = gateway.rejection("hello");
    assert!(
        reason.contains("built for weir:policy 0.7") && reason.contains("upgrade weir or rebuild with weir-sdk 0.1"),
        "{reason}"
    );
    assert!(greets(&gateway));
}

#[test]
fn plugins_are_compiled_in_a_process_of_their_own() {
    let origin = Upstream::text("ok");
    let gateway = greeting(&origin);
    swap(&gateway, "trap");
    assert_eq!(gateway.metric("weir_plugin_compiled_here_total"), 0.0);
    let children = format!("/proc/{0}/task/{0}/children", gateway.id());
    assert_eq!(fs::read_to_string(children).unwrap_or_default().trim(), "", "none is left");
    put_bytes(&gateway, &[b"\0asm\x0d\0\x01\0".as_slice(), &[1, 4], b"junk"].concat());
    refused(&gateway, "does not compile");
    assert!(gateway.stderr().lines().all(|line| !line.contains("compiled in this process")), "{}", gateway.stderr());
}

/// Pain 24: whatever a generation is made from, a change of it makes a new one; and nothing else does.
#[test]
fn pain_24_a_change_of_config_limits_mode_or_file_makes_a_new_generation_and_a_reload_does_not() {
    let origin = Upstream::text("ok");
    let gateway = Setup::before(&origin).guest("hello", "on_error = \"deny\"").start();
    let calls = |gateway: &Gateway| policy(gateway)["calls"].as_u64().unwrap();
    let reload = |gateway: &Gateway| assert_eq!(gateway.command("reload --wait").code, Some(0));
    let changes = [
        ("on_error = \"deny\"", "on_error = \"allow\""),
        ("on_error = \"allow\"", "limits = { cpu = \"20ms\" }"),
        ("cpu = \"20ms\"", "memory = \"32MiB\""),
        ("limits = { memory = \"32MiB\" }", "mode = \"observe\""),
    ];
    for (old, new) in changes {
        assert_eq!(gateway.get("/").status, 200);
        let before = calls(&gateway);
        assert!(before > 0);
        reload(&gateway);
        assert_eq!(calls(&gateway), before, "a reload of the same is no change");
        gateway.rewrite(|text| text.replace(old, new));
        reload(&gateway);
        eventually(LONG, &format!("{new} makes a new one"), || calls(&gateway) == 0);
    }
    assert_eq!(gateway.get("/").header("x-hello"), None, "it only observes");
    let digest = put_bytes(&gateway, &wasm::changed(&wasm::guest("hello"), "other"));
    eventually(LONG, "the file too", || gateway.is_live("hello", &digest) && calls(&gateway) == 0);
}

#[test]
fn what_is_held_back_stays_so_through_an_upgrade() {
    let origin = Upstream::text("ok");
    let gateway = Setup::before(&origin).guest("hello", "").own_binary().start();
    let old = wasm::digest(&gateway.plugin_file("hello"));
    let bad = swap(&gateway, "noop");
    assert_eq!(gateway.admin("POST /v1/plugins/hello/rollback").status, 200);
    gateway.upgrade_ok();
    assert!(gateway.is_live("hello", &old) && greets(&gateway));
    assert_eq!(gateway.builds("hello", "rolled_back"), vec![bad]);
    let newest = put_bytes(&gateway, &wasm::changed(&wasm::guest("noop"), "fixed"));
    eventually(LONG, "the new process takes files", || gateway.is_live("hello", &newest));
    assert_eq!(gateway.builds("hello", "previous"), vec![old]);
}
