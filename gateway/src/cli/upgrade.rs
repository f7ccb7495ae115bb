//! `weir upgrade`: a new binary takes over, or the old one says why not.

use std::path::Path;
use std::process::ExitCode;

use serde_json::Value;

use super::{fail, print, print_errors, refuse};
use crate::{admin, config};

/// Asks the running gateway to start its successor, and waits.
pub(super) fn run(path: &Path, json: bool) -> ExitCode {
    let address = match config::load(path) {
        Ok(config) => config.server.admin,
        // The new process would refuse it too.
        Err(errors) => return refuse(&errors),
    };
    match admin::call(&address, "POST", "/v1/upgrade") {
        Ok((200, answer)) => {
            let version = answer.get("version").and_then(Value::as_str).unwrap_or_default();
            let pid = answer.get("pid").and_then(Value::as_u64).unwrap_or_default();
            print::out(&if json { answer.to_string() } else { format!("weir {version} serves as process {pid}") });
            ExitCode::SUCCESS
        }
        Ok((_, answer)) => {
            if json {
                print::out(&answer.to_string());
            }
            print_errors(&answer);
            let reason = answer.get("reason").and_then(Value::as_str).unwrap_or("no reason was given");
            fail(reason, "the process that was running is still running")
        }
        Err(error) => fail(&error.to_string(), "start one with `weir run`"),
    }
}
