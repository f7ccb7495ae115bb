//! A changed configuration goes live without losing a request; a bad one changes nothing.

use std::net::SocketAddr;

use serde_json::Value;
use weir_tests::load::Load;
use weir_tests::setup::site;
use weir_tests::tls::{Authority, Kind};
use weir_tests::{Answer, Connection, Gateway, LONG, Reply, Request, Setup, Upstream, eventually, wasm};

fn json(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{error}: {}", answer.text()))
}

fn add_site(gateway: &Gateway, name: &str, origin: &Upstream) {
    let section = site(name, &[&format!("{name}.test")], &origin.url());
    gateway.rewrite(|text| format!("{text}\n{section}\n"));
}

#[test]
fn a_site_added_to_the_file_is_served_under_load() {
    let (old, new) = (Upstream::text("old"), Upstream::text("new"));
    let gateway = Setup::before(&old).start();
    let load = Load::start(gateway.plain(), 4, &Request::get("/"));
    eventually(LONG, "traffic flows", || load.done() > 100);
    assert_eq!(gateway.ask(&Request::get("/").host("added.test")).status, 404);
    add_site(&gateway, "added", &new);
    eventually(LONG, "the new site answers", || gateway.ask(&Request::get("/").host("added.test")).status == 200);
    assert_eq!(gateway.ask(&Request::get("/").host("added.test")).text(), "new");
    let report = load.finish();
    assert!(report.failures.is_empty(), "{:?}", report.failures);
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn listeners_come_change_and_go_and_nothing_else_notices() {
    let origin = Upstream::scripted(|request| match request.header("upgrade") {
        Some("websocket") => Reply::Tunnel,
        _ if request.head.first_line.contains("/download") => Reply::Stream { length: 32 << 20, chunked: true },
        _ => Reply::text("ok"),
    });
    let authority = Authority::new();
    let gateway = Setup::before(&origin).certificate(&authority.issue(Kind::Ecdsa, &["site.test"])).start();
    let (plain, tls, port) = (gateway.plain(), gateway.tls(), free_port());
    let added = SocketAddr::from(([127, 0, 0, 1], port));
    let get = Request::get("/");
    let client = authority.client(&[]).unwrap();
    let loads = [
        Load::start(plain, 1, &get),
        Load::start(plain, 1, &get.clone().header("connection", "close")),
        Load::over(1, &get.clone().header("connection", "close"), move || Ok(client.connect(tls, "site.test")?.0)),
    ];
    let mut tunnel = gateway.connect();
    let upgrade = Request::get("/").header("connection", "Upgrade").header("upgrade", "websocket");
    assert_eq!(tunnel.ask(&upgrade).unwrap().status, 101);
    let mut download = gateway.connect();
    download.send(Request::get("/download").bytes()).unwrap();

    let text = std::fs::read_to_string(gateway.config()).unwrap();
    let listener = |lines: &str| format!("{text}\n[[listener]]\naddress = \"{added}\"\n{lines}\n");
    let reload = |text: &str| {
        gateway.rewrite(|_| text.to_owned());
        let answer = gateway.admin("POST /v1/reload");
        assert_eq!(answer.status, 200, "{}", answer.text());
    };
    let asks = |client: std::io::Result<Connection>| {
        client.and_then(|mut client| client.ask(&get)).is_ok_and(|answer| answer.status == 200)
    };
    for _ in 0..5 {
        reload(&listener(""));
        eventually(LONG, "the new listener answers", || asks(Connection::open(added)));
        let mut kept = Connection::open(added).unwrap();
        assert_eq!(kept.ask(&get).unwrap().status, 200);
        reload(&listener("tls = true"));
        eventually(LONG, "the same address speaks TLS", || asks(authority.connect(added, "site.test")));
        assert_eq!(kept.ask(&get).unwrap().status, 200, "a connection of the old form goes on");
        reload(&text);
        eventually(LONG, "the listener is gone", || Connection::open(added).is_err());
        assert_eq!(kept.ask(&get).unwrap().status, 200, "its connections are not");
    }
    tunnel.send("across").unwrap();
    assert_eq!(tunnel.exactly(6).unwrap(), b"across");
    assert_eq!(download.answer().unwrap().body.len(), 32 << 20);
    for (load, kind) in loads.into_iter().zip(["keep-alive", "close", "tls close"]) {
        let report = load.finish();
        assert!(report.failures.is_empty() && report.ok > 0, "{kind}: {:?}", report.failures);
    }
}

#[test]
fn an_address_can_become_a_narrower_one() {
    let (origin, port) = (Upstream::text("ok"), free_port());
    let gateway = Setup::before(&origin).section(&format!("[[listener]]\naddress = \"0.0.0.0:{port}\"")).start();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    assert!(Connection::open(address).is_ok());
    gateway.rewrite(|text| text.replace(&format!("0.0.0.0:{port}"), &format!("127.0.0.1:{port}")));
    assert_eq!(gateway.admin("POST /v1/reload").status, 200);
    let elsewhere = SocketAddr::from(([127, 0, 0, 2], port));
    eventually(LONG, "only the narrower address answers", || {
        Connection::open(elsewhere).is_err() && Connection::open(address).is_ok()
    });
}

#[test]
fn reload_by_request_answers_the_generation_now_live() {
    let (one, two) = (Upstream::text("one"), Upstream::text("two"));
    let gateway = Setup::before(&one).start();
    let before = json(&gateway.admin("POST /v1/reload"))["generation"].as_u64().unwrap();
    gateway.rewrite(|text| text.replace(&one.url(), &two.url()));
    let answer = gateway.admin("POST /v1/reload");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(json(&answer)["generation"].as_u64().unwrap() > before);
    assert_eq!(gateway.get("/").text(), "two", "at once, not a moment later");
}

/// What a reload starts for good must not have inherited that from the threads that load plugins.
#[test]
fn threads_that_load_plugins_stand_behind_workers_and_no_others_do() {
    // The fourth one watches the plugin directory for `weir-plugins`, the last one, without a name, is that of wasmtime's cache.
    const NICER: [&str; 5] = ["weir-plugins", "weir-reaper", "weir-judge", "notify-rs inoti", "weir"];
    let origin = Upstream::text("ok");
    let gateway = Setup::before(&origin).guest("hello", "").start();
    let file = gateway.plugin_file("hello");
    wasm::move_over(&std::fs::read(wasm::guest("noop")).unwrap(), &file);
    let digest = wasm::digest(&file);
    eventually(LONG, "the new build is live", || gateway.is_live("hello", &digest));
    assert_eq!(gateway.command("plugin rollback hello").code, Some(0));
    gateway.rewrite(|text| text.replace("[telemetry]\n", "[telemetry]\notlp = \"http://127.0.0.1:9\"\n"));
    assert_eq!(gateway.admin("POST /v1/reload").status, 200);
    assert!(gateway.has_thread("weir-otlp"), "begun by the reload");
    let own = gateway.threads().iter().find(|(name, _)| name == "weir-worker-0").unwrap().1;
    let nicer: Vec<_> = gateway.threads().into_iter().filter(|(_, nice)| *nice > own).map(|(name, _)| name).collect();
    assert!(nicer.contains(&"weir-plugins".to_owned()), "{nicer:?}");
    assert!(nicer.iter().all(|name| NICER.contains(&&**name)), "{nicer:?}");
}

/// Who asks while a configuration is being prepared gets the one that is in the files then.
#[test]
fn a_reload_by_request_while_another_is_under_way_sees_what_has_changed_since() {
    const SLOW: &str = "[policy.slow]\nplugin = \"slow\"\ngrants = [\"kv\"]\nconfig = { rounds = 300_000_000 }\n";
    let (one, two) = (Upstream::text("one"), Upstream::text("two"));
    let slow = std::fs::read(wasm::guest("configures")).unwrap();
    let gateway = Setup::before(&one).file("plugins/slow.wasm", slow).start();
    gateway.rewrite(|text| format!("{text}\n{SLOW}"));
    std::thread::scope(|scope| {
        let first = scope.spawn(|| gateway.admin("POST /v1/reload"));
        eventually(LONG, "a policy is being prepared", || gateway.has_thread("weir-prepare"));
        gateway.rewrite(|text| text.replace(&one.url(), &two.url()));
        let second = gateway.admin("POST /v1/reload");
        assert_eq!(gateway.get("/").text(), "two", "at once");
        let generation = |answer: &Answer| json(answer)["generation"].as_u64().unwrap();
        let first = first.join().unwrap();
        assert_eq!((first.status, second.status), (200, 200), "{} {}", first.text(), second.text());
        assert!(generation(&second) > generation(&first));
    });
}

#[test]
fn a_signal_reloads_too() {
    let (one, two) = (Upstream::text("one"), Upstream::text("two"));
    let gateway = Setup::before(&one).start();
    assert_eq!(gateway.get("/").text(), "one");
    gateway.rewrite(|text| text.replace(&one.url(), &two.url()));
    gateway.signal("HUP");
    eventually(LONG, "the new upstream answers", || gateway.get("/").text() == "two");
}

#[test]
fn a_bad_file_is_refused_with_all_its_mistakes_and_the_old_one_stays() {
    let origin = Upstream::text("ok");
    let gateway = Setup::before(&origin).start();
    let good = std::fs::read_to_string(gateway.config()).unwrap();
    gateway.rewrite(|text| format!("{}\nnonsense = 1\n", text.replace("upstream = \"origin\"", "upstream = \"orgin\"")));
    let answer = gateway.admin("POST /v1/reload");
    assert_eq!(answer.status, 422, "{}", answer.text());
    let errors = json(&answer)["errors"].to_string();
    assert!(errors.contains("orgin") && errors.contains("nonsense"), "both mistakes: {errors}");
    assert!(errors.contains("weir.toml"), "{errors}");
    assert_eq!(gateway.get("/").text(), "ok");
    gateway.rewrite(|_| good.clone());
    assert_eq!(gateway.admin("POST /v1/reload").status, 200);
    assert_eq!(gateway.get("/").text(), "ok");
}

#[test]
fn a_policy_can_be_added_changed_and_removed() {
    let origin = Upstream::text("ok");
    let plugin = std::fs::read(wasm::policy("agent-acl")).unwrap();
    let gateway = Setup::before(&origin).file("plugins/agent-acl.wasm", plugin).start();
    let policy = |model: &str| format!("\n[policy.acl]\nplugin = \"agent-acl\"\nconfig = {{ model = \"{model}\" }}\n");
    let plain = std::fs::read_to_string(gateway.config()).unwrap();
    let steps = [(Some("agent-only"), 403), (Some("all-traffic"), 200), (Some("agent-only"), 403), (None, 200)];
    for (model, status) in steps {
        gateway.rewrite(|_| match model {
            Some(model) => format!("{}{}", plain.replace("chain = []", "chain = [\"acl\"]"), policy(model)),
            None => plain.clone(),
        });
        let answer = gateway.admin("POST /v1/reload");
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(gateway.get("/automate/").status, status, "{model:?}");
    }
}

#[test]
fn a_plugin_config_that_no_longer_fits_is_refused_by_name() {
    let origin = Upstream::text("ok");
    let gateway = Setup::before(&origin).policy("acl", "agent-acl", "config = { model = \"all-traffic\" }").start();
    gateway.rewrite(|text| text.replace("all-traffic", "everything"));
    let answer = gateway.admin("POST /v1/reload");
    assert_eq!(answer.status, 422, "{}", answer.text());
    assert!(answer.text().contains("everything") || answer.text().contains("model"), "{}", answer.text());
    assert_eq!(gateway.get("/automate/").status, 200);
}
