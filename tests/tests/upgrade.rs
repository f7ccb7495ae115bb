//! A new binary takes over without losing a connection; one that cannot changes nothing.

use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;

use serde_json::Value;
use weir_tests::load::Load;
use weir_tests::tls::{Authority, Kind};
use weir_tests::{Connection, Gateway, LONG, Reply, Request, Setup, Upstream, eventually, is_alive, tool};

fn socket(client: &mut Connection) {
    let upgrade = Request::get("/socket")
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    assert_eq!(client.ask(&upgrade).unwrap().status, 101);
    echo(client);
}

fn echo(client: &mut Connection) {
    client.send("across").unwrap();
    assert_eq!(client.exactly(6).unwrap(), b"across");
}

/// Bytes of the long download.
const DOWNLOAD: u64 = 64 << 20;

fn origin() -> Upstream {
    Upstream::scripted(|request| match request.header("upgrade") {
        Some("websocket") => Reply::Tunnel,
        _ if request.head.first_line.contains("/download") => Reply::Stream { length: DOWNLOAD, chunked: false },
        _ => Reply::text("ok"),
    })
}

fn reason(answer: &weir_tests::Answer) -> String {
    let json: Value = serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{error}: {}", answer.text()));
    json["reason"].as_str().unwrap_or_default().to_owned()
}

/// Asks `count` times over HTTP/2 with curl, which keeps one connection as long as it may. Answers what was not 200.
fn ask_over_http2(gateway: &Gateway, authority: &Authority, count: u32) -> std::thread::JoinHandle<Vec<String>> {
    let ca = gateway.directory().write("ca.pem", &authority.pem).display().to_string();
    let port = gateway.tls().port();
    std::thread::spawn(move || {
        let (resolve, url) = (format!("site.test:{port}:127.0.0.1"), format!("https://site.test:{port}/[1-{count}]"));
        let options = [
            "-sS",
            "--http2",
            "--cacert",
            &ca,
            "--resolve",
            &resolve,
            "-o",
            "/dev/null",
            "-w",
            "%{http_code} %{errormsg}\n",
            &url,
        ];
        let text = tool::text(&tool::run("curl", &options));
        assert_eq!(text.lines().count(), count as usize, "{text}");
        text.lines().filter(|line| !line.starts_with("200")).map(str::to_owned).collect()
    })
}

#[test]
fn nothing_is_lost_under_load_and_tunnels_and_downloads_go_on() {
    let (origin, authority) = (origin(), Authority::new());
    let gateway = Setup::before(&origin)
        .certificate(&authority.issue(Kind::Ecdsa, &["site.test"]))
        .section("[limits]\ndrain_idle = \"1s\"")
        .telemetry("access_log = \"off\"")
        .start();
    let (plain, tls) = (gateway.plain(), gateway.tls());
    let client = authority.client(&[]).unwrap();
    let get = Request::get("/");
    let loads = [
        Load::start(plain, 2, &get),
        Load::start(plain, 2, &get.clone().header("connection", "close")),
        Load::over(1, &get, {
            let client = client.clone();
            move || Ok(client.connect(tls, "site.test")?.0)
        }),
        Load::over(1, &get.clone().header("connection", "close"), move || Ok(client.connect(tls, "site.test")?.0)),
    ];
    let mut tunnel = gateway.connect();
    socket(&mut tunnel);
    let mut download = gateway.connect();
    download.send(Request::get("/download").bytes()).unwrap();
    download.head().unwrap();
    let mut upload = gateway.connect();
    upload.send("POST / HTTP/1.1\r\nhost: site.test\r\ncontent-length: 6\r\n\r\nfir").unwrap();
    let http2 = tool::has("curl").then(|| ask_over_http2(&gateway, &authority, 2000));
    eventually(LONG, "traffic flows", || loads.iter().all(|load| load.done() > 50));

    let mut pids = vec![gateway.pid()];
    for _ in 0..2 {
        pids.push(gateway.upgrade_ok());
        let before: Vec<usize> = loads.iter().map(Load::done).collect();
        eventually(LONG, "traffic flows on", || loads.iter().zip(&before).all(|(load, before)| load.done() > before + 50));
    }
    echo(&mut tunnel);
    upload.send("st!").unwrap();
    assert_eq!(upload.answer().unwrap().status, 200);
    let length = usize::try_from(DOWNLOAD).unwrap();
    assert_eq!(download.exactly(length).unwrap().len(), length);
    for (load, kind) in loads.into_iter().zip(["keep-alive", "close", "tls keep-alive", "tls close"]) {
        let report = load.finish();
        assert!(report.failures.is_empty(), "{kind}: {:?} beside {} answers", report.failures, report.ok);
    }
    if let Some(http2) = http2 {
        assert_eq!(http2.join().unwrap(), Vec::<String>::new());
    }
    assert!(is_alive(pids[0]), "it has a tunnel");
    eventually(LONG, "the second process has nothing left", || !is_alive(pids[1]));
    echo(&mut tunnel);
    drop(tunnel);
    eventually(LONG, "the first process has nothing left", || !is_alive(pids[0]));
    assert!(is_alive(pids[2]));
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn a_signal_upgrades_too_and_the_admin_socket_follows() {
    let origin = Upstream::text("ok");
    let mut gateway = Setup::before(&origin).start();
    gateway.signal("USR2");
    eventually(LONG, "a new process serves", || gateway.successors().len() == 1);
    assert!(gateway.wait().success(), "the old process has nothing left to do");
    assert_eq!(gateway.admin("GET /readyz").status, 200);
    assert_eq!(gateway.get("/").text(), "ok");
}

#[test]
fn tls_sessions_are_resumed_across_an_upgrade() {
    let (origin, authority) = (Upstream::text("ok"), Authority::new());
    let gateway = Setup::before(&origin).certificate(&authority.issue(Kind::Ecdsa, &["site.test"])).start();
    let client = authority.client(&[]).unwrap();
    let connect = || {
        let (mut connection, resumed) = client.connect(gateway.tls(), "site.test").unwrap();
        assert_eq!(connection.ask(&Request::get("/").header("connection", "close")).unwrap().status, 200);
        resumed
    };
    assert!(!connect());
    assert!(connect());
    let _ = gateway.upgrade_ok();
    assert!(connect(), "the successor knows the key");
}

#[test]
fn a_successor_knows_which_servers_are_down() {
    let refusing = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let secondary = Upstream::text("secondary");
    let down = format!("http://{refusing}");
    let gateway = Setup::before_servers(&[(&down, 0), (&secondary.url(), 1)])
        .upstream("health = { path = \"/health\", every = \"1h\", fall = 1 }")
        .start();
    let eligible = || {
        let json: Value = serde_json::from_slice(&gateway.admin("GET /v1/upstreams").body).unwrap();
        json["upstreams"][0]["servers"][0]["eligible"].as_bool().unwrap()
    };
    assert_eq!(gateway.get("/").text(), "secondary");
    eventually(LONG, "the primary is known to be down", || !eligible());
    let _ = gateway.upgrade_ok();
    assert!(!eligible());
    assert_eq!(gateway.get("/").text(), "secondary");
}

#[test]
fn a_successor_finds_out_by_itself_when_a_server_without_probes_is_back() {
    let mut primary = Upstream::text("primary");
    let secondary = Upstream::text("secondary");
    let gateway = Setup::before_servers(&[(&primary.url(), 0), (&secondary.url(), 1)])
        .upstream("failback = { after = \"100ms\", ramp = \"100ms\" }")
        .start();
    let state = || {
        let json: Value = serde_json::from_slice(&gateway.admin("GET /v1/upstreams").body).unwrap();
        json["upstreams"][0]["servers"][0]["state"].as_str().unwrap().to_owned()
    };
    primary.stop();
    assert_eq!(gateway.get("/").text(), "secondary");
    eventually(LONG, "the primary is known to be down", || state() == "down");
    let _ = gateway.upgrade_ok();
    assert_eq!(state(), "down");
    primary.restart();
    eventually(LONG, "the primary serves", || gateway.get("/").text() == "primary");
}

#[test]
fn a_successor_that_fails_changes_nothing() {
    let origin = Upstream::text("ok");
    let gateway = Setup::before(&origin).own_binary().section("[limits]\nupgrade = \"4s\"").start();
    let binary = std::fs::read(gateway.directory().path().join("weir")).unwrap();
    let load = Load::start(gateway.plain(), 2, &Request::get("/"));
    let cases = [
        ("#!/bin/sh\necho broken >&2\nexit 3\n", "exit status: 3"),
        ("#!/bin/sh\necho $$ > hung\nexec sleep 60\n", "not ready within 4s"),
        ("#!/bin/sh\nexec sleep 60 <&-\n", "ended"),
        ("no program at all", "cannot start"),
    ];
    for (program, expected) in cases {
        gateway.replace_binary(program.replace("hung", &gateway.directory().path().join("hung").display().to_string()));
        let answer = gateway.upgrade();
        assert_eq!(answer.status, 422, "{}", answer.text());
        assert!(reason(&answer).contains(expected), "{program}: {}", answer.text());
        assert_eq!(gateway.get("/").text(), "ok");
    }
    let hung: u32 = std::fs::read_to_string(gateway.directory().path().join("hung")).unwrap().trim().parse().unwrap();
    assert!(!is_alive(hung), "killed");
    assert!(gateway.stderr().contains("no upgrade, this process goes on"));

    gateway.replace_binary(&binary);
    let good = std::fs::read_to_string(gateway.config()).unwrap();
    gateway.rewrite(|text| format!("{text}\nnonsense = 1\n"));
    let answer = gateway.upgrade();
    assert_eq!(answer.status, 422);
    assert!(answer.text().contains("nonsense") && answer.text().contains("weir.toml"), "{}", answer.text());
    gateway.rewrite(|_| good.clone());
    assert!(gateway.successors().is_empty());
    let _ = gateway.upgrade_ok();
    let report = load.finish();
    assert!(report.failures.is_empty(), "{:?}", report.failures);
}

#[test]
fn one_upgrade_at_a_time_and_stopping_ends_it() {
    let origin = Upstream::text("ok");
    let mut gateway = Setup::before(&origin).own_binary().start();
    let hung = gateway.directory().path().join("hung");
    gateway.replace_binary(format!("#!/bin/sh\necho $$ > {}\nexec sleep 60\n", hung.display()));
    gateway.signal("USR2");
    let pid = || std::fs::read_to_string(&hung).ok().and_then(|text| text.trim().parse::<u32>().ok());
    eventually(LONG, "the candidate runs", || pid().is_some());
    assert_eq!(gateway.upgrade().status, 409);
    gateway.signal("TERM");
    assert!(gateway.wait().success());
    assert!(!is_alive(pid().unwrap()));
}

#[test]
fn a_successor_whose_predecessor_is_killed_takes_over() {
    let origin = Upstream::text("ok");
    let mut gateway = Setup::before(&origin).own_binary().start();
    let directory = gateway.directory().path().to_owned();
    let (real, begun) = (directory.join("real"), directory.join("begun"));
    std::fs::rename(directory.join("weir"), &real).unwrap();
    let script = format!("#!/bin/sh\nsleep 1\ntouch {}\nsleep 1\nexec {} \"$@\"\n", begun.display(), real.display());
    gateway.replace_binary(script);
    gateway.signal("USR2");
    eventually(LONG, "the candidate begins", || begun.exists());
    gateway.signal("KILL");
    let _ = gateway.wait();
    // The sockets are on their way between two processes: who connects now waits.
    assert_eq!(gateway.get("/").text(), "ok");
    // It answers before the line that says so has been read.
    eventually(LONG, "the successor says that it has taken over", || gateway.successors().len() == 1);
    assert_eq!(gateway.admin("GET /readyz").status, 200);
}

#[test]
fn a_third_generation_of_tunnels_ends_the_first() {
    let origin = origin();
    let gateway = Setup::before(&origin).start();
    let mut tunnels = Vec::new();
    let mut pids = vec![gateway.pid()];
    for _ in 0..3 {
        let mut tunnel = gateway.connect();
        socket(&mut tunnel);
        tunnels.push(tunnel);
        pids.push(gateway.upgrade_ok());
    }
    assert!(tunnels[0].is_closed(), "its process is the oldest of three");
    eventually(LONG, "the oldest process ends", || !is_alive(pids[0]));
    tunnels.iter_mut().skip(1).for_each(echo);
    assert!(pids.iter().skip(1).all(|pid| is_alive(*pid)));
}

#[test]
fn a_service_manager_hears_of_every_step() {
    let origin = Upstream::text("ok");
    let setup = Setup::before(&origin);
    let path = setup.directory.path().join("notify.sock");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(LONG)).unwrap();
    let mut gateway = setup.variable("NOTIFY_SOCKET", &path.display().to_string()).start();
    let hear = || {
        let mut bytes = [0; 512];
        let length = manager.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length])
            .lines()
            .filter(|line| !line.starts_with("MONOTONIC"))
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(hear(), "READY=1");
    gateway.signal("HUP");
    assert_eq!((hear(), hear()), ("RELOADING=1".to_owned(), "READY=1".to_owned()));
    let pid = gateway.upgrade_ok();
    assert_eq!((hear(), hear()), ("RELOADING=1".to_owned(), format!("MAINPID={pid}")));
    assert_eq!(hear(), "READY=1", "of the new process");
    assert!(gateway.wait().success());
    let kill = std::process::Command::new("kill").arg(pid.to_string()).status().unwrap();
    assert!(kill.success());
    assert_eq!(hear(), "STOPPING=1");
}

#[test]
fn with_a_socket_of_the_service_manager_a_restart_refuses_nobody() {
    let origin = Upstream::text("ok");
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let start = || Setup::before(&origin).activated(&socket).section("[limits]\ndrain_idle = \"200ms\"").start();
    let mut first = start();
    assert_eq!(first.plain(), socket.local_addr().unwrap());
    let load = Load::start(first.plain(), 3, &Request::get("/").header("connection", "close"));
    eventually(LONG, "traffic flows", || load.done() > 50);
    first.signal("TERM");
    assert!(first.wait().success());
    let second = start();
    let before = load.done();
    eventually(LONG, "traffic flows on", || load.done() > before + 50);
    // And the socket goes on to a successor.
    let _ = second.upgrade_ok();
    assert_eq!(second.get("/").text(), "ok");
    let report = load.finish();
    assert!(report.failures.is_empty(), "{:?}", report.failures);
}

#[test]
fn the_command_waits_and_says_what_became_of_it() {
    let origin = Upstream::text("ok");
    let gateway = Setup::before(&origin).own_binary().start();
    let config = gateway.config().display().to_string();
    let weir = |arguments: &[&str]| weir_tests::setup::run(&[arguments, &["--config", &config]].concat());
    let done = weir(&["upgrade", "--wait"]);
    assert_eq!(done.code, Some(0), "{}", done.text());
    assert!(done.stdout.starts_with("weir ") && done.stdout.contains("serves as process"), "{}", done.stdout);
    gateway.replace_binary("#!/bin/sh\nexit 1\n");
    let failed = weir(&["upgrade"]);
    assert_eq!(failed.code, Some(1));
    assert!(failed.stderr.contains("exit status: 1") && failed.stderr.contains("still running"), "{}", failed.stderr);
    let failed = weir(&["upgrade", "--json"]);
    let json: Value = serde_json::from_str(&failed.stdout).unwrap();
    assert!(json["reason"].as_str().is_some_and(|reason| reason.contains("exit status: 1")), "{json}");
    assert_eq!(gateway.get("/").text(), "ok");
}
