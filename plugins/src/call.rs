//! One phase call of one instance, under its budget. The exchange moves into the store and always comes back.

use std::time::Duration;

use wasmtime::component::Resource;

use crate::chain::Answer;
use crate::contract::bindings::weir::policy::types as wit;
use crate::decision::Phase;
use crate::error::CallError;
use crate::exchange::{Exchange, Outcome};
use crate::generation::Generation;
use crate::load::{trap, wall};
use crate::pool::Instance;

/// Where the exchange is while no call runs.
pub(crate) type Slot = Option<Box<Exchange>>;

/// Brings the exchange back when a call ends in whatever way, its future being dropped included.
struct Lent<'a> {
    instance: &'a mut Instance,
    slot: &'a mut Slot,
}

impl<'a> Lent<'a> {
    fn lend(instance: &'a mut Instance, slot: &'a mut Slot, phase: Phase, ticks: u64) -> Self {
        instance.store.set_epoch_deadline(1);
        let state = instance.store.data_mut();
        state.exchange = slot.take();
        state.ended = phase == Phase::Complete;
        // The first tick may come at once: one more than the budget is what "at least the budget" takes.
        state.ticks_left = ticks.saturating_add(1);
        state.out_of_time = false;
        state.last_error = None;
        Self { instance, slot }
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        *self.slot = self.instance.store.data_mut().exchange.take();
    }
}

/// A phase that answers a verdict without further arguments, with budgets of the caller's.
pub(crate) async fn verdict(
    generation: &Generation,
    instance: &mut Instance,
    slot: &mut Slot,
    phase: Phase,
    ticks: u64,
    limit: Duration,
) -> Result<Answer, CallError> {
    let lent = Lent::lend(instance, slot, phase, ticks);
    let Instance { store, policy } = &mut *lent.instance;
    let handler = policy.weir_policy_handler();
    let call = async {
        match phase {
            Phase::Connection => handler.call_on_connection(&mut *store, Resource::new_borrow(0)).await,
            Phase::Response => handler.call_on_response(&mut *store, Resource::new_borrow(0), Resource::new_borrow(0)).await,
            _ => handler.call_on_request(&mut *store, Resource::new_borrow(0)).await,
        }
    };
    let called = tokio::time::timeout(limit, call).await;
    let verdict = finish(called, generation, lent.instance, limit)?;
    answer(verdict)
}

/// The window of a request body.
pub(crate) async fn request_body(
    generation: &Generation,
    instance: &mut Instance,
    slot: &mut Slot,
    window: &[u8],
    complete: bool,
) -> Result<Answer, CallError> {
    let lent = Lent::lend(instance, slot, Phase::RequestBody, ticks(generation));
    let Instance { store, policy } = &mut *lent.instance;
    let call = policy.weir_policy_handler().call_on_request_body(store, Resource::new_borrow(0), window, complete);
    let called = tokio::time::timeout(generation.limits.wall, call).await;
    let verdict = finish(called, generation, lent.instance, generation.limits.wall)?;
    answer(verdict)
}

/// A piece of a response body.
pub(crate) async fn response_body(
    generation: &Generation,
    instance: &mut Instance,
    slot: &mut Slot,
    chunk: &[u8],
    last: bool,
) -> Result<Vec<u8>, CallError> {
    let lent = Lent::lend(instance, slot, Phase::ResponseBody, ticks(generation));
    let Instance { store, policy } = &mut *lent.instance;
    let call = policy.weir_policy_handler().call_on_response_body(store, Resource::new_borrow(0), chunk, last);
    let called = tokio::time::timeout(generation.limits.wall, call).await;
    finish(called, generation, lent.instance, generation.limits.wall)
}

/// The end of an exchange.
pub(crate) async fn complete(
    generation: &Generation,
    instance: &mut Instance,
    slot: &mut Slot,
    outcome: &Outcome,
) -> Result<(), CallError> {
    let outcome = wit::Outcome {
        status: outcome.status,
        decided_by: outcome.decided_by.clone(),
        bytes_in: outcome.bytes_in,
        bytes_out: outcome.bytes_out,
        duration_us: outcome.duration_us,
    };
    let lent = Lent::lend(instance, slot, Phase::Complete, ticks(generation));
    let Instance { store, policy } = &mut *lent.instance;
    let call = policy.weir_policy_handler().call_on_complete(store, Resource::new_borrow(0), &outcome);
    let called = tokio::time::timeout(generation.limits.wall, call).await;
    finish(called, generation, lent.instance, generation.limits.wall)
}

/// The CPU budget of a phase call in epochs.
pub(crate) fn ticks(generation: &Generation) -> u64 {
    u64::try_from(generation.limits.cpu.as_millis()).unwrap_or(u64::MAX)
}

fn finish<T>(
    called: Result<wasmtime::Result<T>, tokio::time::error::Elapsed>,
    generation: &Generation,
    instance: &Instance,
    limit: Duration,
) -> Result<T, CallError> {
    match called {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(match trap(&error, instance.store.data()) {
            CallError::Cpu(_) => CallError::Cpu(ticks(generation)),
            other => other,
        }),
        Err(_) => Err(wall(limit)),
    }
}

fn answer(verdict: wit::Verdict) -> Result<Answer, CallError> {
    match verdict {
        wit::Verdict::Next => Ok(Answer::Next),
        wit::Verdict::Accept => Ok(Answer::Accept),
        wit::Verdict::Deny(denial) if denial.status == 0 || (400..600).contains(&denial.status) => Ok(Answer::Deny(denial)),
        wit::Verdict::Deny(_) => Err(CallError::Contract("a refusal with a status that is none (0, or 400 to 599)")),
        wit::Verdict::Reply(reply) if (200..600).contains(&reply.status) => Ok(Answer::Reply(reply)),
        wit::Verdict::Reply(_) => Err(CallError::Contract("an answer with a status outside 200 to 599")),
    }
}
