//! `weir plugins`: what the running gateway has loaded, and what it refused and why.

use std::path::Path;
use std::process::ExitCode;

use serde_json::Value;

use super::{fail, print, refuse};
use crate::{admin, config};

/// Asks the running gateway and prints a table, or its JSON.
pub(super) fn show(path: &Path, json: bool) -> ExitCode {
    let config = match config::load(path) {
        Ok(config) => config,
        Err(errors) => return refuse(&errors),
    };
    match admin::call(&config.server.admin, "GET", "/v1/plugins") {
        Ok((200, answer)) if json => {
            print::out(&answer.to_string());
            ExitCode::SUCCESS
        }
        Ok((200, answer)) => {
            print::out(&table(&answer));
            ExitCode::SUCCESS
        }
        Ok((status, _)) => fail(&format!("the gateway answered {status}"), "is it the same version as this command?"),
        Err(error) => fail(&error.to_string(), "start one with `weir run`"),
    }
}

fn table(answer: &Value) -> String {
    const HEAD: [&str; 9] = ["PLUGIN", "VERSION", "DIGEST", "STATE", "POLICY", "CALLS", "DENIALS", "TRAPS", "P50/P99 µs"];
    let mut rows = vec![HEAD.map(str::to_owned)];
    let mut notes = Vec::new();
    for plugin in answer.get("plugins").and_then(Value::as_array).into_iter().flatten() {
        let text = |value: &Value, key: &str| match value.get(key) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            _ => "-".to_owned(),
        };
        let digest: String = text(plugin, "digest").chars().take(12).collect();
        let first = [text(plugin, "name"), text(plugin, "version"), digest, text(plugin, "state")];
        if let Some(reason) = plugin.get("reason").and_then(Value::as_str) {
            notes.push(format!("{}: the last file was refused: {reason}", first[0]));
        }
        let policies: Vec<&Value> = plugin.get("policies").and_then(Value::as_array).into_iter().flatten().collect();
        if policies.is_empty() {
            let [name, version, digest, state] = first.clone();
            rows.push([name, version, digest, state, "-".into(), "-".into(), "-".into(), "-".into(), "-".into()]);
        }
        for policy in policies {
            let [name, version, digest, state] = first.clone();
            let times = format!("{}/{}", text(policy, "p50_us"), text(policy, "p99_us"));
            let (calls, denials, traps) = (text(policy, "calls"), text(policy, "denials"), text(policy, "traps"));
            rows.push([name, version, digest, state, text(policy, "policy"), calls, denials, traps, times]);
            notes.extend(policy.get("candidate").map(|candidate| trial(&text(policy, "policy"), candidate)));
        }
    }
    align(&rows, &notes)
}

/// What came of a policy's candidate, in one line.
fn trial(policy: &str, candidate: &Value) -> String {
    let text = |key: &str| candidate.get(key).and_then(Value::as_str).unwrap_or_default();
    let number = |key: &str| candidate.get(key).and_then(Value::as_u64).unwrap_or_default();
    let head = format!("{policy}: candidate {} ({}) {}", text("plugin"), text("mode"), text("state"));
    match candidate.get("calls") {
        Some(calls) => format!("{head}: {calls} calls, {} differed, {} failed", number("differed"), number("failed")),
        None => format!("{head}: {}", text("reason")),
    }
}

fn align(rows: &[[String; 9]], notes: &[String]) -> String {
    let mut widths = [0; 9];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: &[String; 9]| {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    let lines: Vec<_> = rows.iter().map(line).chain(notes.iter().cloned()).collect();
    lines.join("\n")
}
