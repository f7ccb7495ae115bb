//! Strict priority: the secondary serves while the primary cannot, and no longer.

use weir_tests::load::Load;
use weir_tests::tls::{Authority, Kind};
use weir_tests::{LONG, Request, Setup, Upstream, eventually};

const HEALTH: &str = "health = { path = \"/health\", every = \"100ms\", timeout = \"500ms\", fall = 2, rise = 2 }";

#[test]
fn requests_move_to_the_secondary_and_return_when_the_primary_does() {
    let mut primary = Upstream::text("primary");
    let secondary = Upstream::text("secondary");
    let gateway = Setup::before_servers(&[(&primary.url(), 0), (&secondary.url(), 1)]).upstream(HEALTH).start();
    assert_eq!(gateway.get("/").text(), "primary");

    primary.stop();
    for _ in 0..20 {
        let answer = gateway.get("/");
        assert_eq!((answer.status, answer.text().as_str()), (200, "secondary"), "no request fails");
    }

    primary.restart();
    eventually(LONG, "the primary serves again", || gateway.get("/").text() == "primary");
    for _ in 0..20 {
        assert_eq!(gateway.get("/").text(), "primary", "and does not flap");
    }
    let asked = |origin: &Upstream| origin.requests().iter().filter(|request| request.target() == "/health").count();
    eventually(LONG, "both are probed", || asked(&primary) > 2 && asked(&secondary) > 2);
}

#[test]
fn the_log_shows_every_attempt() {
    let mut primary = Upstream::text("primary");
    let secondary = Upstream::text("secondary");
    let gateway = Setup::before_servers(&[(&primary.url(), 0), (&secondary.url(), 1)]).start();
    primary.stop();
    let answer = gateway.ask(&Request::post("/", "text/plain", "a body that is sent again"));
    assert_eq!(answer.text(), "secondary");
    assert_eq!(secondary.last().body, b"a body that is sent again");
    let line = gateway.log_of(&answer);
    let attempts = line["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 2, "{line}");
    assert_eq!((&attempts[0]["server"], &attempts[0]["outcome"]), (&primary.url().into(), &"refused".into()));
    assert_eq!((&attempts[1]["server"], &attempts[1]["outcome"]), (&secondary.url().into(), &"ok".into()));
}

#[test]
fn a_primary_that_dies_under_load_costs_only_what_it_held() {
    let mut primary = Upstream::text("primary");
    let secondary = Upstream::text("secondary");
    let gateway = Setup::before_servers(&[(&primary.url(), 0), (&secondary.url(), 1)]).upstream(HEALTH).start();
    let clients = 4;
    let load = Load::start(gateway.plain(), clients, &Request::get("/"));
    eventually(LONG, "traffic flows", || load.done() > 200);
    primary.stop();
    let before = load.done();
    eventually(LONG, "traffic goes on", || load.done() > before + 500);
    let report = load.finish();
    // A request that was on its way to the origin when it died may not be sent twice: at most one for each client.
    assert!(report.failures.len() <= clients, "{:?}", report.failures);
    assert!(report.failures.iter().all(|failure| failure == "502"), "{:?}", report.failures);
    assert!(secondary.count() > 100);
}

#[test]
fn when_nobody_is_up_the_answer_says_so_at_once() {
    let mut only = Upstream::text("only");
    let gateway = Setup::before(&only).upstream(HEALTH).start();
    assert_eq!(gateway.get("/").status, 200);
    only.stop();
    eventually(LONG, "the server is known to be down", || {
        let answer = gateway.get("/");
        assert!(answer.status == 502 || answer.status == 503, "{answer:?}");
        gateway.log_of(&answer)["reason"] == "no_healthy_server"
    });
    let answer = gateway.get("/");
    assert_eq!(answer.status, 503);
    assert!(answer.header("retry-after").is_some());
    only.restart();
    eventually(LONG, "the server is known to be up", || gateway.get("/").status == 200);
}

#[test]
fn a_site_may_refuse_connections_while_it_is_down_so_that_agents_move_on() {
    let mut only = Upstream::text("only");
    let authority = Authority::new();
    let gateway = Setup::before(&only)
        .upstream(HEALTH)
        .replace("name = \"site\"", "name = \"site\"\nrefuse_when_down = true")
        .certificate(&authority.issue(Kind::Ecdsa, &["site.test"]))
        .start();
    assert!(authority.connect(gateway.tls(), "site.test").is_ok());
    only.stop();
    eventually(LONG, "handshakes are refused", || authority.connect(gateway.tls(), "site.test").is_err());
    let line = gateway.log_where(|line| line["event"] == "connection");
    assert_eq!((&line["reason"], &line["site"]), (&"upstream_down".into(), &"site".into()), "{line}");
    only.restart();
    eventually(LONG, "the site is served again", || authority.connect(gateway.tls(), "site.test").is_ok());
}
