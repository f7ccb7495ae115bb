//! The Prometheus text format, version 0.0.4.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use weir_plugins::Phase;

use super::cells::{
    Bounds, Cell, DECIDERS, HTTP_BOUNDS, Histogram, MODES, POLICY_BOUNDS, PolicyCells, STATUSES, Shards, Shared, SiteCells,
    UpstreamCells, VERDICTS,
};

/// The media type of the rendered text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

impl Shards {
    /// Sums the parts of all threads and writes what is not zero.
    pub(super) fn render(&self, text: &mut Text) {
        self.active(text);
        sites(&summed(&self.sites, SiteCells::absorb), text);
        policies(&summed(&self.policies, PolicyCells::absorb), text);
        upstreams(&summed(&self.upstreams, UpstreamCells::absorb), text);
        text.family("weir_connections_refused_total", "counter", "Connections that never became a request, by reason.");
        for (reason, cell) in &summed(&self.refusals, |sum: &Cell, cell: &Cell| sum.add(cell.get())) {
            text.sample("weir_connections_refused_total", &[("reason", reason)], cell.get());
        }
        text.family("weir_connections_closed_total", "counter", "Connections ended for what their client did, by reason.");
        for (reason, cell) in &summed(&self.closures, |sum: &Cell, cell: &Cell| sum.add(cell.get())) {
            text.sample("weir_connections_closed_total", &[("reason", reason)], cell.get());
        }
    }

    fn active(&self, text: &mut Text) {
        let (mut accepted, mut connections, mut requests) = (0, 0, 0);
        for cells in self.active.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            accepted += cells.accepted.get();
            connections += cells.connections.load(Ordering::Relaxed);
            requests += cells.requests.load(Ordering::Relaxed);
        }
        text.family("weir_connections_total", "counter", "Connections accepted.");
        text.sample("weir_connections_total", &[], accepted);
        text.family("weir_active_connections", "gauge", "Connections open now.");
        text.sample("weir_active_connections", &[], connections);
        text.family("weir_active_requests", "gauge", "Requests under way now.");
        text.sample("weir_active_requests", &[], requests);
    }
}

/// Text under construction: families of samples.
#[derive(Default)]
pub(super) struct Text {
    out: String,
}

impl Text {
    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    pub(super) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.out.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            self.out.push(if index == 0 { '{' } else { ',' });
            self.out.push_str(label);
            self.out.push_str("=\"");
            for char in text.chars() {
                match char {
                    '"' => self.out.push_str("\\\""),
                    '\\' => self.out.push_str("\\\\"),
                    '\n' => self.out.push_str("\\n"),
                    _ => self.out.push(char),
                }
            }
            self.out.push('"');
        }
        let _ = writeln!(self.out, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    pub(super) fn finish(self) -> String {
        self.out
    }

    fn histogram(&mut self, name: &str, labels: &[(&str, &str)], bounds: &Bounds, histogram: &Histogram) {
        let (bucket, mut count) = (format!("{name}_bucket"), 0);
        let bounds = bounds.iter().map(|bound| seconds(*bound).to_string()).chain(["+Inf".to_owned()]);
        for (bound, cell) in bounds.zip(&histogram.buckets) {
            count += cell.get();
            self.sample(&bucket, &[labels, &[("le", &bound)]].concat(), count);
        }
        self.sample(&format!("{name}_sum"), labels, seconds(histogram.sum.get()));
        self.sample(&format!("{name}_count"), labels, count);
    }

    fn nonzero(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        if value > 0 {
            self.sample(name, labels, value);
        }
    }
}

/// A sum of nanoseconds is off by less than a microsecond after a hundred days of them.
fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

fn summed<T: Default>(shared: &Shared<T>, absorb: impl Fn(&T, &T)) -> BTreeMap<Arc<str>, T> {
    let mut sums = BTreeMap::<Arc<str>, T>::new();
    shared.for_each(|name, cells| absorb(sums.entry(Arc::clone(name)).or_default(), cells));
    sums
}

fn sites(sums: &BTreeMap<Arc<str>, SiteCells>, text: &mut Text) {
    text.family("weir_requests_total", "counter", "Requests by site, status class and who decided the answer.");
    for (site, cells) in sums {
        for (status, by_decider) in STATUSES.iter().zip(&cells.requests) {
            for (decider, cell) in DECIDERS.iter().zip(by_decider) {
                text.nonzero("weir_requests_total", &[("site", site), ("status", status), ("decided_by", decider)], cell.get());
            }
        }
    }
    text.family("weir_request_duration_seconds", "histogram", "From the request head to the end of the response body.");
    for (site, cells) in sums {
        text.histogram("weir_request_duration_seconds", &[("site", site)], &HTTP_BOUNDS, &cells.duration);
    }
    text.family("weir_request_bytes_total", "counter", "Bytes of request bodies.");
    for (site, cells) in sums {
        text.nonzero("weir_request_bytes_total", &[("site", site)], cells.bytes_in.get());
    }
    text.family("weir_response_bytes_total", "counter", "Bytes of response bodies.");
    for (site, cells) in sums {
        text.nonzero("weir_response_bytes_total", &[("site", site)], cells.bytes_out.get());
    }
}

fn policies(sums: &BTreeMap<Arc<str>, PolicyCells>, text: &mut Text) {
    let phases: Vec<_> = sums
        .iter()
        .flat_map(|(policy, cells)| Phase::ALL.into_iter().zip(&cells.0).map(move |(phase, cells)| (policy, phase, cells)))
        .collect();
    text.family("weir_policy_decisions_total", "counter", "Policy calls by phase, verdict and mode.");
    for &(policy, phase, cells) in &phases {
        for (verdict, by_mode) in VERDICTS.iter().zip(&cells.calls) {
            for (mode, cell) in MODES.iter().zip(by_mode) {
                let labels = [("policy", &**policy), ("phase", phase.name()), ("verdict", verdict.name()), ("mode", mode.name())];
                text.nonzero("weir_policy_decisions_total", &labels, cell.get());
            }
        }
    }
    text.family("weir_policy_duration_seconds", "histogram", "Wall time of policy calls, waiting included.");
    for (policy, phase, cells) in phases {
        if cells.duration.buckets.iter().any(|bucket| bucket.get() > 0) {
            let labels = [("policy", &**policy), ("phase", phase.name())];
            text.histogram("weir_policy_duration_seconds", &labels, &POLICY_BOUNDS, &cells.duration);
        }
    }
}

fn upstreams(sums: &BTreeMap<Arc<str>, UpstreamCells>, text: &mut Text) {
    text.family("weir_upstream_attempts_total", "counter", "Attempts to reach a server of an upstream, by outcome.");
    for (upstream, cells) in sums {
        text.nonzero("weir_upstream_attempts_total", &[("upstream", upstream), ("outcome", "ok")], cells.ok.get());
        for (outcome, count) in cells.failed.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            text.nonzero("weir_upstream_attempts_total", &[("upstream", upstream), ("outcome", outcome)], *count);
        }
    }
    text.family("weir_upstream_attempt_duration_seconds", "histogram", "Until the response head, or until the attempt failed.");
    for (upstream, cells) in sums {
        text.histogram("weir_upstream_attempt_duration_seconds", &[("upstream", upstream)], &HTTP_BOUNDS, &cells.duration);
    }
}
