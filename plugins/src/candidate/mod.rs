//! A candidate: another version of a policy's plugin, tried on real requests. A shadow runs beside the stable version, which alone counts;
//! a canary runs in its place for a share of the clients.
//!
//! Whatever a candidate does, it does to a copy of the exchange: a shadow's copy is thrown away, a canary's takes the place of the original
//! when its call succeeded. A canary's call that fails is followed by the stable version's, which keeps the rest of the exchange.

mod compare;
mod record;
mod run;
mod share;

use std::sync::Arc;

pub use compare::Difference;
pub use record::{Differing, Record};
pub(crate) use run::{Pair, ask, complete, response_body};

use crate::call::Slot;
use crate::capability::http_out::CallOut;
use crate::decision::Phase;
use crate::exchange::Exchange;
use crate::generation::Generation;
use share::{Key, takes_part};

/// How a candidate is tried.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trial {
    /// Beside the stable version or in its place.
    pub mode: TrialMode,
    /// The share of requests (shadow) or clients (canary), 0 to 1.
    pub share: f64,
}

/// Beside the stable version, or in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrialMode {
    /// It is asked too, and nothing it says or does counts.
    Shadow,
    /// It is asked instead.
    Canary,
}

impl TrialMode {
    /// The name in `weir.toml` and in the log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Shadow => "shadow",
            Self::Canary => "canary",
        }
    }
}

/// Marks a decision of a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tried {
    /// Beside the stable version, and how it differed.
    Shadow(Option<Difference>),
    /// Instead of the stable version.
    Canary,
}

impl Tried {
    /// How it was tried.
    #[must_use]
    pub const fn mode(self) -> TrialMode {
        match self {
            Self::Shadow(_) => TrialMode::Shadow,
            Self::Canary => TrialMode::Canary,
        }
    }

    /// How a shadow differed.
    #[must_use]
    pub const fn difference(self) -> Option<Difference> {
        match self {
            Self::Shadow(difference) => difference,
            Self::Canary => None,
        }
    }
}

/// A version of a policy's plugin on trial.
#[derive(Debug)]
pub struct Candidate {
    /// The version, configured and proven like any other.
    pub generation: Arc<Generation>,
    /// How it is tried.
    pub trial: Trial,
    /// What came of it so far.
    pub record: Record,
}

/// What candidates leave in an exchange between two phases. Empty, and without memory of its own, where there are none.
#[derive(Debug, Default)]
pub(crate) struct Memory(Vec<Own>);

/// Of one policy's candidate.
#[derive(Debug, Default)]
struct Own {
    index: usize,
    /// Its part in the exchange, once it was decided: half an exchange of one version and half of another is none.
    part: Option<Part>,
    /// It failed in this exchange: it is asked no more, and the stable version has the rest.
    failed: bool,
    bodies: Option<Box<compare::Bodies>>,
}

impl Memory {
    fn has_failed(&self, index: usize) -> bool {
        self.0.iter().any(|own| own.index == index && own.failed)
    }

    fn part(&self, index: usize) -> Option<Part> {
        self.0.iter().find(|own| own.index == index)?.part
    }

    fn own(&mut self, index: usize) -> Option<&mut Own> {
        if !self.0.iter().any(|own| own.index == index) {
            self.0.push(Own { index, ..Own::default() });
        }
        self.0.iter_mut().find(|own| own.index == index)
    }
}

/// What to do with a candidate in one phase of one exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// Nothing: the stable version alone.
    None,
    Shadow,
    Canary,
}

impl Candidate {
    /// A trial that begins.
    #[must_use]
    pub fn new(generation: Arc<Generation>, trial: Trial) -> Self {
        Self { generation, trial, record: Record::default() }
    }

    /// Its version, share and mode go on when this one is what a configuration asks for.
    #[must_use]
    pub fn is(&self, generation_key: u64, trial: Trial) -> bool {
        self.generation.own_key() == generation_key && self.trial == trial
    }

    pub(crate) fn edits_bodies(&self) -> bool {
        self.trial.mode == TrialMode::Canary && self.generation.wants(Phase::ResponseBody)
    }

    /// Its part in an exchange, which lasts as long as the exchange.
    fn part(&self, index: usize, slot: &mut Slot) -> Part {
        let Some(exchange) = slot.as_deref_mut() else { return Part::None };
        if exchange.trials.has_failed(index) {
            return Part::None;
        }
        let part = exchange.trials.part(index).unwrap_or_else(|| self.choose(exchange));
        if let Some(own) = exchange.trials.own(index) {
            own.part = Some(part);
        }
        part
    }

    fn choose(&self, exchange: &Exchange) -> Part {
        if self.record.is_suspended() {
            return Part::None;
        }
        let client = Key::Client(&exchange.site, exchange.connection.client_ip);
        let (key, part) = match self.trial.mode {
            TrialMode::Canary => (client, Part::Canary),
            // In the connection phase there is no request yet.
            TrialMode::Shadow if exchange.id == 0 => (client, Part::Shadow),
            TrialMode::Shadow => (Key::Request(exchange.id), Part::Shadow),
        };
        if takes_part(&self.generation.spec.name, key, self.trial.share) { part } else { Part::None }
    }
}

/// The place of a candidate's state in an exchange, beside its stable version's.
fn place(index: usize) -> usize {
    index | 1 << 31
}

impl Exchange {
    /// The exchange as the stable version is about to see it. `whole` when the copy may take the original's place. An instance that the
    /// candidate has for this exchange moves along.
    fn copy(&mut self, whole: bool, index: usize) -> Self {
        let copied = |from: &crate::exchange::ResponseHead| crate::exchange::ResponseHead {
            status: from.status,
            headers: from.headers.clone(),
        };
        Self {
            connection: self.connection.clone(),
            site: Arc::clone(&self.site),
            id: self.id,
            method: self.method.clone(),
            version: self.version,
            target: self.target.clone(),
            authority: self.authority.clone(),
            headers: self.headers.clone(),
            response: self.response.as_ref().map(copied),
            tags: self.tags.clone(),
            findings: if whole { self.findings.clone() } else { Vec::new() },
            decisions: Vec::new(),
            rewritten: self.rewritten,
            normalised: self.normalised.clone(),
            head_text: self.head_text.clone(),
            states: self.states.clone(),
            usages: self.usages.clone(),
            instances: self.take_instance(place(index)).into_iter().collect(),
            dropped: self.dropped,
            // What it may still ask depends on what it has asked.
            calls: self.calls.clone(),
            trace: self.trace,
            trials: Memory::default(),
        }
    }

    /// Takes over what a canary made of its copy.
    fn become_copy(&mut self, mut copy: Self, by: u64) {
        self.keep_calls(&mut copy, by);
        let calls = std::mem::take(&mut self.calls);
        let decisions = std::mem::take(&mut self.decisions);
        let trials = std::mem::take(&mut self.trials);
        copy.instances.append(&mut self.instances);
        *self = Self { decisions, trials, calls, ..copy };
    }

    /// Keeps the record of calls to upstreams: those of a shadow are made like any others.
    /// `by` makes them; the copy begins with those that are on record already. They belong to the decision that is noted next.
    fn keep_calls(&mut self, copy: &mut Self, by: u64) {
        let known = self.calls.iter().filter(|call| call.by == by).count();
        let decision = self.decisions.len();
        let new = std::mem::take(&mut copy.calls).into_iter().filter(|call| call.by == by).skip(known);
        self.calls.extend(new.map(|call| CallOut { decision, ..call }));
    }

    /// Keeps what a shadow wants to know in its next phase, and nothing else of its copy but its calls to upstreams.
    fn keep_state(&mut self, index: usize, copy: &mut Self, by: u64) {
        self.keep_calls(copy, by);
        self.instances.append(&mut copy.instances);
        let own = u32::try_from(place(index)).unwrap_or(u32::MAX);
        let Some(state) = copy.states.iter_mut().find(|(place, _)| *place == own) else { return };
        let state = (own, std::mem::take(&mut state.1));
        self.states.retain(|(place, _)| *place != own);
        self.states.push(state);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::decision::{Decision, Mode, PolicyVersion, VerdictKind};

    fn call(exchange: &Exchange, by: u64) -> CallOut {
        CallOut {
            policy: "directory".into(),
            decision: exchange.decisions.len(),
            upstream: "directory".into(),
            method: http::Method::GET,
            path: "/".to_owned(),
            outcome: "ok",
            started: Instant::now(),
            elapsed: Duration::ZERO,
            attempts: Vec::new(),
            by,
        }
    }

    fn decision() -> Decision {
        Decision {
            version: Arc::new(PolicyVersion { policy: "directory".into(), digest: "0".into() }),
            phase: Phase::Request,
            verdict: VerdictKind::Next,
            rule: String::new(),
            reason: String::new(),
            mode: Mode::Enforce,
            tried: None,
            started: Instant::now(),
            elapsed: Duration::ZERO,
        }
    }

    #[test]
    fn what_a_candidate_asks_belongs_to_its_own_decision() {
        let (stable, candidate) = (1, 2);
        let mut exchange = crate::exchange::tests::exchange();
        exchange.decisions.extend([decision(), decision()]);
        for whole in [false, true] {
            let mut copy = exchange.copy(whole, 0);
            let asked = call(&copy, candidate);
            copy.calls.push(asked);
            exchange.calls.push(call(&exchange, stable));
            exchange.decisions.push(decision());
            match whole {
                true => exchange.become_copy(copy, candidate),
                false => exchange.keep_state(0, &mut copy, candidate),
            }
            exchange.decisions.push(decision());
        }
        let made: Vec<_> = exchange.calls.iter().map(|call| (call.by, call.decision)).collect();
        assert_eq!(made, [(stable, 2), (candidate, 3), (stable, 4), (candidate, 5)]);
    }
}
