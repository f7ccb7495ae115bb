//! `[policy.NAME]`: a configured use of a plugin.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use toml::de::DeValue;
pub use weir_plugins::capability::http_out::HttpOut;
pub use weir_plugins::{Isolation, PolicyLimits};

use super::candidate::{self, Candidate};
use super::error::{Invalid, Location};
use super::reader::Reader;
use super::{defaults, values};

/// A plugin with its configuration, as sites name it in their chains.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// The name in the section's head.
    pub name: Arc<str>,
    /// The plugin's file in the plugin directory, without `.wasm`.
    pub plugin: String,
    /// Whether its verdicts count. Default [`Mode::Enforce`].
    pub mode: Mode,
    /// What happens to a request whose call failed. Default [`OnError::Deny`].
    pub on_error: OnError,
    /// What happens to a request whose body is longer than the plugin's window. Default [`OnOverflow::InspectPrefix`].
    pub on_overflow: OnOverflow,
    /// Capabilities beyond the plugin's defaults. Default none.
    pub grants: Vec<String>,
    /// Upstreams it may ask over HTTP. Default none.
    pub http_out: HttpOut,
    /// Which exchanges share an instance. Default [`Isolation::Pooled`].
    pub isolation: Isolation,
    /// The plugin's own settings, always an object; checked against the plugin's schema when it is loaded. Default empty.
    pub config: Value,
    /// What one call may cost.
    pub limits: PolicyLimits,
    /// Another version of the plugin, on trial. Default none.
    pub candidate: Option<Candidate>,
    /// When it fails too often to be called.
    pub quarantine: Quarantine,
    /// Where it is configured.
    pub at: Location,
}

/// Whether a policy's verdicts count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// They do.
    Enforce,
    /// It is called and its decisions are logged, and nothing changes.
    Observe,
    /// It is not called.
    Off,
}

impl Mode {
    /// As written in the file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Observe => "observe",
            Self::Off => "off",
        }
    }
}

/// What happens to a request when a policy traps, runs out of time or cannot run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// It is refused.
    Deny,
    /// It goes on as if the policy were not there: choose it only where that is safe.
    Allow,
}

impl OnError {
    /// As written in the file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Allow => "allow",
        }
    }
}

/// What happens to a request whose body is longer than the window that the plugin asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnOverflow {
    /// The plugin judges its first bytes. What stands behind them is not looked at.
    InspectPrefix,
    /// The plugin is not asked about the body.
    Pass,
    /// It is refused with 413: for whoever must have seen all of a body.
    Reject,
}

impl OnOverflow {
    /// As written in the file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InspectPrefix => "inspect-prefix",
            Self::Pass => "pass",
            Self::Reject => "reject",
        }
    }
}

/// Bytes that an instance can be given.
const MEMORY: std::ops::RangeInclusive<u64> = 1 << 20..=4 << 30;

/// `[policy.NAME.quarantine]`: when a policy fails too often to be called.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quarantine {
    /// The share of calls that trap or run out of time, 0 to 1; 0 is never. Default 0.05.
    pub failures: f64,
    /// Fewer calls say nothing. Default 100.
    pub calls: u64,
    /// Calls further back are forgotten; 1 s to 1 h. Default 30 s.
    pub within: Duration,
}

impl Default for Quarantine {
    fn default() -> Self {
        Self { failures: defaults::QUARANTINE_FAILURES, calls: defaults::QUARANTINE_CALLS, within: defaults::QUARANTINE_WITHIN }
    }
}

/// Limits as texts of a file; the defaults for what is not given.
///
/// # Errors
/// What is no duration or size, or cannot be given.
pub fn parse_limits(cpu: Option<&str>, wall: Option<&str>, memory: Option<&str>) -> Result<PolicyLimits, String> {
    fn read<T>(key: &str, text: Option<&str>, parse: impl Fn(&DeValue<'_>) -> values::Parsed<T>) -> Result<Option<T>, String> {
        let parsed = text.map(|text| parse(&DeValue::String(text.into()))).transpose();
        parsed.map_err(|invalid| format!("limits.{key}: {}", invalid.into_text()))
    }
    let default = PolicyLimits::default();
    let cpu = read("cpu", cpu, values::duration)?.unwrap_or(default.cpu);
    let wall = read("wall", wall, values::duration)?.unwrap_or_else(|| default.wall.max(cpu));
    let memory = read("memory", memory, values::size(MEMORY))?.unwrap_or(default.memory);
    Ok(PolicyLimits { cpu, wall, memory, ..default })
}

/// One `[policy.NAME]`; none when it names no plugin.
pub(super) fn policy(name: Arc<str>, mut reader: Reader<'_, '_>) -> Option<Policy> {
    const MODES: &[(&str, Mode)] = &[("enforce", Mode::Enforce), ("observe", Mode::Observe), ("off", Mode::Off)];
    const ON_ERROR: &[(&str, OnError)] = &[("deny", OnError::Deny), ("allow", OnError::Allow)];
    const ON_OVERFLOW: &[(&str, OnOverflow)] =
        &[("inspect-prefix", OnOverflow::InspectPrefix), ("pass", OnOverflow::Pass), ("reject", OnOverflow::Reject)];
    const ISOLATION: &[(&str, Isolation)] = &[("pooled", Isolation::Pooled), ("request", Isolation::Request)];
    let plugin = reader.required("plugin", &format!("plugin = \"{name}\" for {name}.wasm"), plugin_name);
    let mode = reader.or("mode", Mode::Enforce, values::choice(MODES));
    let on_error = reader.or("on_error", OnError::Deny, values::choice(ON_ERROR));
    let grants: Vec<String> = reader.list("grants", values::name).into_iter().map(|grant| grant.value).collect();
    let http_out = http_out(&mut reader, &grants);
    let on_overflow = reader.or("on_overflow", OnOverflow::InspectPrefix, values::choice(ON_OVERFLOW));
    let isolation = reader.or("isolation", Isolation::Pooled, values::choice(ISOLATION));
    let config = reader.optional("config", values::json_object).unwrap_or_else(|| Value::Object(serde_json::Map::new()));
    let limits = reader.table("limits").map(limits).unwrap_or_default();
    let candidate = reader.table("candidate").and_then(|table| candidate::candidate(table, plugin.as_deref()));
    let quarantine = reader.table("quarantine").map(quarantine).unwrap_or_default();
    let at = reader.at();
    reader.finish();
    Some(Policy {
        name,
        plugin: plugin?,
        mode,
        on_error,
        on_overflow,
        grants,
        http_out,
        isolation,
        config,
        limits,
        candidate,
        quarantine,
        at,
    })
}

/// The grant and the names of upstreams come together: one without the other is a mistake, and a plugin would notice it late.
fn http_out(reader: &mut Reader<'_, '_>, grants: &[String]) -> HttpOut {
    const GRANT: &str = "http-out";
    const EXAMPLE: &str = "http_out = { upstreams = [\"NAME\"] }";
    let granted = grants.iter().any(|grant| grant == GRANT);
    let Some(mut table) = reader.table("http_out") else {
        if granted {
            let nobody = Invalid::new("grants http-out, and names no upstream to ask");
            reader.conflict("grants", nobody.hint(format!("add {EXAMPLE}, or remove the grant")));
        }
        return HttpOut::default();
    };
    let default = HttpOut::default();
    let reference = |value: &DeValue<'_>| values::string(value).map(Arc::from);
    let upstreams = table.list("upstreams", reference).into_iter().map(|upstream| upstream.value).collect();
    match table.length("upstreams") {
        None => table.missing("upstreams", EXAMPLE),
        Some(0) => table.conflict("upstreams", Invalid::new("is empty").hint(format!("write {EXAMPLE}"))),
        Some(_) => {}
    }
    let calls = table.or("calls", default.calls, values::count(1..=10_000));
    let body = table.or("body", default.body, values::size(0..=4 << 20));
    table.finish();
    if !granted {
        let missing = Invalid::new("names upstreams to ask, and does not grant http-out");
        reader.conflict("http_out", missing.hint("add grants = [\"http-out\"], or remove http_out"));
    }
    HttpOut { upstreams, calls, body }
}

fn plugin_name(value: &DeValue<'_>) -> Result<String, Invalid> {
    let name = values::name(value)?;
    match name.strip_suffix(".wasm") {
        Some(stem) => {
            Err(Invalid::new(format!("a plugin is named without its extension ({name:?})")).hint(format!("write {stem:?}")))
        }
        None => Ok(name),
    }
}

fn limits(mut reader: Reader<'_, '_>) -> PolicyLimits {
    let default = PolicyLimits::default();
    let cpu = reader.or("cpu", default.cpu, values::duration);
    if cpu > Duration::from_secs(10) {
        reader.conflict(
            "cpu",
            Invalid::new(format!("must be at most 10s ({cpu:?})")).hint("a call holds up its connection this long"),
        );
    }
    let wall = reader.optional("wall", values::duration);
    if let Some(wall) = wall.filter(|wall| *wall < cpu) {
        let message = format!("less than the CPU limit ({wall:?} < {cpu:?}), which could never be reached");
        reader.conflict("wall", Invalid::new(message).hint("raise wall or lower cpu"));
    }
    let limits = PolicyLimits {
        cpu,
        wall: wall.unwrap_or_else(|| default.wall.max(cpu)),
        memory: reader.or("memory", default.memory, values::size(MEMORY)),
        instances: reader.or("instances", default.instances, values::count(1..=1_000)),
        log: reader.or("log", default.log, values::size(0..=1 << 20)),
        tags: reader.or("tags", default.tags, values::count(0..=1_000)),
        findings: reader.or("findings", default.findings, values::count(0..=1_000)),
        edits: reader.or("edits", default.edits, values::size(0..=1 << 20)),
        reply: reader.or("reply", default.reply, values::size(0..=64 << 20)),
        growth: reader.or("growth", default.growth, values::size(0..=64 << 20)),
    };
    reader.finish();
    limits
}

fn quarantine(mut reader: Reader<'_, '_>) -> Quarantine {
    let default = Quarantine::default();
    let failures = reader.or("failures", default.failures, values::ratio);
    let calls = reader.or("calls", default.calls, values::count(10..=1_000_000));
    let within = reader.or("within", default.within, values::duration);
    if !(Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&within) {
        reader.conflict("within", Invalid::new(format!("must be from 1s to 1h ({within:?})")).hint("30s is the default"));
    }
    reader.finish();
    Quarantine { failures, calls, within }
}
