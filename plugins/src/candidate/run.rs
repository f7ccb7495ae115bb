//! One policy with a candidate, in one phase of one exchange. Boxed futures: a chain without candidates pays nothing for these.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;

use super::compare::{self, Difference, Said};
use super::record::Differing;
use super::{Candidate, Part, Tried, place};
use crate::call::Slot;
use crate::chain::{self, Answer, Noted, Step, Told, asked, conclude, note, piece, told};
use crate::decision::{Decision, Mode, Phase, VerdictKind};
use crate::error::CallError;
use crate::exchange::Outcome;
use crate::generation::Generation;

/// A policy with its candidate, and its place in the chain.
#[derive(Clone, Copy)]
pub(crate) struct Pair<'a> {
    pub(crate) index: usize,
    pub(crate) stable: &'a Arc<Generation>,
    pub(crate) candidate: &'a Candidate,
}

/// Asks for a verdict: the stable version, the candidate, or both.
pub(crate) async fn ask(pair: Pair<'_>, slot: &mut Slot, phase: Phase, body: Option<(&[u8], bool)>, clock: &mut Instant) -> Step {
    match pair.candidate.part(pair.index, slot) {
        Part::Canary => pair.canary(slot, phase, body, clock).await,
        Part::Shadow => pair.shadow(slot, phase, body, clock).await,
        Part::None => pair.stable(slot, phase, body, clock).await.0,
    }
}

impl<'a> Pair<'a> {
    /// The version whose verdict counts for this exchange, and how it is tried.
    pub(crate) fn deciding(&self, slot: &mut Slot) -> (&'a Arc<Generation>, Option<Tried>) {
        match self.candidate.part(self.index, slot) {
            Part::Canary => (&self.candidate.generation, Some(Tried::Canary)),
            Part::None | Part::Shadow => (self.stable, None),
        }
    }
}

impl Pair<'_> {
    /// The stable version alone: its step, and what it said.
    async fn stable(&self, slot: &mut Slot, phase: Phase, body: Option<(&[u8], bool)>, clock: &mut Instant) -> (Step, Said) {
        if !self.stable.wants_now(phase, slot.as_deref(), self.index) {
            return (Step::Next, Said::nothing());
        }
        let called = asked(self.stable, self.index, slot, phase, body, clock).await;
        let said = Said::of(&called);
        (conclude(self.stable, slot, phase, called, None, clock), said)
    }

    /// The candidate on a copy of the exchange, which it answers with.
    async fn tried(
        &self,
        copy: &mut Slot,
        phase: Phase,
        body: Option<(&[u8], bool)>,
        clock: &Instant,
    ) -> Result<Answer, CallError> {
        if !self.candidate.generation.wants_now(phase, copy.as_deref(), place(self.index)) {
            return Ok(Answer::Next);
        }
        asked(&self.candidate.generation, place(self.index), copy, phase, body, clock).await
    }

    /// The candidate beside the stable version, whose verdict and edits it never touches.
    async fn shadow(&self, slot: &mut Slot, phase: Phase, body: Option<(&[u8], bool)>, clock: &mut Instant) -> Step {
        let asks_candidate = self.candidate.generation.wants_now(phase, slot.as_deref(), place(self.index));
        if !self.stable.wants_now(phase, slot.as_deref(), self.index) && !asks_candidate {
            return Step::Next;
        }
        let mut copy = slot.as_deref_mut().map(|exchange| Box::new(exchange.copy(false, self.index)));
        let (step, said) = self.stable(slot, phase, body, clock).await;
        let called = self.tried(&mut copy, phase, body, clock).await;
        let also = Said::of(&called);
        let difference = match (slot.as_deref(), copy.as_deref()) {
            (Some(stable), Some(candidate)) => {
                compare::exchanges((&said, stable), (&also, candidate), self.stable.spec.mode == Mode::Enforce)
            }
            _ => compare::verdicts(&said, &also),
        };
        self.count(slot, phase, said.kind, also.kind, difference);
        let noted = match &called {
            Err(error) => self.failed(slot, error),
            Ok(answer) => Noted::of(answer),
        };
        if let (Some(exchange), Some(copy)) = (slot.as_deref_mut(), copy.as_deref_mut()) {
            exchange.keep_state(self.index, copy, self.candidate.generation.shared.http_out.id);
        }
        // A version that did not ask for the phase is no entry of its own, unless its silence is the difference.
        if difference.is_some() || asks_candidate {
            note(&self.candidate.generation, slot, phase, clock, noted, Some(Tried::Shadow(difference)));
        }
        step
    }

    /// The candidate instead of the stable version; when it fails, the stable version after all.
    async fn canary(&self, slot: &mut Slot, phase: Phase, body: Option<(&[u8], bool)>, clock: &mut Instant) -> Step {
        let generation = &self.candidate.generation;
        if !generation.wants_now(phase, slot.as_deref(), place(self.index)) {
            return Step::Next;
        }
        let mut copy = slot.as_deref_mut().map(|exchange| Box::new(exchange.copy(true, self.index)));
        let called = self.tried(&mut copy, phase, body, clock).await;
        if let Err(error) = &called {
            if let (Some(exchange), Some(copy)) = (slot.as_deref_mut(), copy.as_deref_mut()) {
                exchange.keep_calls(copy, generation.shared.http_out.id);
            }
            self.count(slot, phase, VerdictKind::Next, VerdictKind::Error, Some(Difference::Failed));
            let noted = self.failed(slot, error);
            note(generation, slot, phase, clock, noted, Some(Tried::Canary));
            return self.stable(slot, phase, body, clock).await.0;
        }
        self.candidate.record.agree();
        if let (Some(exchange), Some(copy)) = (slot.as_deref_mut(), copy) {
            exchange.become_copy(*copy, generation.shared.http_out.id);
        }
        conclude(generation, slot, phase, called, Some(Tried::Canary), clock)
    }

    /// Counts and tells a failure, after which the exchange has done with the candidate.
    fn failed(&self, slot: &mut Slot, error: &CallError) -> Noted {
        if let Some(own) = slot.as_deref_mut().and_then(|exchange| exchange.trials.own(self.index)) {
            own.failed = true;
        }
        self.candidate.generation.failed(error)
    }

    fn count(&self, slot: &Slot, phase: Phase, stable: VerdictKind, candidate: VerdictKind, difference: Option<Difference>) {
        let record = &self.candidate.record;
        let request = slot.as_deref().map_or(0, |exchange| exchange.id);
        let differing = |difference| Differing { request, at: SystemTime::now(), phase, difference, stable, candidate };
        match difference {
            None => record.agree(),
            Some(Difference::Failed) => {
                if record.fail(Some(differing(Difference::Failed))) {
                    let spec = &self.candidate.generation.spec;
                    let (policy, plugin) = (&*spec.name, &*spec.plugin);
                    tracing::error!(policy, plugin, "the candidate fails too often and is asked no more, until its file changes");
                }
            }
            Some(difference) => record.differ(differing(difference)),
        }
    }
}

/// Passes a piece of the response body through the stable version, the candidate, or both, and answers what the one that counts made of it.
pub(crate) async fn response_body(pair: Pair<'_>, slot: &mut Slot, chunk: &[u8], last: bool) -> Result<Option<Bytes>, Told> {
    let candidate = &pair.candidate.generation;
    let started = Instant::now();
    match pair.candidate.part(pair.index, slot) {
        Part::None => {
            let called = piece(pair.stable, pair.index, slot, chunk, last, started).await;
            told(pair.stable, slot, started, called, None)
        }
        // Half a body of one version and half of the other is no body: a canary that fails here falls under the policy's fail mode.
        Part::Canary => {
            let called = piece(candidate, place(pair.index), slot, chunk, last, started).await;
            match &called {
                Err(_) => {
                    let failed = Some(Difference::Failed);
                    pair.count(slot, Phase::ResponseBody, VerdictKind::Next, VerdictKind::Error, failed);
                }
                Ok(Some(_)) if last => pair.candidate.record.agree(),
                Ok(_) => {}
            }
            told(candidate, slot, started, called, Some(Tried::Canary))
        }
        Part::Shadow => {
            let mut copy = slot.as_deref_mut().map(|exchange| Box::new(exchange.copy(false, pair.index)));
            let stable = piece(pair.stable, pair.index, slot, chunk, last, started).await;
            let also_started = Instant::now();
            let tried = piece(candidate, place(pair.index), &mut copy, chunk, last, also_started).await;
            if let (Some(exchange), Some(copy)) = (slot.as_deref_mut(), copy.as_deref_mut()) {
                exchange.keep_state(pair.index, copy, candidate.shared.http_out.id);
            }
            pair.compare_pieces(slot, chunk, last, (&stable, &tried), also_started);
            told(pair.stable, slot, started, stable, None)
        }
    }
}

/// Tells the versions that had a part in the exchange how it ended.
pub(crate) async fn complete(pair: Pair<'_>, slot: &mut Slot, outcome: &Outcome) {
    let candidate = &pair.candidate.generation;
    let part = pair.candidate.part(pair.index, slot);
    if part != Part::Canary {
        drop(chain::complete(pair.stable, pair.index, slot, outcome, None).await);
    }
    if part == Part::None || !candidate.wants(Phase::Complete) {
        return;
    }
    let called = if part == Part::Canary {
        chain::complete(candidate, place(pair.index), slot, outcome, Some(Tried::Canary)).await
    } else {
        let mut copy = slot.as_deref_mut().map(|exchange| Box::new(exchange.copy(false, pair.index)));
        let called = chain::complete(candidate, place(pair.index), &mut copy, outcome, Some(Tried::Shadow(None))).await;
        if let (Some(exchange), Some(copy)) = (slot.as_deref_mut(), copy.as_deref_mut()) {
            exchange.keep_calls(copy, candidate.shared.http_out.id);
        }
        // Noted in the copy, whose decisions are the only ones that count here.
        let noted = copy.into_iter().flat_map(|copy| copy.decisions);
        if let Some(exchange) = slot.as_deref_mut() {
            let failed = called.is_err().then_some(Difference::Failed);
            exchange.decisions.extend(noted.map(|decision| Decision { tried: Some(Tried::Shadow(failed)), ..decision }));
        }
        called
    };
    let (kind, difference) = match called {
        Ok(()) => (VerdictKind::Next, None),
        Err(_) => (VerdictKind::Error, Some(Difference::Failed)),
    };
    pair.count(slot, Phase::Complete, VerdictKind::Next, kind, difference);
}

type Piece = Result<Option<Bytes>, CallError>;

impl Pair<'_> {
    /// Compares what two versions made of a piece. The last one tells whether the bodies differ; a failure tells at once.
    fn compare_pieces(&self, slot: &mut Slot, chunk: &[u8], last: bool, made: (&Piece, &Piece), started: Instant) {
        let (stable, tried) = made;
        let of = |piece: &Piece| piece.as_ref().ok().cloned().flatten().unwrap_or_else(|| Bytes::copy_from_slice(chunk));
        let mut difference = None;
        if let Some(own) = slot.as_deref_mut().and_then(|exchange| exchange.trials.own(self.index)) {
            let bodies = own.bodies.get_or_insert_default();
            bodies.note(&of(stable), &of(tried));
            difference = bodies.difference().filter(|_| last);
        }
        let noted = match tried {
            Err(error) => {
                difference = Some(Difference::Failed);
                self.failed(slot, error)
            }
            Ok(_) => Noted::plain(VerdictKind::Next),
        };
        // A body counts once, however many pieces it came in.
        if last || tried.is_err() {
            let kind = |piece: &Piece| if piece.is_err() { VerdictKind::Error } else { VerdictKind::Next };
            self.count(slot, Phase::ResponseBody, kind(stable), kind(tried), difference);
        }
        if difference.is_some() {
            let mut clock = started;
            note(&self.candidate.generation, slot, Phase::ResponseBody, &mut clock, noted, Some(Tried::Shadow(difference)));
        }
    }
}
