//! What is live when a process begins: the files of the directory, and what the process before this one remembered of them.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use weir_plugins::directory;

use super::judge::{Job, Judged, Ready, Refusal};
use super::record::{Again, Mark, Plan, Record};
use super::{Plugins, Slot, mark, users};
use crate::config::Config;

impl Plugins {
    /// Loads every plugin of a directory. A file that is refused is noted; a policy that needs it will say so, unless what was live before
    /// can go on: `last_good` says whether it may.
    pub async fn load_directory(&mut self, path: &Path, config: &Config, last_good: bool) {
        let Ok(listing) = directory::list(path) else {
            // The watcher tells the operator; a policy that needs a plugin says so itself.
            return;
        };
        let used = Self::used(config);
        let mut names: Vec<String> = listing.into_keys().collect();
        names.sort_by_key(|name| (!used.contains(name), name.clone()));
        let mut records = self.store.records();
        for name in names.into_iter().take(directory::MAX_FILES) {
            match directory::read(path, &name) {
                Ok(bytes) => self.begin(&name, bytes, &mut records, config, last_good).await,
                Err(error) => {
                    if let Some(record) = records.remove(&name).filter(|record| last_good && record.live.is_some()) {
                        self.last_good(&name, record, config).await;
                    }
                    let again = if error.is_lasting() { Again::FileChanges } else { Again::Later };
                    self.refuse(&name, None, error.to_string(), again);
                }
            }
        }
        self.changed();
    }

    async fn begin(
        &mut self,
        name: &str,
        bytes: Vec<u8>,
        records: &mut BTreeMap<String, Record>,
        config: &Config,
        last_good: bool,
    ) {
        let digest = weir_plugins::digest(&bytes);
        let known = records.remove(name).filter(|record| record.live.is_some());
        let mut record = known.unwrap_or_default();
        match record.seen(&digest) {
            Plan::IsHeld => self.last_good(name, record, config).await,
            Plan::IsRefused if last_good => self.last_good(name, record, config).await,
            _ => {
                let changed = record.live.is_some() && !record.is_live(&digest);
                // A file that changed while nobody looked must do for the policies that use it, as when somebody does.
                let judged_for = Some(config).filter(|_| changed && last_good);
                let mut asked = self.asked(name, name, config);
                asked.running.extend(record.live.iter().filter(|_| changed).map(Mark::release));
                let judged = Job::new(name, bytes, digest, asked, judged_for).judge(std::sync::Arc::clone(&self.host)).await;
                self.begun(name, judged, record, config, last_good).await;
            }
        }
    }

    async fn begun(&mut self, name: &str, judged: Judged, mut record: Record, config: &Config, last_good: bool) {
        match judged.result {
            Ok(Ready { plugin, generations, proof }) => {
                if record.is_live(&plugin.digest) {
                    record.live = record.live.map(|live| Mark { proof, ..live });
                } else {
                    record.taken(mark(&plugin, proof), users(config, name).next().is_some());
                    record.previous = record.previous.filter(|previous| self.store.has(&previous.digest));
                }
                self.exchange(generations);
                let keys = judged.job.asked.keys;
                self.slots.insert(name.to_owned(), Slot { record, live: Some(plugin), keys, ..Slot::default() });
            }
            Err(Refusal { reason, again }) => {
                if last_good && record.live.is_some() {
                    self.last_good(name, record, config).await;
                }
                self.refuse(name, Some(judged.job.digest), reason, again);
            }
        }
    }

    /// What was live when the process before this one ended, from its private copy.
    async fn last_good(&mut self, name: &str, record: Record, config: &Config) {
        let Some(live) = record.live.clone() else { return };
        let loaded = match self.copy(name, &live, config) {
            Ok(bytes) => self.host.load(name, &bytes).await.map_err(|error| error.to_string()),
            Err(error) => Err(error),
        };
        match loaded {
            Ok(plugin) => {
                let runs = if self.checking { "would run" } else { "runs" };
                tracing::warn!(plugin = name, version = live.version, digest = live.digest, "{runs} from its private copy");
                let keys = config.keys(name).to_vec();
                self.slots.insert(name.to_owned(), Slot { record, live: Some(plugin), keys, ..Slot::default() });
            }
            Err(error) => {
                let held = record.held.as_ref().map_or(String::new(), |held| format!("{}; ", held.reason));
                let digest = record.judged().map(str::to_owned);
                self.refuse(name, digest, format!("{held}{error}"), Again::FileChanges);
            }
        }
    }

    /// From now on this process serves: what it does is remembered.
    pub fn serve(&mut self, config: &Config) {
        self.serving = true;
        self.keep_copies(config);
        self.keep_in_quarantine(Instant::now());
        self.changed();
    }

    /// Keeps the bytes of what policies run, and of what they ran before, as far as they are known, and looks at the copies that are there.
    pub fn keep_copies(&self, config: &Config) {
        for (name, slot) in &self.slots {
            let Some(live) = slot.live.as_ref().filter(|_| users(config, name).next().is_some()) else { continue };
            if let Err(error) = self.store.keep(&live.digest, live.content()) {
                tracing::warn!(plugin = name, "no private copy can be kept, so there is no way back to this build: {error}");
            }
            let Some(previous) = &slot.record.previous else { continue };
            let compiled = slot.previous.as_ref().map(|previous| previous.content());
            let Err(error) = self.whole(name, &previous.digest, compiled, config) else { continue };
            let (version, digest) = (&previous.version, &previous.digest);
            tracing::warn!(plugin = name, version, digest, "there is no way back to this build: {error}");
        }
    }

    /// Sees to it that a copy is what it was: written again from memory, or from the directory while that has the same build.
    fn whole(&self, name: &str, digest: &str, compiled: Option<&[u8]>, config: &Config) -> Result<(), String> {
        let written = |bytes: &[u8]| self.store.keep(digest, bytes).map_err(|error| error.to_string());
        if let Some(bytes) = compiled {
            return written(bytes);
        }
        let Err(error) = self.store.read(digest) else { return Ok(()) };
        match directory::read(&config.server.plugins, name) {
            Ok(bytes) if weir_plugins::digest(&bytes) == digest => written(&bytes),
            _ => Err(error),
        }
    }
}
