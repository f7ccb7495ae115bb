//! What a policy was granted it can use, and nothing else, and nobody else pays for it.

use std::time::{Duration, Instant};

use weir_tests::collector::Collector;
use weir_tests::load::Load;
use weir_tests::upstream::{Gate, Reply};
use weir_tests::{Gateway, LONG, Request, Setup, Upstream, eventually};

/// What lets the guest `call-out` ask two upstreams, with time enough for slow machines.
const GRANTED: &str =
    "grants = [\"http-out\"]\nhttp_out = { upstreams = [\"auth\", \"directory\"] }\nlimits = { wall = \"20s\" }";

fn setup(origin: &Upstream, auth: &str, directory: &str, lines: &str) -> Setup {
    let upstreams = format!(
        "[upstream.auth]\nservers = [{{ url = \"{auth}\" }}]\n[upstream.directory]\nservers = [{{ url = \"{directory}\" }}]\n\
         [upstream.secret]\nservers = [{{ url = \"{auth}\" }}]"
    );
    Setup::before(origin).guest("call-out", lines).section(&upstreams)
}

/// A gateway whose policy may ask this server as `auth`.
fn asking(origin: &Upstream, auth: &Upstream) -> Gateway {
    setup(origin, &auth.url(), &auth.url(), GRANTED).start()
}

/// The reason for which the policy refused, as the log tells it.
#[track_caller]
fn refusal(gateway: &Gateway, target: &str) -> String {
    let line = gateway.log_of(&gateway.get(target));
    assert_eq!(line["decided_by"], "call-out", "{line}");
    line["reason"].as_str().unwrap_or_default().to_owned()
}

fn counted(gateway: &Gateway, upstream: &str, outcome: &str) -> f64 {
    let labels = format!("plugin=\"call-out\",upstream=\"{upstream}\",outcome=\"{outcome}\"");
    gateway.metric(&format!("weir_plugin_calls_out_total{{{labels}}}"))
}

/// Pain 18: two calls one after the other, in six lines of policy.
#[test]
fn a_policy_asks_one_upstream_and_then_another() {
    let origin = Upstream::text("welcome");
    let directory = Upstream::scripted(|request| Reply::text(if request.target() == "/accounts/ada" { "gold" } else { "none" }));
    let auth = Upstream::scripted(|request| {
        let allowed = request.body == b"gold" && request.header("x-user") == Some("ada");
        Reply::with(if allowed { "204 No Content" } else { "403 Forbidden" }, &[], "")
    });
    let gateway = setup(&origin, &auth.url(), &directory.url(), GRANTED).start();
    let ask = |user: &str| gateway.ask(&Request::get("/two").header("x-user", user));
    assert_eq!(ask("ada").text(), "welcome");
    let refused = ask("eve");
    assert_eq!((refused.status, origin.count()), (403, 1));
    let line = gateway.log_of(&refused);
    assert_eq!((&line["decided_by"], &line["reason"]), (&"call-out".into(), &"not_allowed".into()), "{line}");
    let calls = line["calls"].as_array().unwrap();
    let told: Vec<_> = calls.iter().map(|call| (call["upstream"].as_str().unwrap(), call["status"].as_u64().unwrap())).collect();
    assert_eq!(told, [("directory", 200), ("auth", 403)], "{line}");
    assert_eq!(counted(&gateway, "auth", "ok"), 2.0);
}

#[test]
fn the_upstream_sees_a_request_of_the_gateway_in_the_trace_of_the_exchange() {
    let origin = Upstream::text("not asked");
    let fields = [("x-theirs", "1"), ("keep-alive", "timeout=5"), ("x-hop", "2"), ("connection", "keep-alive, x-hop")];
    let auth = Upstream::scripted(move |request| Reply::with("200 OK", &fields, request.body.clone()));
    let gateway = asking(&origin, &auth);
    let answer = gateway.get("/echo");
    assert_eq!(answer.text(), "200 /echo x-theirs=1&content-length=5", "the answer comes without hop-by-hop fields");
    let line = gateway.log_of(&answer);
    let sent = auth.last();
    assert_eq!(sent.target(), "/echo?q=1");
    assert_eq!(sent.header("host"), Some(auth.address().to_string().as_str()));
    assert_eq!((sent.header("content-length"), sent.header("x-mine")), (Some("5"), Some("yes")));
    let parent = sent.header("traceparent").unwrap_or_default();
    assert!(parent.contains(line["trace_id"].as_str().unwrap()), "{parent} {line}");
    assert_eq!(sent.header("x-forwarded-for"), None, "nothing of the client's request goes along by itself");
    assert_eq!(origin.count(), 0);
}

/// Pain 14: the call is a CLIENT span below the policy's, and the upstream's parent.
#[test]
fn a_call_is_a_span_below_the_policys_own() {
    let Some(collector) = Collector::start() else { return };
    let (origin, auth) = (Upstream::text("ok"), Upstream::text("fine"));
    let setup = setup(&origin, &auth.url(), &auth.url(), GRANTED);
    let gateway = setup.telemetry(&format!("otlp = \"{}\"", collector.url)).start();
    let answer = gateway.get("/later");
    let trace_id = gateway.log_of(&answer)["trace_id"].as_str().unwrap().to_owned();
    let mut spans = Vec::new();
    eventually(LONG, "three spans arrive", || {
        spans = collector.spans(&trace_id);
        spans.len() >= 3
    });
    let find = |kind: &str| spans.iter().find(|span| span.says(&["Kind", kind])).unwrap_or_else(|| panic!("{kind}: {spans:?}"));
    let (policy, client) = (find("INTERNAL"), find("CLIENT"));
    assert_eq!(client.field("Parent ID"), policy.field("ID"), "{client:?} {policy:?}");
    assert!(client.says(&["weir.policy.name", "call-out"]) && client.says(&["weir.upstream", "auth"]), "{client:?}");
    let sent = auth.last().header("traceparent").unwrap_or_default().to_owned();
    assert!(sent.contains(client.field("ID").unwrap_or_default()), "{sent} {client:?}");
}

#[test]
fn a_policy_asks_nobody_but_the_upstreams_it_was_granted() {
    let (origin, auth) = (Upstream::text("ok"), Upstream::text("secret"));
    let gateway = asking(&origin, &auth);
    for name in ["secret", "origin", "nobody", "127.0.0.1"] {
        assert_eq!(refusal(&gateway, &format!("/ask/{name}")), "not_granted", "{name}");
    }
    assert_eq!((auth.count(), origin.count()), (0, 0));
    assert_eq!(counted(&gateway, "", "not_granted"), 4.0, "a name that is no upstream's is no label");
    assert_eq!(gateway.get("/ask/auth").text(), "200 6");
}

#[test]
fn the_grant_and_the_names_come_together() {
    let (origin, auth) = (Upstream::text("ok"), Upstream::text("ok"));
    let check = |lines: &str, wanted: &[&str]| {
        let checked = setup(&origin, &auth.url(), &auth.url(), lines).check();
        assert_eq!(checked.code, Some(1), "{lines}: {}", checked.text());
        for wanted in wanted {
            assert!(checked.text().contains(wanted), "{lines}: {wanted:?} is not in {}", checked.text());
        }
    };
    check("", &["imports the capability `http-out`, which is not granted", "grants = [\"http-out\"]"]);
    check("grants = [\"http-out\"]", &["policy.call-out.grants", "names no upstream to ask", "http_out = { upstreams = "]);
    check("http_out = { upstreams = [\"auth\"] }", &["policy.call-out.http_out", "does not grant http-out"]);
    let unknown = "grants = [\"http-out\"]\nhttp_out = { upstreams = [\"aut\"] }";
    check(unknown, &["policy.call-out.http_out.upstreams", "unknown upstream (\"aut\")", "auth"]);
    check("grants = [\"http-out\"]\nhttp_out = { upstreams = [] }", &["http_out.upstreams", "is empty"]);
    check("grants = [\"http-out\"]\nhttp_out = { upstreams = [\"auth\"], calls = 0 }", &["http_out.calls"]);
}

#[test]
fn nothing_is_asked_before_there_is_traffic() {
    let (origin, auth) = (Upstream::text("ok"), Upstream::text("ok"));
    let gateway = asking(&origin, &auth);
    assert_eq!(auth.count(), 0, "a plugin that is configured and tested asks nobody");
    assert_eq!(refusal(&gateway, "/early"), "not_now");
}

#[test]
fn a_policy_cannot_write_what_only_the_gateway_writes() {
    let (origin, auth) = (Upstream::text("ok"), Upstream::text("ok"));
    let gateway = asking(&origin, &auth);
    assert_eq!(refusal(&gateway, "/headers"), "all_refused");
    assert_eq!(refusal(&gateway, "/large"), "request_too_large");
    assert_eq!(auth.count(), 0);
    let larger = GRANTED.replace("\"directory\"] }", "\"directory\"], body = \"4MiB\" }");
    let gateway = setup(&origin, &auth.url(), &auth.url(), &larger).start();
    assert_eq!(refusal(&gateway, "/large"), "taken", "the operator allows more");
    assert_eq!(auth.last().length, 70_000);
}

/// Pain 4: epochs do not tick while a guest waits, its wall deadline does.
#[test]
fn an_upstream_that_hangs_costs_the_policys_own_time_and_nobody_elses() {
    let (origin, gate) = (Upstream::text("ok"), Gate::default());
    let held = gate.clone();
    let auth = Upstream::scripted(move |_| Reply::Behind(held.clone(), Box::new(Reply::text("late"))));
    let lines = GRANTED.replace("20s", "300ms");
    let gateway = setup(&origin, &auth.url(), &auth.url(), &lines).replace("workers = 2", "workers = 1").start();
    assert_eq!(gateway.get("/").status, 200);
    let neighbours = Load::start(gateway.plain(), 2, &Request::get("/neighbour"));
    eventually(LONG, "traffic flows", || neighbours.done() > 50);
    let began = Instant::now();
    // The policy's own timeout is an error that it can deal with; its wall deadline ends its call.
    assert_eq!(refusal(&gateway, "/soon"), "timeout");
    let before = neighbours.done();
    assert_eq!(refusal(&gateway, "/later"), "policy_timed_out");
    assert!(began.elapsed() >= Duration::from_millis(330), "both waited: {:?}", began.elapsed());
    assert!(neighbours.done() > before + 20, "one worker serves others while a policy waits");
    let report = neighbours.finish();
    assert!(report.failures.is_empty(), "{:?}", report.failures.first());
    let policy = &gateway.plugin("call-out")[0]["policies"][0];
    assert_eq!(policy["timeouts"], 1, "{policy}");
    assert_eq!(counted(&gateway, "auth", "timeout"), 2.0);
    gate.open();
    eventually(LONG, "the policy asks again", || gateway.get("/later").text() == "200 4");
}

/// Every build would have waited as long: what a slow upstream does to a policy is told, and the policy stays in service.
#[test]
fn an_upstream_that_hangs_does_not_put_the_policy_into_quarantine() {
    let (origin, gate) = (Upstream::text("ok"), Gate::default());
    let held = gate.clone();
    let auth = Upstream::scripted(move |_| Reply::Behind(held.clone(), Box::new(Reply::text("late"))));
    let lines = format!("{}\nquarantine = {{ calls = 10 }}", GRANTED.replace("20s", "100ms"));
    let gateway = setup(&origin, &auth.url(), &auth.url(), &lines).start();
    let mut client = gateway.connect();
    for _ in 0..20 {
        assert_eq!(client.ask(&Request::get("/later")).unwrap().status, 503);
    }
    // Generations are looked at every second at least; traffic goes on meanwhile.
    let look = Instant::now();
    eventually(LONG, "it has been looked at", || {
        client.ask(&Request::get("/")).unwrap().status == 200 && look.elapsed() > Duration::from_millis(1_500)
    });
    let policy = &gateway.plugin("call-out")[0]["policies"][0];
    assert_eq!(
        (&policy["health"], &policy["timeouts"], &policy["waited"]),
        (&"working".into(), &20.into(), &20.into()),
        "{policy}"
    );
    assert_eq!(gateway.metric("weir_policy_quarantines_total{policy=\"call-out\"}"), 0.0);
    gate.open();
}

#[test]
fn an_answer_without_end_is_read_no_further_than_the_limit() {
    const HUGE: u64 = 100 << 20;
    for chunked in [true, false] {
        let origin = Upstream::text("ok");
        let auth = Upstream::scripted(move |request| match request.target() {
            "/" => Reply::Stream { length: HUGE, chunked },
            _ => Reply::text("small"),
        });
        let gateway = asking(&origin, &auth);
        assert_eq!(gateway.get("/echo").status, 200);
        let before = gateway.memory();
        for _ in 0..10 {
            assert_eq!(refusal(&gateway, "/later"), "answer_too_large", "chunked: {chunked}");
        }
        let grown = gateway.memory().saturating_sub(before);
        assert!(grown < 16 << 20, "chunked: {chunked}: memory grew by {grown} bytes");
        assert_eq!(gateway.get("/echo").status, 200, "chunked: {chunked}");
    }
}

#[test]
fn an_answer_that_breaks_off_is_no_answer() {
    let cases: [&[u8]; 5] = [
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nshort\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    ];
    for bytes in cases {
        let origin = Upstream::text("ok");
        let auth = Upstream::scripted(move |_| Reply::Last(bytes.to_vec()));
        let gateway = asking(&origin, &auth);
        assert_eq!(refusal(&gateway, "/later"), "broken", "{}", String::from_utf8_lossy(bytes));
        assert_eq!(gateway.get("/").status, 200);
    }
}

#[test]
fn a_policy_that_asks_in_a_loop_floods_nobody() {
    let (origin, auth) = (Upstream::text("ok"), Upstream::text("yes"));
    let gateway = asking(&origin, &auth);
    assert_eq!(refusal(&gateway, "/loop"), "busy_after_16");
    assert_eq!(auth.count(), 16);
    assert_eq!(refusal(&gateway, "/loop"), "busy_after_16", "the limit is on one exchange");
    assert!(auth.accepted() <= 2, "calls share connections: {} for 32 calls", auth.accepted());
}

#[test]
fn calls_under_way_are_bounded_and_end_with_their_clients() {
    let (origin, gate) = (Upstream::text("ok"), Gate::default());
    let held = gate.clone();
    let auth = Upstream::scripted(move |_| Reply::Behind(held.clone(), Box::new(Reply::text("late"))));
    let lines = GRANTED.replace("\"directory\"] }", "\"directory\"], calls = 2 }");
    let gateway = setup(&origin, &auth.url(), &auth.url(), &lines).start();
    let mut waiting: Vec<_> = (0..2).map(|_| gateway.connect()).collect();
    for connection in &mut waiting {
        connection.send(Request::get("/later").bytes()).unwrap();
    }
    eventually(LONG, "two calls wait", || auth.count() == 2);
    assert_eq!(refusal(&gateway, "/later"), "busy");
    assert_eq!(auth.count(), 2);
    // Whoever hangs up gives the place back.
    drop(waiting);
    eventually(LONG, "both calls have ended", || counted(&gateway, "auth", "ended") > 1.0);
    gate.open();
    eventually(LONG, "there is room again", || gateway.get("/later").status == 200);
}

#[test]
fn calls_go_where_the_gateway_would_send_a_request() {
    let (origin, second) = (Upstream::text("ok"), Upstream::text("second"));
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let upstreams = format!(
        "[upstream.auth]\nservers = [{{ url = \"http://{gone}\" }}, {{ url = \"{}\", priority = 1 }}]\n\
         [upstream.directory]\nservers = [{{ url = \"http://{gone}\" }}]",
        second.url()
    );
    let gateway = Setup::before(&origin).guest("call-out", GRANTED).section(&upstreams).start();
    assert_eq!(gateway.get("/ask/auth").text(), "200 6", "the second server answers for the first");
    let mut reasons = Vec::new();
    eventually(LONG, "the only server is known to be down", || {
        reasons.push(refusal(&gateway, "/ask/directory"));
        reasons.last().is_some_and(|reason| reason == "no_server")
    });
    assert_eq!(reasons[0], "connect", "{reasons:?}");
}

#[test]
fn a_connection_is_asked_about_once_and_the_first_exchange_tells_of_it() {
    let (origin, auth) = (Upstream::text("welcome"), Upstream::text("not asked"));
    let directory = Upstream::text("known");
    let lines = format!("{GRANTED}\nconfig = {{ connections = true }}");
    let gateway = setup(&origin, &auth.url(), &directory.url(), &lines).start();
    let asked = directory.count();
    let mut connection = gateway.connect();
    let answers: Vec<_> = (0..2).map(|_| connection.ask(&Request::get("/")).unwrap()).collect();
    assert_eq!((answers[1].text().as_str(), directory.count() - asked), ("welcome", 1));
    let (first, second) = (gateway.log_of(&answers[0]), gateway.log_of(&answers[1]));
    assert_eq!(first["calls"][0]["upstream"], "directory", "{first}");
    assert!(directory.last().header("traceparent").unwrap().contains(first["trace_id"].as_str().unwrap()), "{first}");
    assert!(second["calls"].is_null(), "{second}");
}

/// A policy that only observes asks all the same: its verdict hangs on the answer.
#[test]
fn a_policy_that_observes_asks_and_decides_nothing() {
    let origin = Upstream::text("welcome");
    let auth = Upstream::scripted(|_| Reply::with("403 Forbidden", &[], ""));
    let gateway = setup(&origin, &auth.url(), &auth.url(), &format!("mode = \"observe\"\n{GRANTED}")).start();
    let answer = gateway.get("/two");
    assert_eq!(answer.text(), "welcome");
    let line = gateway.log_of(&answer);
    assert_eq!((&line["policies"][0]["verdict"], auth.count()), (&"deny".into(), 2), "{line}");
}

/// Lines that the greedy guest runs with: what it does takes more than the ten milliseconds that a call has.
const GREEDY: &str = "grants = [\"kv\"]\nlimits = { cpu = \"2s\", wall = \"20s\" }";

/// Pain 12: what one plugin keeps, another neither reads nor changes nor pushes out; a plugin has room for so much and no more.
#[test]
fn a_greedy_plugin_takes_nothing_from_its_neighbour() {
    let origin = Upstream::text("ok");
    let gateway = Setup::before(&origin).guest("kv", "grants = [\"kv\"]").guest("greedy", GREEDY).start();
    let count = |path: &str| gateway.get(path).header("x-count").map(str::to_owned);
    assert_eq!(count("/").as_deref(), Some("1"));
    let reason = |path: &str| gateway.log_of(&gateway.get(path))["reason"].as_str().unwrap_or_default().to_owned();
    assert_eq!(reason("/spy"), "nothing", "the neighbour's key is not there");
    assert_eq!(reason("/fill"), "filled");
    let before = gateway.memory();
    for _ in 0..20 {
        assert_eq!(reason("/fill"), "filled", "the newest is kept, what is too large never");
    }
    let grown = gateway.memory().saturating_sub(before);
    assert!(grown < 48 << 20, "80 MiB were offered, and the memory grew by {grown} bytes");
    assert_eq!(reason("/spy"), "own_only");
    // The counter went on through all of that: 1 before, 23 by the greedy one's own requests, and this.
    assert_eq!(count("/").as_deref(), Some("25"));
}

/// Pain 13: random labels and names that look like another metric end at a number of series.
#[test]
fn counters_of_a_plugin_are_bounded_and_invent_no_metric() {
    let origin = Upstream::text("ok");
    let gateway = Setup::before(&origin).guest("greedy", GREEDY).start();
    for _ in 0..5 {
        assert_eq!(gateway.get("/series").status, 400);
    }
    let text = gateway.admin("GET /metrics").text();
    let own = text.lines().filter(|line| line.starts_with("weir_plugin_counter_total{plugin=\"greedy\""));
    let (dropped, series): (Vec<_>, Vec<_>) = own.partition(|line| line.contains("name=\"dropped\""));
    assert_eq!(series.len(), 64, "{series:#?}");
    assert!(series.iter().all(|line| line.contains("name=\"random\"")), "{series:#?}");
    // 500 series were offered, and ten additions each time whose names are none.
    let refused = dropped.iter().find(|line| line.contains("label=\"series\"")).unwrap();
    assert!(refused.ends_with(&format!(" {}", 500 - 64 + 50)), "{refused}");
    let families = text.lines().filter(|line| line.starts_with("# TYPE weir_requests_total "));
    assert_eq!(families.count(), 1, "{text}");
    assert!(!text.contains("UPPER") && !text.contains("labelled"), "{text}");
}

/// Pain 11: of many who want the same thing at once, one gets it.
#[test]
fn a_key_is_taken_once_however_many_want_it() {
    let origin = Upstream::text("yours");
    let gateway = Setup::before(&origin).guest("kv", "grants = [\"kv\"]").start();
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let ask = || gateway.get("/claim").status;
        let clients: Vec<_> = (0..24).map(|_| scope.spawn(ask)).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    let got = statuses.iter().filter(|status| **status == 200).count();
    let refused = statuses.iter().filter(|status| **status == 409).count();
    assert_eq!((got, refused), (1, 23), "{statuses:?}");
}

/// Pain 11: a plugin's state outlives its swap and ends with its file.
#[test]
fn what_a_plugin_keeps_ends_with_its_file() {
    let origin = Upstream::text("ok");
    let gateway = Setup::before(&origin).guest("kv", "grants = [\"kv\"]").start();
    let count = || gateway.get("/").header("x-count").map(str::to_owned);
    assert_eq!((count().as_deref(), count().as_deref()), (Some("1"), Some("2")));
    let file = gateway.plugin_file("kv");
    weir_tests::wasm::move_over(&weir_tests::wasm::changed(&weir_tests::wasm::guest("kv"), "other"), &file);
    let digest = weir_tests::wasm::digest(&file);
    eventually(LONG, "the swap is live", || gateway.is_live("kv", &digest));
    assert_eq!(count().as_deref(), Some("3"), "a swap keeps it");
    gateway.rewrite(|text| text.replace("chain = [\"kv\"]", "chain = []").replace("[policy.kv]", "[policy.kv]\nmode = \"off\""));
    eventually(LONG, "no policy counts", || count().is_none());
    let bytes = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    eventually(LONG, "the plugin is gone", || gateway.plugin("kv").is_empty());
    std::fs::write(&file, bytes).unwrap();
    eventually(LONG, "it is back", || gateway.is_live("kv", &digest));
    gateway.rewrite(|text| text.replace("chain = []", "chain = [\"kv\"]").replace("mode = \"off\"", "mode = \"enforce\""));
    let mut first = None;
    eventually(LONG, "it counts again", || {
        first = count();
        first.is_some()
    });
    assert_eq!(first.as_deref(), Some("1"));
}

/// A file that is missing for a moment costs a policy nothing; what is gone for good leaves nothing behind, however many come and go.
#[test]
fn what_is_kept_of_a_plugin_ends_with_its_file_and_its_last_use() {
    let origin = Upstream::text("ok");
    let gateway = Setup::before(&origin).guest("kv", "grants = [\"kv\"]").start();
    let count = || gateway.get("/").header("x-count").map(str::to_owned);
    assert_eq!(count().as_deref(), Some("1"));
    let file = gateway.plugin_file("kv");
    let (bytes, digest) = (std::fs::read(&file).unwrap(), weir_tests::wasm::digest(&file));
    let state = || gateway.plugin("kv").first().map(|plugin| plugin["state"].clone()).unwrap_or_default();
    std::fs::remove_file(&file).unwrap();
    eventually(LONG, "its file is missed", || state() == "removed");
    // Names that are gone are forgotten every five seconds.
    let since = Instant::now();
    eventually(LONG, "time passes", || since.elapsed() > Duration::from_secs(6));
    assert_eq!(count().as_deref(), Some("2"), "it is used");
    std::fs::write(&file, &bytes).unwrap();
    eventually(LONG, "it is back", || gateway.is_live("kv", &digest));
    assert_eq!(count().as_deref(), Some("3"), "and goes on with what it has kept");

    let told = |metrics: &str| metrics.contains("policy=\"kv\"") || metrics.contains("plugin=\"kv\"");
    let metrics = || gateway.admin("GET /metrics").text();
    assert!(told(&metrics()));
    std::fs::remove_file(&file).unwrap();
    eventually(LONG, "its file is missed again", || state() == "removed");
    let without = |text: &str| text.replace("chain = [\"kv\"]", "chain = []").split("[policy.kv]").next().unwrap().to_owned();
    let whole = std::fs::read_to_string(gateway.config()).unwrap();
    gateway.rewrite(without);
    eventually(LONG, "no policy uses it, and it is forgotten", || gateway.plugin("kv").is_empty() && !told(&metrics()));
    assert!(metrics().contains("weir_requests_total{site=\"site\""), "the site goes on");

    std::fs::write(&file, &bytes).unwrap();
    eventually(LONG, "there is one again", || gateway.is_live("kv", &digest));
    gateway.rewrite(|_| whole.clone());
    let mut first = None;
    eventually(LONG, "it counts again", || {
        first = count();
        first.is_some()
    });
    assert_eq!(first.as_deref(), Some("1"), "from the beginning");
}
