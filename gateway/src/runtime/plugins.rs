//! The plugin table: which file is live, which was refused and why, and the generations made from them.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use weir_plugins::capability::http_out::HttpOut;
use weir_plugins::{Generation, Host, LoadError, Mode, OnError, OnOverflow, Plugin, PolicyLimits, PolicySpec};

use crate::config::{self, Config, Policy};

/// All plugins of the directory. Only the builder changes it.
#[derive(Debug)]
pub struct Plugins {
    host: Arc<Host>,
    slots: BTreeMap<String, Slot>,
    generations: HashMap<Arc<str>, Arc<Generation>>,
    status: Arc<Status>,
}

/// One file name.
#[derive(Clone, Debug, Default)]
struct Slot {
    live: Option<Arc<Plugin>>,
    since: Option<SystemTime>,
    rejected: Option<Rejected>,
    /// The file is gone, its plugin is still in use.
    removed: bool,
}

/// A file that was refused.
#[derive(Clone, Debug)]
struct Rejected {
    digest: Option<String>,
    reason: String,
    at: SystemTime,
}

/// What the operator is shown, readable from any thread.
#[derive(Debug, Default)]
pub struct Status(Mutex<Vec<Row>>);

/// One file name, for the operator.
#[derive(Clone, Debug)]
pub struct Row {
    /// The file's name without `.wasm`.
    pub name: String,
    /// The live plugin.
    pub live: Option<Arc<Plugin>>,
    /// Since when.
    pub since: Option<SystemTime>,
    /// The file is gone.
    pub removed: bool,
    /// Digest, reason and time of the last refusal, when it is newer than what is live.
    pub rejected: Option<(Option<String>, String, SystemTime)>,
    /// The policies that use it.
    pub generations: Vec<Arc<Generation>>,
}

impl Status {
    /// A copy of all rows.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A file that was refused, and why.
#[derive(Clone, Debug)]
pub struct Refused {
    digest: String,
    /// What is wrong, and the remedy.
    pub reason: String,
}

/// A file that may go live, with the policies that use it.
#[derive(Debug)]
pub struct Judged {
    plugin: Arc<Plugin>,
    generations: Vec<Arc<Generation>>,
}

/// What came of a new file.
#[derive(Debug)]
pub enum Outcome {
    /// It is live now: publish a snapshot.
    Live,
    /// It was refused; nothing changed.
    Rejected,
    /// It is what was live before.
    Unchanged,
}

impl Plugins {
    /// An empty table.
    #[must_use]
    pub fn new(host: Arc<Host>) -> Self {
        Self { host, slots: BTreeMap::new(), generations: HashMap::new(), status: Arc::default() }
    }

    /// Where the operator looks.
    #[must_use]
    pub fn status(&self) -> Arc<Status> {
        Arc::clone(&self.status)
    }

    /// Digests of the files that were judged, by name.
    #[must_use]
    pub fn digests(&self) -> HashMap<String, String> {
        let digest = |slot: &Slot| {
            let rejected = slot.rejected.as_ref().and_then(|rejected| rejected.digest.clone());
            rejected.or_else(|| slot.live.as_ref().map(|plugin| plugin.digest.to_string()))
        };
        self.slots.iter().filter_map(|(name, slot)| Some((name.clone(), digest(slot)?))).collect()
    }

    /// Loads every plugin of a directory, for the start. A file that is refused is noted; a policy that needs it will say so.
    pub async fn load_directory(&mut self, directory: &Path) {
        let names = match weir_plugins::directory::list(directory) {
            Ok(listing) => {
                let mut names: Vec<String> = listing.into_keys().collect();
                names.sort();
                names
            }
            // The watcher tells the operator; a policy that needs a plugin says so itself.
            Err(_) => return,
        };
        for name in names {
            let path = directory.join(format!("{name}.wasm"));
            match std::fs::read(&path) {
                Ok(bytes) => {
                    self.settled(&name, &bytes, None).await;
                }
                Err(error) => self.reject(&name, None, format!("cannot read {}: {error}", path.display())),
            }
        }
        self.publish_status();
    }

    /// Judges a new file, and with a running configuration prepares every policy that uses it. Nothing changes unless all of it works.
    pub async fn settled(&mut self, name: &str, bytes: &[u8], config: Option<&Config>) -> Outcome {
        match self.judge(name, bytes, config).await {
            Err(refused) => {
                self.reject(name, Some(refused.digest), refused.reason);
                Outcome::Rejected
            }
            Ok(judged) if self.live(name).is_some_and(|live| live.digest == judged.plugin.digest) => {
                let slot = self.slots.entry(name.to_owned()).or_default();
                slot.removed = false;
                slot.rejected = None;
                self.publish_status();
                Outcome::Unchanged
            }
            Ok(judged) => {
                if config.is_some() {
                    let (version, digest) = (judged.plugin.version(), &*judged.plugin.digest);
                    tracing::info!(plugin = name, version, digest, "plugin is live");
                }
                self.adopt(judged);
                Outcome::Live
            }
        }
    }

    /// Judges a file, with every policy of the configuration that uses it, and changes nothing.
    ///
    /// # Errors
    /// Why it cannot go live.
    pub async fn judge(&self, name: &str, bytes: &[u8], config: Option<&Config>) -> Result<Judged, Refused> {
        let refused = |reason: String| Refused { digest: weir_plugins::digest(bytes), reason };
        let plugin = self.host.load(name, bytes).await.map_err(|error| refused(error.to_string()))?;
        let mut generations = Vec::new();
        if self.live(name).is_some_and(|live| live.digest == plugin.digest) {
            return Ok(Judged { plugin, generations });
        }
        let countries = config.is_some_and(|config| config.geoip.is_some());
        let users = config.into_iter().flat_map(|config| config.policies.values()).filter(|policy| policy.plugin == name);
        for policy in users.filter(|policy| policy.mode != config::Mode::Off) {
            let prepared = self.host.prepare(&spec(policy), &plugin, countries).await;
            generations.push(prepared.map_err(|error| refused(format!("policy {}: {error}", policy.name)))?);
        }
        Ok(Judged { plugin, generations })
    }

    /// Makes a judged file the live one.
    pub fn adopt(&mut self, judged: Judged) {
        let Judged { plugin, generations } = judged;
        for generation in generations {
            self.generations.insert(Arc::clone(&generation.spec.name), generation);
        }
        let name = plugin.name.to_string();
        self.slots.insert(name, Slot { live: Some(plugin), since: Some(SystemTime::now()), rejected: None, removed: false });
        self.publish_status();
    }

    /// The live plugin of a file.
    #[must_use]
    pub fn live(&self, name: &str) -> Option<&Arc<Plugin>> {
        self.slots.get(name)?.live.as_ref()
    }

    /// Why the last file of a name was refused, when it was.
    #[must_use]
    pub fn refusal(&self, name: &str) -> Option<String> {
        Some(self.slots.get(name)?.rejected.as_ref()?.reason.clone())
    }

    /// Notes that a file could not be taken.
    pub fn reject(&mut self, name: &str, digest: Option<String>, reason: String) {
        tracing::warn!(plugin = name, "plugin refused, what was running keeps running: {reason}");
        let slot = self.slots.entry(name.to_owned()).or_default();
        slot.rejected = Some(Rejected { digest, reason, at: SystemTime::now() });
        slot.removed = false;
        self.publish_status();
    }

    /// Notes that a file is gone. What a policy uses stays.
    pub fn removed(&mut self, name: &str, config: &Config) {
        let used = config.policies.values().any(|policy| policy.plugin == name && policy.mode != config::Mode::Off);
        match self.slots.get_mut(name) {
            Some(slot) if used && slot.live.is_some() => {
                tracing::warn!(plugin = name, "the file is gone, but a policy still uses it: it keeps running until the restart");
                slot.removed = true;
                slot.rejected = None;
            }
            Some(_) => {
                tracing::info!(plugin = name, "plugin removed");
                self.slots.remove(name);
            }
            None => {}
        }
        self.publish_status();
    }

    /// The generations of all policies of a configuration: those that are running where nothing changed, new ones elsewhere. They take
    /// effect with [`Plugins::commit`].
    ///
    /// # Errors
    /// Every policy that cannot be brought to life.
    pub async fn prepare(&self, config: &Config) -> Result<HashMap<Arc<str>, Arc<Generation>>, Vec<config::Error>> {
        let mut prepared = HashMap::new();
        let mut errors = Vec::new();
        for policy in config.policies.values().filter(|policy| policy.mode != config::Mode::Off) {
            match self.generation(policy, config.geoip.is_some()).await {
                Ok(generation) => drop(prepared.insert(Arc::clone(&policy.name), generation)),
                Err(error) => errors.push(located(policy, &error, self.slots.get(&policy.plugin))),
            }
        }
        if errors.is_empty() { Ok(prepared) } else { Err(errors) }
    }

    /// Makes prepared generations the running ones.
    pub fn commit(&mut self, generations: HashMap<Arc<str>, Arc<Generation>>) {
        self.generations = generations;
        self.publish_status();
    }

    /// The running generations by policy.
    #[must_use]
    pub const fn generations(&self) -> &HashMap<Arc<str>, Arc<Generation>> {
        &self.generations
    }

    async fn generation(&self, policy: &Policy, countries: bool) -> Result<Arc<Generation>, LoadError> {
        let live = self.slots.get(&policy.plugin).and_then(|slot| slot.live.as_ref());
        let plugin = live.ok_or_else(|| LoadError::Missing(policy.plugin.clone()))?;
        let spec = spec(policy);
        match self.generations.get(&policy.name) {
            Some(running) if running.own_key() == Generation::key(&spec, plugin) => Ok(Arc::clone(running)),
            _ => self.host.prepare(&spec, plugin, countries).await,
        }
    }

    fn publish_status(&self) {
        let row = |(name, slot): (&String, &Slot)| Row {
            name: name.clone(),
            live: slot.live.clone(),
            since: slot.since,
            removed: slot.removed,
            rejected: slot.rejected.as_ref().map(|rejected| (rejected.digest.clone(), rejected.reason.clone(), rejected.at)),
            generations: self.generations.values().filter(|generation| *generation.plugin.name == **name).cloned().collect(),
        };
        let rows = self.slots.iter().map(row).collect();
        *self.status.0.lock().unwrap_or_else(PoisonError::into_inner) = rows;
    }
}

/// A policy of the configuration, in the words of the plugin host.
pub(super) fn spec(policy: &Policy) -> PolicySpec {
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
        http_out: HttpOut {
            upstreams: policy.http_out.upstreams.clone(),
            calls: policy.http_out.calls,
            body: policy.http_out.body,
        },
        config: policy.config.clone(),
        limits: PolicyLimits {
            cpu: policy.limits.cpu,
            wall: policy.limits.wall,
            memory: policy.limits.memory,
            instances: policy.limits.instances,
            log: policy.limits.log,
            tags: policy.limits.tags,
            findings: policy.limits.findings,
            edits: policy.limits.edits,
            reply: policy.limits.reply,
            growth: policy.limits.growth,
        },
    }
}

fn located(policy: &Policy, error: &LoadError, slot: Option<&Slot>) -> config::Error {
    let key = match error {
        LoadError::Schema { .. } | LoadError::Configure(_) => format!("policy.{}", policy.name),
        LoadError::NotGranted(_) => format!("policy.{}.grants", policy.name),
        _ => format!("policy.{}.plugin", policy.name),
    };
    let refused = slot.and_then(|slot| slot.rejected.as_ref()).map(|rejected| rejected.reason.clone());
    let (message, hint) = match (error, refused) {
        (LoadError::Missing(name), Some(reason)) => (format!("{name}.wasm was refused: {reason}"), None),
        (LoadError::Missing(_), None) => {
            (error.to_string(), Some("put the file there, or write the bundled ones with `weir plugins unpack DIR`".to_owned()))
        }
        _ => (error.to_string(), None),
    };
    config::Error { location: Some(policy.at.clone()), key, message, hint }
}
