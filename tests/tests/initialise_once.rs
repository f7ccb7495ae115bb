//! `configure` runs once for a policy: its memory is what every instance of every worker begins with.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;
use weir_tests::{Answer, Gateway, LONG, Request, Setup, Upstream, eventually, wasm};

/// The guest `configures` with this configuration and these lines. Its calls have time, unless the test is about that: machines are busy.
fn setup(origin: &Upstream, config: &str, lines: &str) -> Setup {
    let limits = if lines.contains("limits") { "" } else { "limits = { cpu = \"1s\", wall = \"10s\" }\n" };
    let lines = format!("{limits}{lines}");
    Setup::before(origin).guest("configures", &format!("grants = [\"kv\"]\nconfig = {{ {config} }}\n{lines}"))
}

fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.header(name).unwrap_or_else(|| panic!("no {name}"))
}

/// What the gateway tells of its one policy.
fn policy(gateway: &Gateway) -> Value {
    gateway.plugin("configures")[0]["policies"][0].clone()
}

/// Enough connections for every worker to have had some.
fn ask_often(gateway: &Gateway, target: &str) -> Vec<Answer> {
    (0..60).map(|_| gateway.get(target)).collect()
}

/// Values of a header over many answers.
fn values(answers: &[Answer], name: &str) -> BTreeSet<String> {
    answers.iter().map(|answer| header(answer, name).to_owned()).collect()
}

fn compiled(gateway: &Gateway) -> BTreeSet<String> {
    let directory = gateway.directory().path().join("state/compiled/modules");
    let mut names = BTreeSet::new();
    for version in fs::read_dir(directory).unwrap() {
        let files = fs::read_dir(version.unwrap().path()).unwrap().map(|file| file.unwrap().file_name());
        names.extend(files.map(|name| name.into_string().unwrap()).filter(|name| !name.contains('.')));
    }
    names
}

#[test]
fn configure_runs_once_for_all_workers_and_instances() {
    let origin = Upstream::text("ok");
    let gateway =
        setup(&origin, "rounds = 300_000_000, store = true, name = \"once\"", "").replace("workers = 2", "workers = 4").start();
    let answers = ask_often(&gateway, "/store");
    assert_eq!(values(&answers, "x-name"), BTreeSet::from(["once".to_owned()]));
    assert_eq!(values(&answers, "x-configured"), BTreeSet::from(["1".to_owned()]), "in each memory");
    assert_eq!(values(&answers, "x-stored"), BTreeSet::from(["1".to_owned()]), "in the store that all share");
    assert_eq!(values(&answers, "x-sum").len(), 1);
    let counter = "weir_plugin_counter_total{plugin=\"configures\",name=\"configured\",label=\"\"}";
    assert_eq!(gateway.metric(counter) as u32, 1, "{}", gateway.admin("GET /metrics").text());
    assert_eq!(gateway.stderr().matches("configured 1 times").count(), 1, "its line is in the log once");
    let policy = policy(&gateway);
    assert_eq!((&policy["initialised"], &policy["not_snapshot_because"]), (&"snapshot".into(), &Value::Null));
}

#[test]
fn an_exchange_of_its_own_instance_begins_as_configured_and_leaves_nothing_behind() {
    let origin = Upstream::text("ok");
    let gateway = setup(&origin, "name = \"own\"", "isolation = \"request\"").start();
    let mut kept = gateway.connect();
    for _ in 0..20 {
        let answer = kept.ask(&Request::get("/")).unwrap();
        assert_eq!(header(&answer, "x-seen"), "1", "nothing of the exchange before");
        assert_eq!(header(&answer, "x-same"), "true", "request and response phase on one instance");
        assert_eq!((header(&answer, "x-configured"), header(&answer, "x-name")), ("1", "own"));
    }
    let policy = policy(&gateway);
    assert_eq!((&policy["isolation"], &policy["exhausted"]), (&"request".into(), &0.into()));
}

#[test]
fn exchanges_at_once_never_share_an_instance_of_their_own() {
    let gate = weir_tests::Gate::default();
    let behind = gate.clone();
    let origin = Upstream::scripted(move |_| weir_tests::Reply::Behind(behind.clone(), Box::new(weir_tests::Reply::text("ok"))));
    let gateway = setup(&origin, "", "isolation = \"request\"").start();
    let mut clients: Vec<_> = (0..40).map(|_| gateway.connect()).collect();
    for client in &mut clients {
        client.send(Request::get("/held").bytes()).unwrap();
    }
    eventually(LONG, "all are held", || origin.count() == clients.len());
    gate.open();
    for mut client in clients {
        let answer = client.answer().unwrap();
        assert_eq!((header(&answer, "x-seen"), header(&answer, "x-same")), ("1", "true"));
    }
}

#[test]
fn pooled_instances_serve_one_exchange_after_another() {
    let origin = Upstream::text("ok");
    let gateway = setup(&origin, "", "").replace("workers = 2", "workers = 1").start();
    let answers = ask_often(&gateway, "/");
    let last = answers.iter().map(|answer| header(answer, "x-seen").parse::<u32>().unwrap()).max();
    assert_eq!(last, Some(60), "all on one instance");
}

/// Pain 15: one plugin with two configurations. The draft that configures both is compiled once, each image once.
#[test]
fn pain_15_two_policies_of_one_plugin_have_images_of_their_own() {
    let origin = Upstream::text("ok");
    let second = format!(
        "[policy.second]\nplugin = \"configures\"\ngrants = [\"kv\"]\nconfig = {{ name = \"second\" }}\n\
         [upstream.two]\nservers = [{{ url = \"{}\" }}]\n\
         [[site]]\nname = \"two\"\nhosts = [\"two.test\"]\nupstream = \"two\"\nchain = [\"second\"]",
        origin.url()
    );
    let gateway = setup(&origin, "name = \"first\"", "").section(&second).start();
    for _ in 0..10 {
        let (first, second) = (gateway.get("/"), gateway.ask(&Request::get("/").host("two.test")));
        assert_eq!((header(&first, "x-name"), header(&second, "x-name")), ("first", "second"));
        assert_eq!((header(&first, "x-configured"), header(&second, "x-configured")), ("1", "1"));
    }
    assert_eq!(compiled(&gateway).len(), 3, "one draft and two images");
}

#[test]
fn numbers_that_nobody_may_share_are_drawn_in_each_instance() {
    let origin = Upstream::text("ok");
    let gateway = setup(&origin, "secret = true", "isolation = \"request\"").start();
    let answers = ask_often(&gateway, "/");
    assert_eq!(values(&answers, "x-secret").len(), answers.len(), "each exchange has its own");
    let policy = policy(&gateway);
    assert_eq!(policy["initialised"], "per instance");
    assert!(policy["not_snapshot_because"].as_str().is_some_and(|why| why.contains("random")), "{policy}");
    assert!(gateway.stderr().contains("configure drew random numbers"), "{}", gateway.stderr());
}

/// The seeds of hash maps are in the image: all instances have the same, no other installation has, and a restart changes nothing.
#[test]
fn a_restart_finds_the_compiled_image_and_no_other_installation_has_its_hash_seeds() {
    let origin = Upstream::text("ok");
    let start = || setup(&origin, "keys = 40", "").start();
    let (mut gateway, other) = (start(), start());
    let orders = values(&ask_often(&gateway, "/"), "x-order");
    assert_eq!(orders.len(), 1, "one image");
    assert_ne!(orders, values(&[other.get("/")], "x-order"), "another installation");

    let before = compiled(&gateway);
    assert_eq!(before.len(), 2, "a draft and an image");
    gateway.restart();
    assert_eq!(values(&ask_often(&gateway, "/"), "x-order"), orders);
    assert_eq!(compiled(&gateway), before, "nothing was compiled again");
}

#[test]
fn a_configuration_that_is_refused_says_why() {
    let origin = Upstream::text("ok");
    let cases = [
        ("refuse = \"model: no such model\"", "config: model: no such model"),
        ("panic = true", "configure failed: trapped"),
        ("panic = true", "asked to panic while configuring"),
        ("rounds = 1_000_000_000_000", "configure failed: "),
        ("mebibytes = 80", "configure failed"),
        ("unknown = 1", "unknown field"),
    ];
    for (config, expected) in cases {
        let checked = setup(&origin, config, "").check();
        assert_eq!(checked.code, Some(1), "{config}");
        assert!(checked.text().contains(expected), "{config}: {}", checked.text());
    }
}

/// A policy whose configuration is refused has written nothing to the store of those that run.
#[test]
fn what_a_refused_configure_wrote_is_gone() {
    let origin = Upstream::text("ok");
    let gateway = setup(&origin, "store = true", "").start();
    assert_eq!(header(&gateway.get("/store"), "x-stored"), "1");
    let reload = |from: &str, to: &str| {
        gateway.rewrite(|text| text.replace(from, to));
        gateway.admin("POST /v1/reload").status
    };
    assert_eq!(reload("store = true", "store = true, refuse = \"no\""), 422);
    assert_eq!(header(&gateway.get("/store"), "x-stored"), "1");
    assert_eq!(reload("refuse = \"no\"", "name = \"yes\""), 200);
    assert_eq!(header(&gateway.get("/store"), "x-stored"), "2", "read and written as before");
}

#[test]
fn limits_hold_in_instances_that_begin_with_an_image() {
    let origin = Upstream::text("ok");
    for isolation in ["pooled", "request"] {
        let gateway = setup(
            &origin,
            "mebibytes = 4",
            &format!("isolation = \"{isolation}\"\nlimits = {{ cpu = \"10ms\", wall = \"1s\" }}"),
        )
        .start();
        assert_eq!(policy(&gateway)["initialised"], "snapshot");
        let cases = [
            ("/rounds", "policy_cpu_exceeded policy_timed_out"),
            ("/trap", "policy_trapped"),
            ("/grow", "policy_trapped policy_cpu_exceeded policy_timed_out"),
        ];
        for (path, reasons) in cases {
            let answer = gateway.get(path);
            assert_eq!(answer.status, 503, "{path}");
            let line = gateway.log_of(&answer);
            let reason = line["reason"].as_str().unwrap();
            assert!(reasons.split(' ').any(|known| known == reason), "{path}: {line}");
            assert_eq!(header(&gateway.get("/"), "x-configured"), "1", "{isolation}: the next one begins with the image");
        }
    }
}

/// Pain 24: whatever a policy is made from makes a new generation when it changes, and nothing else does.
#[test]
fn pain_24_a_change_of_config_grants_limits_mode_or_isolation_makes_a_new_generation() {
    let origin = Upstream::text("ok");
    let gateway = setup(
        &origin,
        "name = \"a\"",
        "isolation = \"pooled\"\non_error = \"deny\"\nlimits = { memory = \"32MiB\" }\nmode = \"enforce\"",
    )
    .replace("workers = 2", "workers = 1")
    .start();
    let seen = || header(&gateway.get("/"), "x-seen").parse::<u32>().unwrap();
    let reload = |from: &str, to: &str| {
        gateway.rewrite(|text| {
            assert!(text.contains(from), "{from}");
            text.replace(from, to)
        });
        assert_eq!(gateway.admin("POST /v1/reload").status, 200, "{to}");
    };
    assert_eq!((seen(), seen()), (1, 2));
    reload("[upstream.origin]", "# nothing that matters\n[upstream.origin]");
    assert_eq!(seen(), 3, "the same generation goes on");
    let changes = [
        ("name = \"a\"", "name = \"b\""),
        ("grants = [\"kv\"]", "grants = [\"kv\", \"log\"]"),
        ("memory = \"32MiB\"", "memory = \"16MiB\""),
        ("memory = \"16MiB\"", "memory = \"16MiB\", cpu = \"20ms\""),
        ("on_error = \"deny\"", "on_error = \"allow\""),
    ];
    for (from, to) in changes {
        seen();
        reload(from, to);
        assert_eq!((seen(), seen()), (1, 2), "{to}: a new generation, configured anew");
    }
    reload("isolation = \"pooled\"", "isolation = \"request\"");
    assert_eq!((seen(), seen()), (1, 1));
    reload("mode = \"enforce\"", "mode = \"observe\"");
    assert_eq!(gateway.get("/").header("x-seen"), None, "it only observes");
}

/// Memory of the process that is its own and not shared, in MiB: pages of an image count once for all instances.
fn own_mebibytes(gateway: &Gateway) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", gateway.id())).unwrap();
    let line = rollup.lines().find(|line| line.starts_with("Pss:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
}

/// Pain 7: memory is not plugins times workers. Of 32 MiB of configured memory seven more workers have next to nothing of their own,
/// where they have all of it if each instance has to configure itself.
#[test]
fn pain_7_workers_share_the_memory_of_a_configured_policy() {
    let origin = Upstream::text("ok");
    let measure = |config: &str, workers: usize| {
        let gateway = setup(&origin, config, "").replace("workers = 2", &format!("workers = {workers}")).start();
        ask_often(&gateway, "/");
        own_mebibytes(&gateway)
    };
    let of_seven = |config: &str| measure(config, 8).saturating_sub(measure(config, 1));
    let (shared, separate) = (of_seven("mebibytes = 32"), of_seven("mebibytes = 32, secret = true"));
    assert!(separate > 7 * 24 && shared < 3 * 32, "seven workers have {shared} MiB with an image, {separate} MiB without");
}

/// A plugin that no image can be made of says why and works all the same.
#[test]
fn a_plugin_without_an_image_is_configured_in_each_instance() {
    let origin = Upstream::text("ok");
    let gateway = setup(&origin, "secret = true, name = \"each\"", "").start();
    let answers = ask_often(&gateway, "/");
    assert_eq!(values(&answers, "x-name"), BTreeSet::from(["each".to_owned()]));
    assert_eq!(values(&answers, "x-configured"), BTreeSet::from(["1".to_owned()]));
    let file = gateway.plugin_file("configures");
    wasm::move_over(&wasm::changed(&file, "again"), &file);
    let wanted = wasm::digest(&file);
    eventually(LONG, "it can be replaced", || gateway.is_live("configures", &wanted));
    assert_eq!(header(&gateway.get("/"), "x-name"), "each");
}

/// Times that `configure` read mean the same in every instance.
#[test]
fn a_time_read_while_configuring_is_in_the_past_of_every_instance() {
    let origin = Upstream::text("ok");
    let gateway = setup(&origin, "clock = true", "isolation = \"request\"").start();
    let age = || header(&gateway.get("/"), "x-age-ms").parse::<u64>().unwrap();
    let first = age();
    eventually(LONG, "it gets older", || age() > first);
}
