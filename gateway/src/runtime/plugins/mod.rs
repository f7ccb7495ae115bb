//! The plugin table: which file is live, what was live before it, which was refused or is held back and why, and the generations made
//! from them. Only the builder changes it.
//!
//! [`record`] says what follows from what for one file, [`quarantine`] when a generation is taken out of service; both know neither clock
//! nor disk. [`judge`] brings a file to life beside what runs, [`wanted`] the policies of a configuration, [`rollback`] restores the build
//! before, [`health`] looks at what generations do, [`start`] finds out what was live before this process, [`store`] remembers it, [`status`] is what the operator sees, [`trust`] asks for signatures.

mod health;
pub mod judge;
pub mod quarantine;
pub mod record;
pub mod rollback;
mod spec;
mod start;
pub mod status;
mod store;
mod trust;
pub mod wanted;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use weir_plugins::signature::Key;
use weir_plugins::{Generation, Host, Plugin};

use self::judge::{Job, Judged, Ready, Refusal};
use self::quarantine::{Breaker, Health};
use self::record::{Again, Mark, Plan, Proof, Record, Refused};
pub use self::spec::spec;
use self::spec::users;
use self::status::{Retired, Row, Status, unix_now};
use self::store::Store;
use crate::config::{self, Config, Policy};
use crate::observe::Metrics;
use crate::observe::metrics::Family;

/// A file that could not be taken for a reason outside of it is tried again after so long.
const LATER: Duration = Duration::from_secs(30);

/// All plugins of the directory.
#[derive(Debug)]
pub struct Plugins {
    host: Arc<Host>,
    slots: BTreeMap<String, Slot>,
    generations: HashMap<Arc<str>, Arc<Generation>>,
    breakers: HashMap<u64, Breaker>,
    retired: Vec<Retired>,
    store: Store,
    /// Whether this process serves, so that what it does is remembered.
    serving: bool,
    /// Whether this process only looks: nothing runs, whatever becomes of a file.
    pub(super) checking: bool,
    /// The operator was told that nothing can be remembered.
    forgetful: bool,
    status: Arc<Status>,
}

/// One file name.
#[derive(Debug, Default)]
struct Slot {
    record: Record,
    live: Option<Arc<Plugin>>,
    /// The compiled form of what was live before; after a restart only its bytes are there.
    previous: Option<Arc<Plugin>>,
    /// When to look at a refused file again.
    again: Option<Instant>,
    /// The last refusal that the operator was told.
    said: Option<String>,
    /// The keys with which the signature of what is live was looked at.
    keys: Vec<Key>,
}

/// What came of a new file.
#[derive(Debug)]
pub enum Outcome {
    /// It is live now: publish a snapshot.
    Live,
    /// It was refused; nothing changed.
    Rejected,
    /// The configuration changed meanwhile: it must be judged for the new one.
    Again(Box<Job>),
}

impl Plugins {
    /// An empty table.
    #[must_use]
    pub fn new(host: Arc<Host>) -> Self {
        let store = Store::new(host.state());
        Self {
            host,
            slots: BTreeMap::new(),
            generations: HashMap::new(),
            breakers: HashMap::new(),
            retired: Vec::new(),
            store,
            serving: false,
            checking: false,
            forgetful: false,
            status: Arc::default(),
        }
    }

    /// Where the operator looks.
    #[must_use]
    pub fn status(&self) -> Arc<Status> {
        Arc::clone(&self.status)
    }

    /// Digests of the files that were judged, by name.
    #[must_use]
    pub fn digests(&self) -> HashMap<String, String> {
        let present = self.slots.iter().filter(|(_, slot)| slot.record.removed.is_none());
        present.filter_map(|(name, slot)| Some((name.clone(), slot.record.judged()?.to_owned()))).collect()
    }

    /// The names of the plugins that policies use: their files come first.
    #[must_use]
    pub fn used(config: &Config) -> HashSet<String> {
        let called = config.policies.values().filter(|policy| policy.mode != config::Mode::Off);
        called.map(|policy| policy.plugin.clone()).collect()
    }

    /// The live plugin of a file.
    #[must_use]
    pub fn live(&self, name: &str) -> Option<&Arc<Plugin>> {
        self.slots.get(name)?.live.as_ref()
    }

    /// Why the last file of a name was refused, when it was.
    #[must_use]
    pub fn refusal(&self, name: &str) -> Option<String> {
        Some(self.slots.get(name)?.record.refused.as_ref()?.reason.clone())
    }

    /// What is to be judged of a `file` that is about to get the `name` of a plugin, with every policy that uses it.
    #[must_use]
    pub fn job(&self, name: &str, file: &str, bytes: Vec<u8>, config: &Config) -> Job {
        let digest = weir_plugins::digest(&bytes);
        let job = Job::new(name, bytes, digest, self.asked(name, file, config), Some(config));
        Job { copies: Some(self.store.copies()), ..job }
    }

    /// Whether such a file was judged well, and its copy kept: [`Plugins::finish`] has no reason to refuse it then. Nothing else changes.
    ///
    /// # Errors
    /// Why it cannot go live.
    pub fn fit(&self, judged: &Judged) -> Result<(), String> {
        if let Err(refusal) = &judged.result {
            return Err(refusal.reason.clone());
        }
        self.store.keep(&judged.job.digest, &judged.job.bytes).map_err(|error| no_copy(&error))
    }

    /// A file has settled. Answers what is to be judged, if it must be.
    pub fn seen(&mut self, name: &str, bytes: Vec<u8>, config: &Config) -> Option<Job> {
        let digest = weir_plugins::digest(&bytes);
        let asked = self.asked(name, name, config);
        let slot = self.slots.entry(name.to_owned()).or_default();
        slot.again = None;
        let job = match slot.record.seen(&digest) {
            Plan::Load => {
                let loaded = slot.previous.clone().filter(|previous| *previous.digest == *digest);
                let job = Job::new(name, bytes, digest, asked, Some(config));
                Some(Job { loaded, copies: Some(self.store.copies()), ..job })
            }
            Plan::IsLive => None,
            Plan::IsHeld => {
                let reason = slot.record.held.as_ref().map_or("", |held| held.reason.as_str());
                tracing::warn!(plugin = name, digest, "the file is not taken until it changes: {reason}");
                None
            }
            Plan::IsRefused => {
                let reason = slot.record.refused.as_ref().map_or("", |refused| refused.reason.as_str());
                tracing::info!(plugin = name, digest, "the file is the one that was refused: {reason}");
                None
            }
        };
        self.changed();
        job
    }

    /// A file was judged. Nothing changes unless all of it worked.
    pub fn finish(&mut self, judged: Judged, config: &Config) -> Outcome {
        let Judged { mut job, result } = judged;
        let Ready { plugin, generations, proof } = match result {
            Ok(ready) => ready,
            Err(Refusal { reason, again }) => {
                self.refuse(&job.name, Some(job.digest), reason, again);
                return Outcome::Rejected;
            }
        };
        let name = job.name.clone();
        if self.slots.get_mut(&name).is_some_and(|slot| slot.record.seen(&job.digest) == Plan::IsLive) {
            self.remember();
            return Outcome::Live;
        }
        let used: Vec<&Policy> = users(config, &name).collect();
        let fits = |policy: &&Policy| {
            let key = Generation::key(&spec(policy), &plugin);
            generations.iter().any(|generation| generation.own_key() == key)
        };
        if !used.iter().all(fits) || job.asked.keys != config.keys(&name) {
            job.aim(Some(config));
            job.asked = self.asked(&name, &name, config);
            job.loaded = Some(plugin);
            return Outcome::Again(Box::new(job));
        }
        // Without the copy there would be no way back to it after a restart. Whoever judged it has written it.
        if !used.is_empty()
            && !self.store.has(&job.digest)
            && let Err(error) = self.store.keep(&job.digest, &job.bytes)
        {
            self.refuse(&name, Some(job.digest), no_copy(&error), Again::Later);
            return Outcome::Rejected;
        }
        let wanted = generations.into_iter().filter(|generation| used.iter().any(|policy| policy.name == generation.spec.name));
        self.exchange(wanted.collect());
        let mark = mark(&plugin, proof);
        tracing::info!(plugin = name, version = mark.version, digest = mark.digest, "plugin is live");
        let slot = self.slots.entry(name.clone()).or_default();
        let was_used = !used.is_empty() && slot.live.is_some();
        slot.record.taken(mark, was_used);
        slot.said = None;
        slot.keys = job.asked.keys;
        slot.previous = slot.live.replace(plugin).filter(|_| was_used);
        self.remember();
        Outcome::Live
    }

    /// Notes that a file could not be taken. `digest` is what it holds, when that is known.
    pub fn refuse(&mut self, name: &str, digest: Option<String>, reason: String, again: Again) {
        let reason = readable(reason);
        let slot = self.slots.entry(name.to_owned()).or_default();
        // What is tried again and again is said once.
        if slot.said.as_deref() != Some(&reason) || again != Again::Later {
            let meanwhile = if self.serving { ", what was running keeps running" } else { "" };
            tracing::warn!(plugin = name, digest, "plugin refused{meanwhile}: {reason}");
        }
        slot.said = Some(reason.clone());
        slot.record.refuse(Refused { digest, reason, at: unix_now(), again });
        slot.again = (again == Again::Later).then(|| Instant::now() + LATER);
        self.changed();
    }

    /// Notes that a file is gone. What a policy uses stays.
    pub fn removed(&mut self, name: &str, config: &Config) {
        let used = users(config, name).next().is_some();
        match self.slots.get_mut(name) {
            Some(slot) if used && slot.live.is_some() => {
                tracing::warn!(plugin = name, "the file is gone, but a policy still uses it: it keeps running until the restart");
                slot.record.removed = Some(unix_now());
                slot.record.refused = None;
                slot.again = None;
            }
            Some(_) => {
                tracing::info!(plugin = name, "plugin removed");
                self.slots.remove(name);
                self.host.forget(name);
            }
            None => {}
        }
        self.changed();
    }

    /// The files whose refusal does not count any more: they are to be read again.
    pub fn due(&mut self, now: Instant) -> Vec<String> {
        let due = self.slots.iter_mut().filter(|(_, slot)| slot.again.is_some_and(|again| again <= now));
        due.map(|(name, slot)| {
            slot.again = None;
            name.clone()
        })
        .collect()
    }

    /// A new configuration is live: the files that were refused because of how policies use them are to be read again.
    pub fn reconfigured(&mut self) -> Vec<String> {
        let refused = |slot: &Slot| {
            slot.record
                .refused
                .as_ref()
                .is_some_and(|refused| matches!(refused.again, Again::ConfigChanges | Again::SignatureChanges))
        };
        let again = self.slots.iter_mut().filter(|(_, slot)| refused(slot));
        again
            .map(|(name, slot)| {
                slot.record.refused = None;
                name.clone()
            })
            .collect()
    }

    /// Makes prepared generations the running ones, and those alone.
    pub fn commit(&mut self, generations: HashMap<Arc<str>, Arc<Generation>>, config: &Config) {
        self.trusted(config);
        let gone: Vec<_> = self.generations.keys().filter(|policy| !generations.contains_key(*policy)).cloned().collect();
        for policy in gone {
            self.generations.remove(&policy).into_iter().for_each(|old| self.retire(&old));
        }
        self.exchange(generations.into_values().collect());
        self.slots.values().filter_map(|slot| slot.live.as_ref()).for_each(|plugin| plugin.rest());
        let used: HashSet<&str> = self.generations.values().map(|generation| &*generation.plugin.name).collect();
        self.slots.retain(|name, slot| slot.record.removed.is_none() || used.contains(name.as_str()));
        self.changed();
    }

    /// Forgets the state and the counts of plugins that are gone: no file, no policy that uses it, no request that still runs it. The same
    /// of policies. A plugin whose file comes back before that goes on with what it has kept.
    pub fn forget(&self, config: &Config, metrics: &Metrics) {
        let retired = || self.retired.iter().filter(|retired| retired.generation.strong_count() > 0);
        let running = self.generations.values().map(|generation| &*generation.plugin.name);
        let plugins: HashSet<&str> = self.slots.keys().map(String::as_str).chain(running).collect();
        let plugin = |name: &str| plugins.contains(name) || retired().any(|retired| *retired.plugin == *name);
        let policies: HashSet<&str> = config.policies.keys().map(|name| &**name).collect();
        let policy = |name: &str| policies.contains(name) || retired().any(|retired| *retired.policy == *name);
        self.host.retain(plugin);
        self.status.retain(plugin, policy);
        metrics.retain_plugins(plugin);
        metrics.retain(Family::Policies, policy);
    }

    /// The running generations by policy.
    #[must_use]
    pub const fn generations(&self) -> &HashMap<Arc<str>, Arc<Generation>> {
        &self.generations
    }

    /// Puts generations in the place of those that their policies had.
    fn exchange(&mut self, generations: Vec<Arc<Generation>>) {
        let now = Instant::now();
        for new in generations {
            self.breakers.entry(new.id()).or_insert_with(|| Breaker::new(now));
            let old = self.generations.insert(Arc::clone(&new.spec.name), Arc::clone(&new));
            old.filter(|old| old.id() != new.id()).into_iter().for_each(|old| self.retire(&old));
        }
    }

    fn retire(&mut self, old: &Arc<Generation>) {
        self.breakers.remove(&old.id());
        self.retired.push(Retired {
            policy: Arc::clone(&old.spec.name),
            plugin: Arc::clone(&old.plugin.name),
            digest: Arc::clone(&old.plugin.digest),
            version: old.plugin.version().to_owned(),
            since: unix_now(),
            generation: Arc::downgrade(old),
        });
    }

    /// Something changed: remembers it and shows it.
    fn changed(&mut self) {
        self.remember();
        self.show();
    }

    /// Shows the operator how it is: after a snapshot was published, so that what is shown as live is.
    pub fn show(&self) {
        let health = |generation: &Generation| self.breakers.get(&generation.id()).map_or(Health::Working, Breaker::health);
        let row = |(name, slot): (&String, &Slot)| {
            let own = self.generations.values().filter(|generation| *generation.plugin.name == **name);
            let mut generations: Vec<_> = own.map(|generation| (Arc::clone(generation), health(generation))).collect();
            generations.sort_by(|(one, _), (other, _)| one.spec.name.cmp(&other.spec.name));
            Row {
                name: name.clone(),
                record: slot.record.clone(),
                live: slot.live.clone(),
                generations,
                retired: self.retired.iter().filter(|retired| *retired.plugin == **name).cloned().collect(),
            }
        };
        self.status.show(self.slots.iter().map(row).collect());
    }

    /// Writes down what a restart must know: of plugins that policies use, and of files that are held back.
    fn remember(&mut self) {
        if !self.serving {
            return;
        }
        let used: HashSet<&str> = self.generations.values().map(|generation| &*generation.plugin.name).collect();
        let worth = |name: &str, record: &Record| used.contains(name) || record.held.is_some();
        let records = self.slots.iter().filter(|(name, slot)| worth(name, &slot.record));
        let records = records.map(|(name, slot)| (name.clone(), slot.record.clone())).collect();
        let saved = self.store.save(records);
        let forgetful = saved.is_err();
        if let Err(error) = saved
            && !self.forgetful
        {
            tracing::error!("what is live cannot be remembered in state/plugins, a restart will not know it: {error}");
        }
        self.forgetful = forgetful;
    }
}

fn no_copy(error: &std::io::Error) -> String {
    format!("cannot keep a private copy in state/plugins: {error}; it is tried again")
}

fn mark(plugin: &Plugin, proof: Option<Proof>) -> Mark {
    Mark { digest: plugin.digest.to_string(), version: plugin.version().to_owned(), since: unix_now(), proof }
}

/// The most of a reason that is kept, in characters: a plugin may answer a megabyte.
const REASON: usize = 2_000;

/// A reason as it is kept: without control characters, and cut.
fn readable(reason: String) -> String {
    let odd = |own: char| own.is_control() && own != '\n';
    if reason.len() <= REASON && !reason.contains(odd) {
        return reason;
    }
    reason.chars().take(REASON).map(|own| if odd(own) { '.' } else { own }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_of_plugins_are_cut_and_hold_no_control_characters() {
        assert_eq!(readable("a key: é\nand why".to_owned()), "a key: é\nand why");
        assert_eq!(readable("\u{1}\u{1b}[2Jx".to_owned()), "..[2Jx");
        assert_eq!(readable("\u{1}".repeat(1 << 20)).len(), REASON);
    }
}
