//! The way back: what was live before is live again, by order of the operator or because what replaced it fails too often.

use std::sync::Arc;

use thiserror::Error;
use weir_plugins::signature::Key;
use weir_plugins::{Generation, Plugin};

use super::Plugins;
use super::judge::prepare;
use super::record::{Cause, Mark};
use super::spec::{spec, users};
use super::status::unix_now;
use crate::config::Config;

/// A rollback that was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolledBack {
    /// The plugin's file without `.wasm`.
    pub plugin: String,
    /// What is live now.
    pub live: Mark,
    /// What was live, and is not taken again until the file changes.
    pub from: Mark,
}

/// Why nothing was rolled back.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RollbackError {
    /// Nothing is known of that name.
    #[error("there is no plugin or policy {0:?}")]
    NoSuchPlugin(String),
    /// Nothing was live before.
    #[error("nothing to roll back to: {0}")]
    Nothing(String),
    /// What was live before cannot be brought to life.
    #[error("{0} cannot be restored: {1}")]
    Failed(String, String),
}

impl RollbackError {
    /// What the operator can do.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::NoSuchPlugin(_) => "`weir plugins` lists the plugins and the policies that use them",
            Self::Nothing(_) => "put the build that you want into the plugin directory",
            Self::Failed(..) => "what was running is still running; put the build that you want into the plugin directory",
        }
    }
}

/// The build to restore, brought to life.
struct Restorable {
    plugin: Arc<Plugin>,
    generations: Vec<Arc<Generation>>,
    keys: Vec<Key>,
}

impl Plugins {
    /// Makes what was live before live again, for every policy at once or not at all. `name` is that of a plugin, or else of a policy.
    ///
    /// # Errors
    /// There is nothing to restore, or it cannot be brought to life; nothing changed then.
    pub async fn roll_back(&mut self, name: &str, config: &Config) -> Result<RolledBack, RollbackError> {
        let used = || config.policies.get(name).map(|policy| &*policy.plugin);
        let name = if self.slots.contains_key(name) { name } else { used().unwrap_or(name) };
        let restorable = self.restorable(name, config).await?;
        let reason = "rolled back by the operator; the file is not taken until it changes";
        let done = self.restore(name, restorable, Cause::RolledBack, reason)?;
        let (live, from) = (&done.live, &done.from);
        tracing::warn!(
            plugin = name,
            version = live.version,
            digest = live.digest,
            from_version = from.version,
            from_digest = from.digest,
            "plugin rolled back by the operator"
        );
        Ok(done)
    }

    /// The same, because it failed too often.
    pub(super) async fn fall_back(&mut self, name: &str, config: &Config, reason: &str) -> Result<RolledBack, RollbackError> {
        let restorable = self.restorable(name, config).await?;
        let done = self.restore(name, restorable, Cause::Quarantined, reason)?;
        let (live, from) = (&done.live, &done.from);
        tracing::error!(
            plugin = name,
            version = live.version,
            digest = live.digest,
            from_version = from.version,
            from_digest = from.digest,
            "plugin quarantined, the one before it is live again: {reason}"
        );
        Ok(done)
    }

    async fn restorable(&self, name: &str, config: &Config) -> Result<Restorable, RollbackError> {
        let _hurry = self.host.hurry();
        let slot = self.slots.get(name).ok_or_else(|| RollbackError::NoSuchPlugin(name.to_owned()))?;
        let Some(mark) = slot.record.restorable() else {
            let reason = match (&slot.record.live, &slot.record.held) {
                (None, _) => "no file of that name was ever taken".to_owned(),
                (Some(live), Some(held)) if !slot.record.is_quarantined() => {
                    format!("{} ({}) is what the last rollback restored, from {}", live.version, short(live), short(&held.mark))
                }
                (Some(live), _) => format!("no policy ran another build before {} ({})", live.version, short(live)),
            };
            return Err(RollbackError::Nothing(reason));
        };
        let failed = |reason: String| RollbackError::Failed(format!("{} ({})", mark.version, short(mark)), reason);
        let keys = config.keys(name).to_vec();
        let plugin = match &slot.previous {
            Some(plugin) if keys.is_empty() => Arc::clone(plugin),
            _ => {
                let bytes = self.copy(name, mark, config).map_err(failed)?;
                self.host.load(name, &bytes).await.map_err(|error| failed(error.to_string()))?
            }
        };
        let specs: Vec<_> = users(config, name).map(spec).collect();
        let generations = prepare(&self.host, &specs, &plugin, config.geoip.is_some()).await.map_err(failed)?;
        Ok(Restorable { plugin, generations, keys })
    }

    fn restore(&mut self, name: &str, restorable: Restorable, cause: Cause, reason: &str) -> Result<RolledBack, RollbackError> {
        let no_such = || RollbackError::NoSuchPlugin(name.to_owned());
        let slot = self.slots.get_mut(name).ok_or_else(no_such)?;
        let from = slot.record.restored(cause, reason, unix_now()).ok_or_else(no_such)?;
        let live = slot.record.live.clone().ok_or_else(no_such)?;
        slot.live = Some(restorable.plugin);
        slot.previous = None;
        slot.keys = restorable.keys;
        self.exchange(restorable.generations);
        self.status.rolled_back(name, cause);
        self.remember();
        Ok(RolledBack { plugin: name.to_owned(), live, from })
    }
}

/// So much of a digest tells builds apart.
fn short(mark: &Mark) -> &str {
    mark.digest.get(..12).unwrap_or(&mark.digest)
}
