//! A finished record as OpenTelemetry spans: SERVER for the request, CLIENT per upstream attempt, INTERNAL per policy call.

use std::borrow::Cow;
use std::time::{Duration, Instant, SystemTime};

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use weir_plugins::candidate::{Difference, Tried};
use weir_plugins::capability::http_out::CallOut;
use weir_plugins::{Decision, Mode, VerdictKind};

use super::access_log::{CLASS, last_tag};
use super::record::{AccessRecord, Attempt, DecidedBy};
use super::trace::random_u64;

/// An exchange at least this long is slow: its spans are exported whatever the sampler said.
pub const SLOW: Duration = Duration::from_secs(1);

/// Whether the spans of an exchange are exported: sampled, refused, failed, slow, or one in which a shadow differed.
#[must_use]
pub fn is_kept(record: &AccessRecord) -> bool {
    record.trace.sampled
        || record.duration >= SLOW
        || record.status == 0
        || record.status >= 500
        || record.decided_by == DecidedBy::Gateway
        || record.decisions.iter().any(decided_against)
        || record.attempts.iter().any(|attempt| attempt.outcome != OK)
        || record.calls.iter().any(|call| call.outcome != OK)
}

/// How many spans [`build`] makes of a record.
#[must_use]
pub fn count(record: &AccessRecord) -> usize {
    let calls: usize = record.calls.iter().map(|call| call.attempts.len()).sum();
    1 + record.attempts.len() + record.decisions.len() + calls
}

/// Hands every span of an exchange to `emit`, the SERVER span first. Times of day are those of the record's own clock pair.
pub fn build(record: &AccessRecord, scope: &InstrumentationScope, mut emit: impl FnMut(SpanData)) {
    let spans = Spans { record, scope };
    emit(spans.server());
    for (index, decision) in record.decisions.iter().enumerate() {
        let span_id = random_u64();
        emit(spans.policy(decision, span_id));
        for call in record.calls.iter().filter(|call| call.decision == index) {
            call.attempts.iter().for_each(|attempt| emit(spans.call_out(call, attempt, span_id)));
        }
    }
    // Beyond what a record holds of decisions.
    for call in record.calls.iter().filter(|call| call.decision >= record.decisions.len()) {
        call.attempts.iter().for_each(|attempt| emit(spans.call_out(call, attempt, record.trace.span_id)));
    }
    for (index, attempt) in record.attempts.iter().enumerate() {
        emit(spans.attempt(index, attempt));
    }
}

const OK: &str = "ok";

fn decided_against(decision: &Decision) -> bool {
    if decision.tried.and_then(Tried::difference).is_some() {
        return true;
    }
    match decision.verdict {
        _ if !decision.counts() => false,
        VerdictKind::Error => true,
        VerdictKind::Deny => decision.mode == Mode::Enforce,
        VerdictKind::Next | VerdictKind::Accept | VerdictKind::Reply => false,
    }
}

struct Spans<'a> {
    record: &'a AccessRecord,
    scope: &'a InstrumentationScope,
}

impl Spans<'_> {
    fn server(&self) -> SpanData {
        let record = self.record;
        let name = match &record.site {
            Some(site) => Cow::Owned(format!("{} {site}", span_method(&record.method))),
            None => Cow::Owned(span_method(&record.method).to_owned()),
        };
        let status = if record.status >= 500 { Status::error(record.reason.clone()) } else { Status::Unset };
        SpanData {
            parent_span_id: record.trace.parent.map_or(SpanId::INVALID, SpanId::from),
            parent_span_is_remote: record.trace.parent.is_some(),
            span_kind: SpanKind::Server,
            status,
            attributes: self.server_attributes(),
            ..self.span(name, record.trace.span_id, record.started, record.duration)
        }
    }

    fn server_attributes(&self) -> Vec<KeyValue> {
        let record = self.record;
        let mut out = Attributes(Vec::with_capacity(24));
        out.method(&record.method);
        out.put("url.path", record.path.clone());
        out.put("url.scheme", if record.conn.tls.is_some() { "https" } else { "http" });
        out.put("server.address", record.host.clone());
        out.put("network.protocol.version", record.protocol.trim_start_matches("HTTP/"));
        out.put("client.address", record.client.0.to_string());
        out.put("network.peer.address", record.conn.peer.0.ip().to_string());
        out.put("network.peer.port", i64::from(record.conn.peer.0.port()));
        out.maybe("geo.country.iso_code", record.country.clone());
        if let Some(tls) = &record.conn.tls {
            out.put("tls.protocol.version", tls.version);
            out.maybe("tls.client.server_name", tls.sni.clone());
        }
        if record.status > 0 {
            out.put("http.response.status_code", i64::from(record.status));
        }
        if record.status >= 500 {
            out.put("error.type", record.status.to_string());
        }
        out.put("weir.request_id", format!("{:032x}", record.request_id));
        out.maybe("weir.site", record.site.clone());
        out.maybe("weir.upstream", record.upstream.clone());
        out.maybe("weir.class", last_tag(record, CLASS).map(str::to_owned));
        match &record.decided_by {
            DecidedBy::Upstream => out.put("weir.decided_by", "upstream"),
            DecidedBy::Gateway => out.put("weir.decided_by", "gateway"),
            DecidedBy::Policy(name) => out.put("weir.decided_by", name.clone()),
        }
        out.nonempty("weir.reason", &record.reason);
        out.nonempty("security_rule.name", &record.rule);
        if !record.trace.sampled {
            // The upstream was told that this trace is not recorded, so its spans may be missing.
            out.put("weir.sampled_late", true);
        }
        out.0
    }

    fn policy(&self, decision: &Decision, span_id: u64) -> SpanData {
        let mut out = Attributes(Vec::with_capacity(7));
        out.put("weir.policy.name", decision.version.policy.clone());
        out.put("weir.policy.phase", decision.phase.name());
        out.put("weir.policy.verdict", decision.verdict.name());
        out.put("weir.policy.mode", decision.mode_name());
        out.maybe("weir.policy.differs", decision.tried.and_then(Tried::difference).map(Difference::name));
        out.put("weir.policy.plugin_digest", decision.version.digest.clone());
        out.nonempty("weir.reason", &decision.reason);
        out.nonempty("security_rule.name", &decision.rule);
        let failed = decision.verdict == VerdictKind::Error;
        let name = format!("policy {} {}", decision.version.policy, decision.phase.name());
        SpanData {
            status: if failed { Status::error(decision.reason.clone()) } else { Status::Unset },
            attributes: out.0,
            ..self.span(Cow::Owned(name), span_id, decision.started, decision.elapsed)
        }
    }

    fn attempt(&self, index: usize, attempt: &Attempt) -> SpanData {
        let record = self.record;
        let mut out = Attributes(Vec::with_capacity(10));
        out.maybe("weir.upstream", record.upstream.clone());
        if index > 0 {
            out.put("http.request.resend_count", i64::try_from(index).unwrap_or(i64::MAX));
        }
        self.client(attempt, &record.method, &record.path, out)
    }

    /// A call of a policy, below the policy's own span.
    fn call_out(&self, call: &CallOut, attempt: &Attempt, parent: u64) -> SpanData {
        let mut out = Attributes(Vec::with_capacity(10));
        out.put("weir.upstream", call.upstream.clone());
        out.put("weir.policy.name", call.policy.clone());
        SpanData { parent_span_id: SpanId::from(parent), ..self.client(attempt, &call.method, &call.path, out) }
    }

    fn client(&self, attempt: &Attempt, method: &http::Method, path: &str, mut out: Attributes) -> SpanData {
        out.method(method);
        server_of(&attempt.server, &mut out);
        out.put("url.full", format!("{}{path}", attempt.server.trim_end_matches('/')));
        out.put("weir.attempt.stage", attempt.stage);
        if let Some(status) = attempt.status {
            out.put("http.response.status_code", i64::from(status));
        }
        // An answer of 400 and up is an error of a CLIENT span, though not of a SERVER span below 500.
        let status = match attempt.status {
            _ if attempt.outcome != OK => {
                out.put("error.type", attempt.outcome);
                Status::error(format!("{}: {}", attempt.stage, attempt.outcome))
            }
            Some(status) if status >= 400 => {
                out.put("error.type", status.to_string());
                Status::error("")
            }
            Some(_) | None => Status::Unset,
        };
        let name = Cow::Owned(span_method(method).to_owned());
        SpanData {
            span_kind: SpanKind::Client,
            status,
            attributes: out.0,
            ..self.span(name, attempt.span_id, attempt.started, attempt.elapsed)
        }
    }

    /// An INTERNAL child of the SERVER span, for the callers to refine.
    fn span(&self, name: Cow<'static, str>, span_id: u64, started: Instant, elapsed: Duration) -> SpanData {
        let trace = self.record.trace;
        let start_time = self.time_of(started);
        SpanData {
            span_context: SpanContext::new(
                TraceId::from(trace.trace_id),
                SpanId::from(span_id),
                TraceFlags::SAMPLED,
                false,
                TraceState::NONE,
            ),
            parent_span_id: SpanId::from(trace.span_id),
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name,
            start_time,
            end_time: start_time + elapsed,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: self.scope.clone(),
        }
    }

    /// Connection policies ran before the head arrived, so an instant may lie on either side of it.
    fn time_of(&self, instant: Instant) -> SystemTime {
        let record = self.record;
        match instant.checked_duration_since(record.started) {
            Some(after) => record.time.checked_add(after),
            None => record.time.checked_sub(record.started.duration_since(instant)),
        }
        .unwrap_or(record.time)
    }
}

struct Attributes(Vec<KeyValue>);

impl Attributes {
    fn put(&mut self, key: &'static str, value: impl Into<Value>) {
        self.0.push(KeyValue::new(key, value));
    }

    fn maybe(&mut self, key: &'static str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.put(key, value);
        }
    }

    fn nonempty(&mut self, key: &'static str, value: &str) {
        if !value.is_empty() {
            self.put(key, value.to_owned());
        }
    }

    fn method(&mut self, method: &http::Method) {
        match known_method(method) {
            Some(name) => self.put("http.request.method", name),
            None => {
                self.put("http.request.method", "_OTHER");
                self.put("http.request.method_original", method.as_str().to_owned());
            }
        }
    }
}

/// The HTTP conventions keep methods they do not know out of names and indexed attributes.
fn known_method(method: &http::Method) -> Option<&'static str> {
    const KNOWN: [&str; 9] = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "CONNECT", "TRACE"];
    KNOWN.into_iter().find(|name| method == name)
}

fn span_method(method: &http::Method) -> &'static str {
    known_method(method).unwrap_or("HTTP")
}

fn server_of(url: &str, out: &mut Attributes) {
    let Ok(uri) = url.parse::<http::Uri>() else { return };
    let https = uri.scheme() == Some(&http::uri::Scheme::HTTPS);
    if let Some(host) = uri.host() {
        out.put("server.address", host.to_owned());
    }
    out.put("server.port", i64::from(uri.port_u16().unwrap_or(if https { 443 } else { 80 })));
    out.put("url.scheme", if https { "https" } else { "http" });
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::fixture;
    use super::*;

    fn built(record: &AccessRecord) -> Vec<SpanData> {
        let mut spans = Vec::new();
        build(record, &InstrumentationScope::builder("weir").build(), |span| spans.push(span));
        assert_eq!(spans.len(), count(record));
        spans
    }

    fn attributes(span: &SpanData) -> HashMap<&str, String> {
        let map: HashMap<_, _> = span.attributes.iter().map(|pair| (pair.key.as_str(), pair.value.to_string())).collect();
        assert_eq!(map.len(), span.attributes.len(), "an attribute is set twice: {:?}", span.attributes);
        map
    }

    #[track_caller]
    fn check(span: &SpanData, expected: &[(&str, &str)]) {
        let actual = attributes(span);
        for (key, value) in expected {
            assert_eq!(actual.get(key).map(String::as_str), Some(*value), "{key}");
        }
    }

    #[test]
    fn the_server_span_tells_who_asked_and_who_decided() {
        let mut record = fixture::denied();
        record.trace.parent = Some(0xfa);
        let spans = built(&record);
        let server = &spans[0];
        assert_eq!((server.name.as_ref(), &server.span_kind), ("POST partner-a", &SpanKind::Server));
        assert_eq!(server.span_context.trace_id(), TraceId::from(record.trace.trace_id));
        assert_eq!((server.parent_span_id, server.parent_span_is_remote), (SpanId::from(0xfa), true));
        assert_eq!((server.start_time, server.end_time), (fixture::time(), fixture::time() + record.duration));
        assert_eq!(server.status, Status::Unset, "a refusal is no error of the gateway");
        check(
            server,
            &[
                ("http.request.method", "POST"),
                ("url.scheme", "https"),
                ("server.address", "a.example.com"),
                ("http.response.status_code", "403"),
                ("network.protocol.version", "1.1"),
                ("client.address", "198.51.100.9"),
                ("network.peer.address", "203.0.113.7"),
                ("network.peer.port", "50123"),
                ("geo.country.iso_code", "DE"),
                ("tls.protocol.version", "1.3"),
                ("weir.request_id", "0000000000000000000000000000abcd"),
                ("weir.site", "partner-a"),
                ("weir.class", "agent"),
                ("weir.decided_by", "ips"),
                ("weir.reason", "score"),
                ("security_rule.name", "sqli-2"),
                ("weir.sampled_late", "true"),
            ],
        );
    }

    #[test]
    fn a_failover_shows_as_two_client_spans() {
        let record = fixture::denied();
        let spans = built(&record);
        let [first, second] = &spans[3..] else { panic!("two attempts") };
        assert_eq!((&first.span_kind, first.parent_span_id), (&SpanKind::Client, SpanId::from(0x5e)));
        assert_eq!(first.span_context.span_id(), SpanId::from(0xa1));
        assert_eq!(first.start_time, fixture::time() + Duration::from_millis(1));
        assert_eq!(first.status, Status::error("connect: refused"));
        check(first, &[("server.address", "10.0.0.5"), ("server.port", "443"), ("error.type", "refused")]);
        assert!(!attributes(first).contains_key("http.request.resend_count"));
        assert_eq!(second.status, Status::Unset);
        check(second, &[("server.port", "8443"), ("http.request.resend_count", "1"), ("http.response.status_code", "200")]);
    }

    #[test]
    fn what_a_policy_asked_is_below_its_own_span() {
        let mut record = fixture::denied();
        let attempt = record.attempts.pop().unwrap();
        let call = |decision| CallOut {
            policy: "ips".into(),
            decision,
            upstream: "auth".into(),
            method: http::Method::PUT,
            path: "/check".to_owned(),
            outcome: "ok",
            started: record.started,
            elapsed: Duration::from_millis(2),
            attempts: vec![Attempt { span_id: 0xca11, ..attempt.clone() }],
            by: 1,
        };
        record.calls = vec![call(1), call(99)];
        let spans = built(&record);
        let of_call: Vec<_> = spans.iter().filter(|span| span.span_context.span_id() == SpanId::from(0xca11)).collect();
        let ips = spans.iter().find(|span| span.name == "policy ips request-body").unwrap();
        assert_eq!(of_call[0].parent_span_id, ips.span_context.span_id());
        assert_eq!(of_call[1].parent_span_id, SpanId::from(record.trace.span_id), "its decision is not in the record");
        assert_eq!((of_call[0].name.as_ref(), &of_call[0].span_kind), ("PUT", &SpanKind::Client));
        let expected = [("weir.upstream", "auth"), ("weir.policy.name", "ips"), ("server.port", "8443")];
        check(of_call[0], &expected);
        assert!(attributes(of_call[0])["url.full"].ends_with("/check"));
    }

    #[test]
    fn every_policy_call_is_an_internal_span() {
        let mut record = fixture::denied();
        record.decisions[0].started = record.started.checked_sub(Duration::from_millis(3)).unwrap();
        record.decisions[0].verdict = VerdictKind::Error;
        let spans = built(&record);
        let (geoip, ips) = (&spans[1], &spans[2]);
        assert_eq!((geoip.name.as_ref(), ips.name.as_ref()), ("policy geoip request", "policy ips request-body"));
        assert_eq!(geoip.start_time, fixture::time() - Duration::from_millis(3), "before the head");
        assert!(matches!(geoip.status, Status::Error { .. }) && ips.status == Status::Unset);
        assert_eq!((&ips.span_kind, ips.parent_span_id), (&SpanKind::Internal, SpanId::from(0x5e)));
        check(
            ips,
            &[("weir.policy.verdict", "deny"), ("weir.policy.mode", "enforce"), ("weir.policy.plugin_digest", "9f86d081")],
        );
    }

    #[test]
    fn server_errors_are_errors_and_strange_methods_stay_out_of_names() {
        let method = http::Method::from_bytes(b"BREW").unwrap();
        let record = AccessRecord { status: 503, method, site: None, ..fixture::relayed() };
        let server = &built(&record)[0];
        assert!(matches!(server.status, Status::Error { .. }));
        assert_eq!(server.name, "HTTP");
        check(server, &[("http.request.method", "_OTHER"), ("http.request.method_original", "BREW"), ("error.type", "503")]);
    }

    #[test]
    fn unsampled_exchanges_are_kept_when_refused_failed_or_slow() {
        let with = |change: &dyn Fn(&mut AccessRecord)| {
            let mut record = fixture::relayed();
            change(&mut record);
            is_kept(&record)
        };
        let call = |verdict, mode| {
            move |record: &mut AccessRecord| {
                let decision = fixture::decision("p", weir_plugins::Phase::Request, verdict, record.started);
                record.decisions.push(Decision { mode, ..decision });
            }
        };
        assert!(!with(&|_| ()));
        assert!(with(&|record| record.trace.sampled = true));
        assert!(with(&|record| record.duration = SLOW));
        assert!(with(&|record| record.status = 502));
        assert!(with(&|record| record.status = 0));
        assert!(!with(&|record| record.status = 404));
        assert!(with(&|record| record.decided_by = DecidedBy::Gateway));
        assert!(with(&|record| record.attempts[0].outcome = "reset"));
        assert!(with(&call(VerdictKind::Deny, Mode::Enforce)));
        assert!(!with(&call(VerdictKind::Deny, Mode::Observe)));
        assert!(with(&call(VerdictKind::Error, Mode::Observe)));
        assert!(!with(&call(VerdictKind::Accept, Mode::Enforce)));
    }
}
