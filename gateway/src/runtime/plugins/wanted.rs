//! The policies of a configuration, brought to life beside what runs: it takes seconds, in which plugins may come and go.

use std::collections::HashMap;
use std::sync::Arc;

use weir_plugins::{Generation, Host, LoadError, Plugin};

use super::Plugins;
use super::spec::{located, spec, untrusted};
use crate::config::{self, Config, Policy};
use crate::runtime::beside::beside;

/// Generations by policy.
pub type Generations = HashMap<Arc<str>, Arc<Generation>>;

/// One for every policy that is called, or every reason why a policy cannot have one.
pub type Prepared = Result<Generations, Vec<config::Error>>;

/// What the policies of a configuration need, as plugins are now.
#[derive(Debug)]
pub struct Wanted {
    policies: Vec<(Arc<str>, Wish)>,
    countries: bool,
}

/// What one policy needs.
#[derive(Debug)]
enum Wish {
    /// Nothing: it runs, or was prepared before.
    Ready(Arc<Generation>),
    /// A generation of this plugin.
    New(Box<Policy>, Arc<Plugin>),
    /// What it cannot have.
    Wrong(config::Error),
}

/// What policies have: the digest of the plugin that is live, and the generation that runs.
#[derive(Debug, PartialEq, Eq)]
pub struct Live(Vec<(Option<Arc<str>>, Option<u64>)>);

impl Plugins {
    /// What the policies of a configuration need, beyond what runs and what was prepared before.
    #[must_use]
    pub fn wanted(&self, config: &Config, before: &Generations) -> Wanted {
        let policies = called(config).map(|policy| (Arc::clone(&policy.name), self.wish(policy, config, before))).collect();
        Wanted { policies, countries: config.geoip.is_some() }
    }

    fn wish(&self, policy: &Policy, config: &Config, before: &Generations) -> Wish {
        if let Err(reason) = self.trust(&policy.plugin, config) {
            return Wish::Wrong(untrusted(policy, &reason));
        }
        let Some(plugin) = self.live(&policy.plugin) else {
            let missing = LoadError::Missing(policy.plugin.clone());
            return Wish::Wrong(located(policy, &missing, self.refusal(&policy.plugin).as_deref()));
        };
        let key = Generation::key(&spec(policy), plugin);
        let known = [self.generations(), before].map(|known| known.get(&policy.name)).into_iter().flatten();
        match known.into_iter().find(|generation| generation.own_key() == key) {
            Some(ready) => Wish::Ready(Arc::clone(ready)),
            None => Wish::New(Box::new(policy.clone()), Arc::clone(plugin)),
        }
    }

    /// What the policies of a configuration have: while that stays the same, what was prepared for it can be committed.
    #[must_use]
    pub fn live_for(&self, config: &Config) -> Live {
        let digest = |policy: &Policy| self.live(&policy.plugin).map(|plugin| Arc::clone(&plugin.digest));
        let generation = |policy: &Policy| self.generations().get(&policy.name).map(|running| running.id());
        Live(called(config).map(|policy| (digest(policy), generation(policy))).collect())
    }
}

impl Wanted {
    /// Prepares what does not run yet, on a thread of its own: compiling and configuring hold up whoever waits for them.
    pub async fn prepare(self, host: Arc<Host>) -> Prepared {
        let lost = |message: String| {
            let hint = Some("check the limits of the process, and its log".to_owned());
            Err(vec![config::Error { location: None, key: "policy".to_owned(), message, hint }])
        };
        match beside("weir-prepare", async move || self.prepared(&host).await) {
            Ok(prepared) => prepared.await.unwrap_or_else(|_| lost("policies could not be prepared".to_owned())),
            Err(error) => lost(format!("cannot start a thread: {error}")),
        }
    }

    async fn prepared(self, host: &Host) -> Prepared {
        let (mut prepared, mut errors) = (HashMap::new(), Vec::new());
        for (name, wish) in self.policies {
            let generation = match wish {
                Wish::Ready(generation) => Ok(generation),
                Wish::New(policy, plugin) => {
                    let new = host.prepare(&spec(&policy), &plugin, self.countries).await;
                    new.map_err(|error| located(&policy, &error, None))
                }
                Wish::Wrong(error) => Err(error),
            };
            match generation {
                Ok(generation) => drop(prepared.insert(name, generation)),
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() { Ok(prepared) } else { Err(errors) }
    }
}

/// The policies that are called.
fn called(config: &Config) -> impl Iterator<Item = &Policy> {
    config.policies.values().filter(|policy| policy.mode != config::Mode::Off)
}
