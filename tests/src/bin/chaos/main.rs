//! `make chaos` and `make soak`: what clients notice when upstreams die and when the gateway is changed while it runs.
//!
//! Figures are counted by open-loop clients, and by the journals of upstreams that are processes of their own and are killed. nginx and
//! HAProxy go through the same script where they are installed. It reports; it fails only when something could not be tried.
//!
//! | to read | see |
//! |---|---|
//! | what happens, per figure | `failover`, `reload`, `smuggling`, `hostile`, `swaps` |
//! | hours of change in minutes | `soak` |
//! | who is on the stage, and how it is set up | `stage`, `configs`, `sessions`, `bearable`, `processors`, `awake` |

mod awake;
mod bearable;
mod configs;
mod error;
mod failover;
mod hostile;
mod options;
mod processors;
mod reload;
mod report;
mod sessions;
mod smuggling;
mod soak;
mod stage;
mod swaps;

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use weir_tests::chaos::ChaosUpstream;
use weir_tests::open_loop::{self, Seen};
use weir_tests::tool;

use error::Error;
use options::{Options, Order};
use report::{Goal, Row, Value};
use stage::Kind;

/// The command line was wrong.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let soak_seconds = std::env::var("SOAK_SECONDS").ok();
    match options::parse(&arguments, soak_seconds.as_deref()) {
        Ok(Order::Help) => {
            print(options::HELP);
            ExitCode::SUCCESS
        }
        Ok(Order::Figures(options)) => figures(&options),
        Ok(Order::Soak(length)) => match soak::run(length) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => {
                say(&format!("FAILED: {error}"));
                ExitCode::FAILURE
            }
        },
        Ok(Order::Upstream(upstream)) => {
            let ended = ChaosUpstream::run(upstream.listen, upstream.behaviour, upstream.journal.as_deref());
            say(&format!("the upstream ended: {ended:?}"));
            ExitCode::FAILURE
        }
        Err(error) => {
            say(&format!("error: {error}\nhint: `--help` lists the options"));
            ExitCode::from(USAGE)
        }
    }
}

/// Plays one figure with one proxy.
type Play = fn(Kind, &Path, &Options) -> Result<Vec<Value>, Error>;

/// A figure: its number, its rows, and what happens.
struct Figure {
    id: &'static str,
    title: &'static str,
    rows: &'static [(&'static str, Goal)],
    play: Play,
    /// What only Weir can do.
    alone: bool,
}

const FIGURES: [Figure; 8] = [
    Figure { id: "F1", title: "kill -9 and restart of the primary", rows: &failover::F1, play: failover::f1, alone: false },
    Figure { id: "F2", title: "a black-holed primary", rows: &failover::F2, play: failover::f2, alone: false },
    Figure { id: "F3", title: "all upstreams down", rows: &failover::F3, play: failover::f3, alone: false },
    Figure { id: "R1", title: "reloads", rows: &reload::RELOAD, play: reload::reload, alone: false },
    Figure { id: "R1", title: "binary upgrades", rows: &reload::UPGRADE, play: reload::upgrade, alone: false },
    Figure { id: "R2", title: "malformed and smuggled requests", rows: &smuggling::R2, play: smuggling::r2, alone: false },
    Figure { id: "R3", title: "policies that misbehave", rows: &hostile::R3, play: hostile::r3, alone: true },
    Figure { id: "P8", title: "new builds of a plugin", rows: &swaps::P8, play: swaps::p8, alone: true },
];

fn figures(options: &Options) -> ExitCode {
    let awake = options.awake.then(awake::keep).transpose();
    let _awake = match awake {
        Ok(awake) => awake,
        Err(error) => {
            say(&format!("error: the processors cannot be kept awake: {error}\nhint: `--awake` needs root"));
            return ExitCode::from(USAGE);
        }
    };
    let mut failed = Vec::new();
    let mut rows: Vec<Row> = Vec::new();
    let proxies = Kind::ALL.map(|kind| (kind, options.wants_proxy(kind.name()).then(|| program(kind)).flatten()));
    for figure in FIGURES.iter().filter(|figure| options.wants(figure.id)) {
        let measured = proxies.each_ref().map(|(kind, program)| {
            let program = program.as_deref().filter(|_| !figure.alone || *kind == Kind::Weir)?;
            say(&format!("{} {}: {}", figure.id, figure.title, kind.name()));
            (figure.play)(*kind, program, options)
                .map_err(|error| {
                    say(&format!("FAILED: {} of {}: {error}", figure.id, kind.name()));
                    failed.push(format!("{} of {}: {error}", figure.id, kind.name()));
                })
                .ok()
        });
        rows.extend(report::rows(figure.rows, &measured));
    }
    if options.json {
        print(&format!("{:#}", serde_json::json!({ "rows": report::json(&rows), "failed": failed })));
    } else {
        print(&report::table(&rows));
        failed.iter().for_each(|why| print(&format!("FAILED: {why}")));
    }
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn program(kind: Kind) -> Option<std::path::PathBuf> {
    let found = kind.program();
    if found.is_none() {
        tool::skipped(&format!("{} is not there", kind.name()));
    }
    found
}

/// Says how lost requests ended.
fn say_lost(seen: &[Seen]) {
    let causes = open_loop::causes(seen);
    if !causes.is_empty() {
        say(&format!("  lost: {causes}"));
    }
}

/// A line for whoever waits, on standard error.
fn say(line: &str) {
    // Nobody is left to tell when standard error is closed.
    drop(writeln!(io::stderr(), "{line}"));
}

/// A line of the report, on standard output.
fn print(line: &str) {
    // A reader that went away, such as `head`, has what it wanted.
    drop(writeln!(io::stdout(), "{line}"));
}
