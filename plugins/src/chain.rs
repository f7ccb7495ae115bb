//! A site's ordered policies: which are asked in which phase, and what their answers amount to.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::call::{self, Budget, Slot};
use crate::candidate::{self, Candidate, Pair, Tried};
use crate::contract::bindings::weir::policy::types as wit;
use crate::contract::cut;
use crate::decision::{Decision, Mode, OnError, OnOverflow, Phase, VerdictKind};
use crate::error::CallError;
use crate::exchange::{Exchange, MAX_DECISIONS, Outcome};
use crate::generation::{Generation, Isolation};
use crate::isolated;
use crate::manifest::Phases;
use crate::pool::{self, Instance};
use crate::reaper;

/// What a chain decided in one phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Continue,
    /// Refused.
    Deny(Box<Refusal>),
    /// Answered by a policy.
    Reply(Box<Reply>),
}

/// A refusal by a policy, or by the fail mode of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which policy.
    pub policy: Arc<str>,
    /// 400 to 599, or 0 to close without an answer.
    pub status: u16,
    /// The rule, for the log only.
    pub rule: String,
    /// Never empty.
    pub reason: String,
}

/// An answer by a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Which policy.
    pub policy: Arc<str>,
    /// 200 to 599.
    pub status: u16,
    /// Checked headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// Never empty.
    pub reason: String,
}

/// The verdict of one instance, before fail modes. Small: it passes through every layer of a call, and is nearly always a word.
pub(crate) enum Answer {
    Next,
    Accept,
    Deny(Box<wit::Denial>),
    Reply(Box<wit::Reply>),
}

/// A site's ordered policies.
#[derive(Debug, Default)]
pub struct Chain {
    policies: Vec<Arc<Generation>>,
    /// By place in the chain; none when no policy has a candidate.
    candidates: Option<Box<[Option<Arc<Candidate>>]>>,
    phases: Phases,
    request_window: usize,
    edits_bodies: bool,
}

/// The status of a request refused because a policy failed.
const FAILED_STATUS: u16 = 503;
/// The status and the reason of a request refused because its body is longer than a policy's window.
const OVERFLOW_STATUS: u16 = 413;
const OVERFLOW: &str = "body_over_window";

impl Chain {
    /// A chain of these policies, first to last.
    #[must_use]
    pub fn new(policies: Vec<Arc<Generation>>) -> Self {
        Self::with_candidates(policies.into_iter().map(|policy| (policy, None)).collect())
    }

    /// The same, with the candidates of those policies that have one.
    #[must_use]
    pub fn with_candidates(policies: Vec<(Arc<Generation>, Option<Arc<Candidate>>)>) -> Self {
        let (policies, candidates): (Vec<_>, Vec<_>) = policies.into_iter().unzip();
        let tried = || candidates.iter().flatten().map(|candidate: &Arc<Candidate>| &candidate.generation);
        let active = policies.iter().chain(tried()).filter(|policy| policy.spec.mode != Mode::Off);
        let phases = active.fold(Phases::default(), |set, policy| set.with(policy.needs.phases));
        let request_window = policies.iter().chain(tried()).map(|policy| policy.request_window()).max().unwrap_or(0);
        let edits_bodies = policies.iter().any(|policy| policy.wants(Phase::ResponseBody))
            || candidates.iter().flatten().any(|candidate| candidate.edits_bodies());
        let candidates = tried().next().is_some().then(|| candidates.clone().into_boxed_slice());
        Self { policies, candidates, phases, request_window, edits_bodies }
    }

    /// Whether a response body may be another one behind the chain: a shadow that reads it leaves it as it is.
    #[must_use]
    pub const fn edits_bodies(&self) -> bool {
        self.edits_bodies
    }

    /// A policy with its candidate, if it has one.
    fn pair<'a>(&'a self, index: usize, stable: &'a Arc<Generation>) -> Option<Pair<'a>> {
        let candidate = self.candidates.as_ref()?.get(index)?.as_deref()?;
        Some(Pair { index, stable, candidate })
    }

    /// The policies, first to last.
    #[must_use]
    pub fn policies(&self) -> &[Arc<Generation>] {
        &self.policies
    }

    /// Whether any policy asked for this phase.
    #[must_use]
    pub fn wants(&self, phase: Phase) -> bool {
        self.phases.has(phase)
    }

    /// The largest window of the request body that a policy asked for, in bytes.
    #[must_use]
    pub const fn request_window(&self) -> usize {
        self.request_window
    }

    /// Asks about a connection. The exchange is one of [`Exchange::connection`].
    ///
    /// Here and in the phases that follow, `clock` is the time now, and on return the one at which the last policy had ended: reading it
    /// costs a tenth of a call.
    pub async fn connection(&self, slot: &mut Option<Box<Exchange>>, clock: &mut Instant) -> Verdict {
        self.forward(slot, Phase::Connection, None, clock).await
    }

    /// Asks about a request head.
    pub async fn request(&self, slot: &mut Option<Box<Exchange>>, clock: &mut Instant) -> Verdict {
        self.forward(slot, Phase::Request, None, clock).await
    }

    /// Asks about the first bytes of a request body; `complete` when that is all of it.
    pub async fn request_body(
        &self,
        slot: &mut Option<Box<Exchange>>,
        window: &[u8],
        complete: bool,
        clock: &mut Instant,
    ) -> Verdict {
        self.forward(slot, Phase::RequestBody, Some((window, complete)), clock).await
    }

    /// Asks about a response head, last policy first.
    pub async fn response(&self, slot: &mut Option<Box<Exchange>>, clock: &mut Instant) -> Verdict {
        for (index, policy) in self.policies.iter().enumerate().rev() {
            let step = match self.pair(index, policy) {
                Some(pair) => Box::pin(candidate::ask(pair, slot, Phase::Response, None, clock)).await,
                None if policy.wants_now(Phase::Response, slot.as_deref(), index) => {
                    ask(policy, index, slot, Phase::Response, None, clock).await
                }
                None => Step::Next,
            };
            if let Step::Stop(verdict) = step {
                return verdict;
            }
        }
        Verdict::Continue
    }

    /// Passes a piece of the response body through, last policy first. A policy that fails leaves the piece as it was, unless its
    /// fail mode is to deny: then the body ends here.
    ///
    /// # Errors
    /// The name of the policy whose failure ends the body.
    pub async fn response_body(&self, slot: &mut Option<Box<Exchange>>, chunk: Bytes, last: bool) -> Result<Bytes, Arc<str>> {
        let mut chunk = chunk;
        for (index, policy) in self.policies.iter().enumerate().rev() {
            let started = Instant::now();
            let called = match self.pair(index, policy) {
                Some(pair) => Box::pin(candidate::response_body(pair, slot, &chunk, last)).await,
                None => {
                    let called = piece(policy, index, slot, &chunk, last, started).await;
                    told(policy, slot, started, called, None)
                }
            };
            match called {
                Ok(Some(new)) if policy.spec.mode == Mode::Enforce => chunk = new,
                Err(Told) if policy.spec.on_error == OnError::Deny && policy.spec.mode == Mode::Enforce => {
                    return Err(Arc::clone(&policy.spec.name));
                }
                Ok(_) | Err(Told) => {}
            }
        }
        Ok(chunk)
    }

    /// Tells every policy that asked how the exchange ended.
    pub async fn complete(&self, slot: &mut Option<Box<Exchange>>, outcome: &Outcome) {
        for (index, policy) in self.policies.iter().enumerate() {
            match self.pair(index, policy) {
                Some(pair) => Box::pin(candidate::complete(pair, slot, outcome)).await,
                None => drop(complete(policy, index, slot, outcome, None).await),
            }
        }
    }

    async fn forward(&self, slot: &mut Slot, phase: Phase, body: Option<(&[u8], bool)>, clock: &mut Instant) -> Verdict {
        if self.candidates.is_some() || body.is_some() {
            return Box::pin(self.forward_with(slot, phase, body, clock)).await;
        }
        for (index, policy) in self.policies.iter().enumerate() {
            if !policy.wants(phase) {
                continue;
            }
            match ask(policy, index, slot, phase, None, clock).await {
                Step::Next => {}
                Step::Accept => return Verdict::Continue,
                Step::Stop(verdict) => return verdict,
            }
        }
        Verdict::Continue
    }

    /// The same with a body, or where policies have candidates.
    async fn forward_with(&self, slot: &mut Slot, phase: Phase, body: Option<(&[u8], bool)>, clock: &mut Instant) -> Verdict {
        for (index, policy) in self.policies.iter().enumerate() {
            let pair = self.pair(index, policy);
            // The window that counts is that of the version that decides.
            let (deciding, tried) = pair.map_or((policy, None), |pair| pair.deciding(slot));
            let overflow = if deciding.wants(phase) { overflow(deciding, slot, body, tried, clock) } else { None };
            let step = match (overflow, pair) {
                (Some(step), _) => step,
                (None, Some(pair)) => Box::pin(candidate::ask(pair, slot, phase, body, clock)).await,
                (None, None) if policy.wants(phase) => ask(policy, index, slot, phase, body, clock).await,
                (None, None) => continue,
            };
            match step {
                Step::Next => {}
                Step::Accept => return Verdict::Continue,
                Step::Stop(verdict) => return verdict,
            }
        }
        Verdict::Continue
    }
}

/// What one policy's answer means for the chain.
pub(crate) enum Step {
    Next,
    Accept,
    Stop(Verdict),
}

/// Asks one policy. `clock` is the time at which it begins, and then the one at which it has ended: the next policy begins there.
async fn ask(
    policy: &Arc<Generation>,
    index: usize,
    slot: &mut Slot,
    phase: Phase,
    body: Option<(&[u8], bool)>,
    clock: &mut Instant,
) -> Step {
    let called = asked(policy, index, slot, phase, body, clock).await;
    conclude(policy, slot, phase, called, None, clock)
}

/// The answer of one policy. `place` keys its state in the exchange.
pub(crate) async fn asked(
    policy: &Arc<Generation>,
    place: usize,
    slot: &mut Slot,
    phase: Phase,
    body: Option<(&[u8], bool)>,
    started: &Instant,
) -> Result<Answer, CallError> {
    let mut lease = lease(policy, place, slot).await?;
    let budget = &Budget::of(policy, *started);
    let called = match body {
        Some((bytes, complete)) => {
            let window = bytes.get(..policy.request_window()).unwrap_or(bytes);
            let complete = complete && window.len() == bytes.len();
            call::request_body(&mut lease.instance, slot, window, complete, budget).await
        }
        None => call::verdict(&mut lease.instance, slot, phase, budget).await,
    };
    lease.settle(called, policy, phase, slot)
}

/// Notes an answer, and what it means for the chain in the policy's mode.
pub(crate) fn conclude(
    policy: &Generation,
    slot: &mut Slot,
    phase: Phase,
    called: Result<Answer, CallError>,
    tried: Option<Tried>,
    clock: &mut Instant,
) -> Step {
    // Nearly always.
    if let Ok(Answer::Next) = called {
        note_word(policy, slot, phase, clock, VerdictKind::Next, tried);
        return Step::Next;
    }
    let noted = match &called {
        Err(error) => policy.failed(error),
        Ok(answer) => Noted::of(answer),
    };
    let enforced = policy.spec.mode == Mode::Enforce;
    let step = match called {
        _ if !enforced => Step::Next,
        Ok(Answer::Next) => Step::Next,
        Ok(Answer::Accept) => Step::Accept,
        called => stop(policy, called, &noted),
    };
    note(policy, slot, phase, clock, noted, tried);
    step
}

/// What ends the phase for the other policies.
#[cold]
fn stop(policy: &Generation, called: Result<Answer, CallError>, noted: &Noted) -> Step {
    let name = Arc::clone(&policy.spec.name);
    let refusal = |status| Refusal { policy: Arc::clone(&name), status, rule: noted.rule.clone(), reason: noted.reason.clone() };
    match called {
        Ok(Answer::Next) => Step::Next,
        Ok(Answer::Accept) => Step::Accept,
        Ok(Answer::Deny(denial)) => Step::Stop(Verdict::Deny(Box::new(refusal(denial.status)))),
        Ok(Answer::Reply(reply)) => {
            let (headers, reason) = (headers(&reply.headers), noted.reason.clone());
            let reply = Reply { policy: name, status: reply.status, headers, body: reply.body.into(), reason };
            Step::Stop(Verdict::Reply(Box::new(reply)))
        }
        Err(_) if policy.spec.on_error == OnError::Allow => Step::Next,
        Err(_) => Step::Stop(Verdict::Deny(Box::new(refusal(FAILED_STATUS)))),
    }
}

/// What one policy makes of a piece of a response body; none when it did not ask for the phase.
pub(crate) async fn piece(
    policy: &Arc<Generation>,
    place: usize,
    slot: &mut Slot,
    chunk: &[u8],
    last: bool,
    started: Instant,
) -> Result<Option<Bytes>, CallError> {
    if !policy.wants(Phase::ResponseBody) {
        return Ok(None);
    }
    let mut lease = lease(policy, place, slot).await?;
    let called = call::response_body(&mut lease.instance, slot, chunk, last, &Budget::of(policy, started)).await;
    let new = lease.settle(called, policy, Phase::ResponseBody, slot)?;
    // Counted, not logged: a large body would fill the log with its pieces.
    policy.stats.record(VerdictKind::Next, started.elapsed());
    Ok(Some(new.into()))
}

/// A failure that the version it happened to answers for: it is counted and in the log.
pub(crate) struct Told;

/// Notes the failure on a piece of a response body.
pub(crate) fn told(
    policy: &Generation,
    slot: &mut Slot,
    started: Instant,
    called: Result<Option<Bytes>, CallError>,
    tried: Option<Tried>,
) -> Result<Option<Bytes>, Told> {
    called.map_err(|error| {
        let mut clock = started;
        note(policy, slot, Phase::ResponseBody, &mut clock, policy.failed(&error), tried);
        Told
    })
}

/// Tells one policy, if it asked, how the exchange ended. Answers whether it took it well.
pub(crate) async fn complete(
    policy: &Arc<Generation>,
    place: usize,
    slot: &mut Slot,
    outcome: &Outcome,
    tried: Option<Tried>,
) -> Result<(), CallError> {
    if !policy.wants(Phase::Complete) {
        return Ok(());
    }
    let mut clock = Instant::now();
    let called = match lease(policy, place, slot).await {
        Ok(mut lease) => {
            let called = call::complete(&mut lease.instance, slot, outcome, &Budget::of(policy, clock)).await;
            lease.settle(called, policy, Phase::Complete, slot)
        }
        Err(error) => Err(error),
    };
    let noted = called.as_ref().map_or_else(|error| policy.failed(error), |()| Noted::plain(VerdictKind::Next));
    note(policy, slot, Phase::Complete, &mut clock, noted, tried);
    called
}

/// What the operator wants to happen with a body that is longer than the policy's window; none when the policy is to judge its beginning.
fn overflow(
    policy: &Arc<Generation>,
    slot: &mut Slot,
    body: Option<(&[u8], bool)>,
    tried: Option<Tried>,
    clock: &mut Instant,
) -> Option<Step> {
    let (bytes, complete) = body?;
    if complete && bytes.len() <= policy.request_window() {
        return None;
    }
    let kind = match policy.spec.on_overflow {
        OnOverflow::InspectPrefix => return None,
        OnOverflow::Pass => VerdictKind::Next,
        OnOverflow::Reject => VerdictKind::Deny,
    };
    let noted = Noted { kind, rule: String::new(), reason: OVERFLOW.to_owned() };
    note(policy, slot, Phase::RequestBody, clock, noted, tried);
    if kind == VerdictKind::Next || policy.spec.mode != Mode::Enforce {
        return Some(Step::Next);
    }
    let name = Arc::clone(&policy.spec.name);
    let refusal = Refusal { policy: name, status: OVERFLOW_STATUS, rule: String::new(), reason: OVERFLOW.to_owned() };
    Some(Step::Stop(Verdict::Deny(Box::new(refusal))))
}

/// An instance on loan from its worker's pool, or from the exchange that has it to itself. It goes back after a clean return and is
/// destroyed otherwise, the future of its call being dropped included.
struct Lease<'a> {
    instance: Instance,
    place: pool::Place<'a>,
    own: Option<isolated::Right>,
}

impl Lease<'_> {
    /// A guest that trapped or overran is in no defined state: its instance ends with the lease.
    fn settle<T>(self, called: Result<T, CallError>, policy: &Generation, phase: Phase, slot: &mut Slot) -> Result<T, CallError> {
        self.place.saw(policy, &self.instance);
        match (&called, self.own) {
            (Ok(_), None) => self.place.keep(self.instance),
            (Ok(_), Some(own)) => own.keep(policy, self.instance, phase, slot),
            (Err(_), _) => reaper::destroy(self.instance),
        }
        called
    }
}

async fn lease<'a>(policy: &'a Arc<Generation>, index: usize, slot: &mut Slot) -> Result<Lease<'a>, CallError> {
    if !policy.gate.admits() {
        return Err(CallError::Quarantined);
    }
    let (taken, place) = pool::take(policy)?;
    let (own, mut instance) = match (policy.spec.isolation, taken) {
        (Isolation::Pooled, Some(instance)) => (None, instance),
        // In boxes: seldom needed, and every exchange would carry room for them.
        (Isolation::Pooled, None) => {
            (None, Box::pin(policy.instantiate()).await.map_err(|error| CallError::Exhausted(error.to_string()))?)
        }
        (Isolation::Request, _) => {
            let (own, instance) = Box::pin(isolated::take(policy, index, slot)).await?;
            (Some(own), instance)
        }
    };
    place.choose_stack(policy, &mut instance);
    instance.store.data_mut().policy_index = u32::try_from(index).unwrap_or(u32::MAX);
    Ok(Lease { instance, place, own })
}

/// What goes into the decision log about one call.
pub(crate) struct Noted {
    kind: VerdictKind,
    rule: String,
    reason: String,
}

impl Noted {
    pub(crate) const fn plain(kind: VerdictKind) -> Self {
        Self { kind, rule: String::new(), reason: String::new() }
    }

    pub(crate) fn of(answer: &Answer) -> Self {
        match answer {
            Answer::Next => Self::plain(VerdictKind::Next),
            Answer::Accept => Self::plain(VerdictKind::Accept),
            Answer::Deny(denial) => {
                Self { kind: VerdictKind::Deny, rule: cut(denial.rule.clone(), 64), reason: reason(&denial.reason) }
            }
            Answer::Reply(reply) => Self { kind: VerdictKind::Reply, rule: String::new(), reason: reason(&reply.reason) },
        }
    }
}

impl Generation {
    /// Counts a failed call, and tells the operator.
    pub(crate) fn failed(&self, error: &CallError) -> Noted {
        self.stats.failed(error);
        // What was not called has not failed: the quarantine was told when it began.
        let called = *error != CallError::Quarantined;
        if called {
            self.alarm.raise();
        }
        if called && self.may_complain() {
            tracing::warn!(policy = &*self.spec.name, plugin = &*self.plugin.name, "{error}");
        }
        Noted { kind: VerdictKind::Error, rule: String::new(), reason: error.reason().to_owned() }
    }
}

/// Counts a call that began at `clock` and adds it to the decisions. Sets the clock to the time at which it had ended.
pub(crate) fn note(policy: &Generation, slot: &mut Slot, phase: Phase, clock: &mut Instant, noted: Noted, tried: Option<Tried>) {
    let known = slot.as_deref().map_or(0, |exchange| exchange.decisions.len());
    note_word(policy, slot, phase, clock, noted.kind, tried);
    if let Some(decision) = slot.as_deref_mut().and_then(|exchange| exchange.decisions.get_mut(known)) {
        decision.rule = noted.rule;
        decision.reason = noted.reason;
    }
}

/// The same, of what needs no more words.
fn note_word(
    policy: &Generation,
    slot: &mut Slot,
    phase: Phase,
    clock: &mut Instant,
    verdict: VerdictKind,
    tried: Option<Tried>,
) {
    let started = std::mem::replace(clock, Instant::now());
    let elapsed = clock.duration_since(started);
    policy.stats.record(verdict, elapsed);
    let Some(exchange) = slot else { return };
    if exchange.decisions.len() >= MAX_DECISIONS {
        exchange.dropped += 1;
        return;
    }
    exchange.decisions.push(Decision {
        version: Arc::clone(&policy.version),
        phase,
        verdict,
        rule: String::new(),
        reason: String::new(),
        mode: policy.spec.mode,
        tried,
        started,
        elapsed,
    });
}

/// A refusal without a reason would be a riddle in the log.
pub(crate) fn reason(text: &str) -> String {
    if text.is_empty() { "unspecified".to_owned() } else { cut(text.to_owned(), 64) }
}

/// The headers of a policy's answer that an answer may have.
pub(crate) fn headers(list: &[wit::Header]) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(list.len());
    for header in list {
        let name = HeaderName::from_bytes(header.name.as_bytes());
        let value = HeaderValue::from_bytes(&header.value);
        if let (Ok(name), Ok(value)) = (name, value)
            && !crate::contract::is_gateways(&name)
        {
            headers.append(name, value);
        }
    }
    headers
}
