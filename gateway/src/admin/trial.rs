//! Candidates: what came of them, and the orders about them.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State as Extracted};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{State, unix};
use crate::config::TrialMode;
use crate::runtime::builder::Event;
use crate::runtime::trials::{self, Order, Refusal, Row};

pub(super) async fn promote(Extracted(state): Extracted<Arc<State>>, Path(name): Path<String>) -> Response {
    order(&state, Order::Promote, name).await
}

pub(super) async fn abandon(Extracted(state): Extracted<Arc<State>>, Path(name): Path<String>) -> Response {
    order(&state, Order::Abandon, name).await
}

async fn order(state: &State, order: Order, name: String) -> Response {
    let ending = || (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "error": "the gateway is ending" }))).into_response();
    let (reply, result) = oneshot::channel();
    if state.events.send(Event::Trial(order, name, reply)).is_err() {
        return ending();
    }
    match result.await {
        Ok(Ok(done)) => Json(done.to_json()).into_response(),
        Ok(Err(refusal)) => {
            let status = match &refusal {
                Refusal::Unknown(_) => StatusCode::NOT_FOUND,
                Refusal::Ambiguous(..) | Refusal::NotLive { .. } | Refusal::Changed(_) | Refusal::Busy(_) => StatusCode::CONFLICT,
                Refusal::Unfit(_) | Refusal::Directory { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            };
            (status, Json(json!({ "error": refusal.to_string() }))).into_response()
        }
        Err(_) => ending(),
    }
}

/// Adds the candidates to the rows of the plugin table: to the policy that has one, and to the file it comes from.
pub(super) fn show(plugins: &mut [Value], trials: &[Row]) {
    for row in trials {
        for plugin in plugins.iter_mut() {
            let name = plugin.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
            let Some(policies) = plugin.get_mut("policies").and_then(Value::as_array_mut) else { continue };
            if name == row.stable {
                let own = policies.iter_mut().find(|policy| policy.get("policy").and_then(Value::as_str) == Some(&*row.policy));
                if let Some(policy) = own.and_then(Value::as_object_mut) {
                    policy.insert("candidate".to_owned(), summary(row));
                }
            } else if name == row.candidate.plugin {
                policies.extend(calls(row));
            }
        }
    }
}

fn mode(row: &Row) -> &'static str {
    match row.candidate.mode {
        TrialMode::Shadow => "shadow",
        TrialMode::Canary => "canary",
    }
}

fn summary(row: &Row) -> Value {
    let mut summary = json!({
        "plugin": row.candidate.plugin, "mode": mode(row), "share": row.candidate.share,
        "state": row.state.name(), "reason": row.state.reason(),
    });
    if let (trials::State::Running(candidate), Some(fields)) = (&row.state, summary.as_object_mut()) {
        let record = &candidate.record;
        let (agreed, differed, failed) = (record.agreed(), record.differed(), record.failed());
        let last: Vec<_> = record
            .last()
            .iter()
            .map(|one| {
                json!({
                    "request_id": (one.request != 0).then(|| format!("{:032x}", one.request)), "at": unix(Some(one.at)),
                    "phase": one.phase.name(), "differs": one.difference.name(),
                    "stable": one.stable.name(), "candidate": one.candidate.name(),
                })
            })
            .collect();
        let plugin = &candidate.generation.plugin;
        let more = json!({
            "version": plugin.version(), "digest": &*plugin.digest, "since": unix(Some(candidate.generation.since)),
            "calls": agreed + differed + failed, "agreed": agreed, "differed": differed, "failed": failed, "last": last,
        });
        fields.extend(more.as_object().cloned().unwrap_or_default());
    }
    summary
}

fn calls(row: &Row) -> Option<Value> {
    let trials::State::Running(candidate) = &row.state else { return None };
    let stats = candidate.generation.stats();
    Some(json!({
        "policy": &*row.policy, "mode": mode(row), "since": unix(Some(candidate.generation.since)),
        "calls": stats.calls, "denials": stats.denials, "traps": stats.traps, "timeouts": stats.timeouts,
        "exhausted": stats.exhausted, "p50_us": stats.p50_us, "p99_us": stats.p99_us,
    }))
}

/// Adds what came of the candidates to the metrics.
pub(super) fn metrics(trials: &[Row], text: &mut String) {
    let running = |row: &Row| matches!(row.state, trials::State::Running(_));
    if !trials.iter().any(running) {
        return;
    }
    text.push_str("# HELP weir_policy_candidate_calls_total Calls of a policy's candidate by what came of them.\n");
    text.push_str("# TYPE weir_policy_candidate_calls_total counter\n");
    for row in trials {
        let trials::State::Running(candidate) = &row.state else { continue };
        let record = &candidate.record;
        let results = [("agreed", record.agreed()), ("differed", record.differed()), ("failed", record.failed())];
        for (result, count) in results {
            let (policy, mode) = (&row.policy, mode(row));
            // Names of policies have no letter that would need escaping.
            let labels = format!("policy=\"{policy}\",mode=\"{mode}\",result=\"{result}\"");
            let _ = writeln!(text, "weir_policy_candidate_calls_total{{{labels}}} {count}");
        }
    }
}
