//! `weir plugin`: one plugin of the running gateway.

use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::Value;

use super::{ConfigFile, fail, print, refuse};
use crate::{admin, config};

/// What to do with it.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a candidate the plugin: its file is renamed over the plugin's, and every policy that uses the plugin changes over
    Promote(Trial),
    /// Make the build live again that was live before; the file is not taken until it changes
    Rollback(Rollback),
    /// Give a candidate up: its file is put aside, and the plugin goes on alone
    Abandon(Trial),
}

/// A candidate.
#[derive(Debug, clap::Args)]
pub(super) struct Trial {
    /// The plugin, its candidate (ips@new), or a policy that has one
    name: String,
    #[command(flatten)]
    file: ConfigFile,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A plugin whose build before is wanted.
#[derive(Debug, clap::Args)]
pub(super) struct Rollback {
    /// The plugin: its file without `.wasm`
    name: String,
    #[command(flatten)]
    file: ConfigFile,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: &Command) -> ExitCode {
    match command {
        Command::Promote(trial) => order(trial, "promote", "is now the plugin"),
        Command::Rollback(Rollback { name, file, json }) => super::plugins::roll_back(&file.path(), name, *json),
        Command::Abandon(trial) => order(trial, "abandon", "is given up; the plugin goes on:"),
    }
}

fn order(trial: &Trial, order: &str, done: &str) -> ExitCode {
    let address = match config::load(Path::new(&trial.file.path())) {
        Ok(config) => config.server.admin,
        Err(errors) => return refuse(&errors),
    };
    // A name that needs escaping in a path names nothing.
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte);
    if trial.name.is_empty() || !trial.name.bytes().all(is_name) {
        return fail(&format!("not a name ({:?})", trial.name), "`weir plugins` lists the plugins and their candidates");
    }
    match admin::call(&address, "POST", &format!("/v1/plugins/{}/{order}", trial.name)) {
        Ok((200, answer)) => {
            let text = |key: &str| answer.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
            if trial.json {
                print::out(&answer.to_string());
            } else {
                let digest: String = text("digest").chars().take(12).collect();
                print::out(&format!("{} {} ({digest}) {done} {}", text("candidate"), text("version"), text("plugin")));
                if !text("note").is_empty() {
                    print::err(&format!("note: {}", text("note")));
                }
            }
            ExitCode::SUCCESS
        }
        Ok((_, answer)) => {
            if trial.json {
                print::out(&answer.to_string());
            }
            let reason = answer.get("error").and_then(Value::as_str).unwrap_or("the gateway refused, and does not say why");
            fail(reason, "nothing has changed; `weir plugins` shows what runs")
        }
        Err(error) => fail(&error.to_string(), "start one with `weir run`"),
    }
}
