//! `weir plugin …`: what a policy's author needs, without a gateway running, and the candidates of one that runs.

mod bench;
mod candidate;
mod cases;
mod check;
mod new;
mod stage;
mod temporary;
mod test;
mod upstreams;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;

use super::ConfigFile;

/// What to do with a plugin.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Write a project for a new policy in Rust, which compiles and passes its own tests
    New {
        /// The policy's name and the directory to make, e.g. `block-agent`
        name: PathBuf,
        /// A checkout's `sdk` directory, or a version that your registry has, instead of the SDK that this binary carries
        #[arg(long, value_name = "PATH|VERSION")]
        sdk: Option<String>,
    },
    /// Look at a plugin file: contract, imports, manifest, schema, and what starting it costs
    Check {
        /// The component
        file: PathBuf,
        /// Cases to run, a file or a directory: see `weir plugin test`
        #[arg(long, value_name = "PATH")]
        cases: Option<PathBuf>,
        /// The policy's `config` as JSON, instead of the one of the cases
        #[arg(long, value_name = "JSON")]
        settings: Option<String>,
        /// Print {"ok", "checks": [...]} instead of text
        #[arg(long)]
        json: bool,
    },
    /// Run cases (docs/reference/cases.md) through the real host
    Test {
        /// The component
        file: PathBuf,
        /// A file of cases, or a directory of them
        #[arg(long, value_name = "PATH")]
        cases: PathBuf,
        /// Print {"ok", "passed", "failed", "cases": [...]} instead of text
        #[arg(long)]
        json: bool,
    },
    /// Measure calls, memory and host calls against the limits
    Bench {
        /// The component
        file: PathBuf,
        /// Cases to repeat, a file or a directory; without them a plain GET
        #[arg(long, value_name = "PATH")]
        cases: Option<PathBuf>,
        /// Print JSON instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Make a candidate the plugin: its file is renamed over the plugin's, and every policy that uses the plugin changes over
    Promote(candidate::Trial),
    /// Make the build live again that was live before; the file is not taken until it changes
    Rollback(Rollback),
    /// Give a candidate up: its file is put aside, and the plugin goes on alone
    Abandon(candidate::Trial),
}

/// A plugin whose build before is wanted.
#[derive(Debug, clap::Args)]
pub(super) struct Rollback {
    /// The plugin, its file without `.wasm`, or a policy that uses it
    name: String,
    #[command(flatten)]
    file: ConfigFile,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs one of them.
pub(super) fn run(command: Command) -> ExitCode {
    match command {
        Command::New { name, sdk } => new::run(&name, sdk.as_deref()),
        Command::Check { file, cases, settings, json } => check::run(&file, cases.as_deref(), settings.as_deref(), json),
        Command::Test { file, cases, json } => test::run(&file, &cases, json),
        Command::Bench { file, cases, json } => bench::run(&file, cases.as_deref(), json),
        Command::Promote(trial) => candidate::order(&trial, "promote", "is now the plugin"),
        Command::Rollback(Rollback { name, file, json }) => super::plugins::roll_back(&file.path(), &name, json),
        Command::Abandon(trial) => candidate::order(&trial, "abandon", "is given up; the plugin goes on:"),
    }
}

/// Bytes for people.
fn size(bytes: usize) -> String {
    const KIB: usize = 1 << 10;
    const MIB: usize = 1 << 20;
    match bytes {
        0..KIB => format!("{bytes} B"),
        KIB..MIB => format!("{} KiB", bytes / KIB),
        _ => format!("{:.1} MiB", bytes as f64 / MIB as f64),
    }
}

/// A time for people.
fn time(time: std::time::Duration) -> String {
    let micros = time.as_secs_f64() * 1e6;
    match micros {
        ..10.0 => format!("{micros:.1} µs"),
        ..10_000.0 => format!("{micros:.0} µs"),
        ..10_000_000.0 => format!("{:.0} ms", micros / 1e3),
        _ => format!("{:.0} s", micros / 1e6),
    }
}

/// Microseconds with two decimals, for JSON.
fn micros(time: std::time::Duration) -> f64 {
    (time.as_secs_f64() * 1e8).round() / 100.0
}

/// Rows with columns of equal width.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}
