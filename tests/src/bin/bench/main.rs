//! `make bench`: what one request costs in Weir, beside nginx and HAProxy on the same machine in the same run.
//!
//! The figure to quote is the CPU time of the proxy per request, as a ratio to nginx: it holds on a busy machine, where requests per
//! second do not. Every proxy runs with one worker before one origin; closed-loop clients drive them in turn, round after round, and
//! the median round counts. It reports and never judges: it fails only when something did not run or a request was refused.
//!
//! | to read | see |
//! |---|---|
//! | which figures there are | `figures` |
//! | how a row is measured | `measure`, `weir_tests::process` |
//! | one call inside the host | `calls` |
//! | memory per connection, many sites | `idle`, `sites`, `sheet` |
//! | what asks and what answers | `load`, `wrk`, `built_in`, `origin` |
//! | what each proxy is told | `proxies`, `configs` |

mod built_in;
mod calls;
mod configs;
mod error;
mod figures;
mod idle;
mod load;
mod measure;
mod notes;
mod options;
mod origin;
mod proxies;
mod report;
mod sheet;
mod sites;
mod tools;
mod wrk;

use std::process::ExitCode;

use error::Error;
use load::{Generator, Traffic};
use measure::{Row, Rows};
use notes::Notes;
use options::Options;
use origin::Origin;
use proxies::{Ground, Proxy};
use tools::Tools;

/// The command line was wrong.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            notes::print(options::HELP);
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            notes::say(&format!("error: {error}\nhint: `--help` lists the options"));
            return ExitCode::from(USAGE);
        }
    };
    let mut notes = Notes::default();
    if let Err(error) = bench(&options, &mut notes) {
        notes.fail(&error.to_string());
    }
    if notes.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Starts everything, measures, reports, and ends everything.
///
/// # Errors
/// There is no origin, or nothing to measure with. What keeps single figures from being measured is noted instead.
fn bench(options: &Options, notes: &mut Notes) -> Result<(), Error> {
    let tools = Tools::find(notes);
    let ground = Ground::prepare()?;
    let origin = Origin::start(&ground, tools.nginx.as_deref())?;
    let generator = Generator::new(&ground, tools.wrk.clone())?;

    let mut sheets = Vec::new();
    if options.parts.memory {
        sheets.push(idle::measure(&ground, origin.address(), &tools, &generator, options, notes));
    }
    if options.parts.sites {
        sheets.push(sites::measure(&ground, origin.address(), &tools, options, notes));
    }
    if options.parts.calls {
        sheets.push(calls::measure(&ground, options, notes));
    }
    let figures =
        if options.parts.cpu { figures::all(&rows(&ground, &origin, &tools, &generator, options, notes)) } else { Vec::new() };
    report::print(options, &figures, &sheets, &generator, &origin, notes);
    Ok(())
}

fn rows(ground: &Ground, origin: &Origin, tools: &Tools, generator: &Generator, options: &Options, notes: &mut Notes) -> Rows {
    let proxies = proxies::start_all(ground, origin.address(), tools, notes);
    let mut rows = Rows::default();
    for traffic in Traffic::ALL {
        let driven: Vec<&Proxy> = proxies.iter().filter(|proxy| proxy.address(traffic).is_some()).collect();
        rows.extend(measure::interleaved(traffic, &driven, generator, options, notes));
    }
    note_refusals(&rows, notes);
    rows
}

fn note_refusals(rows: &[Row], notes: &mut Notes) {
    for row in rows.iter().filter(|row| row.refused > 0) {
        notes.fail(&format!("{} answered {} requests of {} with other than 2xx", row.proxy, row.refused, row.traffic.title()));
    }
}
