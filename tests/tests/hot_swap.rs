//! A file dropped into the plugin directory goes live, or is refused, and traffic does not notice.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use weir_tests::load::Load;
use weir_tests::{Gate, Gateway, LONG, Reply, Request, Setup, Upstream, eventually, wasm};

/// A machine that is busy with other scenarios lets calls wait.
const PATIENT: &str = "limits = { wall = \"5s\" }";

fn gateway(origin: &Upstream) -> Gateway {
    Setup::before(origin).policy("ips", "ips", PATIENT).start()
}

fn attack() -> Request {
    Request::get("/x?id=1%27%20OR%20%271%27=%271%27--%20")
}

/// Replaces ips.wasm under load with a copy of another digest and checks that nobody noticed.
fn replaced_under_load(replace: impl FnOnce(&[u8], &Path)) {
    let origin = Upstream::text("ok");
    let gateway = gateway(&origin);
    let file = gateway.plugin_file("ips");
    assert!(gateway.is_live("ips", &wasm::digest(&file)));
    let load = Load::start(gateway.plain(), 4, &Request::get("/automate/computers?id=42"));
    eventually(LONG, "traffic flows", || load.done() > 200);

    replace(&wasm::changed(&file, "second"), &file);
    let wanted = wasm::digest(&file);
    eventually(LONG, "the new digest is live", || gateway.is_live("ips", &wanted));
    assert_eq!(gateway.ask(&attack()).status, 403, "it still guards");

    let before = load.done();
    eventually(LONG, "traffic goes on", || load.done() > before + 200);
    let report = load.finish();
    assert!(report.failures.is_empty(), "{} of {} failed: {:?}", report.failures.len(), report.ok, report.failures.first());
}

#[test]
fn a_file_moved_over_another_goes_live_under_load() {
    replaced_under_load(wasm::move_over);
}

#[test]
fn a_file_that_arrives_byte_by_byte_goes_live_when_it_is_whole() {
    replaced_under_load(|bytes, target| wasm::copy_slowly(bytes, target, Duration::from_secs(2)));
}

#[test]
fn a_file_that_does_not_fit_is_rejected_with_its_reason_and_traffic_unchanged() {
    let origin = Upstream::text("ok");
    let gateway = Setup::before(&origin).policy("ips", "ips", PATIENT).start();
    let file = gateway.plugin_file("ips");
    let good = wasm::digest(&file);
    let load = Load::start(gateway.plain(), 2, &Request::get("/"));
    let cases = [
        ("garbage", b"this is no WebAssembly at all".to_vec(), "not a WebAssembly file"),
        ("a core module", wasm::CORE_MODULE.to_vec(), "core module"),
        ("an import without a grant", fs::read(wasm::guest("kv")).unwrap(), "grants = [\"kv\"]"),
    ];
    for (name, content, expected) in cases {
        wasm::move_over(&content, &file);
        let mut reason = String::new();
        eventually(LONG, &format!("{name} is rejected"), || {
            reason = gateway.rejection("ips");
            reason.contains(expected)
        });
        assert!(gateway.is_live("ips", &good), "{name}: the old one stays live");
        assert_eq!((gateway.ask(&attack()).status, gateway.get("/").status), (403, 200), "{name}");
    }
    wasm::move_over(&wasm::changed(&wasm::policy("ips"), "good again"), &file);
    let wanted = wasm::digest(&file);
    eventually(LONG, "a good file goes live after bad ones", || gateway.is_live("ips", &wanted));
    let report = load.finish();
    assert!(report.failures.is_empty(), "{:?}", report.failures);
}

#[test]
fn a_file_cut_in_the_middle_is_not_taken() {
    let origin = Upstream::text("ok");
    let gateway = gateway(&origin);
    let file = gateway.plugin_file("ips");
    let good = wasm::digest(&file);
    let bytes = wasm::changed(&file, "whole");
    let (half, rest) = bytes.split_at(bytes.len() / 2);
    fs::write(&file, half).unwrap();
    // Longer than the quiet period: what is there still ends in the middle of a section.
    let until = Instant::now() + Duration::from_secs(1);
    eventually(LONG, "a while has passed", || {
        assert!(gateway.is_live("ips", &good));
        assert!(gateway.plugin("ips").iter().all(|plugin| plugin["reason"].is_null()));
        Instant::now() > until
    });
    let mut append = fs::OpenOptions::new().append(true).open(&file).unwrap();
    std::io::Write::write_all(&mut append, rest).unwrap();
    let wanted = wasm::digest(&file);
    eventually(LONG, "the whole file goes live", || gateway.is_live("ips", &wanted));
}

#[test]
fn temporary_files_of_copying_programs_are_no_plugins() {
    let origin = Upstream::text("ok");
    let gateway = gateway(&origin);
    for name in [".ips.wasm.x1y2", "ips.wasm.part", "ips.wasm.tmp", ".hidden.wasm"] {
        fs::write(gateway.directory().path().join("plugins").join(name), "not wasm").unwrap();
    }
    fs::write(gateway.plugin_file("stray"), "not wasm").unwrap();
    assert!(gateway.rejection("stray").contains("not a WebAssembly file"), "every .wasm file is judged");
    let answer = gateway.admin("GET /v1/plugins").text();
    for name in ["part", "tmp", "hidden", "x1y2"] {
        assert!(!answer.contains(name), "{answer}");
    }
}

#[test]
fn a_deleted_file_keeps_serving_and_a_restart_without_it_is_refused() {
    let origin = Upstream::text("ok");
    let setup = Setup::before(&origin).policy("ips", "ips", PATIENT);
    let gateway = setup.start();
    fs::remove_file(gateway.plugin_file("ips")).unwrap();
    eventually(LONG, "the removal is noticed", || gateway.plugin("ips").iter().any(|plugin| plugin["state"] == "removed"));
    assert_eq!((gateway.ask(&attack()).status, gateway.get("/").status), (403, 200));
    let checked = weir_tests::setup::run(&["check", "--config", &gateway.config().display().to_string()]);
    assert_eq!(checked.code, Some(1));
    assert!(checked.text().contains("ips.wasm"), "{}", checked.text());
}

#[test]
fn a_symbolic_link_that_is_flipped_goes_live() {
    let origin = Upstream::text("ok");
    let gateway = gateway(&origin);
    let file = gateway.plugin_file("ips");
    let second = gateway.directory().write("releases/2.bin", wasm::changed(&file, "linked"));
    let link = gateway.directory().path().join("plugins/ips.link");
    std::os::unix::fs::symlink(&second, &link).unwrap();
    fs::rename(&link, &file).unwrap();
    let wanted = wasm::digest(&second);
    eventually(LONG, "the linked file is live", || gateway.is_live("ips", &wanted));
}

#[test]
fn a_request_under_way_finishes_on_the_build_it_began_with() {
    let gate = Gate::default();
    let behind = gate.clone();
    let origin = Upstream::scripted(move |_| Reply::Behind(behind.clone(), Box::new(Reply::text("ok"))));
    let gateway = Setup::before(&origin).guest("hello", "").start();
    let mut client = gateway.connect();
    client.send(Request::get("/held").bytes()).unwrap();
    eventually(LONG, "the request reaches the origin", || origin.count() == 1);

    // The other build asks for the request phase only: its response phase must not be what answers, nor none at all.
    let file = gateway.plugin_file("hello");
    wasm::move_over(&fs::read(wasm::guest("noop")).unwrap(), &file);
    let new = wasm::digest(&file);
    eventually(LONG, "the other build is live", || gateway.is_live("hello", &new));
    gate.open();
    assert_eq!(client.answer().unwrap().header("x-hello"), Some("weir"), "request and response on one build");
    assert_eq!(gateway.get("/").header("x-hello"), None, "the next request is on the new one");
}
