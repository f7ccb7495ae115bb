//! What the operator is shown of plugins, readable from any thread.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use weir_plugins::{Generation, Plugin};

use super::quarantine::Health;
use super::record::{Cause, Record};

/// What the operator is shown.
#[derive(Debug, Default)]
pub struct Status(Mutex<Shown>);

#[derive(Debug, Default)]
struct Shown {
    rows: Vec<Row>,
    directory_error: Option<String>,
    judging: Option<String>,
    rollbacks: BTreeMap<(String, Cause), u64>,
    quarantines: BTreeMap<String, u64>,
}

/// One file name, for the operator.
#[derive(Clone, Debug)]
pub struct Row {
    /// The file's name without `.wasm`.
    pub name: String,
    /// What is remembered of it.
    pub record: Record,
    /// The live plugin.
    pub live: Option<Arc<Plugin>>,
    /// The policies that use it, and how their generations are.
    pub generations: Vec<(Arc<Generation>, Health)>,
    /// Generations that were replaced; requests under way may still use them.
    pub retired: Vec<Retired>,
}

/// A generation that was replaced.
#[derive(Clone, Debug)]
pub struct Retired {
    /// Its policy.
    pub policy: Arc<str>,
    /// Its plugin's file.
    pub plugin: Arc<str>,
    /// Its digest.
    pub digest: Arc<str>,
    /// The version it gives itself.
    pub version: String,
    /// Since when; Unix seconds.
    pub since: u64,
    /// Itself, as long as anybody uses it.
    pub generation: Weak<Generation>,
}

impl Row {
    /// How the file name is, in one word: `live`, `quarantined`, `removed` or `rejected`.
    #[must_use]
    pub fn state(&self) -> &'static str {
        match &self.live {
            None => "rejected",
            Some(_) if self.record.is_quarantined() => "quarantined",
            Some(_) if self.record.removed.is_some() => "removed",
            Some(_) => "live",
        }
    }

    /// Why what lies in the directory is not what runs as it should.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        if let Some(refused) = &self.record.refused {
            return Some(refused.reason.clone());
        }
        if let Some(held) = &self.record.held {
            return Some(held.reason.clone());
        }
        self.record.removed.map(|_| "the file is gone; what was live keeps running until a restart".to_owned())
    }
}

impl Status {
    /// A copy of all rows.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        self.shown().rows.clone()
    }

    /// Why the plugin directory cannot be read, if it cannot.
    #[must_use]
    pub fn directory_error(&self) -> Option<String> {
        self.shown().directory_error.clone()
    }

    /// The file that is being judged.
    #[must_use]
    pub fn judging(&self) -> Option<String> {
        self.shown().judging.clone()
    }

    /// How often a plugin was replaced by its predecessor, and why.
    #[must_use]
    pub fn rollbacks(&self) -> Vec<(String, Cause, u64)> {
        self.shown().rollbacks.iter().map(|((name, cause), count)| (name.clone(), *cause, *count)).collect()
    }

    /// How often a policy's generation was taken out of service.
    #[must_use]
    pub fn quarantines(&self) -> Vec<(String, u64)> {
        self.shown().quarantines.iter().map(|(policy, count)| (policy.clone(), *count)).collect()
    }

    pub(super) fn show(&self, rows: Vec<Row>) {
        self.shown().rows = rows;
    }

    pub(super) fn rolled_back(&self, name: &str, cause: Cause) {
        *self.shown().rollbacks.entry((name.to_owned(), cause)).or_default() += 1;
    }

    /// Forgets the counts of plugins and policies that are gone.
    pub(super) fn retain(&self, plugin: impl Fn(&str) -> bool, policy: impl Fn(&str) -> bool) {
        let mut shown = self.shown();
        shown.rollbacks.retain(|(name, _), _| plugin(name));
        shown.quarantines.retain(|name, _| policy(name));
    }

    pub(super) fn quarantined(&self, policy: &str) {
        *self.shown().quarantines.entry(policy.to_owned()).or_default() += 1;
    }

    /// A file is being judged, or none is.
    pub fn judges(&self, name: Option<String>) {
        self.shown().judging = name;
    }

    /// The directory cannot be read, or can again.
    pub fn directory(&self, error: Option<String>) {
        self.shown().directory_error = error;
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        // Every change is whole, so a panic of another holder spoiled nothing.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Unix seconds.
pub(super) fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
