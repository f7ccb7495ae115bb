//! Plugins that must be signed: who made them, that nobody changed them, and that they are not older than what runs.

use std::fs;
use std::path::{Path, PathBuf};

use weir_tests::setup::run;
use weir_tests::signer::Signer;
use weir_tests::{Gateway, LONG, Setup, Upstream, eventually, wasm};

/// A signature made at a time, as `minisign -S` makes it.
fn sign(author: &Signer, bytes: &[u8], at: u64) -> String {
    author.sign(bytes, &format!("timestamp:{at}\tfile:noop.wasm\thashed"))
}

/// The configuration that trusts nobody else.
fn only(author: &Signer) -> String {
    format!("require_signature = [\"{}\"]", author.key())
}

/// The guest `noop` with another version in its description.
fn released(version: &str) -> Vec<u8> {
    let mut bytes = fs::read(wasm::guest("noop")).unwrap();
    let said = b"guest-noop0.1.0";
    let places: Vec<usize> = (0..bytes.len()).filter(|place| bytes[*place..].starts_with(said)).collect();
    assert_eq!((places.len(), version.len()), (1, 5), "the version stands in one place");
    bytes[places[0] + said.len() - 5..places[0] + said.len()].copy_from_slice(version.as_bytes());
    bytes
}

fn beside(file: &Path) -> PathBuf {
    file.with_extension("wasm.minisig")
}

/// A gateway with the policy `noop`, signed at the time 100.
fn signed(origin: &Upstream, author: &Signer) -> Setup {
    let bytes = released("0.2.0");
    let setup = Setup::before(origin).server(&only(author)).guest("noop", "");
    setup.file("plugins/noop.wasm", &bytes).file("plugins/noop.wasm.minisig", sign(author, &bytes, 100))
}

/// Puts a file and its signature there.
fn put(file: &Path, bytes: &[u8], signature: &str) {
    fs::write(beside(file).with_extension("part"), signature).unwrap();
    fs::rename(beside(file).with_extension("part"), beside(file)).unwrap();
    wasm::move_over(bytes, file);
}

fn is_refused(gateway: &Gateway, expected: &str) {
    let mut reason = String::new();
    eventually(LONG, &format!("it is refused: {expected}"), || {
        reason = gateway.plugin("noop").first().and_then(|plugin| plugin["reason"].as_str()).unwrap_or_default().to_owned();
        reason.contains(expected)
    });
}

#[test]
fn a_file_without_a_good_signature_never_goes_live_and_traffic_is_unchanged() {
    let (author, stranger) = (Signer::new(), Signer::new());
    let origin = Upstream::text("ok");
    let gateway = signed(&origin, &author).start();
    let file = gateway.plugin_file("noop");
    let good = wasm::digest(&file);
    assert!(gateway.is_live("noop", &good));

    let newer = released("0.3.0");
    let cases = [
        ("a stranger's signature", sign(&stranger, &newer, 200), "is not among the 1 of require_signature"),
        ("the signature of another build", sign(&author, &released("0.4.0"), 200), "does not fit the file"),
        ("no signature at all", "not a signature".to_owned(), "is not a signature of minisign"),
    ];
    for (what, signature, expected) in cases {
        put(&file, &newer, &signature);
        is_refused(&gateway, expected);
        assert!(gateway.is_live("noop", &good), "{what}: the old one stays");
        assert_eq!(gateway.get("/").status, 200, "{what}");
    }
    fs::remove_file(beside(&file)).unwrap();
    is_refused(&gateway, "put noop.wasm.minisig beside it");
    put(&file, &newer, &sign(&author, &newer, 200));
    let wanted = wasm::digest(&file);
    eventually(LONG, "with its signature it goes live", || gateway.is_live("noop", &wanted));
}

/// Pain 27: what was tampered with is loaded, or what is loaded is not what was looked at.
#[test]
fn a_file_that_was_tampered_with_is_refused_wherever_it_was_changed() {
    let author = Signer::new();
    let origin = Upstream::text("ok");
    let gateway = signed(&origin, &author).start();
    let file = gateway.plugin_file("noop");
    let good = wasm::digest(&file);
    let newer = released("0.3.0");
    let signature = sign(&author, &newer, 200);
    let mut tampered = vec![wasm::changed(&file, "appended")];
    for place in [0, 8, newer.len() / 3, newer.len() / 2, newer.len() - 1] {
        let mut bytes = newer.clone();
        bytes[place] ^= 0x20;
        tampered.push(bytes);
    }
    tampered.push(newer[..newer.len() - 1].to_vec());
    for (number, bytes) in tampered.iter().enumerate() {
        put(&file, bytes, &signature);
        is_refused(&gateway, "does not fit the file");
        assert!(gateway.is_live("noop", &good), "{number}");
        // What was refused for another reason than the last is told by what follows.
        put(&file, &newer, "not a signature");
        is_refused(&gateway, "is not a signature of minisign");
    }
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn the_signature_may_come_before_the_file_or_after_it() {
    let author = Signer::new();
    let origin = Upstream::text("ok");
    let gateway = signed(&origin, &author).start();
    let file = gateway.plugin_file("noop");
    let newer = released("0.3.0");
    wasm::move_over(&newer, &file);
    is_refused(&gateway, "does not fit the file");
    fs::write(beside(&file), sign(&author, &newer, 200)).unwrap();
    let wanted = wasm::digest(&file);
    eventually(LONG, "the signature came after it", || gateway.is_live("noop", &wanted));
    assert!(gateway.plugin("noop")[0]["reason"].is_null());

    let newest = released("0.4.0");
    fs::write(beside(&file), sign(&author, &newest, 300)).unwrap();
    // The signature of what is to come takes nothing from what runs.
    assert_eq!(gateway.get("/").status, 200);
    wasm::move_over(&newest, &file);
    let wanted = wasm::digest(&file);
    eventually(LONG, "the signature came before it", || gateway.is_live("noop", &wanted));
}

#[test]
fn an_old_file_with_its_old_signature_is_no_way_back() {
    let author = Signer::new();
    let origin = Upstream::text("ok");
    let gateway = signed(&origin, &author).start();
    let file = gateway.plugin_file("noop");
    let good = wasm::digest(&file);
    let old = released("0.1.9");
    put(&file, &old, &sign(&author, &old, 50));
    is_refused(&gateway, "0.1.9 is older than the 0.2.0 that runs");
    // Of the same version, signed before the one that runs.
    let mut earlier = released("0.2.0");
    earlier.extend_from_slice(&[0, 5, 4, b'n', b'o', b't', b'e']);
    put(&file, &earlier, &sign(&author, &earlier, 99));
    is_refused(&gateway, "build of 0.2.0 signed at 99 is older");
    // Another plugin of the same author.
    let other = fs::read(wasm::guest("hello")).unwrap();
    put(&file, &other, &sign(&author, &other, 200));
    is_refused(&gateway, "calls itself guest-hello");
    assert!(gateway.is_live("noop", &good));
    put(&file, &earlier, &sign(&author, &earlier, 101));
    let wanted = wasm::digest(&file);
    eventually(LONG, "signed again it is new", || gateway.is_live("noop", &wanted));
}

#[test]
fn without_its_signature_a_plugin_does_not_start_and_check_says_what_to_do() {
    let author = Signer::new();
    let origin = Upstream::text("ok");
    let setup = signed(&origin, &author);
    assert_eq!(setup.check().code, Some(0), "{}", setup.check().text());
    fs::remove_file(setup.directory.path().join("plugins/noop.wasm.minisig")).unwrap();
    let checked = setup.check();
    assert_eq!(checked.code, Some(1));
    assert!(checked.stderr.contains("policy.noop.plugin: noop.wasm was refused: not signed"), "{}", checked.text());
}

#[test]
fn a_plugin_may_have_other_keys_than_the_rest_or_none() {
    let (author, other) = (Signer::new(), Signer::new());
    let origin = Upstream::text("ok");
    let guest = |name: &str| fs::read(wasm::guest(name)).unwrap();
    let setup = Setup::before(&origin)
        .server(&only(&author))
        .guest("noop", "")
        .guest("hello", "")
        .guest("edits", "mode = \"observe\"")
        .file("plugins/noop.wasm.minisig", sign(&author, &guest("noop"), 1))
        .file("plugins/hello.wasm.minisig", sign(&other, &guest("hello"), 1))
        .section(&format!("[plugin.hello]\n{}\n[plugin.edits]\nrequire_signature = []", only(&other)));
    let checked = setup.check();
    assert_eq!(checked.code, Some(0), "{}", checked.text());
    fs::write(setup.directory.path().join("plugins/hello.wasm.minisig"), sign(&author, &guest("hello"), 1)).unwrap();
    let checked = setup.check();
    assert!(checked.stderr.contains("hello.wasm was refused: signed with a key that is not among"), "{}", checked.text());

    let wrong = Setup::before(&origin).server("require_signature = [\"RWnonsense\"]").check();
    assert!(wrong.stderr.contains("server.require_signature: not a public key of minisign"), "{}", wrong.text());
}

#[test]
fn keys_that_are_asked_for_later_are_asked_of_what_runs_too() {
    let (author, stranger) = (Signer::new(), Signer::new());
    let origin = Upstream::text("ok");
    let gateway = Setup::before(&origin).guest("noop", "").start();
    let file = gateway.plugin_file("noop");
    let reload = || run(&["reload", "--config", &gateway.config().display().to_string()]);
    gateway.rewrite(|text| text.replace("workers = 2", &format!("workers = 2\n{}", only(&author))));
    let refused = reload();
    assert_eq!(refused.code, Some(1), "{}", refused.text());
    assert!(refused.stderr.contains("policy.noop.plugin: noop.wasm: not signed"), "{}", refused.text());
    let bytes = fs::read(&file).unwrap();
    fs::write(beside(&file), sign(&author, &bytes, 1)).unwrap();
    assert_eq!(reload().code, Some(0), "{}", reload().text());
    gateway.rewrite(|text| text.replace(&author.key(), &stranger.key()));
    assert_eq!(reload().code, Some(1), "the key was withdrawn");
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn a_candidate_needs_the_signature_of_its_plugin_and_takes_it_along() {
    let author = Signer::new();
    let origin = Upstream::text("ok");
    let candidate = "plugin = \"noop\"\ncandidate = { plugin = \"noop@new\", mode = \"shadow\" }";
    let gateway = signed(&origin, &author).replace("plugin = \"noop\"", candidate).start();
    let state = || gateway.plugin("noop")[0]["policies"][0]["candidate"].clone();
    let file = gateway.plugin_file("noop@new");
    wasm::move_over(&released("0.3.0"), &file);
    eventually(LONG, "it is refused", || state()["state"] == "refused");
    assert!(state()["reason"].as_str().unwrap().contains("put noop@new.wasm.minisig beside it"), "{}", state());
    let old = released("0.1.0");
    put(&file, &old, &sign(&author, &old, 200));
    eventually(LONG, "an old one is no candidate", || state()["reason"].as_str().is_some_and(|reason| reason.contains("older")));
    let new = released("0.3.0");
    put(&file, &new, &sign(&author, &new, 200));
    eventually(LONG, "it is tried", || state()["state"] == "running");

    let promoted = run(&["plugin", "promote", "noop", "--config", &gateway.config().display().to_string()]);
    assert_eq!(promoted.code, Some(0), "{}", promoted.text());
    let stable = gateway.plugin_file("noop");
    assert!(fs::read(&stable).unwrap() == new && beside(&stable).exists());
    assert!(!beside(&file).exists());
    let checked = run(&["check", "--config", &gateway.config().display().to_string()]);
    assert_eq!(checked.code, Some(0), "the next start finds it signed: {}", checked.text());
}

#[test]
fn the_operator_goes_back_to_what_a_file_may_not() {
    let author = Signer::new();
    let origin = Upstream::text("ok");
    let gateway = signed(&origin, &author).start();
    let file = gateway.plugin_file("noop");
    let old = wasm::digest(&file);
    let newer = released("0.3.0");
    put(&file, &newer, &sign(&author, &newer, 200));
    let new = wasm::digest(&file);
    eventually(LONG, "the newer one is live", || gateway.is_live("noop", &new));
    put(&file, &released("0.2.0"), &sign(&author, &released("0.2.0"), 100));
    is_refused(&gateway, "0.2.0 is older than the 0.3.0 that runs");
    let back = run(&["plugin", "rollback", "noop", "--config", &gateway.config().display().to_string()]);
    assert_eq!(back.code, Some(0), "{}", back.text());
    assert!(gateway.is_live("noop", &old));
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn what_was_live_is_remembered_over_a_restart_and_no_older_file_takes_its_place() {
    let author = Signer::new();
    let origin = Upstream::text("ok");
    let mut gateway = signed(&origin, &author).start();
    let file = gateway.plugin_file("noop");
    let good = wasm::digest(&file);
    let old = released("0.1.0");
    gateway.restart_after(|| put(&file, &old, &sign(&author, &old, 300)));
    is_refused(&gateway, "0.1.0 is older than the 0.2.0 that runs");
    assert!(gateway.is_live("noop", &good), "from its private copy");
    assert_eq!(gateway.get("/").status, 200);
    // The private copy is trusted by its signature alone: with another key it stands in for nothing.
    let stranger = Signer::new();
    gateway.rewrite(|text| text.replace(&author.key(), &stranger.key()));
    let checked = run(&["check", "--config", &gateway.config().display().to_string()]);
    assert_eq!(checked.code, Some(1), "{}", checked.text());
}

#[test]
fn the_admin_api_says_who_signed_what_runs_and_when() {
    let author = Signer::new();
    let origin = Upstream::text("ok");
    let mut gateway = signed(&origin, &author).start();
    let signature = |gateway: &Gateway| gateway.plugin("noop")[0]["signature"].clone();
    let by = |at: u64| serde_json::json!({ "key": author.key(), "signed_at": at });
    assert_eq!(signature(&gateway), by(100));
    let (file, bytes) = (gateway.plugin_file("noop"), released("0.3.0"));
    put(&file, &bytes, &sign(&author, &bytes, 250));
    let digest = wasm::digest(&file);
    eventually(LONG, "the next release is live", || gateway.is_live("noop", &digest));
    assert_eq!(signature(&gateway), by(250));
    gateway.restart();
    assert_eq!(signature(&gateway), by(250));

    let unsigned = Setup::before(&origin).guest("noop", "").start();
    assert!(unsigned.plugin("noop")[0]["signature"].is_null(), "nobody asked for one");
}
