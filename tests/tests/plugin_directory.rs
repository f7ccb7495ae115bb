//! Every way a file arrives in the plugin directory, and every state the directory can be in: clear reasons, traffic unchanged.

use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use weir_tests::load::{Load, Report};
use weir_tests::{Gateway, LONG, Request, Setup, Upstream, eventually, tool, wasm};

/// A machine that is busy with other scenarios lets calls wait.
const PATIENT: &str = "limits = { wall = \"5s\" }";

fn gateway(origin: &Upstream) -> Gateway {
    Setup::before(origin).guest("hello", PATIENT).start()
}

fn plugins(gateway: &Gateway) -> PathBuf {
    gateway.directory().path().join("plugins")
}

fn build(note: &str) -> Vec<u8> {
    wasm::changed(&wasm::guest("hello"), note)
}

fn greets(gateway: &Gateway) -> bool {
    gateway.get("/").header("x-hello").is_some()
}

fn unharmed(report: &Report) {
    assert!(report.failures.is_empty(), "{} of {} failed: {:?}", report.failures.len(), report.ok, report.failures.first());
}

fn directory_error(gateway: &Gateway) -> Option<String> {
    let answer = gateway.admin("GET /v1/plugins").text();
    let json: serde_json::Value = serde_json::from_str(&answer).unwrap();
    json["directory"]["error"].as_str().map(str::to_owned)
}

/// A way in which a file gets into the place of another.
type Way = (&'static str, fn(&[u8], &Path));

const WAYS: [Way; 8] = [
    ("mv", wasm::move_over),
    ("cp: truncated, then written", |bytes, target| fs::write(target, bytes).unwrap()),
    ("byte by byte", |bytes, target| wasm::copy_slowly(bytes, target, Duration::from_secs(1))),
    ("in two halves with a pause", |bytes, target| {
        let mut file = File::create(target).unwrap();
        let (first, rest) = bytes.split_at(bytes.len() / 2);
        file.write_all(first).unwrap();
        std::thread::sleep(Duration::from_millis(400));
        file.write_all(rest).unwrap();
    }),
    ("an empty file first", |bytes, target| {
        fs::write(target, "").unwrap();
        std::thread::sleep(Duration::from_millis(400));
        fs::write(target, bytes).unwrap();
    }),
    ("an editor: the old one renamed, a new one written", |bytes, target| {
        let backup = target.with_extension("wasm~");
        fs::rename(target, &backup).unwrap();
        fs::write(target, bytes).unwrap();
        fs::remove_file(backup).unwrap();
    }),
    ("deleted, then written", |bytes, target| {
        fs::remove_file(target).unwrap();
        std::thread::sleep(Duration::from_millis(400));
        fs::write(target, bytes).unwrap();
    }),
    ("a hard link", |bytes, target| {
        let beside = target.with_extension("source");
        fs::write(&beside, bytes).unwrap();
        fs::remove_file(target).unwrap();
        fs::hard_link(&beside, target).unwrap();
    }),
];

/// Pain 23: files that are edited in place, moved or written in parts are neither missed nor half read.
#[test]
fn pain_23_a_file_is_taken_whole_whichever_way_it_arrives() {
    let origin = Upstream::text("ok");
    let gateway = gateway(&origin);
    let file = gateway.plugin_file("hello");
    let load = Load::start(gateway.plain(), 2, &Request::get("/"));
    for (name, replace) in WAYS {
        replace(&build(name), &file);
        let wanted = wasm::digest(&file);
        eventually(LONG, &format!("{name}: it is live"), || gateway.is_live("hello", &wanted));
        assert!(greets(&gateway), "{name}");
    }
    if tool::has("rsync") {
        let source = gateway.directory().write("source/hello.wasm", build("rsync"));
        drop(tool::run("rsync", &[&source.display().to_string(), &file.display().to_string()]));
        let wanted = wasm::digest(&file);
        eventually(LONG, "rsync: it is live", || gateway.is_live("hello", &wanted));
    }
    unharmed(&load.finish());
    assert_eq!(gateway.metric("weir_plugin_loads_total{plugin=\"hello\",result=\"rejected\"}"), 0.0, "nothing was half read");
}

#[test]
fn a_directory_of_links_that_is_flipped_as_kubernetes_does_goes_live() {
    let origin = Upstream::text("ok");
    let gateway = gateway(&origin);
    let directory = plugins(&gateway);
    let flip = |release: &str, note: &str| {
        fs::create_dir(directory.join(release)).unwrap();
        fs::write(directory.join(release).join("hello.wasm"), build(note)).unwrap();
        let new = directory.join("..data_tmp");
        symlink(release, &new).unwrap();
        fs::rename(new, directory.join("..data")).unwrap();
        wasm::digest(&directory.join(release).join("hello.wasm"))
    };
    let first = flip("..2026_01", "first");
    let link = directory.join("link.part");
    symlink("..data/hello.wasm", &link).unwrap();
    fs::rename(link, directory.join("hello.wasm")).unwrap();
    eventually(LONG, "the first is live", || gateway.is_live("hello", &first));
    let second = flip("..2026_02", "second");
    eventually(LONG, "the second is live", || gateway.is_live("hello", &second));
    fs::remove_dir_all(directory.join("..2026_01")).unwrap();
    assert!(greets(&gateway));
}

#[test]
fn what_is_no_plugin_file_is_refused_with_its_reason() {
    let origin = Upstream::text("ok");
    let gateway = gateway(&origin);
    let directory = plugins(&gateway);
    let load = Load::start(gateway.plain(), 1, &Request::get("/"));
    symlink("loop.wasm", directory.join("loop.wasm")).unwrap();
    symlink("nowhere", directory.join("broken.wasm")).unwrap();
    fs::create_dir(directory.join("directory.wasm")).unwrap();
    drop(tool::run("mkfifo", &[&directory.join("pipe.wasm").display().to_string()]));
    File::create(directory.join("large.wasm")).unwrap().set_len(100 << 20).unwrap();
    fs::write(directory.join("no name.wasm"), "x").unwrap();
    fs::write(directory.join("empty.wasm"), "").unwrap();
    let refused = |name: &str, reason: &str| {
        eventually(LONG, &format!("{name}: {reason}"), || gateway.rejection(name).contains(reason));
    };
    for (name, reason) in [
        ("loop", "ymbolic links"),
        ("broken", "No such file"),
        ("directory", "no regular file"),
        ("pipe", "no regular file"),
        ("large", "104857600 bytes: a plugin may have at most"),
        ("no name", "not a name of a plugin"),
        ("empty", "not a WebAssembly file"),
    ] {
        refused(name, reason);
    }
    assert!(gateway.command("plugins").stdout.contains("104857600 bytes"));
    // The same in the place of a plugin that is in use.
    let file = gateway.plugin_file("hello");
    fs::remove_file(&file).unwrap();
    symlink("hello.wasm", &file).unwrap();
    refused("hello", "ymbolic links");
    fs::remove_file(&file).unwrap();
    File::create(&file).unwrap().set_len(100 << 20).unwrap();
    refused("hello", "at most");
    assert!(greets(&gateway));
    wasm::move_over(&build("good"), &file);
    let wanted = wasm::digest(&file);
    eventually(LONG, "a good file is taken after all that", || gateway.is_live("hello", &wanted));
    unharmed(&load.finish());
}

#[test]
fn a_directory_that_is_deleted_and_made_again_is_watched_again() {
    let origin = Upstream::text("ok");
    let gateway = gateway(&origin);
    let directory = plugins(&gateway);
    let load = Load::start(gateway.plain(), 1, &Request::get("/"));
    fs::remove_dir_all(&directory).unwrap();
    eventually(LONG, "it says so", || directory_error(&gateway).is_some_and(|error| error.contains("No such file")));
    assert!(gateway.command("plugins").stdout.contains("what was running keeps running"));
    assert!(greets(&gateway));
    fs::create_dir(&directory).unwrap();
    fs::write(gateway.plugin_file("hello"), build("again")).unwrap();
    let wanted = wasm::digest(&gateway.plugin_file("hello"));
    eventually(LONG, "a new file is live", || gateway.is_live("hello", &wanted));
    assert_eq!(directory_error(&gateway), None);

    // So fast that nobody sees it gone.
    let beside = gateway.directory().path().join("plugins.new");
    fs::create_dir(&beside).unwrap();
    fs::write(beside.join("hello.wasm"), build("swapped")).unwrap();
    fs::rename(&directory, gateway.directory().path().join("plugins.old")).unwrap();
    fs::rename(&beside, &directory).unwrap();
    let wanted = wasm::digest(&gateway.plugin_file("hello"));
    eventually(LONG * 2, "the other directory's file is live", || gateway.is_live("hello", &wanted));
    fs::write(gateway.plugin_file("hello"), build("later")).unwrap();
    let wanted = wasm::digest(&gateway.plugin_file("hello"));
    eventually(LONG, "and it is watched", || gateway.is_live("hello", &wanted));
    unharmed(&load.finish());
}

#[test]
fn five_hundred_files_at_once_do_not_hold_up_the_one_that_counts() {
    let origin = Upstream::text("ok");
    let gateway = gateway(&origin);
    let load = Load::start(gateway.plain(), 1, &Request::get("/"));
    for number in 0..500 {
        let content = if number % 25 == 0 { build(&format!("file {number}")) } else { format!("garbage {number}").into_bytes() };
        fs::write(plugins(&gateway).join(format!("file{number:03}.wasm")), content).unwrap();
    }
    wasm::move_over(&build("counts"), &gateway.plugin_file("hello"));
    let wanted = wasm::digest(&gateway.plugin_file("hello"));
    eventually(LONG, "it is live", || gateway.is_live("hello", &wanted));
    eventually(LONG * 9, "all were judged", || {
        let text = gateway.admin("GET /v1/plugins").text();
        text.matches("\"name\":\"file").count() == 500
    });
    assert!(gateway.rejection("file499").contains("not a WebAssembly file"));
    let state = |name: &str| gateway.plugin(name)[0]["state"].clone();
    assert_eq!((state("file475"), state("file476")), ("live".into(), "rejected".into()));
    unharmed(&load.finish());
}

#[test]
fn more_files_than_a_directory_may_hold_are_said_and_those_in_use_come_first() {
    let origin = Upstream::text("ok");
    let gateway = gateway(&origin);
    for number in 0..1_001 {
        fs::write(plugins(&gateway).join(format!("a{number:04}.wasm")), "garbage").unwrap();
    }
    eventually(LONG, "it says so", || directory_error(&gateway).is_some_and(|error| error.contains("only 1000 are looked at")));
    wasm::move_over(&build("counts"), &gateway.plugin_file("hello"));
    let wanted = wasm::digest(&gateway.plugin_file("hello"));
    eventually(LONG, "what is in use is looked at", || gateway.is_live("hello", &wanted));
}

/// Starts a gateway that has no rights beyond those of an ordinary user; `None` where that cannot be had.
fn without_rights(origin: &Upstream) -> Option<Gateway> {
    let setup = Setup::before(origin).guest("hello", PATIENT).own_binary();
    let is_root = tool::text(&tool::run("id", &["-u"])).trim() == "0";
    if !is_root {
        return Some(setup.start());
    }
    if !tool::has("setpriv") {
        return None;
    }
    const NOBODY: u32 = 65_534;
    chown(setup.directory.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    chown(setup.directory.path().join("plugins"), Some(NOBODY), Some(NOBODY)).unwrap();
    let mut read = Command::new("setpriv");
    read.args(["--reuid=65534", "--regid=65534", "--clear-groups", "cat"]).arg(setup.directory.path().join("plugins/hello.wasm"));
    let readable = read.output();
    if !readable.is_ok_and(|output| output.status.success()) {
        tool::skipped("an ordinary user cannot be had here");
        return None;
    }
    Some(setup.through("exec setpriv --reuid=65534 --regid=65534 --clear-groups \"$@\"").start())
}

#[test]
fn permissions_that_flip_are_said_and_noticed_when_they_come_back() {
    let origin = Upstream::text("ok");
    let Some(gateway) = without_rights(&origin) else { return };
    let load = Load::start(gateway.plain(), 1, &Request::get("/"));
    let (file, directory) = (gateway.plugin_file("hello"), plugins(&gateway));
    let mode = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();

    let beside = directory.join("hello.part");
    fs::write(&beside, build("closed")).unwrap();
    mode(&beside, 0o000);
    fs::rename(&beside, &file).unwrap();
    assert!(gateway.rejection("hello").contains("Permission denied"), "an unreadable file");
    assert!(greets(&gateway));
    mode(&file, 0o644);
    let wanted = wasm::digest(&file);
    eventually(LONG, "a readable one is live", || gateway.is_live("hello", &wanted));

    mode(&directory, 0o000);
    eventually(LONG, "an unreadable directory", || {
        directory_error(&gateway).is_some_and(|error| error.contains("Permission denied"))
    });
    assert!(greets(&gateway));
    fs::write(&file, build("meanwhile")).unwrap();
    mode(&directory, 0o755);
    let wanted = wasm::digest(&file);
    eventually(LONG, "what changed meanwhile is live", || gateway.is_live("hello", &wanted));
    assert_eq!(directory_error(&gateway), None);
    unharmed(&load.finish());
}

#[test]
fn without_room_for_a_private_copy_a_file_is_refused_until_there_is() {
    let origin = Upstream::text("ok");
    let gateway = gateway(&origin);
    let old = wasm::digest(&gateway.plugin_file("hello"));
    let load = Load::start(gateway.plain(), 1, &Request::get("/"));
    // Where the copy is written first, writing fails as on a full disk.
    let bytes = build("no room");
    let source = gateway.directory().write("source", &bytes);
    let wanted = wasm::digest(&source);
    symlink("/dev/full", gateway.directory().path().join(format!("state/plugins/{wanted}.new"))).unwrap();
    wasm::move_over(&bytes, &gateway.plugin_file("hello"));
    let reason = gateway.rejection("hello");
    assert!(reason.contains("private copy") && reason.contains("No space left"), "{reason}");
    assert!(gateway.is_live("hello", &old) && greets(&gateway));
    // The link is gone, so there is room now; the file is tried again, without another change, after 30 s at most.
    eventually(LONG * 3, "it is live", || gateway.is_live("hello", &wanted));
    unharmed(&load.finish());
}

#[test]
fn a_full_disk_changes_nothing_that_runs() {
    let origin = Upstream::text("ok");
    let mounts = Command::new("unshare").args(["--mount", "sh", "-c", "mount -t tmpfs tmpfs /mnt"]).output();
    if !mounts.is_ok_and(|output| output.status.success()) {
        tool::skipped("file systems cannot be mounted here");
        return;
    }
    let setup = Setup::before(&origin).guest("hello", PATIENT).server("admin = \"unix:admin.sock\"");
    let state = setup.directory.path().join("state");
    fs::create_dir(&state).unwrap();
    let mount = format!("mount -t tmpfs -o size=8m tmpfs {} && exec \"$@\"", state.display());
    let gateway = setup.through(&format!("exec unshare --mount sh -c '{mount}' sh \"$@\"")).start();
    let old = wasm::digest(&gateway.plugin_file("hello"));
    let inside = PathBuf::from(format!("/proc/{}/root{}", gateway.id(), state.display()));
    let load = Load::start(gateway.plain(), 1, &Request::get("/"));

    let filler = inside.join("filler");
    let mut file = File::create(&filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    drop(file);
    wasm::move_over(&build("no room"), &gateway.plugin_file("hello"));
    let wanted = wasm::digest(&gateway.plugin_file("hello"));
    let reason = gateway.rejection("hello");
    assert!(reason.contains("No space left"), "{reason}");
    assert!(gateway.is_live("hello", &old) && greets(&gateway));
    fs::remove_file(filler).unwrap();
    // The same again: no need to wait for the next try.
    wasm::move_over(&build("no room"), &gateway.plugin_file("hello"));
    eventually(LONG, "it is live when there is room", || gateway.is_live("hello", &wanted));
    unharmed(&load.finish());
}
