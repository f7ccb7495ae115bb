//! `weir plugin test`: cases through the real host.

use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};
use weir_cases::{Case, CaseFile};

use super::cases::{Bench, Outcome};
use super::stage::Stage;
use super::{micros, size, time};
use crate::cli::{fail, print};

/// Runs every case and prints what came of it.
pub(super) fn run(file: &Path, cases: &Path, json: bool) -> ExitCode {
    match all(file, cases) {
        Ok(outcomes) => report(file, &outcomes, json),
        Err((error, hint)) => fail(&error, hint),
    }
}

type Outcomes = Vec<(CaseFile, Vec<(Case, Outcome)>)>;

fn all(file: &Path, cases: &Path) -> Result<Outcomes, (String, &'static str)> {
    const FORMAT: &str = "docs/reference/cases.md describes the format";
    let files = weir_cases::read(cases).map_err(|error| (error, FORMAT))?;
    let stage = Stage::open(file).map_err(|error| (error, "name the .wasm that `cargo build --target wasm32-wasip2` made"))?;
    let refused = |error: weir_plugins::LoadError| (format!("{}: {error}", file.display()), "`weir plugin check` shows more");
    let plugin = stage.load().map_err(refused)?;
    let run = |file: CaseFile| {
        let mut bench = Bench::new(&stage, &plugin, &file);
        let outcomes = file.cases.iter().map(|case| (case.clone(), bench.run(case))).collect();
        (file, outcomes)
    };
    Ok(files.into_iter().map(run).collect())
}

fn report(plugin: &Path, outcomes: &Outcomes, json: bool) -> ExitCode {
    let every = || outcomes.iter().flat_map(|(_, outcomes)| outcomes);
    let failed = every().filter(|(_, outcome)| !outcome.is_ok()).count();
    let passed = every().count() - failed;
    if json {
        let cases =
            outcomes.iter().flat_map(|(file, outcomes)| outcomes.iter().map(|(case, outcome)| shown(file, case, outcome)));
        let cases: Vec<Value> = cases.collect();
        let file = plugin.display().to_string();
        print::out(&json!({ "ok": failed == 0, "file": file, "passed": passed, "failed": failed, "cases": cases }).to_string());
    } else {
        for (file, outcomes) in outcomes {
            print::out(&file.path.display().to_string());
            outcomes.iter().for_each(|(case, outcome)| print_case(file, case, outcome));
        }
        print::out(&format!("{passed} passed, {failed} failed"));
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print_case(file: &CaseFile, case: &Case, outcome: &Outcome) {
    if outcome.is_ok() {
        let cost = if outcome.calls.is_empty() {
            String::new()
        } else {
            format!("  ({}, {}, {} host calls)", time(outcome.time()), size(outcome.memory), outcome.host_calls())
        };
        print::out(&format!("  ok    {}{cost}", case.name));
        return;
    }
    let step = outcome.step.map_or_else(String::new, |step| format!(", step {step}"));
    print::out(&format!("  FAIL  {} ({}:{}{step})", case.name, file.path.display(), case.line));
    if let Some(error) = &outcome.error {
        print::out(&format!("        {error}"));
    }
    for difference in &outcome.differences {
        print::out(&format!("        {}", difference.what));
        print::out(&format!("          expected  {}", difference.expected));
        print::out(&format!("          found     {}", difference.found));
    }
}

fn shown(file: &CaseFile, case: &Case, outcome: &Outcome) -> Value {
    let phase = |call: &weir_plugins::rehearsal::RehearsalCall| json!({ "phase": call.phase.name(), "us": micros(call.elapsed), "host_calls": call.host_calls });
    let difference = |one: &weir_cases::Difference| json!({ "what": one.what, "expected": one.expected, "found": one.found });
    json!({
        "file": file.path.display().to_string(),
        "line": case.line,
        "name": case.name,
        "ok": outcome.is_ok(),
        "us": micros(outcome.time()),
        "memory_bytes": outcome.memory,
        "host_calls": outcome.host_calls(),
        "calls": outcome.calls.iter().map(phase).collect::<Vec<_>>(),
        "error": outcome.error,
        "step": outcome.step,
        "differences": outcome.differences.iter().map(difference).collect::<Vec<_>>(),
    })
}
