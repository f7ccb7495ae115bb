//! A real collector gets the spans of a request; losing it costs no request.

use weir_tests::collector::{Collector, Span};
use weir_tests::load::Load;
use weir_tests::{Gateway, LONG, Request, Setup, Upstream, eventually};

fn gateway(origin: &Upstream, collector: &Collector) -> Gateway {
    Setup::before(origin)
        .telemetry(&format!("otlp = \"{}\"", collector.url))
        .policy("acl", "agent-acl", "config = { model = \"agent-only\" }")
        .start()
}

fn of_kind<'a>(spans: &'a [Span], kind: &str) -> Option<&'a Span> {
    spans.iter().find(|span| span.says(&["Kind", kind]))
}

#[test]
fn the_spans_of_a_request_arrive_and_the_origin_is_part_of_the_trace() {
    let Some(collector) = Collector::start() else { return };
    let origin = Upstream::text("ok");
    let gateway = gateway(&origin, &collector);
    let answer = gateway.get("/LabTech/agent.aspx");
    let line = gateway.log_of(&answer);
    let trace_id = line["trace_id"].as_str().unwrap().to_owned();

    let mut spans = Vec::new();
    eventually(LONG, "three spans arrive", || {
        spans = collector.spans(&trace_id);
        spans.len() >= 3
    });
    let server = of_kind(&spans, "SERVER").unwrap_or_else(|| panic!("no SERVER span: {}", collector.text()));
    let client = of_kind(&spans, "CLIENT").unwrap_or_else(|| panic!("no CLIENT span: {}", collector.text()));
    let internal = of_kind(&spans, "INTERNAL").unwrap_or_else(|| panic!("no INTERNAL span: {}", collector.text()));
    assert_eq!(server.field("Name"), Some("GET site"));
    assert!(server.says(&["weir.decided_by", "upstream"]), "{server:?}");
    assert!(server.says(&["http.response.status_code", "200"]), "{server:?}");
    assert!(server.says(&["client.address", "127.0.0.1"]), "{server:?}");
    assert!(internal.says(&["acl"]), "{internal:?}");

    let parent = origin.last().header("traceparent").unwrap().to_owned();
    let parts: Vec<&str> = parent.split('-').collect();
    assert_eq!((parts[0], parts[1], parts[3]), ("00", trace_id.as_str(), "01"));
    assert!(client.says(&[parts[2]]), "the origin's parent is the CLIENT span: {parent} {client:?}");
}

#[test]
fn a_refusal_is_traced_with_its_reason() {
    let Some(collector) = Collector::start() else { return };
    let origin = Upstream::text("ok");
    let gateway = Setup::before(&origin)
        .telemetry(&format!("otlp = \"{}\"\nsample = 0.0", collector.url))
        .policy("acl", "agent-acl", "config = { model = \"agent-only\" }")
        .start();
    let allowed = gateway.log_of(&gateway.get("/LabTech/agent.aspx"));
    let denied = gateway.log_of(&gateway.get("/automate/"));
    let trace_id = denied["trace_id"].as_str().unwrap();
    eventually(LONG, "the refusal arrives although nothing is sampled", || !collector.spans(trace_id).is_empty());
    let spans = collector.spans(trace_id);
    let server = of_kind(&spans, "SERVER").unwrap();
    assert!(server.says(&["weir.decided_by", "acl"]) && server.says(&["weir.reason", "class_not_allowed"]), "{server:?}");
    assert!(of_kind(&spans, "CLIENT").is_none(), "nothing was sent to the origin");
    assert!(collector.spans(allowed["trace_id"].as_str().unwrap()).is_empty());
}

#[test]
fn a_parent_is_accepted_from_trusted_proxies_only() {
    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let origin = Upstream::text("ok");
    let request = Request::get("/").header("traceparent", PARENT);
    let stranger = Setup::before(&origin).start();
    assert_eq!(stranger.ask(&request).status, 200);
    let sent = origin.last().header("traceparent").unwrap().to_owned();
    assert!(!sent.contains("0af7651916cd43dd8448eb211c80319c"), "{sent}");
    let trusting = Setup::before(&origin).behind_proxy().start();
    let line = trusting.log_of(&trusting.ask(&request));
    let sent = origin.last().header("traceparent").unwrap().to_owned();
    assert!(sent.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && !sent.contains("b7ad6b7169203331"), "{sent}");
    assert_eq!(line["trace_id"], "0af7651916cd43dd8448eb211c80319c");
}

#[test]
fn killing_the_collector_fails_no_request() {
    let Some(mut collector) = Collector::start() else { return };
    let origin = Upstream::text("ok");
    let mut gateway = gateway(&origin, &collector);
    let load = Load::start(gateway.plain(), 4, &Request::get("/LabTech/agent.aspx"));
    eventually(LONG, "traffic flows", || load.done() > 500);
    collector.kill();
    let before = load.done();
    eventually(LONG, "traffic goes on", || load.done() > before + 3000);
    let report = load.finish();
    assert!(report.failures.is_empty(), "{:?}", report.failures.first());
    gateway.signal("TERM");
    assert!(gateway.wait().success(), "and the process still ends");
}
