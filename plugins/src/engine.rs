//! The one engine: what every plugin is compiled for and runs in.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use wasmtime::component::Linker;
use wasmtime::{
    Cache, CacheConfig, Config, Enabled, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig, RegallocAlgorithm,
};

use crate::capability::Shared;
use crate::capability::geoip::Countries;
use crate::clock::Clock;
use crate::compiler::Compiler;
use crate::contract;
use crate::gate::Alarm;
use crate::limits::STACK;
use crate::pool::GuestState;
use crate::slice::Turner;
use crate::wasi::{Seeds, prompt};

/// The largest memory a policy may be given; a slot of the pool reserves address space, not memory.
pub(crate) const MAX_MEMORY: usize = 512 * 1024 * 1024;

/// Instances alive at once, all policies, workers and generations together, and the address space that each one's memory reserves. An
/// instance is 1 slot of each kind. With 4 GiB no access needs a check. Where address space is scarce (`ulimit -v`, tools that run the
/// gateway) the next smaller pool is taken.
const POOLS: [(u32, u64); 4] = [(1_000, 4 << 30), (250, 4 << 30), (250, MAX_MEMORY as u64), (60, MAX_MEMORY as u64)];

/// As a limit: more than there can be, and little enough to be multiplied by percents.
const NEVER: u64 = 1 << 50;

/// How a [`Host`] is built.
#[derive(Clone, Debug)]
pub struct HostOptions {
    /// A private directory for compiled code and database copies; created with mode 0700.
    pub state: PathBuf,
    /// Workers: so many instances of every policy are warm before it is published.
    pub workers: usize,
    /// The program that compiles plugins when it is started with [`compiler::ARGUMENT`](crate::compiler::ARGUMENT): this one. Without it
    /// they are compiled in this process, whatever that takes.
    pub compiler: Option<PathBuf>,
}

/// The plugin host: engines, linkers and the capability state of every plugin.
pub struct Host {
    /// What serves.
    pub(crate) engine: Engine,
    pub(crate) linkers: Linkers,
    /// What a plugin describes and configures itself in: code that is compiled in a quarter of the time and runs once.
    pub(crate) draft_engine: Engine,
    pub(crate) draft_linkers: Linkers,
    pub(crate) clock: Arc<Clock>,
    pub(crate) turner: Arc<Turner>,
    pub(crate) seeds: Seeds,
    pub(crate) workers: usize,
    pub(crate) compiler: Option<Compiler>,
    /// Whether workers serve, behind whom builds are made ready.
    pub(crate) serving: AtomicBool,
    /// How many wait for a build all the same.
    pub(crate) hurries: AtomicUsize,
    cache: Cache,
    countries: Arc<Countries>,
    shared: Mutex<HashMap<String, Shared>>,
    alarm: Arc<Alarm>,
    state: PathBuf,
}

/// Somebody waits for a build.
#[derive(Debug)]
pub struct Hurry(Arc<Host>);

impl Drop for Hurry {
    fn drop(&mut self) {
        self.0.hurries.fetch_sub(1, Ordering::Relaxed);
    }
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
        let directory = private_directory(&options.state.join("compiled"))?;
        let cache = cache(&directory)?;
        let (engine, reservation) = engine(&cache)?;
        let draft_engine = Engine::new(&Grade::Draft.config(&cache, reservation)).map_err(|error| no_engine(&error))?;
        let compiler = options.compiler.as_deref().map(|program| Compiler::new(program, &directory, reservation));
        let clock = Clock::start([&engine, &draft_engine], options.workers.max(1))?;
        let turner = Turner::start([engine.clone(), draft_engine.clone()]);
        let turner = turner.map_err(|error| format!("cannot have a signal for the slices of policies: {error}"))?;
        Ok(Arc::new(Self {
            linkers: Linkers::new(&engine)?,
            draft_linkers: Linkers::new(&draft_engine)?,
            engine,
            draft_engine,
            clock,
            turner: Arc::new(turner),
            seeds: Seeds::open(&options.state.join("seed"))?,
            workers: options.workers.max(1),
            compiler,
            serving: AtomicBool::new(false),
            hurries: AtomicUsize::new(0),
            cache,
            countries: Arc::default(),
            shared: Mutex::default(),
            alarm: Arc::default(),
            state: options.state.clone(),
        }))
    }

    /// From now on workers serve: what is done for builds stands far behind them.
    pub fn serve(&self) {
        self.serving.store(true, Ordering::Relaxed);
    }

    /// Until it is dropped, what is done for builds stands close behind workers instead of far: somebody needs one now.
    #[must_use]
    pub fn hurry(self: &Arc<Self>) -> Hurry {
        self.hurries.fetch_add(1, Ordering::Relaxed);
        Hurry(Arc::clone(self))
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

    /// How often a plugin was compiled in this process, for want of another.
    #[must_use]
    pub fn compiled_here(&self) -> usize {
        self.cache.cache_misses()
    }

    /// Instances that are alive, of all policies and generations.
    #[must_use]
    pub fn instances(&self) -> u64 {
        self.engine.pooling_allocator_metrics().map_or(0, |pool| pool.component_instances())
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

    /// Forgets the state of all plugins that are not kept.
    pub fn retain(&self, keep: impl Fn(&str) -> bool) {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).retain(|plugin, _| keep(plugin));
    }

    /// The state of a plugin outlives its generations, so that a hot swap does not reset a counter.
    pub(crate) fn shared(&self, plugin: &str) -> Shared {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.entry(plugin.to_owned()).or_insert_with(|| Shared::new(&self.countries)).clone()
    }
}

/// The largest pool for which this machine has the address space, and what it reserves for a memory.
fn engine(cache: &Cache) -> Result<(Engine, u64), String> {
    let mut last = String::new();
    for (instances, reservation) in POOLS {
        let mut config = Grade::Serving.config(cache, reservation);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(instances)));
        match Engine::new(&config) {
            Ok(engine) => return Ok((engine, reservation)),
            Err(error) => last = format!("cannot start the WebAssembly engine: {error:#}"),
        }
    }
    Err(last)
}

fn no_engine(error: &wasmtime::Error) -> String {
    format!("cannot start the WebAssembly engine: {error:#}")
}

/// What guests import, for those that may have to wait in it and for those that never do (`guest.rs`).
pub(crate) struct Linkers {
    pub(crate) waiting: Linker<GuestState>,
    pub(crate) prompt: Linker<GuestState>,
}

impl Linkers {
    fn new(engine: &Engine) -> Result<Self, String> {
        let with = |wasi: fn(&mut Linker<GuestState>) -> wasmtime::Result<()>| {
            let mut linker = Linker::new(engine);
            let linked = wasi(&mut linker).and_then(|()| contract::link(&mut linker));
            linked.map(|()| linker).map_err(|error| format!("cannot link the policy contract: {error:#}"))
        };
        Ok(Self { waiting: with(wasmtime_wasi::p2::add_to_linker_async)?, prompt: with(prompt::link)? })
    }
}

/// How well code is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grade {
    /// Fast, for few instances that do not live long.
    Draft,
    /// Well, for what serves.
    Serving,
}

impl Grade {
    /// The word for another process.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Serving => "serving",
        }
    }

    /// An engine that compiles what that of this grade runs, and runs nothing itself.
    pub(crate) fn compiler(self, directory: &Path, reservation: u64) -> Result<Engine, String> {
        Engine::new(&self.config(&cache(directory)?, reservation)).map_err(|error| no_engine(&error))
    }

    /// What decides about compiled code.
    fn config(self, cache: &Cache, reservation: u64) -> Config {
        let mut config = Config::new();
        config
            .cache(Some(cache.clone()))
            .epoch_interruption(true)
            .max_wasm_stack(STACK)
            .memory_reservation(reservation)
            .wasm_component_model(true)
            .wasm_backtrace_max_frames(None) // nobody reads them, and a deep stack takes long to walk
            .wasm_memory64(false) // `pieces.rs` counts in 32 bits
            .concurrency_support(false); // sync exports on fibers: half the cost of a call
        match self {
            Self::Draft => config
                .cranelift_opt_level(OptLevel::None)
                .cranelift_regalloc_algorithm(RegallocAlgorithm::SinglePass)
                .max_wasm_stack(3 * STACK), // its frames are larger
            Self::Serving => config.memory_init_cow(true),
        };
        config
    }
}

fn pool(instances: u32) -> PoolingAllocationConfig {
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
        // Pages that an instance wrote are written back for the next one, so many bytes of them, instead of given back to the system, which
        // has to find each again: a fresh instance costs a third.
        .pagemap_scan(Enabled::Auto)
        .linear_memory_keep_resident(512 << 10)
        .table_keep_resident(64 << 10)
        .max_unused_warm_slots(16);
    pool
}

fn cache(directory: &Path) -> Result<Cache, String> {
    let mut config = CacheConfig::new();
    config.with_directory(directory);
    // Whoever compiles removes the oldest forms, and what was noted of them (`compiler.rs`): a cleaner that knows nothing of notes would
    // have this process compile what is noted.
    config.with_files_total_size_soft_limit(NEVER).with_file_count_soft_limit(NEVER);
    Cache::new(config).map_err(|error| format!("cannot use {} as compiled cache: {error:#}", directory.display()))
}

fn private_directory(path: &Path) -> Result<PathBuf, String> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    let whole = made.and_then(|()| path.canonicalize());
    whole.map_err(|error| format!("cannot create {}: {error}", path.display()))
}
