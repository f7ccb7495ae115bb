//! `weir plugins`: what the running gateway has loaded, what it refused or holds back, and why. `weir plugin rollback`: the way back.

use std::path::Path;
use std::process::ExitCode;

use serde_json::Value;

use super::{fail, print, refuse};
use crate::{admin, config};

/// Asks the running gateway and prints a table, or its JSON.
pub(super) fn show(path: &Path, json: bool) -> ExitCode {
    let address = match config::admin_address(path) {
        Ok(address) => address,
        Err(errors) => return refuse(&errors),
    };
    match admin::call(&address, "GET", "/v1/plugins") {
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

/// Has the running gateway restore the build of a plugin that was live before.
pub(super) fn roll_back(path: &Path, name: &str, json: bool) -> ExitCode {
    let address = match config::admin_address(path) {
        Ok(address) => address,
        Err(errors) => return refuse(&errors),
    };
    if name.is_empty() {
        return fail(&format!("not a name ({name:?})"), "`weir plugins` lists the plugins and the policies that use them");
    }
    match admin::call(&address, "POST", &format!("/v1/plugins/{}/rollback", encoded(name))) {
        Ok((200, answer)) => {
            print::out(&if json { answer.to_string() } else { rolled_back(&answer) });
            ExitCode::SUCCESS
        }
        Ok((_, answer)) => {
            if json {
                print::out(&answer.to_string());
            }
            fail(&text(&answer, "reason"), &text(&answer, "hint"))
        }
        Err(error) => fail(&error.to_string(), "start one with `weir run`"),
    }
}

fn rolled_back(answer: &Value) -> String {
    let name = text(answer, "plugin");
    let build = |key: &str| {
        let build = answer.get(key).unwrap_or(&Value::Null);
        format!("{} ({})", text(build, "version"), short(&text(build, "digest")))
    };
    format!(
        "{name}: {} is live again; {name}.wasm holds {} and is not taken until it changes",
        build("live"),
        build("rolled_back")
    )
}

/// What a path may hold stays, the rest is percent-encoded.
fn encoded(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~' | b'@');
    name.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// A string or a number of an answer, `-` when there is none.
fn text(value: &Value, key: &str) -> String {
    match value.get(key) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => "-".to_owned(),
    }
}

/// So much of a digest tells builds apart.
fn short(digest: &str) -> String {
    digest.chars().take(12).collect()
}

const HEAD: [&str; 10] =
    ["PLUGIN", "VERSION", "DIGEST", "STATE", "POLICY", "CALLS", "DENIALS", "TRAPS", "TIMEOUTS", "P50/P99 µs"];

fn table(answer: &Value) -> String {
    let mut rows = vec![HEAD.map(str::to_owned)];
    let mut notes = Vec::new();
    if let Some(error) = answer.pointer("/directory/error").and_then(Value::as_str) {
        notes.push(format!("{error}; what was running keeps running"));
    }
    if let Some(name) = answer.pointer("/directory/judging").and_then(Value::as_str) {
        notes.push(format!("{name}: a new file is being judged"));
    }
    for plugin in array(answer, "plugins") {
        let name = text(plugin, "name");
        if let Some(reason) = plugin.get("reason").and_then(Value::as_str) {
            notes.push(format!("{name}: {reason}"));
        }
        for policy in array(plugin, "policies") {
            if let Some(reason) = policy.get("not_snapshot_because").and_then(Value::as_str) {
                notes.push(format!("{}: each instance is configured by itself: {reason}", text(policy, "policy")));
            }
            notes.extend(policy.get("candidate").map(|candidate| trial(&text(policy, "policy"), candidate)));
        }
        for build in array(plugin, "versions") {
            rows.extend(lines(&name, plugin, build));
        }
    }
    align(&rows, &notes)
}

/// What came of a policy's candidate, in one line.
fn trial(policy: &str, candidate: &Value) -> String {
    let number = |key: &str| candidate.get(key).and_then(Value::as_u64).unwrap_or_default();
    let head =
        format!("{policy}: candidate {} ({}) {}", text(candidate, "plugin"), text(candidate, "mode"), text(candidate, "state"));
    match candidate.get("calls") {
        Some(calls) => format!("{head}: {calls} calls, {} differed, {} failed", number("differed"), number("failed")),
        None => format!("{head}: {}", text(candidate, "reason")),
    }
}

fn array<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value.get(key).and_then(Value::as_array).into_iter().flatten()
}

/// One line for each policy that runs a build, one without policy for a build that none runs.
fn lines(name: &str, plugin: &Value, build: &Value) -> Vec<[String; 10]> {
    let digest = short(&text(build, "digest"));
    let state = text(build, "state");
    // What is removed or in quarantine is live all the same.
    let is_live = matches!(state.as_str(), "live" | "quarantined") && plugin.get("digest") == build.get("digest");
    let state = if is_live { text(plugin, "state") } else { state };
    let line = |policy: String, of: &Value, times: String| {
        let (version, digest, state) = (text(build, "version"), digest.clone(), state.clone());
        let [calls, denials, traps, timeouts] = ["calls", "denials", "traps", "timeouts"].map(|key| text(of, key));
        [name.to_owned(), version, digest, state, policy, calls, denials, traps, timeouts, times]
    };
    let policies: Vec<&Value> = array(plugin, "policies").filter(|_| is_live).collect();
    if policies.is_empty() {
        let drains = state == "draining";
        return vec![line("-".to_owned(), if drains { build } else { &Value::Null }, "-".to_owned())];
    }
    let times = |policy: &Value| format!("{}/{}", text(policy, "p50_us"), text(policy, "p99_us"));
    policies.into_iter().map(|policy| line(text(policy, "policy"), policy, times(policy))).collect()
}

fn align(rows: &[[String; 10]], notes: &[String]) -> String {
    let mut widths = [0; 10];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: &[String; 10]| {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    let lines: Vec<_> = rows.iter().map(line).chain(notes.iter().cloned()).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_build_has_a_line_and_every_reason_a_note() {
        let build = |digest: &str, state: &str| json!({"digest": digest, "version": "0.2.0", "state": state, "calls": 7});
        let answer = json!({
            "directory": {"path": "plugins", "error": null},
            "plugins": [{
                "name": "ips", "state": "live", "digest": "aaaaaaaaaaaabbbb", "reason": "rolled back by the operator",
                "versions": [build("aaaaaaaaaaaabbbb", "live"), build("cccccccccccc", "draining"), build("dddddddddddd", "rolled_back")],
                "policies": [
                    {"policy": "one", "calls": 4, "denials": 1, "traps": 0, "timeouts": 0, "p50_us": 1.0, "p99_us": 2.0},
                    {"policy": "two", "calls": 5, "denials": 0, "traps": 0, "timeouts": 0, "p50_us": 1.0, "p99_us": 2.0},
                ],
            }],
        });
        let table = table(&answer);
        let words: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words[1], ["ips", "0.2.0", "aaaaaaaaaaaa", "live", "one", "4", "1", "0", "0", "1.0/2.0"]);
        assert_eq!(words[2][4], "two");
        assert_eq!(words[3], ["ips", "0.2.0", "cccccccccccc", "draining", "-", "7", "-", "-", "-", "-"]);
        assert_eq!(words[4], ["ips", "0.2.0", "dddddddddddd", "rolled_back", "-", "-", "-", "-", "-", "-"]);
        assert_eq!(words[5].join(" "), "ips: rolled back by the operator");
    }

    #[test]
    fn names_are_encoded_for_a_path() {
        assert_eq!(encoded("ips@new-1.0_x"), "ips@new-1.0_x");
        assert_eq!(encoded("../a b"), "..%2Fa%20b");
    }
}
