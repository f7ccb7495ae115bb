//! `weir plugin bench`: what calls cost when an instance is warm, beside the limits.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::json;
use weir_cases::{Case, CaseFile};
use weir_plugins::rehearsal::RehearsalVerdict;
use weir_plugins::{Phase, PolicyLimits};

use super::cases::{Bench, Outcome, is_over_time};
use super::stage::Stage;
use super::upstreams::Scripted;
use super::{micros, size, table, time};
use crate::cli::{fail, print};

/// Exchanges of each case, and the time that ends them early.
const ROUNDS: usize = 2_000;
const TIME: Duration = Duration::from_secs(2);
/// Exchanges before the measured ones.
const WARM_UP: usize = 20;

/// What was measured.
#[derive(Debug, Default)]
struct Measured {
    /// Times of calls by phase, and calls into the host.
    phases: BTreeMap<usize, (Vec<Duration>, u64)>,
    exchanges: u64,
    host_calls: u64,
    memory: usize,
    failures: Vec<String>,
    limits: PolicyLimits,
}

/// Measures and prints; fails over a limit.
pub(super) fn run(file: &Path, cases: Option<&Path>, json: bool) -> ExitCode {
    match measure(file, cases) {
        Ok(measured) => report(file, measured, json),
        Err((error, hint)) => fail(&error, hint),
    }
}

fn measure(file: &Path, cases: Option<&Path>) -> Result<Measured, (String, &'static str)> {
    const FORMAT: &str = "docs/reference/cases.md describes the format";
    let plain = "[[case]]\nname = \"a plain GET\"\nexpect = { verdict = \"next\" }\n";
    let files = match cases {
        Some(cases) => weir_cases::read(cases),
        None => weir_cases::parse(Path::new("-"), plain).map(|file| vec![file]),
    };
    let files = files.map_err(|error| (error, FORMAT))?;
    let stage = Stage::open(file).map_err(|error| (error, "name the .wasm that `cargo build --target wasm32-wasip2` made"))?;
    let refused = |error: weir_plugins::LoadError| (format!("{}: {error}", file.display()), "`weir plugin check` shows more");
    let plugin = stage.load().map_err(refused)?;
    let mut measured = Measured::default();
    for file in &files {
        let mut bench = Bench::new(&stage, &plugin, file);
        for case in &file.cases {
            // What a policy does instead of what it should costs something else.
            let wrong = cases.and_then(|_| wrong(&bench.run(case)));
            let done = match wrong {
                Some(wrong) => {
                    measured.failures.push(format!("{}: not measured, it fails: {wrong}", case.name));
                    Ok(())
                }
                None => repeat(&stage, &mut bench, file, case, &mut measured),
            };
            let hint = "a policy that needs a configuration gets it from --cases";
            done.map_err(|error| (format!("{}: {}: {error}", file.path.display(), case.name), hint))?;
        }
    }
    Ok(measured)
}

/// Why a case fails, in one line.
fn wrong(outcome: &Outcome) -> Option<String> {
    let error = || outcome.error.clone();
    let difference = outcome.differences.first();
    let difference = difference.map(|one| format!("{}: expected {}, found {}", one.what, one.expected, one.found));
    difference.or_else(error).map(|wrong| format!("{wrong}; `weir plugin test` shows all of it"))
}

fn repeat(stage: &Stage, bench: &mut Bench<'_>, file: &CaseFile, case: &Case, measured: &mut Measured) -> Result<(), String> {
    let requests = Bench::requests(case)?;
    if requests.is_empty() {
        return Ok(());
    }
    measured.limits = stage.spec(&file.policy, &case.config)?.limits;
    let rehearsal = bench.rehearsal(&case.config)?;
    stage.wait(rehearsal.fresh()).map_err(|error| error.to_string())?;
    let begun = Instant::now();
    let mut over_time = 0;
    for round in 0..ROUNDS + WARM_UP {
        rehearsal.forget();
        for (request, step) in &requests {
            // One country for the whole case is looked up once: writing a database each time would measure that.
            if round == 0 || requests.len() > 1 && step.request.country.is_some() {
                stage.locate(step.request.client, step.request.country.as_deref())?;
            }
            let (_, installed) = Scripted::begin(step);
            let rehearsed = stage.wait(rehearsal.run(request)).map_err(|error| error.to_string())?;
            drop(installed);
            measured.memory = measured.memory.max(rehearsed.memory);
            if let RehearsalVerdict::Failed(error) = &rehearsed.verdict {
                over_time += usize::from(is_over_time(&rehearsed.verdict));
                // The machine may have done something else once; its time is among the others.
                if !is_over_time(&rehearsed.verdict) || over_time * 100 > (round + WARM_UP) * requests.len() {
                    measured.failures.push(format!("{}: {error}", case.name));
                    return Ok(());
                }
            }
            if round < WARM_UP {
                continue;
            }
            measured.exchanges += 1;
            for call in rehearsed.calls {
                let (times, host_calls) = measured.phases.entry(call.phase as usize).or_default();
                times.push(call.elapsed);
                *host_calls += call.host_calls;
                measured.host_calls += call.host_calls;
            }
        }
        if begun.elapsed() > TIME {
            break;
        }
    }
    Ok(())
}

/// The time below which this share of sorted times lies.
fn quantile(sorted: &[Duration], share: f64) -> Duration {
    let place = (sorted.len() as f64 * share) as usize;
    sorted.get(place.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

fn report(file: &Path, mut measured: Measured, json: bool) -> ExitCode {
    let limits = measured.limits;
    let mut over = std::mem::take(&mut measured.failures);
    let mut rows = vec![["PHASE", "CALLS", "P50", "P99", "MAX", "HOST CALLS", "LIMIT"].map(str::to_owned).to_vec()];
    let mut phases = Vec::new();
    for (index, (times, host_calls)) in &mut measured.phases {
        let name = Phase::ALL.get(*index).map_or("", |phase| phase.name());
        times.sort();
        let (p50, p99) = (quantile(times, 0.5), quantile(times, 0.99));
        let most = times.last().copied().unwrap_or_default();
        let each = *host_calls as f64 / times.len().max(1) as f64;
        if p99 > limits.cpu {
            over.push(format!("{name}: p99 {} is over the limit of {}", time(p99), time(limits.cpu)));
        }
        let cells =
            [name.to_owned(), times.len().to_string(), time(p50), time(p99), time(most), format!("{each:.1}"), time(limits.cpu)];
        rows.push(cells.to_vec());
        phases.push(json!({
            "phase": name,
            "calls": times.len(),
            "p50_us": micros(p50),
            "p99_us": micros(p99),
            "max_us": micros(most),
            "host_calls": each,
            "limit_us": micros(limits.cpu),
        }));
    }
    if measured.memory > limits.memory {
        over.push(format!("memory: {} is over the limit of {}", size(measured.memory), size(limits.memory)));
    }
    let each = measured.host_calls as f64 / measured.exchanges.max(1) as f64;
    if json {
        let answer = json!({
            "ok": over.is_empty(),
            "file": file.display().to_string(),
            "exchanges": measured.exchanges,
            "phases": phases,
            "host_calls": each,
            "memory_bytes": measured.memory,
            "memory_limit_bytes": limits.memory,
            "over": over,
        });
        print::out(&answer.to_string());
    } else {
        print::out(&table(&rows));
        print::out(&format!("memory {} of {}, {each:.1} host calls an exchange", size(measured.memory), size(limits.memory)));
        over.iter().for_each(|line| print::out(&format!("FAIL {line}")));
    }
    if over.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_few_and_of_many() {
        let of = |count: u64, share| quantile(&(0..count).map(Duration::from_micros).collect::<Vec<_>>(), share).as_micros();
        assert_eq!((of(0, 0.99), of(1, 0.99), of(100, 0.5), of(100, 0.99), of(1000, 0.99)), (0, 0, 50, 99, 990));
    }
}
