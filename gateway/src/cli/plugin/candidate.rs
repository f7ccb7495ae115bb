//! `weir plugin promote` and `abandon`: the end of a candidate's trial.

use std::path::Path;
use std::process::ExitCode;

use serde_json::Value;

use crate::cli::{ConfigFile, fail, print, refuse};
use crate::{admin, config};

/// A candidate.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Trial {
    /// The plugin, its candidate (ips@new), or a policy that has one
    name: String,
    #[command(flatten)]
    file: ConfigFile,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn order(trial: &Trial, order: &str, done: &str) -> ExitCode {
    let address = match config::admin_address(Path::new(&trial.file.path())) {
        Ok(address) => address,
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
