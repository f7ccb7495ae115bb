//! Cases through the real host.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use weir_cases::{Case, CaseFile, Difference, Message, Seen, SeenFinding, Setting, Step, Verdict, differences};
use weir_plugins::fields::Fields;
use weir_plugins::rehearsal::{Rehearsal, RehearsalCall, RehearsalRequest, RehearsalVerdict, Rehearsed};
use weir_plugins::{CallError, Plugin};

use super::stage::{Stage, request};
use super::upstreams::Scripted;

/// A file of cases on a stage: one policy, a rehearsal for each configuration.
pub(super) struct Bench<'a> {
    stage: &'a Stage,
    plugin: &'a Arc<Plugin>,
    file: &'a CaseFile,
    rehearsals: Vec<(Value, Rehearsal)>,
}

/// What came of a case.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Why it could not be run.
    pub(super) error: Option<String>,
    /// The step that differs, from 1, when there are several.
    pub(super) step: Option<usize>,
    /// What differs.
    pub(super) differences: Vec<Difference>,
    /// Calls of all steps, in order.
    pub(super) calls: Vec<RehearsalCall>,
    /// Bytes that the instance held at the end.
    pub(super) memory: usize,
    /// A call broke a limit of time.
    over_time: bool,
}

/// Tries of a case that runs out of time. The machine may have done something else; a policy that is too slow is so every time.
const TRIES: usize = 3;

impl Outcome {
    /// Whether the case passed.
    pub(super) fn is_ok(&self) -> bool {
        self.error.is_none() && self.differences.is_empty()
    }

    /// Time in the policy, all calls.
    pub(super) fn time(&self) -> Duration {
        self.calls.iter().map(|call| call.elapsed).sum()
    }

    /// Calls into the host.
    pub(super) fn host_calls(&self) -> u64 {
        self.calls.iter().map(|call| call.host_calls).sum()
    }
}

impl<'a> Bench<'a> {
    pub(super) const fn new(stage: &'a Stage, plugin: &'a Arc<Plugin>, file: &'a CaseFile) -> Self {
        Self { stage, plugin, file, rehearsals: Vec::new() }
    }

    /// The rehearsal of a configuration, made when it is first asked for.
    ///
    /// # Errors
    /// Why the plugin refuses it.
    pub(super) fn rehearsal(&mut self, config: &Value) -> Result<&mut Rehearsal, String> {
        let place = match self.rehearsals.iter().position(|(own, _)| own == config) {
            Some(place) => place,
            None => {
                let spec = self.stage.spec(&self.file.policy, config)?;
                let rehearsal = self.stage.rehearsal(&spec, self.plugin).map_err(|error| error.to_string())?;
                self.rehearsals.push((config.clone(), rehearsal));
                self.rehearsals.len() - 1
            }
        };
        self.rehearsals.get_mut(place).map(|(_, rehearsal)| rehearsal).ok_or_else(|| "no rehearsal".to_owned())
    }

    /// Runs a case on a fresh instance with empty state.
    pub(super) fn run(&mut self, case: &Case) -> Outcome {
        let mut outcome = Outcome::default();
        let steps = match &case.setting {
            Setting::Steps(steps) => steps,
            Setting::Refused(text) => {
                let found = match self.rehearsal(&case.config) {
                    Err(error) if error.contains(text.as_str()) => return outcome,
                    Err(error) => format!("{error:?}"),
                    Ok(_) => "a configuration that is taken".to_owned(),
                };
                outcome.differences.push(Difference { what: "refused".to_owned(), expected: format!("{text:?}"), found });
                return outcome;
            }
        };
        for _ in 0..TRIES {
            outcome = Outcome::default();
            if let Err(error) = self.steps(case, steps, &mut outcome) {
                outcome.error = Some(error);
            }
            if outcome.is_ok() || !outcome.over_time {
                break;
            }
        }
        outcome
    }

    fn steps(&mut self, case: &Case, steps: &[Step], outcome: &mut Outcome) -> Result<(), String> {
        let stage = self.stage;
        let rehearsal = self.rehearsal(&case.config)?;
        rehearsal.forget();
        stage.wait(rehearsal.fresh()).map_err(|error| error.to_string())?;
        for (index, step) in steps.iter().enumerate() {
            let asked = request(&step.request, step.response.as_ref())?;
            stage.locate(step.request.client, step.request.country.as_deref())?;
            for _ in 0..step.repeat {
                let (upstreams, installed) = Scripted::begin(step);
                let rehearsed = stage.wait(rehearsal.run(&asked)).map_err(|error| error.to_string())?;
                drop(installed);
                outcome.calls.extend_from_slice(&rehearsed.calls);
                outcome.memory = rehearsed.memory;
                outcome.over_time |= is_over_time(&rehearsed.verdict);
                let seen = Seen { calls: upstreams.calls(), ..seen(rehearsed, rehearsal.counters()) };
                let wrong = differences(&step.expect, &seen);
                if !wrong.is_empty() {
                    outcome.step = Some(index + 1).filter(|_| steps.len() > 1);
                    outcome.differences = wrong;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The requests of a case, to be repeated; none of one that is refused.
    ///
    /// # Errors
    /// What is no request.
    pub(super) fn requests(case: &Case) -> Result<Vec<(RehearsalRequest, &Step)>, String> {
        let Setting::Steps(steps) = &case.setting else { return Ok(Vec::new()) };
        let mut requests = Vec::new();
        for step in steps {
            let asked = request(&step.request, step.response.as_ref())?;
            (0..step.repeat).for_each(|_| requests.push((asked.clone(), step)));
        }
        Ok(requests)
    }
}

/// Whether a call was ended for the time it took.
pub(super) const fn is_over_time(verdict: &RehearsalVerdict) -> bool {
    matches!(verdict, RehearsalVerdict::Failed(CallError::Cpu(_) | CallError::Wall(_) | CallError::Waited(_)))
}

fn seen(rehearsed: Rehearsed, metrics: Vec<(String, String, u64)>) -> Seen {
    let Rehearsed { verdict, phase, mut exchange, response_body, .. } = rehearsed;
    let request = Message {
        target: exchange.target.clone(),
        host: exchange.authority.clone(),
        headers: pairs(&exchange.headers),
        ..Message::default()
    };
    let findings = exchange.findings.iter().map(|finding| SeenFinding {
        rule: finding.rule.clone(),
        category: finding.category.clone(),
        target: finding.target.clone(),
        score: finding.score,
    });
    let response = exchange.response.take().map(|head| Message {
        status: head.status,
        headers: pairs(&head.headers),
        body: response_body.to_vec(),
        ..Message::default()
    });
    let mut seen = Seen {
        phase: phase.map(weir_plugins::Phase::name),
        findings: findings.collect(),
        tags: std::mem::take(&mut exchange.tags),
        request,
        response,
        metrics,
        ..Seen::default()
    };
    match verdict {
        RehearsalVerdict::Next => {}
        RehearsalVerdict::Accept => seen.verdict = Verdict::Accept,
        RehearsalVerdict::Deny(refusal) => {
            (seen.verdict, seen.status, seen.response) = (Verdict::Deny, Some(refusal.status), None);
            (seen.rule, seen.reason) = (refusal.rule, refusal.reason);
        }
        RehearsalVerdict::Reply(reply) => {
            (seen.verdict, seen.status, seen.reason) = (Verdict::Reply, Some(reply.status), reply.reason);
            let headers = pairs(&Fields::from(&reply.headers));
            seen.response = Some(Message { status: reply.status, headers, body: reply.body.to_vec(), ..Message::default() });
        }
        RehearsalVerdict::Failed(error) => {
            (seen.verdict, seen.reason, seen.failure) = (Verdict::Error, error.reason().to_owned(), Some(error.to_string()));
        }
    }
    seen
}

fn pairs(headers: &Fields) -> Vec<(String, Vec<u8>)> {
    headers.iter().map(|(name, value)| (String::from_utf8_lossy(name).into_owned(), value.to_vec())).collect()
}
