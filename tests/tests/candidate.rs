//! Another version of a policy on trial: beside the stable one, in its place, promoted, given up.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::Value;
use weir_tests::setup::run;
use weir_tests::{Answer, Gateway, LONG, Reply, Request, Setup, Upstream, eventually, wasm};

/// The guest `trial` as the policy `trial`, and the same file once more as its candidate with other settings.
fn setup(origin: &Upstream, stable: &str, candidate: &str) -> Setup {
    let lines = format!("config = {{ version = \"old\", {stable} }}\ncandidate = {{ plugin = \"trial@new\", {candidate} }}");
    Setup::before(origin).guest("trial", &lines).file("plugins/trial@new.wasm", fs::read(wasm::guest("trial")).unwrap())
}

/// Starts it and waits until its candidate is tried or refused: on a busy machine that may come after the start.
fn start(setup: Setup) -> Gateway {
    let gateway = setup.start();
    eventually(LONG, "its candidate is ready", || candidate(&gateway)["state"] != "preparing");
    gateway
}

/// What `GET /v1/plugins` says of the candidate of the policy `trial`.
fn candidate(gateway: &Gateway) -> Value {
    gateway.plugin("trial").first().map(|plugin| plugin["policies"][0]["candidate"].clone()).unwrap_or_default()
}

/// The log's entries of the candidate.
fn tried(gateway: &Gateway, answer: &Answer) -> Vec<Value> {
    let line = gateway.log_of(answer);
    let entries = line["policies"].as_array().cloned().unwrap_or_default();
    entries.into_iter().filter(|entry| entry["candidate"] == true).collect()
}

fn count(gateway: &Gateway, mode: &str, result: &str) -> f64 {
    gateway.metric(&format!("weir_policy_candidate_calls_total{{policy=\"trial\",mode=\"{mode}\",result=\"{result}\"}}"))
}

fn command(gateway: &Gateway, words: &[&str]) -> weir_tests::Checked {
    let config = gateway.config().display().to_string();
    run(&[words, &["--config", &config]].concat())
}

#[test]
fn a_shadow_is_asked_beside_the_policy_and_changes_nothing() {
    let origin = Upstream::text("ok");
    let gateway = start(setup(&origin, "", "mode = \"shadow\", config = { version = \"new\", deny = [\"/x\"], status = 451 }"));
    let answer = gateway.get("/x");
    assert_eq!((answer.status, answer.header("x-version"), answer.text().as_str()), (200, Some("old"), "ok"));
    let seen = origin.requests().remove(0);
    assert_eq!(
        (seen.header("x-version"), seen.header("x-seen")),
        (Some("old"), Some("none")),
        "the stable version's edits alone"
    );

    let entries = tried(&gateway, &answer);
    let request = entries.iter().find(|entry| entry["phase"] == "request").expect("an entry of the request phase");
    assert_eq!(
        (&request["mode"], &request["verdict"], &request["differs"]),
        (&"shadow".into(), &"deny".into(), &"verdict".into())
    );
    assert_eq!((&request["rule"], &request["reason"]), (&"listed".into(), &"path_is_listed".into()));
    let line = gateway.log_of(&answer);
    assert_eq!((&line["decided_by"], &line["status"]), (&"upstream".into(), &200.into()));
    assert_eq!(line["findings"].as_array().map(Vec::len), Some(0));
    assert!(!line.to_string().contains("\"new\""), "the tag of the shadow is nobody's: {line}");

    let summary = candidate(&gateway);
    assert_eq!(
        (&summary["state"], &summary["mode"], &summary["plugin"]),
        (&"running".into(), &"shadow".into(), &"trial@new".into())
    );
    assert_eq!(summary["last"][0]["request_id"].as_str().map(str::len), Some(32));
    let ids: Vec<&str> = summary["last"].as_array().unwrap().iter().filter_map(|one| one["request_id"].as_str()).collect();
    assert!(ids.contains(&answer.request_id().as_str()), "{summary}");
    assert!(count(&gateway, "shadow", "differed") >= 1.0);
    let decided = "weir_policy_decisions_total{policy=\"trial\",phase=\"request\",verdict=\"deny\",mode=\"enforce\"}";
    assert_eq!(gateway.metric(decided), 0.0, "a shadow decides nothing");
}

#[test]
fn a_shadow_that_is_of_the_same_mind_is_counted_and_marked_by_nothing() {
    let origin = Upstream::text("ok");
    let gateway = start(setup(&origin, "deny = [\"/x\"]", "mode = \"shadow\""));
    for (path, status) in [("/", 200), ("/x", 403)] {
        let answer = gateway.get(path);
        assert_eq!(answer.status, status);
        let entries = tried(&gateway, &answer);
        assert!(!entries.is_empty() && entries.iter().all(|entry| entry["differs"].is_null()), "{path}: {entries:?}");
    }
    let summary = candidate(&gateway);
    assert_eq!((summary["differed"].as_u64(), summary["failed"].as_u64()), (Some(0), Some(0)), "{summary}");
    assert!(summary["agreed"].as_u64() >= Some(3), "{summary}");
}

#[test]
fn a_shadow_differs_by_edits_tags_status_and_bodies_too() {
    let origin = Upstream::text("body");
    let settings = "version = \"old\", deny = [\"/status\"], status = 418, upper = true";
    let gateway = start(setup(&origin, "deny = [\"/status\"]", &format!("mode = \"shadow\", config = {{ {settings} }}")));
    let answer = gateway.get("/status");
    assert_eq!(answer.status, 403);
    assert_eq!(tried(&gateway, &answer)[0]["differs"], "status");

    let answer = gateway.get("/body");
    assert_eq!((answer.text().as_str(), answer.header("content-length")), ("body", Some("4")), "a body as without a shadow");
    let entries = tried(&gateway, &answer);
    assert!(entries.iter().any(|entry| entry["phase"] == "response-body" && entry["differs"] == "body"), "{entries:?}");

    gateway.rewrite(|text| text.replace(settings, "version = \"new\", deny = [\"/status\"]"));
    eventually(LONG, "the other settings are on trial", || candidate(&gateway)["calls"] == 0);
    let answer = gateway.get("/");
    let entries = tried(&gateway, &answer);
    assert_eq!(entries[0]["differs"], "edits", "{entries:?}");
    assert_eq!(answer.header("x-version"), Some("old"));
}

#[test]
fn a_shadow_that_traps_or_never_ends_harms_no_request_and_is_suspended() {
    let origin = Upstream::text("ok");
    let settings = "version = \"old\", panic = [\"/panic\"], spin = [\"/spin\"]";
    let gateway = start(setup(&origin, "", &format!("mode = \"shadow\", config = {{ {settings} }}")));
    // A machine that is busy ends a loop by the wall before it has had its time on the processor.
    for (path, reasons) in [("/panic", ["policy_trapped"; 2]), ("/spin", ["policy_cpu_exceeded", "policy_timed_out"])] {
        let answer = gateway.get(path);
        assert_eq!((answer.status, answer.header("x-version")), (200, Some("old")), "{path}");
        let entries = tried(&gateway, &answer);
        assert_eq!(entries.len(), 1, "after a failure the exchange has done with it: {entries:?}");
        assert_eq!(entries[0]["differs"], "failed", "{path}");
        assert!(reasons.iter().any(|reason| entries[0]["reason"] == *reason), "{path}: {entries:?}");
    }
    assert_eq!(count(&gateway, "shadow", "failed"), 2.0);
    let mut client = gateway.connect();
    for _ in 0..100 {
        assert_eq!(client.ask(&Request::get("/panic")).unwrap().status, 200);
    }
    let summary = candidate(&gateway);
    assert_eq!(summary["state"], "suspended", "its time is its requests' time: {summary}");
    assert!(summary["last"].as_array().unwrap().len() <= 16, "bounded");
    let answer = gateway.get("/panic");
    assert!(tried(&gateway, &answer).is_empty(), "it is asked no more");
}

#[test]
fn a_shadow_has_state_of_its_own() {
    let origin = Upstream::text("ok");
    let grants = "grants = [\"kv\"]\ncandidate = { plugin = \"kv@new\", mode = \"shadow\" }";
    let guest = fs::read(wasm::guest("kv")).unwrap();
    let gateway = Setup::before(&origin).guest("kv", grants).file("plugins/kv@new.wasm", guest).start();
    let state = || gateway.plugin("kv")[0]["policies"][0]["candidate"]["state"].clone();
    eventually(LONG, "its candidate is tried", || state() == "running");
    for number in 1..=5 {
        let answer = gateway.get("/");
        assert_eq!(answer.header("x-count"), Some(number.to_string().as_str()), "the store of the policy is its own");
        let entries = tried(&gateway, &answer);
        assert!(entries.len() == 2 && entries.iter().all(|entry| entry["differs"].is_null()), "both count alike: {entries:?}");
    }
}

#[test]
fn a_share_of_requests_is_shadowed() {
    let origin = Upstream::text("ok");
    let gateway = start(setup(&origin, "", "mode = \"shadow\", share = 0.5"));
    let mut client = gateway.connect();
    let answers: Vec<Answer> = (0..60).map(|_| client.ask(&Request::get("/")).unwrap()).collect();
    let counts: Vec<usize> = answers.iter().map(|answer| tried(&gateway, answer).len()).collect();
    assert!(counts.iter().all(|count| [0, 3].contains(count)), "an exchange is shadowed in all phases or in none: {counts:?}");
    let shadowed = counts.iter().filter(|count| **count > 0).count();
    // 60 requests at one half: outside of this range once in 10^9 runs.
    assert!((7..=53).contains(&shadowed), "{shadowed} of 60");
}

#[test]
fn a_canary_decides_for_the_same_clients_every_time_and_in_all_phases() {
    let origin = Upstream::text("ok");
    let settings = "mode = \"canary\", share = 0.5, config = { version = \"new\", deny = [\"/x\"] }";
    let gateway = start(setup(&origin, "", settings).behind_proxy());
    let clients: Vec<String> = (1..=60).map(|last| format!("198.51.100.{last}")).collect();
    let mut on_new = Vec::new();
    let mut client = gateway.connect();
    for address in &clients {
        let versions: Vec<String> = (0..3)
            .map(|_| {
                let answer = client.ask(&Request::get("/").from(address)).unwrap();
                let seen = origin.requests().pop().unwrap().header("x-version").unwrap_or_default().to_owned();
                assert_eq!(answer.header("x-version"), Some(seen.as_str()), "request and response phase on one version");
                seen
            })
            .collect();
        assert!(versions.iter().all(|version| *version == versions[0]), "{address}: {versions:?}");
        let is_new = versions[0] == "new";
        let status = client.ask(&Request::get("/x").from(address)).unwrap().status;
        assert_eq!(status, if is_new { 403 } else { 200 }, "{address}");
        on_new.push(is_new);
    }
    let share = on_new.iter().filter(|new| **new).count();
    assert!((20..=40).contains(&share), "the addresses are fixed, so is this: {share}");

    let index = on_new.iter().position(|new| *new).unwrap();
    let answer = gateway.ask(&Request::get("/x").from(&clients[index]));
    let entries = tried(&gateway, &answer);
    assert_eq!((&entries[0]["mode"], &entries[0]["verdict"]), (&"enforce".into(), &"deny".into()), "{entries:?}");
    let line = gateway.log_of(&answer);
    assert_eq!((&line["decided_by"], &line["rule"]), (&"trial".into(), &"listed".into()));
    assert_eq!(line["policies"].as_array().map(|all| all.iter().filter(|one| one["phase"] == "request").count()), Some(1));
}

#[test]
fn a_canary_that_traps_is_followed_by_the_stable_version() {
    let origin = Upstream::text("ok");
    let settings = "mode = \"canary\", share = 1.0, config = { version = \"new\", panic = [\"/panic\"] }";
    let gateway = start(setup(&origin, "", settings));
    assert_eq!(gateway.get("/").header("x-version"), Some("new"));
    let answer = gateway.get("/panic");
    assert_eq!((answer.status, answer.header("x-version")), (200, Some("old")));
    let seen = origin.requests().pop().unwrap();
    assert_eq!((seen.header("x-version"), seen.header("x-seen")), (Some("old"), Some("none")), "what it had edited is undone");
    let entries = tried(&gateway, &answer);
    assert_eq!((entries.len(), &entries[0]["reason"]), (1, &"policy_trapped".into()), "{entries:?}");
    assert_eq!(count(&gateway, "canary", "failed"), 1.0);
}

/// What a canary does to a body is on its own account: the stable version is not put into quarantine for it.
#[test]
fn a_canary_that_traps_on_bodies_answers_for_it_itself() {
    let origin = Upstream::text("a body");
    let settings = "mode = \"canary\", share = 1.0, config = { version = \"new\", panic_on_body = true }";
    let allow = "plugin = \"trial\"\non_error = \"allow\"\nquarantine = { calls = 10 }\n";
    let gateway = start(setup(&origin, "", settings).replace("plugin = \"trial\"\n", allow));
    let answer = gateway.get("/body");
    assert_eq!((answer.status, answer.text().as_str()), (200, "a body"));
    let entries = tried(&gateway, &answer);
    let entry = entries.iter().find(|entry| entry["phase"] == "response-body").unwrap_or_else(|| panic!("{entries:?}"));
    assert_eq!((&entry["verdict"], &entry["reason"]), (&"error".into(), &"policy_trapped".into()), "{entries:?}");
    assert!(count(&gateway, "canary", "failed") >= 1.0);
    for _ in 0..40 {
        assert_eq!(gateway.get("/body").text(), "a body");
    }
    let policy = gateway.plugin("trial")[0]["policies"][0].clone();
    assert_eq!((&policy["traps"], &policy["health"]), (&0.into(), &"working".into()), "{policy}");
}

#[test]
fn a_canary_decides_about_connections_too() {
    let origin = Upstream::text("ok");
    let canary =
        |more: &str| format!("mode = \"canary\", share = 1.0, config = {{ version = \"new\", connection = \"{more}\" }}");
    let stable = "connection = \"pass\"";
    let of_connection = |line: &Value| -> Vec<Value> {
        let entries = line["policies"].as_array().cloned().unwrap_or_default();
        entries.into_iter().filter(|entry| entry["phase"] == "connection").collect()
    };
    let findings = |line: &Value| line["findings"].as_array().cloned().unwrap_or_default();

    let gateway = start(setup(&origin, stable, &canary("deny")));
    let answer = gateway.get("/");
    let line = gateway.log_of(&answer);
    assert_eq!((answer.status, &line["decided_by"], &line["rule"]), (403, &"trial".into(), &"address".into()), "{line}");
    let entries = of_connection(&line);
    assert_eq!((entries.len(), &entries[0]["candidate"], &entries[0]["verdict"]), (1, &true.into(), &"deny".into()), "{line}");
    assert_eq!((findings(&line).len(), &line["findings"][0]["evidence"]), (1, &"new".into()), "{line}");

    let gateway = start(setup(&origin, stable, &canary("panic")));
    let answer = gateway.get("/");
    let line = gateway.log_of(&answer);
    assert_eq!(answer.status, 200, "the stable version lets it pass: {line}");
    let verdicts: Vec<Value> = of_connection(&line).iter().map(|entry| entry["verdict"].clone()).collect();
    assert_eq!(verdicts, ["error", "next"], "{line}");
    assert_eq!((findings(&line).len(), &line["findings"][0]["evidence"]), (1, &"old".into()), "what failed is undone: {line}");

    let gateway = start(setup(&origin, stable, &canary("deny").replace("1.0", "0.0")));
    assert_eq!(gateway.get("/").status, 200, "nobody is on the canary");

    let shadow = "mode = \"shadow\", config = { version = \"new\", connection = \"deny\" }";
    let gateway = start(setup(&origin, stable, shadow));
    let answer = gateway.get("/");
    let line = gateway.log_of(&answer);
    let entries = of_connection(&line);
    assert_eq!((answer.status, entries.len(), &entries[1]["differs"]), (200, 2, &"verdict".into()), "{line}");
    assert_eq!((findings(&line).len(), &line["findings"][0]["evidence"]), (1, &"old".into()), "a shadow's are nobody's: {line}");
}

/// What a candidate asks of upstreams is real, in its last phase too.
#[test]
fn what_a_candidate_asks_when_an_exchange_has_ended_is_on_record() {
    let (origin, directory) = (Upstream::text("ok"), Upstream::text("noted"));
    for mode in ["mode = \"shadow\"", "mode = \"canary\", share = 1.0"] {
        let lines = format!(
            "grants = [\"http-out\"]\nhttp_out = {{ upstreams = [\"directory\"] }}\nlimits = {{ wall = \"20s\" }}\n\
             candidate = {{ plugin = \"call-out@new\", {mode}, config = {{ ends = true }} }}"
        );
        let gateway = Setup::before(&origin)
            .guest("call-out", &lines)
            .file("plugins/call-out@new.wasm", fs::read(wasm::guest("call-out")).unwrap())
            .section(&format!("[upstream.directory]\nservers = [{{ url = \"{}\" }}]", directory.url()))
            .start();
        let state = || gateway.plugin("call-out")[0]["policies"][0]["candidate"]["state"].clone();
        eventually(LONG, "its candidate is tried", || state() == "running");
        let line = gateway.log_of(&gateway.get("/"));
        let calls = line["calls"].as_array().cloned().unwrap_or_default();
        assert_eq!(calls.len(), 1, "{mode}: {line}");
        assert_eq!((&calls[0]["upstream"], &calls[0]["status"]), (&"directory".into(), &200.into()), "{mode}: {line}");
        assert_eq!(directory.last().target(), "/ended/200");
    }
}

#[test]
fn a_policy_that_observes_stays_so_with_a_canary() {
    let origin = Upstream::text("ok");
    let settings = "mode = \"canary\", share = 1.0, config = { version = \"new\", deny = [\"/x\"] }";
    let gateway =
        setup(&origin, "", settings).replace("plugin = \"trial\"\n", "plugin = \"trial\"\nmode = \"observe\"\n").start();
    let answer = gateway.get("/x");
    assert_eq!((answer.status, answer.header("x-version")), (200, None));
    let entries = tried(&gateway, &answer);
    assert_eq!((&entries[0]["mode"], &entries[0]["verdict"]), (&"observe".into(), &"deny".into()), "{entries:?}");
}

#[test]
fn a_candidate_comes_and_goes_with_its_file_and_is_promoted_by_a_rename() {
    let origin = Upstream::text("ok");
    let setup = setup(&origin, "", "mode = \"shadow\"");
    fs::remove_file(setup.directory.path().join("plugins/trial@new.wasm")).unwrap();
    let checked = setup.check();
    assert_eq!(checked.code, Some(0), "a missing candidate is no mistake: {}", checked.text());
    assert!(checked.stderr.contains("warning: ") && checked.stderr.contains("trial@new.wasm"), "{}", checked.text());
    let gateway = setup.start();
    assert_eq!((gateway.get("/").status, &candidate(&gateway)["state"]), (200, &"missing".into()));

    let file = gateway.plugin_file("trial@new");
    wasm::move_over(b"this is no WebAssembly at all", &file);
    eventually(LONG, "it is refused", || candidate(&gateway)["state"] == "refused");
    assert!(candidate(&gateway)["reason"].as_str().unwrap().contains("not a WebAssembly file"));
    assert_eq!(gateway.get("/").status, 200, "the policy runs without it");

    wasm::move_over(&wasm::changed(&wasm::guest("trial"), "new"), &file);
    eventually(LONG, "it is tried", || candidate(&gateway)["state"] == "running");
    let digest = wasm::digest(&file);
    assert_eq!(candidate(&gateway)["digest"], digest.as_str());
    assert!(!tried(&gateway, &gateway.get("/")).is_empty());

    fs::rename(&file, gateway.plugin_file("trial")).unwrap();
    eventually(LONG, "it is the plugin", || gateway.is_live("trial", &digest) && candidate(&gateway)["state"] == "missing");
    assert_eq!(gateway.get("/").status, 200);

    fs::copy(wasm::guest("trial"), &file).unwrap();
    eventually(LONG, "another one is tried", || candidate(&gateway)["state"] == "running");
    fs::remove_file(&file).unwrap();
    eventually(LONG, "it is given up", || candidate(&gateway)["state"] == "missing");
    assert!(gateway.is_live("trial", &digest), "the stable version goes on");
    assert!(tried(&gateway, &gateway.get("/")).is_empty());
}

#[test]
fn a_candidate_that_the_policy_cannot_use_is_told_and_nothing_else() {
    let origin = Upstream::text("ok");
    let setup = setup(&origin, "", "mode = \"shadow\", config = { version = \"unfit\" }");
    let checked = setup.check();
    assert_eq!(checked.code, Some(0), "{}", checked.text());
    assert!(checked.stderr.contains("unfit for anything"), "{}", checked.text());
    let gateway = start(setup);
    let summary = candidate(&gateway);
    assert_eq!((gateway.get("/").status, &summary["state"]), (200, &"refused".into()));
    assert!(summary["reason"].as_str().unwrap().contains("unfit for anything"), "{summary}");
    assert!(gateway.stderr().contains("the candidate is not tried"), "{}", gateway.stderr());
}

#[test]
fn a_command_promotes_a_candidate_and_the_directory_says_so() {
    let origin = Upstream::text("ok");
    let gateway = start(setup(&origin, "", "mode = \"canary\", share = 1.0, config = { version = \"new\" }"));
    let (file, stable) = (gateway.plugin_file("trial@new"), gateway.plugin_file("trial"));
    wasm::move_over(&wasm::changed(&wasm::guest("trial"), "new"), &file);
    let digest = wasm::digest(&file);
    eventually(LONG, "it is tried", || candidate(&gateway)["digest"] == digest.as_str());

    let refused = command(&gateway, &["plugin", "promote", "nobody"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("no policy or plugin \"nobody\" has a candidate"), "{}", refused.text());

    let promoted = command(&gateway, &["plugin", "promote", "trial"]);
    assert_eq!(promoted.code, Some(0), "{}", promoted.text());
    assert!(promoted.stderr.contains("settings of its own"), "{}", promoted.text());
    assert!(!file.exists() && wasm::digest(&stable) == digest, "what lies there is what runs");
    assert!(gateway.is_live("trial", &digest));
    assert_eq!(candidate(&gateway)["state"], "missing");
    assert_eq!(gateway.get("/").header("x-version"), Some("old"), "with the policy's own settings");
    let again = command(&gateway, &["plugin", "promote", "trial"]);
    assert_eq!(again.code, Some(1));
    assert!(again.stderr.contains("trial@new.wasm is not there"), "{}", again.text());
    let checked = command(&gateway, &["check"]);
    assert_eq!(checked.code, Some(0), "{}", checked.text());
}

#[test]
fn a_command_gives_a_candidate_up_and_keeps_its_file_aside() {
    let origin = Upstream::text("ok");
    let gateway = start(setup(&origin, "", "mode = \"canary\", share = 1.0, config = { version = \"new\" }"));
    assert_eq!(gateway.get("/").header("x-version"), Some("new"));
    let abandoned = command(&gateway, &["plugin", "abandon", "trial@new", "--json"]);
    assert_eq!(abandoned.code, Some(0), "{}", abandoned.text());
    let answer: Value = serde_json::from_str(&abandoned.stdout).unwrap();
    assert_eq!((&answer["plugin"], &answer["candidate"]), (&"trial".into(), &"trial@new".into()));
    assert_eq!(gateway.get("/").header("x-version"), Some("old"), "from the next request on");
    let file = gateway.plugin_file("trial@new");
    assert!(!file.exists() && file.with_extension("wasm.abandoned").exists());
    assert_eq!(candidate(&gateway)["state"], "missing");
}

/// Takes and gives back the right to write to a directory.
struct ReadOnly(PathBuf);

impl ReadOnly {
    fn make(directory: PathBuf) -> Self {
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o555)).unwrap();
        Self(directory)
    }

    /// Root may write everywhere.
    fn is_effective(&self) -> bool {
        fs::write(self.0.join(".probe"), "").is_err()
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        drop(fs::set_permissions(&self.0, fs::Permissions::from_mode(0o755)));
    }
}

#[test]
fn in_a_directory_that_cannot_be_written_promotion_is_refused_and_abandonment_works() {
    let origin = Upstream::text("ok");
    let gateway = start(setup(&origin, "", "mode = \"canary\", share = 1.0, config = { version = \"new\" }"));
    let directory = ReadOnly::make(gateway.directory().path().join("plugins"));
    // Root writes to read-only directories: a directory in the way of the rename stands for it.
    if !directory.is_effective() {
        fs::create_dir_all(gateway.directory().path().join("plugins/trial@new.wasm.abandoned/x")).unwrap();
        fs::remove_file(gateway.plugin_file("trial")).unwrap();
        fs::create_dir_all(gateway.plugin_file("trial").join("x")).unwrap();
    }
    let promoted = command(&gateway, &["plugin", "promote", "trial"]);
    assert_eq!(promoted.code, Some(1), "{}", promoted.text());
    assert!(promoted.stderr.contains("cannot rename"), "{}", promoted.text());
    assert_eq!(gateway.get("/").header("x-version"), Some("new"), "nothing changed");

    let abandoned = command(&gateway, &["plugin", "abandon", "trial"]);
    assert_eq!(abandoned.code, Some(0), "{}", abandoned.text());
    assert!(abandoned.stderr.contains("tried again after a restart"), "{}", abandoned.text());
    assert_eq!((gateway.get("/").header("x-version"), &candidate(&gateway)["state"]), (Some("old"), &"abandoned".into()));
}

#[test]
fn a_candidate_that_takes_long_to_be_configured_holds_up_nothing() {
    let origin = Upstream::text("ok");
    let settings = "mode = \"canary\", share = 1.0, config = { version = \"new\", slow = 12_000 }";
    let gateway = setup(&origin, "", settings).guest("trap", "quarantine = { calls = 10 }").start();
    let is_preparing = || candidate(&gateway)["state"] == "preparing";
    assert!(is_preparing(), "the start does not wait for it: {}", candidate(&gateway));
    assert_eq!(gateway.get("/").header("x-version"), Some("old"), "the policy runs without it");
    assert!(gateway.command("plugins").stdout.contains("trial@new (canary) preparing"));

    let reloaded = gateway.command("reload");
    assert_eq!(reloaded.code, Some(0), "{}", reloaded.text());
    let file = gateway.plugin_file("trap");
    wasm::move_over(&wasm::changed(&wasm::guest("trap"), "other"), &file);
    let digest = wasm::digest(&file);
    eventually(LONG, "another plugin is swapped", || gateway.is_live("trap", &digest));
    let restored = gateway.command("plugin rollback trap");
    assert_eq!(restored.code, Some(0), "{}", restored.text());
    eventually(LONG, "another policy is quarantined", || {
        let _ = gateway.get("/trap");
        gateway.plugin("trap")[0]["policies"][0]["health"] != "working"
    });
    assert!(is_preparing(), "all of that while it was being configured: {}", candidate(&gateway));
    eventually(LONG, "it is tried at last", || candidate(&gateway)["state"] == "running");
}

#[test]
fn other_terms_for_a_candidate_take_effect_at_once_and_other_settings_when_it_has_them() {
    let origin = Upstream::text("ok");
    let settings = "mode = \"canary\", share = 1.0, config = { version = \"new\", slow = 3_000 }";
    let gateway = start(setup(&origin, "", settings));
    let before = candidate(&gateway);
    assert_eq!((&before["state"], gateway.get("/").header("x-version")), (&"running".into(), Some("new")));

    gateway.rewrite(|text| text.replace("share = 1.0", "share = 0.0"));
    let reloaded = gateway.command("reload");
    assert_eq!(reloaded.code, Some(0), "{}", reloaded.text());
    let after = candidate(&gateway);
    assert_eq!((&after["state"], &after["share"], &after["since"]), (&"running".into(), &0.0.into(), &before["since"]));
    assert_eq!(gateway.get("/").header("x-version"), Some("old"));

    gateway.rewrite(|text| text.replace("share = 0.0", "share = 1.0").replace("\"new\"", "\"newer\""));
    eventually(LONG, "it is configured anew", || candidate(&gateway)["state"] == "preparing");
    // What is being prepared is not what is wanted any more.
    gateway.rewrite(|text| text.replace("\"newer\"", "\"newest\""));
    eventually(LONG, "the last settings are tried", || gateway.get("/").header("x-version") != Some("old"));
    assert_eq!(gateway.get("/").header("x-version"), Some("newest"));
}

#[test]
fn a_promotion_that_takes_long_holds_up_nothing() {
    let origin = Upstream::text("ok");
    let gateway = start(setup(&origin, "slow = 6_000", "mode = \"shadow\", config = { version = \"new\" }"));
    wasm::move_over(&wasm::changed(&wasm::guest("trial"), "new"), &gateway.plugin_file("trial@new"));
    let digest = wasm::digest(&gateway.plugin_file("trial@new"));
    eventually(LONG, "it is tried", || candidate(&gateway)["digest"] == digest.as_str());
    std::thread::scope(|scope| {
        let promote = || scope.spawn(|| command(&gateway, &["plugin", "promote", "trial"]));
        let mut both = vec![promote(), promote()];
        eventually(LONG, "one of two promotions is refused", || both.iter().any(std::thread::ScopedJoinHandle::is_finished));
        let first = both.iter().position(std::thread::ScopedJoinHandle::is_finished).unwrap();
        let refused = both.remove(first).join().unwrap();
        assert!(refused.code == Some(1) && refused.stderr.contains("trial@new is being promoted"), "{}", refused.text());
        assert_eq!(gateway.command("reload").code, Some(0));
        assert!(!both[0].is_finished(), "the reload did not wait for it");
        let promoted = both.remove(0).join().unwrap();
        assert_eq!(promoted.code, Some(0), "{}", promoted.text());
    });
    assert!(gateway.is_live("trial", &digest));
}

#[test]
fn mistakes_in_a_candidate_are_shown_with_their_place() {
    let origin = Upstream::text("ok");
    let cases = [
        ("plugin = \"other@new\", mode = \"shadow\"", "policy.noop.candidate.plugin: not a version of \"noop\""),
        ("plugin = \"noop\", mode = \"shadow\"", "policy.noop.candidate.plugin: not the name of a candidate"),
        ("plugin = \"noop@new\", mode = \"canary\"", "policy.noop.candidate.share: missing"),
        ("plugin = \"noop@new\", mode = \"dark\"", "policy.noop.candidate.mode"),
        ("plugin = \"noop@new\", mode = \"shadow\", share = 2", "policy.noop.candidate.share"),
        ("plugin = \"noop@new\"", "policy.noop.candidate.mode: missing"),
    ];
    for (candidate, expected) in cases {
        let checked = Setup::before(&origin).guest("noop", &format!("candidate = {{ {candidate} }}")).check();
        assert_eq!(checked.code, Some(1), "{candidate}");
        assert!(checked.stderr.contains(expected), "{candidate}: {}", checked.text());
    }
}

#[test]
fn a_shadow_sees_a_body_that_only_it_asked_for_and_streams_stay_streams() {
    let origin = Upstream::scripted(|_| Reply::text("one two"));
    let gateway = start(setup(&origin, "", "mode = \"shadow\", config = { version = \"old\", panic_on_body = true }"));
    let answer = gateway.get("/");
    assert_eq!((answer.status, answer.text().as_str()), (200, "one two"));
    let entries = tried(&gateway, &answer);
    let body = entries.iter().find(|entry| entry["phase"] == "response-body").unwrap_or_else(|| panic!("{entries:?}"));
    assert_eq!((&body["differs"], &body["reason"]), (&"failed".into(), &"policy_trapped".into()));
}
