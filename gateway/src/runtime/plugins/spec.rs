//! Policies of the configuration in the words of the plugin host, and its errors in the words of the configuration.

use std::sync::Arc;

use weir_plugins::{LoadError, Mode, OnError, OnOverflow, PolicySpec};

use crate::config::{self, Config, Policy};

/// The policies that use a plugin and are called.
pub(super) fn users<'a>(config: &'a Config, plugin: &'a str) -> impl Iterator<Item = &'a Policy> {
    config.policies.values().filter(move |policy| policy.plugin == plugin && policy.mode != config::Mode::Off)
}

/// A policy of the configuration, in the words of the plugin host.
pub fn spec(policy: &Policy) -> PolicySpec {
    PolicySpec {
        name: Arc::clone(&policy.name),
        plugin: policy.plugin.clone(),
        mode: match policy.mode {
            config::Mode::Enforce => Mode::Enforce,
            config::Mode::Observe => Mode::Observe,
            config::Mode::Off => Mode::Off,
        },
        on_error: match policy.on_error {
            config::OnError::Deny => OnError::Deny,
            config::OnError::Allow => OnError::Allow,
        },
        on_overflow: match policy.on_overflow {
            config::OnOverflow::InspectPrefix => OnOverflow::InspectPrefix,
            config::OnOverflow::Pass => OnOverflow::Pass,
            config::OnOverflow::Reject => OnOverflow::Reject,
        },
        grants: policy.grants.clone(),
        http_out: policy.http_out.clone(),
        isolation: policy.isolation,
        config: policy.config.clone(),
        limits: policy.limits,
    }
}

/// Why a policy cannot be brought to life. `refused` is why the file of its plugin was.
pub(super) fn located(policy: &Policy, error: &LoadError, refused: Option<&str>) -> config::Error {
    let key = match error {
        LoadError::Schema { .. } | LoadError::Configure(_) => format!("policy.{}", policy.name),
        LoadError::NotGranted(_) => format!("policy.{}.grants", policy.name),
        _ => format!("policy.{}.plugin", policy.name),
    };
    let (message, hint) = match (error, refused) {
        (LoadError::Missing(name), Some(reason)) => (format!("{name}.wasm was refused: {reason}"), None),
        (LoadError::Missing(_), None) => {
            (error.to_string(), Some("put the file there, or write the bundled ones with `weir plugins unpack DIR`".to_owned()))
        }
        _ => (error.to_string(), None),
    };
    config::Error { location: Some(policy.at.clone()), key, message, hint }
}

/// A policy whose plugin does not have the signature that is asked for.
pub(super) fn untrusted(policy: &Policy, reason: &str) -> config::Error {
    let (key, message) = (format!("policy.{}.plugin", policy.name), format!("{}.wasm: {reason}", policy.plugin));
    config::Error { location: Some(policy.at.clone()), key, message, hint: None }
}
