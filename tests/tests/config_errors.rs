//! Bad input, each with its place, its key and its remedy.

use std::net::TcpListener;

use weir_tests::tls::{Authority, Kind};
use weir_tests::{Scratch, Setup, setup};

/// A valid beginning of five lines.
const GOOD: &str = "[[listener]]\naddress = \"127.0.0.1:0\"\n[upstream.app]\nservers = [{ url = \"http://127.0.0.1:9\" }]\n\n";

/// `text` follows `GOOD`, so that its first line is line 6. One mistake must be placed on `line`, or on the head of its section above,
/// and say all of `needles`.
#[track_caller]
fn check(prepare: impl FnOnce(&Scratch), text: &str, line: u64, needles: &[&str]) {
    let scratch = Scratch::new();
    std::fs::create_dir_all(scratch.path().join("plugins")).unwrap();
    prepare(&scratch);
    let config = scratch.write("weir.toml", format!("{GOOD}{text}")).display().to_string();
    let checked = setup::run(&["check", "--config", &config]);
    assert_eq!(checked.code, Some(1), "{}", checked.text());
    let place = format!("{config}:");
    let messages = checked.stderr.lines().filter_map(|own| own.split_once(&place)).map(|(_, rest)| rest);
    let placed = |message: &&str| {
        let number = message.split(':').next().and_then(|number| number.parse::<u64>().ok());
        number.is_some_and(|number| (6..=line).contains(&number)) && needles.iter().all(|needle| message.contains(needle))
    };
    assert!(messages.clone().any(|message| placed(&message)), "{needles:?} at line {line} or above:\n{}", checked.text());

    let json = setup::run(&["check", "--config", &config, "--json"]);
    assert_eq!(json.code, Some(1));
    let parsed: serde_json::Value = serde_json::from_str(&json.stdout).unwrap_or_else(|error| panic!("{error}: {}", json.text()));
    let errors = parsed.as_array().or_else(|| parsed["errors"].as_array()).unwrap_or_else(|| panic!("no list: {parsed}"));
    assert_eq!(errors.len(), messages.count(), "{parsed}");
    assert!(errors.iter().all(|error| error["line"].as_u64().is_some_and(|number| number >= 6)), "{parsed}");
}

const fn nothing(_: &Scratch) {}

#[test]
fn a_good_file_is_good() {
    let origin = weir_tests::Upstream::text("ok");
    let authority = Authority::new();
    let checked = Setup::before(&origin)
        .countries()
        .certificate(&authority.issue(Kind::Ecdsa, &["site.test"]))
        .policy("acl", "agent-acl", "config = { model = \"all-traffic\" }")
        .check();
    assert_eq!(checked.code, Some(0), "{}", checked.text());
    assert_eq!(origin.count(), 0);
}

/// Nothing runs in a check, and what it says is no hint to itself.
#[test]
fn a_check_speaks_of_nothing_that_runs() {
    let origin = weir_tests::Upstream::text("ok");
    let candidate = "candidate = { plugin = \"noop@new\", mode = \"shadow\" }";
    let setup = Setup::before(&origin).guest("noop", candidate).file("plugins/other.wasm", "no plugin");
    let checked = setup.check();
    assert_eq!(checked.code, Some(0), "{}", checked.text());
    assert!(checked.stderr.contains("plugin refused: not a WebAssembly file"), "{}", checked.stderr);
    assert!(checked.stderr.contains("the policy would run without it"), "{}", checked.stderr);
    assert_eq!(checked.stderr.matches("noop@new").count(), 1, "said once: {}", checked.stderr);

    let broken = setup.file("plugins/noop.wasm", "no plugin either").check();
    assert_eq!(broken.code, Some(1), "{}", broken.text());
    for text in [&checked.stderr, &broken.stderr] {
        for word in ["was running", "keeps running", "runs without it", "`weir check`"] {
            assert!(!text.contains(word), "{word}: {text}");
        }
    }
}

#[test]
fn an_unknown_key() {
    check(nothing, "[limits]\nidel = \"5s\"\n", 7, &["limits.idel", "unknown key", "did you mean `idle`"]);
}

#[test]
fn a_wrong_type() {
    check(nothing, "[server]\nworkers = \"two\"\n", 7, &["server.workers", "two"]);
}

#[test]
fn a_missing_certificate() {
    check(nothing, "[[certificate]]\ncert = \"gone.pem\"\nkey = \"gone.key\"\n", 7, &["certificate.cert", "gone.pem"]);
}

#[test]
fn a_key_that_does_not_match() {
    let write = |scratch: &Scratch| {
        let authority = Authority::new();
        let (one, two) = (authority.issue(Kind::Ecdsa, &["a.test"]), authority.issue(Kind::Ecdsa, &["a.test"]));
        scratch.write("one.pem", one.cert);
        scratch.write("two.key", two.key);
    };
    check(
        write,
        "[[certificate]]\ncert = \"one.pem\"\nkey = \"two.key\"\n",
        8,
        &["certificate.key", "two.key is not the key of", "name the key"],
    );
}

#[test]
fn an_unknown_plugin() {
    let text = "[policy.acl]\nplugin = \"agnet-acl\"\n[[site]]\nname = \"a\"\nhosts = [\"a.test\"]\nupstream = \"app\"\nchain = [\"acl\"]\n";
    check(nothing, text, 7, &["policy.acl.plugin", "agnet-acl.wasm"]);
}

#[test]
fn an_unknown_upstream_in_a_site() {
    let text = "[[site]]\nname = \"a\"\nhosts = [\"a.test\"]\nupstream = \"ap\"\n";
    check(nothing, text, 9, &["site.upstream", "\"ap\"", "did you mean `app`"]);
}

#[test]
fn two_sites_with_one_host() {
    let site = |name: &str, host: &str| format!("[[site]]\nname = \"{name}\"\nhosts = [\"{host}\"]\nupstream = \"app\"\n");
    let text = format!("{}{}", site("a", "www.test"), site("b", "WWW.test"));
    check(nothing, &text, 12, &["site.hosts", "www.test", "a host belongs to one site"]);
}

#[test]
fn a_plugin_config_that_its_schema_refuses() {
    let copy = |scratch: &Scratch| {
        std::fs::copy(weir_tests::wasm::policy("agent-acl"), scratch.path().join("plugins/agent-acl.wasm")).unwrap();
    };
    let policy = |config: &str| format!("[policy.acl]\nplugin = \"agent-acl\"\nconfig = {config}\n");
    check(copy, &policy("{ model = \"agents\" }"), 8, &["policy.acl", "config", "model"]);
    check(copy, &policy("{ model = \"agent-only\", trustd = [] }"), 8, &["policy.acl", "config", "trustd"]);
    check(copy, &policy("{ model = \"agent-only\", trusted = [\"300.1.2.3\"] }"), 8, &["policy.acl", "config", "300.1.2.3"]);
}

#[test]
fn a_plugin_that_needs_what_was_not_granted() {
    let copy = |scratch: &Scratch| {
        std::fs::copy(weir_tests::wasm::guest("kv"), scratch.path().join("plugins/kv.wasm")).unwrap();
    };
    check(copy, "[policy.count]\nplugin = \"kv\"\n", 7, &["policy.count", "kv", "grants = [\"kv\"]"]);
}

#[test]
fn an_unreadable_database() {
    check(nothing, "[geoip]\ndatabase = \"gone.mmdb\"\n", 7, &["geoip.database", "gone.mmdb"]);
    let garbage = |scratch: &Scratch| {
        scratch.write("bad.mmdb", "no database");
    };
    check(garbage, "[geoip]\ndatabase = \"bad.mmdb\"\n", 7, &["geoip.database", "bad.mmdb"]);
}

#[test]
fn a_port_in_use_ends_the_start() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let scratch = Scratch::new();
    std::fs::create_dir_all(scratch.path().join("plugins")).unwrap();
    let config = scratch.write("weir.toml", format!("\n[[listener]]\naddress = \"{address}\"\n")).display().to_string();
    let run = setup::run(&["run", "--config", &config]);
    assert_eq!(run.code, Some(1), "{}", run.text());
    assert!(run.stderr.contains(&address) && run.stderr.contains("in use"), "{}", run.stderr);
    assert!(run.stderr.contains(&format!("{config}:")), "{}", run.stderr);
    assert!(!run.stderr.lines().any(|line| line == "ready"), "{}", run.stderr);
}

#[test]
fn a_wrong_command_line_is_another_exit_code() {
    assert_eq!(setup::run(&["check", "--nonsense"]).code, Some(2));
    assert_eq!(setup::run(&["chekc"]).code, Some(2));
}
