//! The table of candidates. Only the builder changes it, and it waits for none: a candidate is configured beside the builder's loop, one
//! after the other, and is tried when it is ready.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use weir_plugins::{Candidate, Generation, Host, LoadError, Plugin, PolicySpec, Trial, TrialMode};

use crate::config::{self, Config, Policy};
use crate::runtime::beside::beside;
use crate::runtime::plugins::{Plugins, spec};

/// The candidates of a configuration's policies.
#[derive(Debug, Default)]
pub struct Trials {
    /// By policy.
    states: HashMap<Arc<str>, (Asked, State)>,
    /// Digests that the operator gave up, by file: they are tried again when the file changes.
    abandoned: HashMap<String, Arc<str>>,
    /// The one that is being prepared.
    preparing: Option<Preparing>,
    /// What came of the last one.
    prepared: Option<(Arc<str>, Asked, State)>,
    status: Arc<Status>,
}

type Prepared = Result<Arc<Generation>, LoadError>;

/// A candidate on its way.
#[derive(Debug)]
struct Preparing {
    policy: Arc<str>,
    asked: Asked,
    result: oneshot::Receiver<Prepared>,
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
    /// It is being configured for the policy.
    Preparing,
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
            Self::Preparing => "preparing",
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
            Self::Preparing => Some("it is being configured, and tried when that is done".to_owned()),
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

    /// Brings the candidates in line with the configuration and the plugins that are live, as far as that takes no time; what does is begun.
    /// Answers whether chains have to be built anew.
    pub fn refresh(&mut self, host: &Arc<Host>, plugins: &Plugins, config: &Config) -> bool {
        let mut states = HashMap::new();
        let mut rows = Vec::new();
        let mut changed = false;
        let before = self.running();
        let mut prepared = self.prepared.take();
        let tried = config.policies.values().filter(|policy| policy.mode != config::Mode::Off);
        for (policy, candidate) in tried.filter_map(|policy| Some((policy, policy.candidate.as_ref()?))) {
            let live = plugins.live(&candidate.plugin);
            let asked = self.asked(plugins, config, policy, candidate, live);
            let known = self.states.remove(&policy.name);
            // Otherwise the question has changed meanwhile, and this is no answer to it.
            let ready = prepared.take_if(|(of, question, _)| *of == policy.name && *question == asked);
            let was_running = matches!(&known, Some((_, State::Running(_))));
            let state = match known {
                Some((before, state)) if before == asked && ready.is_none() => state,
                known => {
                    let state = ready.map_or_else(|| answer(&asked, live, known.map(|(_, state)| state)), |(.., state)| state);
                    // A check has a warning for each that does not run.
                    if !plugins.checking {
                        tell(policy, candidate, &state);
                    }
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
        let after = self.running();
        let gone = before.iter().filter(|old| !after.iter().any(|new| Arc::ptr_eq(old, new)));
        gone.for_each(|candidate| candidate.generation.retire());
        *self.status.0.lock().unwrap_or_else(PoisonError::into_inner) = rows;
        self.prepare_next(host, plugins);
        changed
    }

    fn running(&self) -> Vec<Arc<Candidate>> {
        self.states.keys().filter_map(|policy| self.of(policy)).collect()
    }

    /// Begins to prepare one of those that wait for it, unless one is being prepared.
    fn prepare_next(&mut self, host: &Arc<Host>, plugins: &Plugins) {
        if self.preparing.is_some() {
            return;
        }
        let waiting = self.states.iter().filter(|(_, (_, state))| matches!(state, State::Preparing));
        let next = waiting.filter_map(|(policy, (asked, _))| Some((policy, asked, plugins.live(&asked.spec.plugin)?)));
        let Some((policy, asked, plugin)) = next.min_by_key(|(policy, ..)| Arc::clone(policy)) else { return };
        let (host, plugin, own) = (Arc::clone(host), Arc::clone(plugin), asked.clone());
        let result = beside("weir-candidate", async move || host.prepare(&own.spec, &plugin, own.countries).await);
        // Without a thread the result is that there is none.
        let result = result.unwrap_or_else(|_| oneshot::channel().1);
        self.preparing = Some(Preparing { policy: Arc::clone(policy), asked: asked.clone(), result });
    }

    /// Waits until a candidate is ready, or known to be unfit; for ever when none is on its way. Call [`Trials::refresh`] then.
    pub async fn ready(&mut self) {
        let Some(preparing) = &mut self.preparing else { return std::future::pending().await };
        let result = (&mut preparing.result).await;
        let Some(Preparing { policy, asked, .. }) = self.preparing.take() else { return };
        let state = match result {
            Ok(Ok(generation)) => State::Running(Arc::new(Candidate::new(generation, asked.trial))),
            Ok(Err(error)) => State::Refused(error.to_string()),
            Err(_) => State::Refused("it could not be prepared; replace its file to try again".to_owned()),
        };
        self.prepared = Some((policy, asked, state));
    }

    /// Waits until none is on its way, at most for this time.
    pub async fn settle(&mut self, host: &Arc<Host>, plugins: &Plugins, config: &Config, wait: Duration) {
        let until = Instant::now() + wait;
        while self.preparing.is_some() && tokio::time::timeout_at(until, self.ready()).await.is_ok() {
            self.refresh(host, plugins, config);
        }
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
                hint: Some("the policy would run without it".to_owned()),
            })
        };
        rows.into_iter().filter_map(warning).collect()
    }
}

/// What can be said at once. `before` is what was said to another question.
fn answer(asked: &Asked, live: Option<&Arc<Plugin>>, before: Option<State>) -> State {
    let Some(plugin) = live else { return asked.refused.clone().map_or(State::Missing, State::Refused) };
    if asked.abandoned {
        return State::Abandoned;
    }
    if let Some(reason) = &asked.untrusted {
        return State::Refused(reason.clone());
    }
    let Some(State::Running(running)) = before else { return State::Preparing };
    let key = Generation::key(&asked.spec, plugin);
    match running.generation.own_key() == key {
        true if running.is(key, asked.trial) => State::Running(running),
        // The same version on other terms.
        true => State::Running(Arc::new(Candidate::new(Arc::clone(&running.generation), asked.trial))),
        false => State::Preparing,
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
        (State::Preparing, _) => {
            tracing::info!(policy, plugin, "the candidate is being configured, the policy runs without it until that is done");
        }
        (_, reason) => {
            let reason = reason.unwrap_or_default();
            tracing::warn!(policy, plugin, "the candidate is not tried, the policy runs without it: {reason}");
        }
    }
}
