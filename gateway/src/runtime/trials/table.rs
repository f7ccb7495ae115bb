//! The table of candidates. Only the builder changes it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use weir_plugins::{Candidate, Generation, Host, Plugin, PolicySpec, Trial, TrialMode};

use crate::config::{self, Config, Policy};
use crate::runtime::plugins::{Plugins, spec};

/// The candidates of a configuration's policies.
#[derive(Debug, Default)]
pub struct Trials {
    /// By policy.
    states: HashMap<Arc<str>, (Asked, State)>,
    /// Digests that the operator gave up, by file: they are tried again when the file changes.
    abandoned: HashMap<String, Arc<str>>,
    status: Arc<Status>,
}

/// What a state was made from: the same question has the same answer.
#[derive(Clone, Debug, PartialEq)]
struct Asked {
    spec: PolicySpec,
    trial: Trial,
    digest: Option<Arc<str>>,
    refused: Option<String>,
    /// Its signature is not what this configuration asks for.
    untrusted: Option<String>,
    abandoned: bool,
    countries: bool,
}

/// What became of a candidate.
#[derive(Clone, Debug)]
pub enum State {
    /// It is tried.
    Running(Arc<Candidate>),
    /// There is no such file.
    Missing,
    /// The file, or the policy's use of it, was refused.
    Refused(String),
    /// The operator gave it up.
    Abandoned,
}

impl State {
    /// The word for the operator.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Running(candidate) if candidate.record.is_suspended() => "suspended",
            Self::Running(_) => "running",
            Self::Missing => "missing",
            Self::Refused(_) => "refused",
            Self::Abandoned => "abandoned",
        }
    }

    /// Why it does not run.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        match self {
            Self::Running(candidate) if candidate.record.is_suspended() => {
                Some("it failed too often: replace its file to try again".to_owned())
            }
            Self::Running(_) => None,
            Self::Missing => Some("there is no such file in the plugin directory".to_owned()),
            Self::Refused(reason) => Some(reason.clone()),
            Self::Abandoned => Some("given up by the operator: replace its file to try again".to_owned()),
        }
    }
}

/// What the operator is shown, readable from any thread.
#[derive(Debug, Default)]
pub struct Status(Mutex<Vec<Row>>);

/// One policy's candidate, for the operator.
#[derive(Clone, Debug)]
pub struct Row {
    /// The policy.
    pub policy: Arc<str>,
    /// The plugin it uses.
    pub stable: String,
    /// What the configuration says.
    pub candidate: config::Candidate,
    /// What became of it.
    pub state: State,
}

impl Status {
    /// A copy of all rows.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Trials {
    /// Where the operator looks.
    #[must_use]
    pub fn status(&self) -> Arc<Status> {
        Arc::clone(&self.status)
    }

    /// The candidate that is tried with a policy.
    #[must_use]
    pub fn of(&self, policy: &str) -> Option<Arc<Candidate>> {
        match self.states.get(policy) {
            Some((_, State::Running(candidate))) => Some(Arc::clone(candidate)),
            _ => None,
        }
    }

    /// Brings the candidates in line with the configuration and the plugins that are live. Answers whether chains have to be built anew.
    pub async fn refresh(&mut self, host: &Host, plugins: &Plugins, config: &Config) -> bool {
        let mut states = HashMap::new();
        let mut rows = Vec::new();
        let mut changed = false;
        let tried = config.policies.values().filter(|policy| policy.mode != config::Mode::Off);
        for (policy, candidate) in tried.filter_map(|policy| Some((policy, policy.candidate.as_ref()?))) {
            let live = plugins.live(&candidate.plugin);
            let asked = self.asked(plugins, config, policy, candidate, live);
            let known = self.states.remove(&policy.name);
            let was_running = matches!(&known, Some((_, State::Running(_))));
            let state = match known {
                Some((before, state)) if before == asked => state,
                _ => {
                    let state = answer(host, &asked, live).await;
                    tell(policy, candidate, &state);
                    changed |= was_running || matches!(state, State::Running(_));
                    state
                }
            };
            rows.push(Row {
                policy: Arc::clone(&policy.name),
                stable: policy.plugin.clone(),
                candidate: candidate.clone(),
                state: state.clone(),
            });
            states.insert(Arc::clone(&policy.name), (asked, state));
        }
        changed |= self.states.values().any(|(_, state)| matches!(state, State::Running(_)));
        self.states = states;
        *self.status.0.lock().unwrap_or_else(PoisonError::into_inner) = rows;
        changed
    }

    fn asked(
        &self,
        plugins: &Plugins,
        config: &Config,
        policy: &Policy,
        candidate: &config::Candidate,
        live: Option<&Arc<Plugin>>,
    ) -> Asked {
        let digest = live.map(|plugin| Arc::clone(&plugin.digest));
        let trial = Trial {
            mode: match candidate.mode {
                config::TrialMode::Shadow => TrialMode::Shadow,
                config::TrialMode::Canary => TrialMode::Canary,
            },
            share: candidate.share,
        };
        Asked {
            spec: PolicySpec {
                plugin: candidate.plugin.clone(),
                config: candidate.config.clone().unwrap_or_else(|| policy.config.clone()),
                ..spec(policy)
            },
            trial,
            abandoned: digest.is_some() && self.abandoned.get(&candidate.plugin) == digest.as_ref(),
            digest,
            refused: plugins.refusal(&candidate.plugin),
            untrusted: plugins.trust(&candidate.plugin, config).err(),
            countries: config.geoip.is_some(),
        }
    }

    /// Gives a file up until it changes.
    pub(super) fn abandon(&mut self, file: &str, digest: &Arc<str>) {
        self.abandoned.insert(file.to_owned(), Arc::clone(digest));
    }

    /// What `weir check` warns of: candidates that would not run.
    #[must_use]
    pub fn warnings(&self) -> Vec<config::Error> {
        let mut rows = self.status.rows();
        rows.sort_by(|one, other| one.candidate.at.cmp(&other.candidate.at));
        let warning = |row: Row| {
            Some(config::Error {
                location: Some(row.candidate.at.clone()),
                key: format!("policy.{}.candidate", row.policy),
                message: format!("{}.wasm is not tried: {}", row.candidate.plugin, row.state.reason()?),
                hint: Some("the policy runs without it".to_owned()),
            })
        };
        rows.into_iter().filter_map(warning).collect()
    }
}

async fn answer(host: &Host, asked: &Asked, live: Option<&Arc<Plugin>>) -> State {
    match live {
        _ if asked.abandoned => State::Abandoned,
        Some(_) if asked.untrusted.is_some() => State::Refused(asked.untrusted.clone().unwrap_or_default()),
        Some(plugin) => match host.prepare(&asked.spec, plugin, asked.countries).await {
            Ok(generation) => State::Running(Arc::new(Candidate::new(generation, asked.trial))),
            Err(error) => State::Refused(error.to_string()),
        },
        None => asked.refused.clone().map_or(State::Missing, State::Refused),
    }
}

fn tell(policy: &Policy, candidate: &config::Candidate, state: &State) {
    let (policy, plugin, share) = (&*policy.name, &*candidate.plugin, candidate.share);
    match (state, state.reason()) {
        (State::Running(running), _) => {
            let generation: &Generation = &running.generation;
            let (version, digest) = (generation.plugin.version(), &*generation.plugin.digest);
            tracing::info!(policy, plugin, version, digest, mode = running.trial.mode.name(), share, "the candidate is tried");
        }
        (_, reason) => {
            let reason = reason.unwrap_or_default();
            tracing::warn!(policy, plugin, "the candidate is not tried, the policy runs without it: {reason}");
        }
    }
}
