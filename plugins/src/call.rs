//! One phase call of one instance, under its budget. The exchange moves into the store and always comes back.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::time::{Sleep, sleep_until};
use wasmtime::Store;
use wasmtime::component::{ComponentNamedList, Lift, Resource, TypedFunc};

use crate::chain::Answer;
use crate::contract::bindings::exports::weir::policy::lean_handler::Answer as Word;
use crate::contract::bindings::weir::policy::types as wit;
use crate::decision::Phase;
use crate::error::CallError;
use crate::exchange::{Exchange, Outcome};
use crate::generation::Generation;
use crate::limits::PolicyLimits;
use crate::load::{millis, trap, wall};
use crate::pool::{GuestState, Instance};
use crate::slice;
use crate::stack::{self, Pace, Stack};

/// Where the exchange is while no call runs.
pub(crate) type Slot = Option<Box<Exchange>>;

/// What a call may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    /// When it began.
    pub(crate) started: Instant,
    /// CPU time in milliseconds.
    pub(crate) ticks: u64,
    /// From its beginning, waiting for the worker included.
    pub(crate) wall: Duration,
}

impl Budget {
    /// What the operator allows one call.
    pub(crate) fn of(generation: &Generation, started: Instant) -> Self {
        Self { started, ticks: generation.limits.ticks(), wall: generation.limits.wall }
    }
}

/// Brings the exchange back when a call ends in whatever way, its future being dropped included.
struct Lent<'a> {
    instance: &'a mut Instance,
    slot: &'a mut Slot,
}

impl<'a> Lent<'a> {
    fn lend(instance: &'a mut Instance, slot: &'a mut Slot, phase: Phase, budget: &Budget) -> Self {
        let taken = instance.store.data().taken();
        instance.store.set_hostcall_fuel(taken);
        instance.store.set_epoch_deadline(1);
        let state = instance.store.data_mut();
        state.exchange = slot.take();
        state.ended = phase == Phase::Complete;
        // The other phases are seldom, and are given more to do.
        if !matches!(phase, Phase::Request | Phase::Response) {
            state.stack = Stack::Own;
        }
        state.cpu_left = Duration::from_millis(budget.ticks);
        state.out_of_time = false;
        state.pace = Pace::default();
        if state.watched {
            state.pace = Pace::Met;
            stack::goes_on();
            slice::begin();
        }
        state.wall_until = budget.started + budget.wall;
        state.out_of_wall = false;
        state.waits = false;
        state.last_error = None;
        Self { instance, slot }
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let state = self.instance.store.data_mut();
        *self.slot = state.exchange.take();
        if state.pace != Pace::Unmet {
            slice::end();
        }
    }
}

/// A phase that answers a verdict without further arguments, with budgets of the caller's.
pub(crate) async fn verdict(
    instance: &mut Instance,
    slot: &mut Slot,
    phase: Phase,
    budget: &Budget,
) -> Result<Answer, CallError> {
    let lent = Lent::lend(instance, slot, phase, budget);
    let Instance { store, guest } = &mut *lent.instance;
    let Some(lean) = guest.lean.as_ref().filter(|_| matches!(phase, Phase::Request | Phase::Response)) else {
        return whole(lent, phase, budget).await;
    };
    let function = if phase == Phase::Response { &lean.on_response } else { &lean.on_request };
    let called = called(function, store, budget).await;
    match finish(called, store.data(), budget)?.0 {
        Word::Next => Ok(Answer::Next),
        Word::Accept => Ok(Answer::Accept),
        Word::Other => {
            // In a box: most answers are a word.
            let called = Box::pin(self::called(&lean.whole_answer, store, budget)).await;
            answer(finish(called, store.data(), budget)?.0, &store.data().limits)
        }
    }
}

/// Calls a function of `lean-handler`, on the stack that was chosen for it.
async fn called<R: ComponentNamedList + Lift + Send + Sync + 'static>(
    function: &TypedFunc<(), R>,
    store: &mut Store<GuestState>,
    budget: &Budget,
) -> Result<wasmtime::Result<R>, CallError> {
    match store.data().stack {
        Stack::Workers => Ok(function.call(store, ())),
        Stack::Own => bounded(pin!(function.call_async(store, ())), budget).await,
    }
}

/// With handles, and a verdict that is passed in memory.
async fn whole(lent: Lent<'_>, phase: Phase, budget: &Budget) -> Result<Answer, CallError> {
    let Instance { store, guest } = &mut *lent.instance;
    let handler = &guest.handler;
    let called = match phase {
        Phase::Connection => bounded(pin!(handler.call_on_connection(&mut *store, Resource::new_borrow(0))), budget).await,
        Phase::Response => {
            bounded(pin!(handler.call_on_response(&mut *store, Resource::new_borrow(0), Resource::new_borrow(0))), budget).await
        }
        _ => bounded(pin!(handler.call_on_request(&mut *store, Resource::new_borrow(0))), budget).await,
    };
    answer(finish(called, store.data(), budget)?, &store.data().limits)
}

/// The window of a request body.
pub(crate) async fn request_body(
    instance: &mut Instance,
    slot: &mut Slot,
    window: &[u8],
    complete: bool,
    budget: &Budget,
) -> Result<Answer, CallError> {
    let lent = Lent::lend(instance, slot, Phase::RequestBody, budget);
    let Instance { store, guest } = &mut *lent.instance;
    let limits = store.data().limits;
    let call = guest.handler.call_on_request_body(&mut *store, Resource::new_borrow(0), window, complete);
    let called = bounded(pin!(call), budget).await;
    answer(finish(called, store.data(), budget)?, &limits)
}

/// A piece of a response body.
pub(crate) async fn response_body(
    instance: &mut Instance,
    slot: &mut Slot,
    chunk: &[u8],
    last: bool,
    budget: &Budget,
) -> Result<Vec<u8>, CallError> {
    let lent = Lent::lend(instance, slot, Phase::ResponseBody, budget);
    let Instance { store, guest } = &mut *lent.instance;
    let GuestState { exchange, limits, policy_index, .. } = store.data_mut();
    let most = exchange.as_deref_mut().map_or(0, |exchange| exchange.usages.of(*policy_index).body_in(chunk.len(), limits));
    let taken = store.data().taken().saturating_add(most);
    store.set_hostcall_fuel(taken);
    let call = guest.handler.call_on_response_body(&mut *store, Resource::new_borrow(0), chunk, last);
    let called = bounded(pin!(call), budget).await;
    let GuestState { exchange, policy_index, .. } = store.data_mut();
    if let (Some(exchange), Ok(Ok(new))) = (exchange.as_deref_mut(), &called) {
        if new.len() > most {
            return Err(CallError::Contract("a response body that grew by more than limits.growth"));
        }
        exchange.usages.of(*policy_index).body_out(new.len());
    }
    finish(called, store.data(), budget)
}

/// The end of an exchange.
pub(crate) async fn complete(
    instance: &mut Instance,
    slot: &mut Slot,
    outcome: &Outcome,
    budget: &Budget,
) -> Result<(), CallError> {
    let outcome = wit::Outcome {
        status: outcome.status,
        decided_by: outcome.decided_by.clone(),
        bytes_in: outcome.bytes_in,
        bytes_out: outcome.bytes_out,
        duration_us: outcome.duration_us,
    };
    let lent = Lent::lend(instance, slot, Phase::Complete, budget);
    let Instance { store, guest } = &mut *lent.instance;
    let call = guest.handler.call_on_complete(&mut *store, Resource::new_borrow(0), &outcome);
    let called = bounded(pin!(call), budget).await;
    finish(called, store.data(), budget)
}

/// A host function that waits ends itself at the deadline, and puts on record what it waited for; so long after, whatever waits is ended.
const GRACE: Duration = Duration::from_millis(5);

/// Ends a call that waits past its deadline. A guest that computes is ended at an epoch; one that waits for the host meets none.
async fn bounded<T>(mut call: Pin<&mut impl Future<Output = T>>, budget: &Budget) -> Result<T, CallError> {
    // Most calls never wait, and need no timer.
    let mut timer: Option<Pin<Box<Sleep>>> = None;
    poll_fn(|context| {
        if timer.is_some() {
            stack::goes_on();
        }
        if let Poll::Ready(called) = call.as_mut().poll(context) {
            return Poll::Ready(Ok(called));
        }
        let until = budget.started + budget.wall + GRACE;
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(until.into())));
        timer.as_mut().poll(context).map(|()| Err(wall(budget.wall)))
    })
    .await
}

fn finish<T>(called: Result<wasmtime::Result<T>, CallError>, state: &GuestState, budget: &Budget) -> Result<T, CallError> {
    let error = match called {
        Ok(Ok(answer)) => return Ok(answer),
        Ok(Err(error)) => trap(&error, state),
        Err(error) => error,
    };
    Err(match error {
        CallError::Cpu(_) => CallError::Cpu(budget.ticks),
        CallError::Wall(_) if state.waits => CallError::Waited(millis(budget.wall)),
        CallError::Wall(_) => wall(budget.wall),
        other => other,
    })
}

fn answer(verdict: wit::Verdict, limits: &PolicyLimits) -> Result<Answer, CallError> {
    match verdict {
        wit::Verdict::Next => Ok(Answer::Next),
        wit::Verdict::Accept => Ok(Answer::Accept),
        wit::Verdict::Deny(denial) if denial.status == 0 || (400..600).contains(&denial.status) => {
            Ok(Answer::Deny(Box::new(denial)))
        }
        wit::Verdict::Deny(_) => Err(CallError::Contract("a refusal with a status that is none (0, or 400 to 599)")),
        wit::Verdict::Reply(reply) if !(200..600).contains(&reply.status) => {
            Err(CallError::Contract("an answer with a status outside 200 to 599"))
        }
        wit::Verdict::Reply(reply) if reply.headers.len() > MAX_REPLY_FIELDS => {
            Err(CallError::Contract("an answer with more than 64 headers"))
        }
        wit::Verdict::Reply(reply) if size(&reply) > limits.reply => {
            Err(CallError::Contract("an answer larger than limits.reply"))
        }
        wit::Verdict::Reply(reply) => Ok(Answer::Reply(Box::new(reply))),
    }
}

/// Headers of an answer that a policy makes.
const MAX_REPLY_FIELDS: usize = 64;

fn size(reply: &wit::Reply) -> usize {
    let fields: usize = reply.headers.iter().map(|header| header.name.len() + header.value.len()).sum();
    reply.body.len() + fields
}
