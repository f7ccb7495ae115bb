//! `[policy.NAME.candidate]`: another version of the policy's plugin, on trial.

use serde_json::Value;
use toml::de::DeValue;

use super::error::{Invalid, Location};
use super::reader::Reader;
use super::{defaults, values};

/// A version on trial.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Its file in the plugin directory, without `.wasm`: `ips@new`.
    pub plugin: String,
    /// How it is tried.
    pub mode: TrialMode,
    /// Of requests (shadow) or clients (canary), 0 to 1. Default 1 of a shadow; a canary says it.
    pub share: f64,
    /// Settings of its own. Default: the policy's.
    pub config: Option<Value>,
    /// Where it is configured.
    pub at: Location,
}

/// How a candidate is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrialMode {
    /// It is asked beside the policy, and changes nothing.
    Shadow,
    /// It is asked instead of the policy.
    Canary,
}

/// `candidate` of the policy that uses `stable`; none when it is absent or wrong.
pub(super) fn candidate(mut reader: Reader<'_, '_>, stable: Option<&str>) -> Option<Candidate> {
    const MODES: &[(&str, TrialMode)] = &[("shadow", TrialMode::Shadow), ("canary", TrialMode::Canary)];
    let stem = stable.unwrap_or("NAME");
    let plugin = reader.required("plugin", &format!("plugin = \"{stem}@new\" for {stem}@new.wasm"), plugin_name);
    let mode = reader.required("mode", "mode = \"shadow\", or \"canary\"", values::choice(MODES));
    let share = reader.optional("share", values::ratio);
    let config = reader.optional("config", values::json_object);
    if let (Some(stable), Some(plugin)) = (stable, &plugin)
        && of(plugin) != stable
    {
        let message = format!("not a version of {stable:?} ({plugin:?})");
        reader.conflict(
            "plugin",
            Invalid::new(message).hint(format!("name its file {stable}@new.wasm and write \"{stable}@new\"")),
        );
    }
    if mode == Some(TrialMode::Canary) && share.is_none() {
        reader.missing("share", "share = 0.1: a canary decides over this part of the clients");
    }
    let at = reader.at();
    reader.finish();
    Some(Candidate { plugin: plugin?, mode: mode?, share: share.unwrap_or(defaults::SHADOW_SHARE), config, at })
}

/// The plugin that a file is a version of: what stands before the `@`.
#[must_use]
pub fn of(file: &str) -> &str {
    file.split('@').next().unwrap_or(file)
}

/// `PLUGIN@VERSION`. With the plugin's name in front, whoever may write over a plugin's file is also who may try another version of it.
fn plugin_name(value: &DeValue<'_>) -> Result<String, Invalid> {
    let text = values::string(value)?;
    let hint = "write \"PLUGIN@VERSION\", such as \"ips@new\" for ips@new.wasm";
    match text.split_once('@') {
        _ if text.ends_with(".wasm") => {
            Err(Invalid::new(format!("a plugin is named without its extension ({})", values::shown(value))).hint(hint))
        }
        Some((plugin, version)) => {
            values::check_name(plugin)?;
            values::check_name(version)?;
            Ok(text.to_owned())
        }
        None => Err(Invalid::new(format!("not the name of a candidate ({})", values::shown(value))).hint(hint)),
    }
}
