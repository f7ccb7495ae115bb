//! Instances: one store each, owned by the worker that runs them.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::ready;
use std::hash::{BuildHasherDefault, Hasher};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::task::yield_now;
use wasmtime::component::ResourceTable;
use wasmtime::{ResourceLimiter, ResourceLimiterAsync, Store, StoreLimits, StoreLimitsBuilder, UpdateDeadline};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::capability::Shared;
use crate::clock::Call;
use crate::decision::Mode;
use crate::error::CallError;
use crate::exchange::Exchange;
use crate::generation::Generation;
use crate::guest::Guest;
use crate::limits::{HANDLES, LOAD_ANSWER, PolicyLimits};
use crate::reaper;
use crate::slice;
use crate::stack::{self, Pace, Probation, Stack, Turn};
use crate::stderr::Stderr;
use crate::turns;
use crate::wasi::Wasi;

/// Idle instances a worker keeps per generation; more are destroyed on return. A call runs to its end unless an epoch passes, so few run
/// at once on a worker, and each idle one holds its memory.
const MAX_IDLE: usize = 4;

/// What an instance can reach through its imports.
pub(crate) struct GuestState {
    pub(crate) exchange: Option<Box<Exchange>>,
    pub(crate) policy: Arc<str>,
    /// Position in the chain, which keys the policy's state in an exchange.
    pub(crate) policy_index: u32,
    pub(crate) mode: Mode,
    /// In the complete phase nothing can be edited any more.
    pub(crate) ended: bool,
    pub(crate) shared: Shared,
    /// Log bytes written outside an exchange (describe, configure).
    pub(crate) logged: usize,
    /// What the policy may use.
    pub(crate) limits: PolicyLimits,
    /// The last error the guest logged: its panic message, when it panicked.
    pub(crate) last_error: Option<String>,
    /// CPU time left before the deadline.
    pub(crate) cpu_left: Duration,
    pub(crate) out_of_time: bool,
    /// The ticks that the running call has met.
    pub(crate) pace: Pace,
    /// The call has slices from its beginning.
    pub(crate) watched: bool,
    /// The stack of the running call.
    pub(crate) stack: Stack,
    /// When the running call must have ended. A guest that computes meets it at an epoch, one that waits in `call`.
    pub(crate) wall_until: Instant,
    pub(crate) out_of_wall: bool,
    /// It waits for an upstream, or did when its time was over.
    pub(crate) waits: bool,
    /// Calls of the guest into the contract's interfaces since it began.
    pub(crate) host_calls: u64,
    store_limits: Limits,
    /// Why the guest's runtime ended, when it says so there.
    pub(crate) stderr: Stderr,
    wasi: WasiCtx,
    table: ResourceTable,
}

impl WasiView for GuestState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl GuestState {
    /// Bytes of memory the instance holds.
    pub(crate) const fn memory(&self) -> usize {
        self.store_limits.memory
    }
}

/// The limits of one instance, and what it holds of them.
struct Limits {
    own: StoreLimits,
    memory: usize,
    /// For memory that another instance gives back.
    waits: bool,
}

impl Limits {
    fn grow_memory(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let grows = self.own.memory_growing(current, desired, maximum)?;
        if grows {
            self.memory = self.memory.saturating_add(desired.saturating_sub(current));
        }
        Ok(grows)
    }

    async fn grow_memory_in_time(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let grows = self.grow_memory(current, desired, maximum)?;
        if grows {
            reaper::memory_is_free().await;
        }
        Ok(grows)
    }
}

impl ResourceLimiter for Limits {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        self.grow_memory(current, desired, maximum)
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        self.own.table_growing(current, desired, maximum)
    }

    fn instances(&self) -> usize {
        self.own.instances()
    }

    fn tables(&self) -> usize {
        self.own.tables()
    }

    fn memories(&self) -> usize {
        self.own.memories()
    }
}

type Answer<'a> = Pin<Box<dyn Future<Output = wasmtime::Result<bool>> + Send + 'a>>;

// As `async_trait` would write it.
impl ResourceLimiterAsync for Limits {
    fn memory_growing<'a, 'b>(&'a mut self, current: usize, desired: usize, maximum: Option<usize>) -> Answer<'b>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(self.grow_memory_in_time(current, desired, maximum))
    }

    fn table_growing<'a, 'b>(&'a mut self, current: usize, desired: usize, maximum: Option<usize>) -> Answer<'b>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(ready(self.own.table_growing(current, desired, maximum)))
    }

    fn instances(&self) -> usize {
        self.own.instances()
    }

    fn tables(&self) -> usize {
        self.own.tables()
    }

    fn memories(&self) -> usize {
        self.own.memories()
    }
}

/// A configured instance: two pointers, for it moves with every call.
pub(crate) struct Instance {
    pub(crate) store: Store<GuestState>,
    pub(crate) guest: Box<Guest>,
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Instance").field("policy", &self.store.data().policy).finish_non_exhaustive()
    }
}

/// A new store with all limits set.
pub(crate) fn store(
    engine: &wasmtime::Engine,
    policy: &Arc<str>,
    mode: Mode,
    limits: PolicyLimits,
    shared: Shared,
    wasi: Wasi,
) -> Store<GuestState> {
    let store_limits = store_limits(limits.memory);
    let mut table = ResourceTable::new();
    table.set_max_capacity(HANDLES);
    let state = GuestState {
        exchange: None,
        policy: Arc::clone(policy),
        policy_index: 0,
        mode,
        ended: false,
        shared,
        logged: 0,
        limits,
        last_error: None,
        cpu_left: Duration::ZERO,
        out_of_time: false,
        pace: Pace::default(),
        watched: false,
        stack: Stack::Own,
        wall_until: Instant::now(),
        out_of_wall: false,
        waits: false,
        host_calls: 0,
        store_limits: Limits { own: store_limits, memory: 0, waits: false },
        stderr: wasi.stderr,
        wasi: wasi.context,
        table,
    };
    let mut store = Store::new(engine, state);
    store.limiter(|state| &mut state.store_limits);
    store.set_max_component_handles(HANDLES);
    store.set_hostcall_fuel(LOAD_ANSWER);
    store.epoch_deadline_callback(|mut context| {
        // The guest has a slice of its own, and meets the end of another's.
        if slice::runs() {
            return Ok(UpdateDeadline::Continue(1));
        }
        let state = context.data_mut();
        let turn = state.pace.meet();
        if let Turn::Slice(computed) = turn {
            state.cpu_left = state.cpu_left.saturating_sub(computed);
        }
        state.out_of_time = state.cpu_left.is_zero();
        state.out_of_wall = !state.out_of_time && Instant::now() >= state.wall_until;
        if state.out_of_time || state.out_of_wall {
            return Ok(UpdateDeadline::Interrupt);
        }
        Ok(match state.stack {
            Stack::Own => UpdateDeadline::YieldCustom(1, Box::pin(give_way(turn))),
            Stack::Workers => {
                slice::begin();
                UpdateDeadline::Continue(1)
            }
        })
    });
    store
}

/// Lets others run. A short call that met a tick by chance does not queue up with those that compute.
async fn give_way(turn: Turn) {
    if turn == Turn::Unknown {
        yield_now().await;
    } else {
        turns::next().await;
    }
    stack::goes_on();
    slice::begin();
}

/// From now on the guest waits for memory while another instance gives some back, for which every call needs a stack of its own.
pub(crate) fn wait_for_memory(store: &mut Store<GuestState>) {
    if !std::mem::replace(&mut store.data_mut().store_limits.waits, true) {
        store.limiter_async(|state| &mut state.store_limits);
    }
}

fn store_limits(memory: usize) -> StoreLimits {
    // One instance more than the engine's pool allows a component: the instrumented copy of a plugin has it.
    StoreLimitsBuilder::new().memory_size(memory).instances(17).memories(1).tables(4).table_elements(20_000).build()
}

impl GuestState {
    /// Memory beyond the limit, for reading what is there (`image.rs`).
    pub(crate) fn allow_memory(&mut self, memory: usize) {
        self.store_limits.own = store_limits(memory);
    }

    /// Whether the guest holds handles of things outside of its memory.
    pub(crate) fn holds_handles(&self) -> bool {
        !self.table.is_empty()
    }
}

/// What one worker has of one generation.
struct Pool {
    generation: Weak<Generation>,
    idle: RefCell<Vec<Instance>>,
    running: Cell<usize>,
    probation: Probation,
}

thread_local! {
    static POOLS: RefCell<Pools> = RefCell::default();
}

/// By the id of the generation.
type Pools = HashMap<u64, Rc<Pool>, BuildHasherDefault<Spread>>;

/// Spreads the ids of generations, which count up and which nobody outside chooses.
#[derive(Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, id: u64) {
        self.0 = (self.0 ^ id).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A place for one call of a generation on this worker, until it is dropped.
pub(crate) struct Place<'a> {
    pool: Rc<Pool>,
    _call: Call<'a>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.pool.running.set(self.pool.running.get().saturating_sub(1));
    }
}

impl Place<'_> {
    /// Gives an instance the stack of its next call.
    pub(crate) fn choose_stack(&self, generation: &Generation, instance: &mut Instance) {
        let state = instance.store.data_mut();
        state.stack = generation.conduct.stack(&self.pool.probation);
        state.watched = generation.conduct.is_watched(&self.pool.probation);
        if generation.conduct.needs_own() {
            wait_for_memory(&mut instance.store);
        }
    }

    /// Notes whether a call was a long one.
    pub(crate) fn saw(&self, generation: &Generation, instance: &Instance) {
        generation.conduct.saw(&self.pool.probation, instance.store.data().pace == Pace::Long);
    }

    /// Keeps an instance after a call that returned cleanly.
    pub(crate) fn keep(&self, instance: Instance) {
        let mut idle = self.pool.idle.borrow_mut();
        if idle.len() < MAX_IDLE {
            idle.push(instance);
        }
    }
}

/// Takes an instance: one of this worker's, else one warmed for all workers, else none.
///
/// # Errors
/// More calls of this generation run on this worker than its limit allows.
pub(crate) fn take(generation: &Arc<Generation>) -> Result<(Option<Instance>, Place<'_>), CallError> {
    let pool = POOLS.with_borrow_mut(|pools| match pools.get(&generation.id) {
        Some(pool) => Rc::clone(pool),
        None => {
            clear(pools);
            let new = Pool {
                generation: Arc::downgrade(generation),
                idle: RefCell::default(),
                running: Cell::new(0),
                probation: Probation::default(),
            };
            Rc::clone(pools.entry(generation.id).or_insert_with(|| Rc::new(new)))
        }
    });
    let running = pool.running.get();
    if running >= generation.limits.instances {
        return Err(CallError::Exhausted(format!("{running} calls run at once on this worker")));
    }
    pool.running.set(running + 1);
    let instance = pool.idle.borrow_mut().pop().or_else(|| generation.take_warm());
    Ok((instance, Place { pool, _call: generation.clock.begin() }))
}

/// Destroys this thread's idle instances of generations that were replaced. Call it now and then on every worker.
pub fn sweep() {
    POOLS.with_borrow_mut(clear);
}

/// Lets go of pools that nobody uses any more, and of what is idle in those of generations whose last exchanges are under way.
fn clear(pools: &mut Pools) {
    pools.retain(|_, pool| {
        let generation = pool.generation.upgrade();
        if generation.as_ref().is_none_or(|generation| generation.is_retired()) {
            pool.idle.take().into_iter().for_each(reaper::destroy);
        }
        generation.is_some()
    });
}
