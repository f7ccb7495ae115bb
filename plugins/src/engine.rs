//! The one engine: what every plugin is compiled for and runs in.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use wasmtime::component::Linker;
use wasmtime::{
    Cache, CacheConfig, Config, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig, RegallocAlgorithm,
};

use crate::capability::Shared;
use crate::capability::geoip::Countries;
use crate::clock::Clock;
use crate::contract;
use crate::gate::Alarm;
use crate::limits::STACK;
use crate::pool::GuestState;
use crate::wasi::Seeds;

/// The largest memory a policy may be given; a slot of the pool reserves address space, not memory.
pub(crate) const MAX_MEMORY: usize = 512 * 1024 * 1024;

/// Instances alive at once, all policies, workers and generations together, and the address space that each one's memory reserves. An
/// instance is 1 slot of each kind. With 4 GiB no access needs a check. Where address space is scarce (`ulimit -v`, tools that run the
/// gateway) the next smaller pool is taken.
const POOLS: [(u32, u64); 4] = [(1_000, 4 << 30), (250, 4 << 30), (250, MAX_MEMORY as u64), (60, MAX_MEMORY as u64)];

/// How a [`Host`] is built.
#[derive(Clone, Debug)]
pub struct HostOptions {
    /// A private directory for compiled code and database copies; created with mode 0700.
    pub state: PathBuf,
    /// Workers: so many instances of every policy are warm before it is published.
    pub workers: usize,
}

/// The plugin host: engines, linkers and the capability state of every plugin.
pub struct Host {
    /// What serves.
    pub(crate) engine: Engine,
    pub(crate) linker: Linker<GuestState>,
    /// What a plugin describes and configures itself in: code that is compiled in a quarter of the time and runs once.
    pub(crate) draft_engine: Engine,
    pub(crate) draft_linker: Linker<GuestState>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) seeds: Seeds,
    pub(crate) workers: usize,
    countries: Arc<Countries>,
    shared: Mutex<HashMap<String, Shared>>,
    alarm: Arc<Alarm>,
    state: PathBuf,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Host").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Host {
    /// Builds the engine and starts its clock.
    ///
    /// # Errors
    /// The private directory cannot be made, or this machine lacks what the engine needs (address space).
    pub fn new(options: &HostOptions) -> Result<Arc<Self>, String> {
        let cache = private_directory(&options.state.join("compiled"))?;
        let (engine, reservation) = engine(&cache)?;
        let draft_engine = draft_engine(&cache, reservation)?;
        let clock = Clock::start([&engine, &draft_engine])?;
        Ok(Arc::new(Self {
            linker: linker(&engine)?,
            draft_linker: linker(&draft_engine)?,
            engine,
            draft_engine,
            clock,
            seeds: Seeds::open(&options.state.join("seed"))?,
            workers: options.workers.max(1),
            countries: Arc::default(),
            shared: Mutex::default(),
            alarm: Arc::default(),
            state: options.state.clone(),
        }))
    }

    /// Raised when a call of any generation fails.
    #[must_use]
    pub fn alarm(&self) -> Arc<Alarm> {
        Arc::clone(&self.alarm)
    }

    /// The country database shared by all policies and the gateway.
    #[must_use]
    pub fn countries(&self) -> &Arc<Countries> {
        &self.countries
    }

    /// The private directory.
    #[must_use]
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Plugin, name, label and value of every counter that a plugin made.
    #[must_use]
    pub fn plugin_counters(&self) -> Vec<(String, String, String, u64)> {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let rows = shared.iter().flat_map(|(plugin, shared)| {
            let mut rows = shared.counters.snapshot();
            rows.push(("dropped".to_owned(), "series".to_owned(), shared.counters.dropped()));
            rows.push(("dropped".to_owned(), "log_lines".to_owned(), shared.counters.cut_log_lines()));
            rows.extend(shared.cuts.snapshot().map(|(what, count)| ("dropped".to_owned(), what.to_owned(), count)));
            rows.into_iter().map(|(name, label, value)| (plugin.clone(), name, label, value))
        });
        rows.collect()
    }

    /// Plugin, upstream, outcome and number of calls that policies made to upstreams.
    #[must_use]
    pub fn calls_out(&self) -> Vec<(String, Arc<str>, &'static str, u64)> {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let rows = shared.iter().flat_map(|(plugin, shared)| {
            shared.calls.snapshot().into_iter().map(|(upstream, outcome, count)| (plugin.clone(), upstream, outcome, count))
        });
        rows.collect()
    }

    /// Forgets the state of a plugin that is gone: its counters, its store. What still runs keeps its own to the end.
    pub fn forget(&self, plugin: &str) {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).remove(plugin);
    }

    /// The state of a plugin outlives its generations, so that a hot swap does not reset a counter.
    pub(crate) fn shared(&self, plugin: &str) -> Shared {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.entry(plugin.to_owned()).or_insert_with(|| Shared::new(&self.countries)).clone()
    }
}

/// The largest pool for which this machine has the address space, and what it reserves for a memory.
fn engine(cache: &Path) -> Result<(Engine, u64), String> {
    let mut last = String::new();
    for (instances, reservation) in POOLS {
        match Engine::new(&config(cache, instances, reservation)?) {
            Ok(engine) => return Ok((engine, reservation)),
            Err(error) => last = format!("cannot start the WebAssembly engine: {error:#}"),
        }
    }
    Err(last)
}

fn linker(engine: &Engine) -> Result<Linker<GuestState>, String> {
    let mut linker = Linker::new(engine);
    let linked = wasmtime_wasi::p2::add_to_linker_async(&mut linker).and_then(|()| contract::link(&mut linker));
    linked.map(|()| linker).map_err(|error| format!("cannot link the policy contract: {error:#}"))
}

/// An engine that compiles fast, for few instances that do not live long.
fn draft_engine(cache: &Path, reservation: u64) -> Result<Engine, String> {
    let mut config = Config::new();
    common(&mut config, cache)?;
    config
        .cranelift_opt_level(OptLevel::None)
        .cranelift_regalloc_algorithm(RegallocAlgorithm::SinglePass)
        .max_wasm_stack(3 * STACK) // its frames are larger
        .memory_reservation(reservation);
    Engine::new(&config).map_err(|error| format!("cannot start the WebAssembly engine: {error:#}"))
}

fn config(cache: &Path, instances: u32, reservation: u64) -> Result<Config, String> {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances * 4) // a component from Rust holds up to four core instances
        .total_memories(instances)
        .total_tables(instances * 2)
        .total_stacks(instances)
        .max_memory_size(MAX_MEMORY)
        .max_memories_per_component(1)
        .max_tables_per_component(4)
        .max_core_instances_per_component(16)
        .table_elements(20_000)
        .max_unused_warm_slots(16);
    let mut config = Config::new();
    common(&mut config, cache)?;
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool)).memory_reservation(reservation).memory_init_cow(true);
    Ok(config)
}

fn common(config: &mut Config, cache: &Path) -> Result<(), String> {
    let mut cache_config = CacheConfig::new();
    cache_config.with_directory(cache);
    let cache =
        Cache::new(cache_config).map_err(|error| format!("cannot use {} as compiled cache: {error:#}", cache.display()))?;
    config
        .cache(Some(cache))
        .epoch_interruption(true)
        .max_wasm_stack(STACK)
        .wasm_component_model(true)
        .concurrency_support(false); // sync exports on fibers: half the cost of a call
    Ok(())
}

fn private_directory(path: &Path) -> Result<PathBuf, String> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    let whole = made.and_then(|()| path.canonicalize());
    whole.map_err(|error| format!("cannot create {}: {error}", path.display()))
}
