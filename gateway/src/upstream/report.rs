//! What operators see of upstreams: the admin API's answer and the metrics that are read from the servers themselves.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime};

use serde_json::{Map, Value, json};

use super::group::Group;
use super::health::Cause;
use super::server::Server;

/// One upstream as JSON.
#[must_use]
pub fn json(group: &Group, now: Instant) -> Value {
    let servers: Vec<_> = group.servers.iter().map(|server| server_json(server, now)).collect();
    json!({
        "name": &*group.name,
        "servers": servers,
        "checked": group.health.is_some(),
        "retries": group.retries.granted.load(Ordering::Relaxed),
        "retries_over_budget": group.retries.over_budget.load(Ordering::Relaxed),
    })
}

fn server_json(server: &Server, now: Instant) -> Value {
    let condition = server.condition(now);
    let since =
        SystemTime::now().checked_sub(condition.lasting).and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    let counts: Map<_, _> = server.counts.all().into_iter().map(|(name, count)| (name.to_owned(), count.into())).collect();
    json!({
        "server": &*server.label,
        "priority": server.priority,
        "eligible": server.is_eligible(now),
        "state": condition.state,
        "since": since.map(|since| since.as_secs()),
        "reason": condition.cause.map(Cause::as_str),
        "share": (condition.share * 1000.0).round() / 1000.0,
        "counts": counts,
        "addresses": *server.addresses(),
    })
}

/// Appends what servers and upstreams count, in the Prometheus text format.
pub fn metrics(groups: &[Arc<Group>], now: Instant, text: &mut String) {
    let servers = || groups.iter().flat_map(|group| &group.servers);
    text.push_str("# HELP weir_upstream_share Share of requests the server gets by its priority: below 1 while it comes back.\n");
    text.push_str("# TYPE weir_upstream_share gauge\n");
    for server in servers() {
        let (upstream, label) = (escaped(&server.group), escaped(&server.label));
        let share = server.condition(now).share;
        let _ = writeln!(text, "weir_upstream_share{{upstream=\"{upstream}\",server=\"{label}\"}} {share}");
    }
    text.push_str("# HELP weir_upstream_server_events_total What happened to the server.\n");
    text.push_str("# TYPE weir_upstream_server_events_total counter\n");
    for server in servers() {
        let (upstream, label) = (escaped(&server.group), escaped(&server.label));
        for (event, count) in server.counts.all() {
            let labels = format!("upstream=\"{upstream}\",server=\"{label}\",event=\"{event}\"");
            let _ = writeln!(text, "weir_upstream_server_events_total{{{labels}}} {count}");
        }
    }
    text.push_str("# HELP weir_upstream_retries_total Requests that a server may have seen, by whether they were sent again.\n");
    text.push_str("# TYPE weir_upstream_retries_total counter\n");
    for group in groups {
        for (result, counter) in [("sent", &group.retries.granted), ("over_budget", &group.retries.over_budget)] {
            let (upstream, count) = (escaped(&group.name), counter.load(Ordering::Relaxed));
            let _ = writeln!(text, "weir_upstream_retries_total{{upstream=\"{upstream}\",result=\"{result}\"}} {count}");
        }
    }
}

/// Names and URLs are checked when they are read; this only keeps a mistake there from breaking the format.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
