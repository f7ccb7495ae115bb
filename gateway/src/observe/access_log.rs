//! The decision log: one JSON object per exchange, and the file or stream the lines go to.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use weir_plugins::candidate::Difference;
use weir_plugins::{Decision, Finding};

use crate::conn::{ConnInfo, TlsInfo};

use super::json::Object;
use super::record::{AccessRecord, ConnectionRecord};

/// Appends the line of an exchange to `out`, without a line feed.
///
/// `event` is `request`, or `connection` when the head was refused before it was one. The path is logged without its query, and evidence as the policies masked it.
pub fn render(record: &AccessRecord, out: &mut Vec<u8>) {
    let mut line = Object::begin(out);
    line.text("event", record.event);
    line.time("time", record.time);
    line.hex("request_id", record.request_id);
    line.hex("trace_id", record.trace.trace_id);
    line.optional("site", record.site.as_deref());
    addresses(&mut line, &record.conn, record.client.0, record.country.as_deref());
    line.optional("class", last_tag(record, CLASS));
    tls(&mut line, record.conn.tls.as_ref());
    line.text("protocol", record.protocol);
    line.text("method", record.method.as_str());
    line.text("host", &record.host);
    line.text("path", &record.path);
    line.number("status", u64::from(record.status));
    line.text("decided_by", record.decided_by.as_str());
    line.text("reason", &record.reason);
    line.text("rule", &record.rule);
    decisions(&mut line, &record.decisions, &record.findings);
    tags(&mut line, record);
    line.optional("upstream", record.upstream.as_deref());
    line.objects("attempts", &record.attempts, |object, attempt| {
        object.text("server", &attempt.server);
        object.text("stage", attempt.stage);
        object.text("outcome", attempt.outcome);
        object.millis("ms", attempt.elapsed);
    });
    if !record.calls.is_empty() {
        line.objects("calls", &record.calls, |object, call| {
            object.text("policy", &call.policy);
            object.text("upstream", &call.upstream);
            object.optional("server", call.attempts.last().map(|attempt| &*attempt.server));
            object.text("outcome", call.outcome);
            object.number("status", call.attempts.last().and_then(|attempt| attempt.status).map_or(0, u64::from));
            object.millis("ms", call.elapsed);
        });
    }
    line.number("bytes_in", record.bytes_in);
    line.number("bytes_out", record.bytes_out);
    line.millis("duration_ms", record.duration);
    line.end();
}

/// Appends the line of a connection that never became a request to `out`, without a line feed. `event` is `connection`.
pub fn render_connection(record: &ConnectionRecord, out: &mut Vec<u8>) {
    let mut line = Object::begin(out);
    line.text("event", "connection");
    line.time("time", record.time);
    line.optional("site", record.site.as_deref());
    addresses(&mut line, &record.conn, record.conn.client.0, record.conn.country.as_deref());
    tls(&mut line, record.conn.tls.as_ref());
    line.text("decided_by", record.decided_by.as_str());
    line.text("reason", &record.reason);
    line.text("detail", &record.detail);
    // Only where policies were asked.
    if !record.decisions.is_empty() {
        decisions(&mut line, &record.decisions, &record.findings);
    }
    line.end();
}

/// Where the lines go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// Nowhere: no line is rendered for the log.
    #[default]
    Off,
    /// Standard output.
    Stdout,
    /// A file, appended to and created with mode 0640.
    File(PathBuf),
}

/// An open [`Output`]: collects lines and writes many at once.
#[derive(Debug)]
pub(super) struct Sink {
    output: Output,
    file: Option<File>,
    pending: Vec<u8>,
    lines: u64,
    failing: bool,
}

impl Sink {
    pub(super) fn open(output: Output) -> io::Result<Self> {
        let file = open_file(&output)?;
        Ok(Self { output, file, pending: Vec::new(), lines: 0, failing: false })
    }

    pub(super) const fn is_off(&self) -> bool {
        matches!(self.output, Output::Off)
    }

    /// Takes one line; returns how many lines were lost, should the buffer have had to be written and could not.
    pub(super) fn push(&mut self, line: &[u8]) -> u64 {
        self.pending.extend_from_slice(line);
        self.pending.push(b'\n');
        self.lines += 1;
        if self.pending.len() >= WRITE_AT { self.flush() } else { 0 }
    }

    /// Writes what was collected; returns how many lines were lost. One warning is logged when writing starts to fail.
    pub(super) fn flush(&mut self) -> u64 {
        let lines = std::mem::take(&mut self.lines);
        if lines == 0 {
            return 0;
        }
        let written = match (&mut self.file, &self.output) {
            (Some(file), _) => file.write_all(&self.pending),
            (None, Output::Stdout) => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(&self.pending).and_then(|()| stdout.flush())
            }
            (None, _) => Ok(()),
        };
        self.pending.clear();
        match written {
            Ok(()) => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!("the access log is written again");
                }
                0
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(%error, "the access log cannot be written: lines are dropped and counted");
                }
                lines
            }
        }
    }

    /// Opens the file anew by its path, as log rotation asks. When that fails the old file stays in use.
    pub(super) fn reopen(&mut self) {
        match open_file(&self.output) {
            Ok(file) => self.file = file,
            Err(error) => tracing::error!(%error, "the access log cannot be reopened: the old file stays in use"),
        }
    }
}

/// Enough lines per write to make the system call cheap, few enough to be seen at once.
const WRITE_AT: usize = 64 * 1024;

/// The tag that classifies the client; every other tag is logged under `tags`.
pub(super) const CLASS: &str = "class";

/// The value a tag had at the end: policies may set one twice.
pub(super) fn last_tag<'a>(record: &'a AccessRecord, key: &str) -> Option<&'a str> {
    record.tags.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
}

fn open_file(output: &Output) -> io::Result<Option<File>> {
    match output {
        Output::File(path) => OpenOptions::new().append(true).create(true).mode(0o640).open(path).map(Some),
        Output::Off | Output::Stdout => Ok(None),
    }
}

fn addresses(line: &mut Object<'_>, conn: &ConnInfo, client: IpAddr, country: Option<&str>) {
    line.text("listener", &conn.listener);
    line.address("client_ip", client);
    line.address("peer_ip", conn.peer.0.ip());
    line.optional("country", country);
}

fn tls(line: &mut Object<'_>, tls: Option<&TlsInfo>) {
    match tls {
        None => line.null("tls"),
        Some(tls) => line.object("tls", |object| {
            object.text("version", tls.version);
            object.text("suite", &tls.suite);
            object.optional("sni", tls.sni.as_deref());
            object.optional("alpn", tls.alpn.as_deref());
            object.optional("ja4", tls.ja4.as_deref());
            object.boolean("legacy", tls.legacy);
        }),
    }
}

fn decisions(line: &mut Object<'_>, decisions: &[Decision], findings: &[Finding]) {
    line.objects("policies", decisions, |object, decision| {
        object.text("name", &decision.version.policy);
        object.text("phase", decision.phase.name());
        object.text("verdict", decision.verdict.name());
        object.text("rule", &decision.rule);
        object.micros("us", decision.elapsed);
        object.text("mode", decision.mode_name());
        if let Some(tried) = decision.tried {
            object.boolean("candidate", true);
            object.text("reason", &decision.reason);
            object.optional("differs", tried.difference().map(Difference::name));
        }
    });
    line.objects("findings", findings, |object, finding| {
        object.text("policy", &finding.policy);
        object.text("rule", &finding.rule);
        object.text("category", &finding.category);
        object.text("target", &finding.target);
        object.text("evidence", &finding.evidence);
        object.number("score", u64::from(finding.score));
    });
}

fn tags(line: &mut Object<'_>, record: &AccessRecord) {
    line.object("tags", |object| {
        for (index, (key, value)) in record.tags.iter().enumerate() {
            let set_again = record.tags.iter().skip(index + 1).any(|(later, _)| later == key);
            if key != CLASS && !set_again {
                object.pair(key, value);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::fixture;
    use super::*;

    #[test]
    fn a_request_has_every_field_of_the_interface() {
        let mut out = Vec::new();
        render(&fixture::denied(), &mut out);
        let line: Value = serde_json::from_slice(&out).unwrap();
        let expected = json!({
            "event": "request",
            "time": "2026-11-22T12:00:00.250Z",
            "request_id": "0000000000000000000000000000abcd",
            "trace_id": "0af7651916cd43dd8448eb211c80319c",
            "site": "partner-a",
            "listener": "0.0.0.0:443",
            "client_ip": "198.51.100.9",
            "peer_ip": "203.0.113.7",
            "country": "DE",
            "class": "agent",
            "tls": {
                "version": "1.3", "suite": "TLS_AES_128_GCM_SHA256", "sni": "a.example.com", "alpn": null,
                "ja4": "t13d1516h2_8daaf6152771_b186095e22b6", "legacy": false,
            },
            "protocol": "HTTP/1.1",
            "method": "POST",
            "host": "a.example.com",
            "path": "/Lab\"Tech/\u{1b}[2J",
            "status": 403,
            "decided_by": "ips",
            "reason": "score",
            "rule": "sqli-2",
            "policies": [
                {"name": "geoip", "phase": "request", "verdict": "next", "rule": "", "us": 0.175, "mode": "enforce"},
                {"name": "ips", "phase": "request-body", "verdict": "deny", "rule": "sqli-2", "us": 41.0, "mode": "enforce"},
            ],
            "findings": [
                {"policy": "ips", "rule": "sqli-2", "category": "sqli", "target": "query:id", "evidence": "1 or ***", "score": 5},
            ],
            "tags": {"sso": "new"},
            "upstream": "automate",
            "attempts": [
                {"server": "https://10.0.0.5", "stage": "connect", "outcome": "refused", "ms": 1.5},
                {"server": "https://10.0.0.6:8443", "stage": "head", "outcome": "ok", "ms": 20.0},
            ],
            "bytes_in": 12,
            "bytes_out": 3456,
            "duration_ms": 30.125,
        });
        assert_eq!(line, expected);
    }

    #[test]
    fn what_is_unknown_is_null_or_empty() {
        let mut out = Vec::new();
        render(&fixture::relayed(), &mut out);
        let line: Value = serde_json::from_slice(&out).unwrap();
        for key in ["tls", "country", "class"] {
            assert_eq!(line[key], Value::Null, "{key}");
        }
        assert_eq!((&line["policies"], &line["findings"], &line["tags"]), (&json!([]), &json!([]), &json!({})));
        assert_eq!((&line["decided_by"], &line["reason"], &line["status"]), (&json!("upstream"), &json!(""), &json!(200)));
        assert_eq!(line.as_object().unwrap().len(), 27);
    }

    #[test]
    fn a_lost_connection_has_its_own_event() {
        let mut out = Vec::new();
        render_connection(&fixture::connection(), &mut out);
        let line: Value = serde_json::from_slice(&out).unwrap();
        let expected = json!({
            "event": "connection", "time": "2026-11-22T12:00:00.250Z", "site": null, "listener": "0.0.0.0:443",
            "client_ip": "203.0.113.7", "peer_ip": "203.0.113.7", "country": null, "tls": null,
            "decided_by": "gateway", "reason": "tls_handshake_failed", "detail": "no shared \"suite\"",
        });
        assert_eq!(line, expected);
    }

    #[test]
    fn a_full_disk_costs_lines_and_is_counted() {
        let mut sink = Sink::open(Output::File("/dev/full".into())).unwrap();
        assert_eq!(sink.push(b"one") + sink.push(b"two"), 0);
        assert_eq!(sink.flush(), 2);
        assert_eq!(sink.flush(), 0);
    }
}
