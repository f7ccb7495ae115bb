//! Plugins in the admin API: every file and every build of it, and the way back.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State as Extracted};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use weir_plugins::{Generation, Host, StatsSnapshot};

use super::State;
use crate::runtime::builder::Event;
use crate::runtime::plugins::quarantine::Health;
use crate::runtime::plugins::record::{Cause, Mark};
use crate::runtime::plugins::rollback::RollbackError;
use crate::runtime::plugins::status::{Retired, Row, Status};

/// `GET /v1/plugins`
pub(super) async fn list(Extracted(state): Extracted<Arc<State>>) -> Json<Value> {
    let counters = state.shared.host.plugin_counters();
    let dropped = |plugin: &str, kind: &str| {
        let mut own = counters.iter().filter(|(name, counter, label, _)| name == plugin && counter == "dropped" && label == kind);
        own.next().map_or(0, |(_, _, _, count)| *count)
    };
    let rows = state.plugins.rows();
    let mut rows: Vec<_> = rows
        .iter()
        .map(|row| {
            let mut json = plugin(row);
            if let Some(object) = json.as_object_mut() {
                let (series, lines) = (dropped(&row.name, "series"), dropped(&row.name, "log_lines"));
                object.insert("dropped".to_owned(), json!({ "series": series, "log_lines": lines }));
            }
            json
        })
        .collect();
    super::trial::show(&mut rows, &state.trials.rows());
    let directory = json!({ "error": state.plugins.directory_error(), "judging": state.plugins.judging() });
    Json(json!({ "directory": directory, "plugins": rows }))
}

/// `POST /v1/plugins/NAME/rollback`
pub(super) async fn roll_back(Extracted(state): Extracted<Arc<State>>, Path(name): Path<String>) -> Response {
    let (reply, result) = oneshot::channel();
    let ending = || (StatusCode::SERVICE_UNAVAILABLE, "the gateway is ending\n").into_response();
    if state.events.send(Event::RollBack(name, reply)).is_err() {
        return ending();
    }
    match result.await {
        Ok(Ok(done)) => {
            Json(json!({ "plugin": done.plugin, "live": mark(&done.live), "rolled_back": mark(&done.from) })).into_response()
        }
        Ok(Err(error)) => {
            let status = match &error {
                RollbackError::NoSuchPlugin(_) => StatusCode::NOT_FOUND,
                RollbackError::Nothing(_) => StatusCode::CONFLICT,
                RollbackError::Failed(..) => StatusCode::UNPROCESSABLE_ENTITY,
            };
            (status, Json(json!({ "reason": error.to_string(), "hint": error.hint() }))).into_response()
        }
        Err(_) => ending(),
    }
}

fn mark(mark: &Mark) -> Value {
    json!({ "version": mark.version, "digest": mark.digest, "since": mark.since })
}

fn plugin(row: &Row) -> Value {
    let live = row.live.as_ref();
    let refused = row.record.refused.as_ref();
    let proof = row.record.live.as_ref().and_then(|live| live.proof.as_ref());
    let signature = proof.map(|proof| json!({ "key": proof.key, "signed_at": proof.at }));
    let rejected = refused.map(|refused| json!({ "digest": refused.digest, "reason": refused.reason, "at": refused.at }));
    json!({
        "name": row.name,
        "calls_itself": live.map(|plugin| plugin.own_name().to_owned()),
        "version": live.map(|plugin| plugin.version().to_owned()),
        "digest": live.map(|plugin| plugin.digest.to_string()),
        "bytes": live.map(|plugin| plugin.bytes),
        "signature": signature,
        "state": row.state(),
        "since": row.record.live.as_ref().map(|live| live.since),
        "reason": row.reason(),
        "rejected": rejected,
        "removed": row.record.removed,
        "versions": versions(row),
        "policies": row.generations.iter().map(|(generation, health)| policy(generation, *health)).collect::<Vec<_>>(),
    })
}

/// Every build that is known of a file: what runs, what ran, what is held back and what was refused.
fn versions(row: &Row) -> Vec<Value> {
    let mut versions = Vec::new();
    let record = &row.record;
    if let Some(live) = &record.live {
        let held = record.held.as_ref().filter(|_| record.is_quarantined());
        let state = if held.is_some() { "quarantined" } else { "live" };
        let running: Vec<_> = row.generations.iter().map(|(generation, _)| generation.stats()).collect();
        versions.push(version(live, state, held.map(|held| held.reason.as_str()), &running));
    }
    let mut draining: Vec<&Retired> = row.retired.iter().collect();
    draining.sort_by(|one, other| one.digest.cmp(&other.digest));
    for build in draining.chunk_by(|one, other| one.digest == other.digest) {
        let running: Vec<_> = build.iter().filter_map(|one| one.generation.upgrade()).map(|one| one.stats()).collect();
        if let Some(first) = build.first().filter(|_| !running.is_empty()) {
            let mark = Mark { digest: first.digest.to_string(), version: first.version.clone(), since: first.since, proof: None };
            versions.push(version(&mark, "draining", Some("requests under way still use it"), &running));
        }
    }
    if let Some(previous) = &record.previous {
        versions.push(version(previous, "previous", None, &[]));
    }
    if let Some(held) = record.held.as_ref().filter(|_| !record.is_quarantined()) {
        versions.push(version(&held.mark, held.cause.as_str(), Some(&held.reason), &[]));
    }
    if let Some(refused) = &record.refused {
        versions.push(json!({
            "digest": refused.digest, "version": null, "state": "rejected", "since": refused.at, "reason": refused.reason,
            "generations": 0, "calls": 0, "denials": 0, "traps": 0, "timeouts": 0,
        }));
    }
    versions
}

fn version(mark: &Mark, state: &str, reason: Option<&str>, running: &[StatsSnapshot]) -> Value {
    let sum = |count: fn(&StatsSnapshot) -> u64| running.iter().map(count).sum::<u64>();
    json!({
        "digest": mark.digest, "version": mark.version, "state": state, "since": mark.since, "reason": reason,
        "generations": running.len(), "calls": sum(|stats| stats.calls), "denials": sum(|stats| stats.denials),
        "traps": sum(|stats| stats.traps), "timeouts": sum(|stats| stats.timeouts),
    })
}

fn policy(generation: &Generation, health: Health) -> Value {
    let stats = generation.stats();
    let (initialised, why) = generation.initialised();
    json!({
        "isolation": generation.spec.isolation.name(), "initialised": initialised, "not_snapshot_because": why,
        "policy": &*generation.spec.name, "mode": generation.spec.mode.name(), "since": super::unix(Some(generation.since)),
        "health": word(health),
        "calls": stats.calls, "denials": stats.denials, "traps": stats.traps, "timeouts": stats.timeouts,
        "waited": stats.waited, "exhausted": stats.exhausted, "quarantined": stats.quarantined, "p50_us": stats.p50_us, "p99_us": stats.p99_us,
    })
}

const fn word(health: Health) -> &'static str {
    match health {
        Health::Working => "working",
        Health::Resting => "resting",
        Health::Probing => "probing",
    }
}

/// What `/metrics` says of plugins.
pub(super) fn metrics(status: &Status, host: &Host, text: &mut String) {
    let rows = status.rows();
    family(text, "weir_plugin_compiled_here_total", "counter", "Plugins compiled in this process, for want of another.");
    text.push_str(&format!("weir_plugin_compiled_here_total {}\n", host.compiled_here()));
    family(
        text,
        "weir_policy_instances",
        "gauge",
        "Instances of policies that are alive, all policies and generations together.",
    );
    text.push_str(&format!("weir_policy_instances {}\n", host.instances()));
    family(text, "weir_plugin_info", "gauge", "Builds of plugins that are known, by state.");
    for row in &rows {
        for version in versions(row) {
            let word = |key: &str| version.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
            let digest: String = word("digest").chars().take(12).collect();
            let labels =
                [("plugin", row.name.clone()), ("version", word("version")), ("digest", digest), ("state", word("state"))];
            sample(text, "weir_plugin_info", &labels, 1);
        }
    }
    family(text, "weir_policy_generations", "gauge", "Generations of a policy that are alive: 1, and those that drain.");
    for (generation, _) in rows.iter().flat_map(|row| &row.generations) {
        let policy = &generation.spec.name;
        let retired = rows.iter().flat_map(|row| &row.retired).filter(|retired| retired.policy == *policy);
        let draining = retired.filter(|retired| retired.generation.strong_count() > 0).count();
        sample(text, "weir_policy_generations", &[("policy", policy.to_string())], 1 + draining as u64);
    }
    family(text, "weir_policy_quarantined", "gauge", "1 while a policy is not called because it failed too often.");
    for (generation, health) in rows.iter().flat_map(|row| &row.generations) {
        let value = u64::from(*health != Health::Working);
        sample(text, "weir_policy_quarantined", &[("policy", generation.spec.name.to_string())], value);
    }
    family(text, "weir_policy_quarantines_total", "counter", "How often a policy failed too often.");
    for (policy, count) in status.quarantines() {
        sample(text, "weir_policy_quarantines_total", &[("policy", policy)], count);
    }
    family(text, "weir_plugin_rollbacks_total", "counter", "How often the build before was restored, and why.");
    for (plugin, cause, count) in status.rollbacks() {
        let cause = match cause {
            Cause::RolledBack => "operator",
            Cause::Quarantined => "quarantine",
        };
        sample(text, "weir_plugin_rollbacks_total", &[("plugin", plugin), ("cause", cause.to_owned())], count);
    }
}

fn family(text: &mut String, name: &str, kind: &str, help: &str) {
    text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
}

/// Versions are the plugins' own words, so values are escaped.
fn sample(text: &mut String, name: &str, labels: &[(&str, String)], value: u64) {
    let escaped = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    text.push_str(&format!("{name}{{{}}} {value}\n", labels.join(",")));
}
