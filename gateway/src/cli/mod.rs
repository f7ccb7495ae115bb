//! The command line. Exit codes: 0 done, 1 it did not work, 2 wrong usage.

pub mod bundled;
mod plugin;
mod plugins;
pub mod print;
mod upgrade;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use sd_notify::NotifyState;
use serde_json::json;

use weir_plugins::compiler;

use crate::config::{self, Errors};
use crate::runtime::run;
use crate::runtime::upgrade::successor::notify;
use crate::{admin, demo};

/// A programmable edge gateway with hot-swappable WebAssembly policies.
#[derive(Debug, Parser)]
#[command(name = "weir", version, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway in the foreground
    Run(ConfigFile),
    /// Check a configuration: everything `run` does short of listening, every mistake at once
    Check {
        #[command(flatten)]
        file: ConfigFile,
        /// Print {"ok", "errors": [...]} instead of text
        #[arg(long)]
        json: bool,
    },
    /// Try Weir without a file: sample origin, certificate, country database, four policies
    Demo {
        /// Run the six example requests, print a table, and exit 0 when all behave
        #[arg(long)]
        check: bool,
        /// Port of the TLS listener (0 = any free one)
        #[arg(long, default_value_t = 8443)]
        tls_port: u16,
        /// Port of the plain listener (0 = any free one)
        #[arg(long, default_value_t = 8080)]
        plain_port: u16,
        /// Keep the demo's files in this directory
        #[arg(long, value_name = "DIR")]
        keep: Option<PathBuf>,
    },
    /// Show the plugins of the running gateway, or write the bundled ones
    Plugins {
        #[command(subcommand)]
        command: Option<PluginsCommand>,
        #[command(flatten)]
        file: ConfigFile,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// One plugin: write, check, test and measure your own, end the trial of a candidate
    Plugin {
        #[command(subcommand)]
        command: plugin::Command,
    },
    /// Make the running gateway read its configuration again
    Reload {
        #[command(flatten)]
        file: ConfigFile,
        /// Accepted for clarity: a reload always waits for its result
        #[arg(long)]
        wait: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Replace the running gateway by the binary that now lies at its path, without losing a connection
    Upgrade {
        #[command(flatten)]
        file: ConfigFile,
        /// Accepted for clarity: an upgrade always waits until the new process serves or has failed
        #[arg(long)]
        wait: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
enum PluginsCommand {
    /// Write the bundled policies (geoip, ips, agent-acl, sso-cors) into a directory
    Unpack {
        /// The directory, made when it is not there
        directory: PathBuf,
    },
}

#[derive(Clone, Debug, Args)]
struct ConfigFile {
    /// The configuration [default: ./weir.toml, then /etc/weir/weir.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ConfigFile {
    fn path(&self) -> PathBuf {
        let system = Path::new("/etc/weir/weir.toml");
        let here = Path::new("weir.toml");
        match &self.config {
            Some(path) => path.clone(),
            None if !here.exists() && system.exists() => system.to_owned(),
            None => here.to_owned(),
        }
    }
}

/// Runs the command that the arguments name.
#[must_use]
pub fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == compiler::ARGUMENT) {
        return compiler::serve(&arguments.map(|one| one.to_string_lossy().into_owned()).collect::<Vec<_>>());
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { 2 } else { 0 };
            // Help to a closed pipe is nobody's loss.
            drop(error.print());
            return ExitCode::from(code);
        }
    };
    match cli.command {
        Command::Run(file) => run_gateway(&file.path()),
        Command::Check { file, json } => check(&file.path(), json),
        Command::Demo { check, tls_port, plain_port, keep } => {
            demo::run(&demo::Options { check, tls: tls_port, plain: plain_port, keep })
        }
        Command::Plugins { command: Some(PluginsCommand::Unpack { directory }), json, .. } => unpack(&directory, json),
        Command::Plugins { command: None, file, json } => plugins::show(&file.path(), json),
        Command::Plugin { command } => plugin::run(command),
        Command::Reload { file, json, wait: _ } => reload(&file.path(), json),
        Command::Upgrade { file, json, wait: _ } => upgrade::run(&file.path(), json),
    }
}

fn run_gateway(path: &Path) -> ExitCode {
    // First of all: it reads what was left in the environment and on standard input.
    let origin = match run::Origin::find() {
        Ok(origin) => origin,
        Err(errors) => return refuse(&errors),
    };
    let running = match run::start(path, origin) {
        Ok(running) => running,
        Err(errors) => return refuse(&errors),
    };
    for (url, _) in running.addresses() {
        print::err(&format!("listening on {url}"));
    }
    print::err(&format!("admin on {}", running.admin()));
    notify(&[NotifyState::Ready]);
    print::err("ready");
    running.wait();
    ExitCode::SUCCESS
}

fn check(path: &Path, json: bool) -> ExitCode {
    match run::check(path) {
        Ok((snapshot, warnings)) => {
            let config = &snapshot.config;
            if json {
                let warnings = if warnings.is_empty() { json!([]) } else { Errors::from(warnings).to_json() };
                print::out(&json!({ "ok": true, "errors": [], "warnings": warnings }).to_string());
            } else {
                warnings.iter().for_each(|warning| print::err(&format!("warning: {warning}")));
                let (sites, policies) = (config.sites.len(), config.policies.len());
                print::out(&format!("{}: ok ({sites} sites, {policies} policies)", path.display()));
            }
            ExitCode::SUCCESS
        }
        Err(errors) if json => {
            print::out(&json!({ "ok": false, "errors": errors.to_json() }).to_string());
            ExitCode::FAILURE
        }
        Err(errors) => mistakes(&errors, "docs/reference/configuration.md lists every key"),
    }
}

fn refuse(errors: &Errors) -> ExitCode {
    mistakes(errors, "docs/reference/configuration.md lists every key; `weir check` shows all mistakes at once")
}

fn mistakes(errors: &Errors, hint: &str) -> ExitCode {
    for error in errors {
        print::err(&format!("error: {error}"));
    }
    print::err(&format!("hint: {hint}"));
    ExitCode::FAILURE
}

fn unpack(directory: &Path, json: bool) -> ExitCode {
    match bundled::unpack(directory) {
        Ok(files) if json => {
            print::out(&json!({ "files": files }).to_string());
            ExitCode::SUCCESS
        }
        Ok(files) => {
            files.iter().for_each(|file| print::out(&file.display().to_string()));
            ExitCode::SUCCESS
        }
        Err(error) => fail(&format!("cannot write to {}: {error}", directory.display()), "name a directory you may write to"),
    }
}

fn reload(path: &Path, json: bool) -> ExitCode {
    let address = match config::load(path) {
        Ok(config) => config.server.admin,
        // The gateway would refuse it too.
        Err(errors) => return refuse(&errors),
    };
    match admin::call(&address, "POST", "/v1/reload") {
        Ok((200, answer)) => {
            let generation = answer.get("generation").and_then(serde_json::Value::as_u64).unwrap_or_default();
            print::out(&if json { answer.to_string() } else { format!("generation {generation} is live") });
            ExitCode::SUCCESS
        }
        Ok((_, answer)) => {
            if json {
                print::out(&answer.to_string());
            }
            print_errors(&answer);
            print::err("hint: the configuration that was running is still running");
            ExitCode::FAILURE
        }
        Err(error) => fail(&error.to_string(), "start one with `weir run`"),
    }
}

/// The mistakes of a configuration that the gateway refused.
fn print_errors(answer: &serde_json::Value) {
    for error in answer.get("errors").and_then(serde_json::Value::as_array).into_iter().flatten() {
        let text = |key: &str| error.get(key).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
        let line = error.get("line").and_then(serde_json::Value::as_u64).unwrap_or_default();
        let hint = Some(text("hint")).filter(|hint| !hint.is_empty()).map_or_else(String::new, |hint| format!("; {hint}"));
        print::err(&format!("error: {}:{line}: {}: {}{hint}", text("file"), text("key"), text("message")));
    }
}

/// One error, one hint, exit code 1.
fn fail(error: &str, hint: &str) -> ExitCode {
    print::err(&format!("error: {error}"));
    print::err(&format!("hint: {hint}"));
    ExitCode::FAILURE
}
