//! `weir plugin check`: everything a gateway looks at before a file goes live, each beside its limit.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weir_cases::CaseFile;
use weir_plugins::capability::{DEFAULT_GRANTS, of_interface};
use weir_plugins::rehearsal::Interface;
use weir_plugins::{LOAD_WALL, LoadError, MAX_PLUGIN_BYTES, NEWEST, Plugin, PolicyLimits, SUPPORTED};

use super::cases::Bench;
use super::stage::Stage;
use super::{micros, size, table, time};
use crate::cli::{fail, print};

/// One thing that was looked at.
#[derive(Debug)]
struct Row {
    name: &'static str,
    state: State,
    text: String,
    value: Value,
    limit: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Good,
    Bad,
    /// Could not be looked at; the text says what it takes.
    Skipped,
}

impl Row {
    fn good(name: &'static str, text: impl Into<String>, value: Value) -> Self {
        Self { name, state: State::Good, text: text.into(), value, limit: String::new() }
    }

    fn bad(name: &'static str, text: &dyn ToString) -> Self {
        Self { name, state: State::Bad, text: text.to_string(), value: Value::Null, limit: String::new() }
    }

    fn limit(mut self, limit: impl Into<String>) -> Self {
        self.limit = limit.into();
        self
    }

    fn unless(mut self, bad: bool) -> Self {
        if bad {
            self.state = State::Bad;
        }
        self
    }
}

/// Looks, prints, and fails when anything is not as a gateway wants it.
pub(super) fn run(file: &Path, cases: Option<&Path>, settings: Option<&str>, json: bool) -> ExitCode {
    let settings = match settings.map(serde_json::from_str::<Value>).transpose() {
        Ok(settings) => settings,
        Err(error) => {
            print::err(&format!("error: --settings: {error}"));
            print::err("hint: write JSON: --settings '{ \"agents\": [\"sqlmap\"] }'");
            return ExitCode::from(2);
        }
    };
    let cases = match cases.map(weir_cases::read).transpose() {
        Ok(cases) => cases.unwrap_or_default(),
        Err(error) => return fail(&error, "docs/reference/cases.md describes the format"),
    };
    let stage = match Stage::open(file) {
        Ok(stage) => stage,
        Err(error) => return fail(&error, "name the .wasm that `cargo build --target wasm32-wasip2` made"),
    };
    let mut rows = Vec::new();
    look(&stage, &cases, settings, &mut rows);
    report(file, &rows, json)
}

fn report(file: &Path, rows: &[Row], json: bool) -> ExitCode {
    let ok = rows.iter().all(|row| row.state != State::Bad);
    let word = |state| match state {
        State::Good => "ok",
        State::Bad => "FAIL",
        State::Skipped => "skip",
    };
    if json {
        let check = |row: &Row| json!({ "name": row.name, "state": word(row.state), "text": row.text, "value": row.value, "limit": row.limit });
        let checks: Vec<_> = rows.iter().map(check).collect();
        print::out(&json!({ "ok": ok, "file": file.display().to_string(), "checks": checks }).to_string());
    } else {
        let row = |row: &Row| vec![row.name.to_owned(), word(row.state).to_owned(), row.text.clone(), row.limit.clone()];
        print::out(&table(&rows.iter().map(row).collect::<Vec<_>>()));
    }
    if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// In the order of a gateway; what is wrong ends it.
fn look(stage: &Stage, cases: &[CaseFile], settings: Option<Value>, rows: &mut Vec<Row>) {
    let bytes = stage.bytes.len();
    let too_large = bytes as u64 > MAX_PLUGIN_BYTES;
    rows.push(
        Row::good("size", size(bytes), bytes.into()).limit(format!("at most {} MiB", MAX_PLUGIN_BYTES >> 20)).unless(too_large),
    );
    if too_large {
        return;
    }
    let begun = Instant::now();
    let interface = match stage.interface() {
        Ok(interface) => interface,
        Err(error) => return rows.push(Row::bad("component", &error)),
    };
    // Compiled once: the second time it comes from the cache.
    let loaded = stage.load();
    let described = begun.elapsed();
    rows.push(contract(&interface, loaded.as_ref().err()));
    rows.push(Row::good("exports", interface.exports.join(", "), interface.exports.clone().into()));
    rows.push(imports(&interface));
    let plugin = match loaded {
        Ok(plugin) => plugin,
        Err(error) => {
            // Said by the row above already.
            if !matches!(error, LoadError::Contract { .. } | LoadError::NotAPolicy) {
                rows.push(Row::bad("load", &error));
            }
            return;
        }
    };
    rows.push(manifest(&plugin));
    match schema(&plugin) {
        Ok(row) => rows.push(row),
        Err(row) => return rows.push(row),
    }
    rows.push(Row::good("load", format!("{} to compile and describe", time(described)), micros(described).into()));
    start(stage, &plugin, cases, settings, rows);
    for file in cases {
        rows.push(run_cases(stage, &plugin, file));
    }
}

fn contract(interface: &Interface, error: Option<&LoadError>) -> Row {
    let limit = format!("this gateway supports {NEWEST} and earlier {SUPPORTED}");
    let built =
        interface.exports.iter().chain(&interface.imports).find_map(|name| name.strip_prefix("weir:policy/")?.split('@').nth(1));
    match (built, error) {
        (_, Some(error @ (LoadError::Contract { .. } | LoadError::NotAPolicy))) => Row::bad("contract", &error).limit(limit),
        (Some(built), _) => Row::good("contract", format!("weir:policy {built}"), built.into()).limit(limit),
        (None, _) => Row::bad("contract", &LoadError::NotAPolicy).limit(limit),
    }
}

fn imports(interface: &Interface) -> Row {
    let own = |name: &String| {
        name.strip_prefix("weir:policy/")?
            .split('@')
            .next()
            .filter(|name| !matches!(*name, "types" | "current"))
            .map(str::to_owned)
    };
    let mut capabilities: Vec<String> = interface.imports.iter().filter_map(own).collect();
    let list = if capabilities.is_empty() { "no capability".to_owned() } else { capabilities.join(", ") };
    for name in &mut capabilities {
        *name = of_interface(name).to_owned();
    }
    capabilities.dedup();
    let grants: Vec<&String> = capabilities.iter().filter(|name| !DEFAULT_GRANTS.contains(&name.as_str())).collect();
    let wasi = interface.imports.iter().filter(|name| name.starts_with("wasi:")).count();
    let list = if wasi == 0 { list } else { format!("{list}; {wasi} of WASI, with nothing behind them") };
    let needs = match grants.as_slice() {
        [] => "needs no grant".to_owned(),
        grants => format!("needs grants = {grants:?}"),
    };
    Row::good("imports", list, interface.imports.clone().into()).limit(needs)
}

fn manifest(plugin: &Plugin) -> Row {
    let phases: Vec<&str> = plugin.phases().into_iter().map(weir_plugins::Phase::name).collect();
    let window = match plugin.request_body() {
        0 => String::new(),
        bytes => format!(", request body up to {}", size(bytes)),
    };
    let text = format!("{} {}: {}{window}", plugin.own_name(), plugin.version(), phases.join(", "));
    let value = json!({
        "name": plugin.own_name(),
        "version": plugin.version(),
        "phases": phases,
        "request_body": plugin.request_body(),
    });
    Row::good("manifest", text, value).unless(phases.is_empty())
}

/// A schema that is none makes every configuration wrong, so nothing is looked at after that.
fn schema(plugin: &Plugin) -> Result<Row, Row> {
    let Some(schema) = plugin.schema() else {
        return Ok(Row::good("schema", "none: `configure` alone judges the configuration", Value::Null));
    };
    weir_plugins::check_schema(schema).map_err(|error| Row::bad("schema", &error))?;
    let keys = schema.get("properties").and_then(Value::as_object).map(|keys| keys.keys().cloned().collect::<Vec<_>>());
    let keys = keys.filter(|keys| !keys.is_empty()).map_or_else(String::new, |keys| format!(": {}", keys.join(", ")));
    Ok(Row::good("schema", format!("valid{keys}"), schema.clone()))
}

fn start(stage: &Stage, plugin: &Arc<Plugin>, cases: &[CaseFile], settings: Option<Value>, rows: &mut Vec<Row>) {
    // The first configuration that a case expects to be taken.
    let from_cases = cases.iter().find_map(|file| {
        let case = file.cases.iter().find(|case| matches!(case.setting, weir_cases::Setting::Steps(_)))?;
        Some((file.policy.clone(), case.config.clone()))
    });
    let is_guess = settings.is_none() && from_cases.is_none();
    let (policy, config) = from_cases.unwrap_or_else(|| (weir_cases::Policy::default(), json!({})));
    let spec = match stage.spec(&policy, &settings.unwrap_or(config)) {
        Ok(mut spec) => {
            spec.grants = plugin.imports().to_vec();
            spec
        }
        Err(error) => return rows.push(Row::bad("limits", &error)),
    };
    let proven = stage.rehearsal(&spec, plugin);
    match proven {
        Err(error @ (LoadError::Schema { .. } | LoadError::Configure(_))) if is_guess => {
            let text = format!("not tried ({error}): give --settings JSON or --cases PATH");
            rows.push(Row { state: State::Skipped, ..Row::good("configure", text, Value::Null) });
            return;
        }
        Err(error) => return rows.push(Row::bad("configure", &error)),
        Ok(_) => {}
    }
    match stage.start(&spec, plugin) {
        Err(error) => rows.push(Row::bad("configure", &error)),
        Ok(start) => {
            let most = format!("at most {}", time(LOAD_WALL));
            rows.push(Row::good("instantiate", time(start.instantiate), micros(start.instantiate).into()).limit(most.clone()));
            rows.push(Row::good("configure", time(start.configure), micros(start.configure).into()).limit(most));
            rows.push(Row::good("self-test", "a plain GET passes through", Value::Null));
            rows.push(memory(start.memory, &spec.limits));
        }
    }
}

fn memory(bytes: usize, limits: &PolicyLimits) -> Row {
    Row::good("memory", size(bytes), bytes.into()).limit(format!("at most {}", size(limits.memory))).unless(bytes > limits.memory)
}

/// Rounds of a case: the middle one is what it takes, whatever else the machine does.
const ROUNDS: usize = 21;

/// Passed or not, and the phase call that takes longest.
fn run_cases(stage: &Stage, plugin: &Arc<Plugin>, file: &CaseFile) -> Row {
    let mut bench = Bench::new(stage, plugin, file);
    let mut failed = Vec::new();
    let mut worst = (Duration::ZERO, String::new());
    for case in &file.cases {
        let outcome = bench.run(case);
        if !outcome.is_ok() {
            failed.push(case.name.clone());
            continue;
        }
        let rounds: Vec<_> = (0..ROUNDS).map(|_| bench.run(case).calls).collect();
        for (index, call) in outcome.calls.iter().enumerate() {
            let mut times: Vec<Duration> = rounds.iter().filter_map(|calls| calls.get(index)).map(|call| call.elapsed).collect();
            times.sort();
            let middle = times.get(times.len() / 2).copied().unwrap_or_default();
            if middle >= worst.0 {
                worst = (middle, format!(" in {} of {:?}", call.phase.name(), case.name));
            }
        }
    }
    let limit = stage.spec(&file.policy, &Value::Null).map(|spec| spec.limits.cpu).unwrap_or_default();
    let shown = file.path.display();
    let row = match failed.as_slice() {
        [] => Row::good(
            "cases",
            format!("{shown}: {} passed, worst {}{}", file.cases.len(), time(worst.0), worst.1),
            micros(worst.0).into(),
        ),
        failed => Row::bad("cases", &format!("{shown}: failed: {}; `weir plugin test` shows why", failed.join("; "))),
    };
    row.limit(format!("at most {} a call", time(limit))).unless(worst.0 > limit)
}
