//! Records for the tests of this module.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use weir_plugins::{Decision, Finding, Mode, Phase, PolicyVersion, VerdictKind};

use crate::conn::{ClientIp, ConnInfo, PeerAddr, TlsInfo};

use super::record::{AccessRecord, Attempt, ConnectionRecord, DecidedBy, TraceIds};

/// 2026-11-22T12:00:00.250Z.
pub(super) fn time() -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(1_795_348_800_250)
}

/// A plain GET that the upstream answered; not sampled.
pub(super) fn relayed() -> AccessRecord {
    let started = Instant::now();
    let attempt = Attempt {
        server: "http://127.0.0.1:9000".into(),
        stage: "head",
        outcome: "ok",
        status: Some(200),
        started,
        elapsed: Duration::from_millis(2),
        span_id: 0xa1,
    };
    AccessRecord {
        event: "request",
        time: time(),
        started,
        duration: Duration::from_micros(2_500),
        request_id: 0xabcd,
        trace: TraceIds { trace_id: 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c, span_id: 0x5e, parent: None, sampled: false },
        conn: Arc::new(conn(None)),
        client: ClientIp([203, 0, 113, 7].into()),
        country: None,
        site: Some("partner-a".into()),
        protocol: "HTTP/1.1",
        method: http::Method::GET,
        host: "a.example.com".to_owned(),
        path: "/LabTech/Agent.aspx".to_owned(),
        status: 200,
        decided_by: DecidedBy::Upstream,
        reason: String::new(),
        rule: String::new(),
        decisions: Vec::new(),
        findings: Vec::new(),
        tags: Vec::new(),
        upstream: Some("automate".into()),
        attempts: vec![attempt],
        calls: Vec::new(),
        bytes_in: 0,
        bytes_out: 6,
    }
}

/// Everything a record can hold: TLS, a failover, a denial by the second of two policies, hostile text.
pub(super) fn denied() -> AccessRecord {
    let plain = relayed();
    let started = plain.started;
    let tls = TlsInfo {
        version: "1.3",
        suite: "TLS_AES_128_GCM_SHA256".to_owned(),
        sni: Some("a.example.com".to_owned()),
        alpn: None,
        ja4: Some("t13d1516h2_8daaf6152771_b186095e22b6".to_owned()),
        legacy: false,
    };
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let attempt = |server: &str, stage, outcome, status, micros, span_id| Attempt {
        server: server.into(),
        stage,
        outcome,
        status,
        started: started + Duration::from_millis(1),
        elapsed: Duration::from_micros(micros),
        span_id,
    };
    let geoip = decision("geoip", Phase::Request, VerdictKind::Next, started);
    let ips = Decision {
        rule: "sqli-2".to_owned(),
        reason: "score".to_owned(),
        elapsed: Duration::from_micros(41),
        ..decision("ips", Phase::RequestBody, VerdictKind::Deny, started)
    };
    AccessRecord {
        duration: Duration::from_micros(30_125),
        conn: Arc::new(conn(Some(tls))),
        client: ClientIp([198, 51, 100, 9].into()),
        country: Some("DE".into()),
        method: http::Method::POST,
        path: "/Lab\"Tech/\u{1b}[2J".to_owned(),
        status: 403,
        decided_by: DecidedBy::Policy("ips".into()),
        reason: "score".to_owned(),
        rule: "sqli-2".to_owned(),
        decisions: vec![geoip, ips],
        findings: vec![Finding {
            policy: "ips".into(),
            rule: "sqli-2".to_owned(),
            category: "sqli".to_owned(),
            target: "query:id".to_owned(),
            evidence: "1 or ***".to_owned(),
            score: 5,
        }],
        tags: vec![pair("class", "unknown"), pair("sso", "old"), pair("class", "agent"), pair("sso", "new")],
        attempts: vec![
            attempt("https://10.0.0.5", "connect", "refused", None, 1_500, 0xa1),
            attempt("https://10.0.0.6:8443", "head", "ok", Some(200), 20_000, 0xa2),
        ],
        calls: Vec::new(),
        bytes_in: 12,
        bytes_out: 3_456,
        ..plain
    }
}

/// A policy call of 175 ns that began with the request.
pub(super) fn decision(policy: &str, phase: Phase, verdict: VerdictKind, started: Instant) -> Decision {
    Decision {
        version: Arc::new(PolicyVersion { policy: policy.into(), digest: "9f86d081".into() }),
        phase,
        verdict,
        rule: String::new(),
        reason: String::new(),
        mode: Mode::Enforce,
        tried: None,
        started,
        elapsed: Duration::from_nanos(175),
    }
}

/// A failed handshake.
pub(super) fn connection() -> ConnectionRecord {
    ConnectionRecord {
        time: time(),
        conn: Arc::new(conn(None)),
        site: None,
        decided_by: DecidedBy::Gateway,
        reason: "tls_handshake_failed".to_owned(),
        detail: "no shared \"suite\"".to_owned(),
        decisions: Vec::new(),
        findings: Vec::new(),
    }
}

fn conn(tls: Option<TlsInfo>) -> ConnInfo {
    ConnInfo {
        listener: "0.0.0.0:443".into(),
        peer: PeerAddr(([203, 0, 113, 7], 50_123).into()),
        client: ClientIp([203, 0, 113, 7].into()),
        client_text: http::HeaderValue::from_static("203.0.113.7"),
        tls,
        country: None,
    }
}
