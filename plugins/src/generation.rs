//! A generation: one plugin, configured for one policy, proven and warm.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use http::{Method, Version};

use crate::call::Budget;
use crate::capability::http_out::HttpOut;
use crate::capability::{DEFAULT_GRANTS, Shared};
use crate::clock::Clock;
use crate::configure::Start;
use crate::decision::{Mode, OnError, OnOverflow, Phase, PolicyVersion};
use crate::engine::Host;
use crate::error::LoadError;
use crate::exchange::{ConnectionFacts, Exchange};
use crate::fields::Fields;
use crate::gate::{Admission, Alarm, Gate};
use crate::isolated::Count;
use crate::limits::PolicyLimits;
use crate::load::{LOAD_TICKS, LOAD_WALL, Plugin, failed, wall};
use crate::manifest::Needs;
use crate::pool::{Instance, store, wait_for_memory};
use crate::slice::Turner;
use crate::stack::Conduct;
use crate::stats::{Stats, StatsSnapshot};
use crate::wasi;

/// A configured use of a plugin.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicySpec {
    /// The policy's name.
    pub name: Arc<str>,
    /// The plugin's name: its file without `.wasm`.
    pub plugin: String,
    /// How it takes part.
    pub mode: Mode,
    /// What happens when a call fails.
    pub on_error: OnError,
    /// What happens when a request body is longer than its window.
    pub on_overflow: OnOverflow,
    /// Capabilities beyond the defaults.
    pub grants: Vec<String>,
    /// Upstreams it may ask, and how much.
    pub http_out: HttpOut,
    /// Which exchanges share an instance.
    pub isolation: Isolation,
    /// The plugin's own configuration.
    pub config: serde_json::Value,
    /// Limits.
    pub limits: PolicyLimits,
}

/// Which exchanges share an instance of a policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Isolation {
    /// An instance serves one exchange after another, and what it keeps in its memory stays.
    #[default]
    Pooled,
    /// Each exchange has an instance of its own through all its phases, which begins as `configure` left it.
    Request,
}

impl Isolation {
    /// As written in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pooled => "pooled",
            Self::Request => "request",
        }
    }
}

/// A plugin configured for one policy. Dropped with its last request.
pub struct Generation {
    pub(crate) id: u64,
    /// What it was made from.
    pub spec: PolicySpec,
    /// The plugin.
    pub plugin: Arc<Plugin>,
    /// When it was made.
    pub since: SystemTime,
    pub(crate) limits: PolicyLimits,
    /// What its decisions are marked with.
    pub(crate) version: Arc<PolicyVersion>,
    pub(crate) needs: Needs,
    pub(crate) stats: Stats,
    pub(crate) gate: Gate,
    pub(crate) alarm: Arc<Alarm>,
    config_json: String,
    start: Start,
    pub(crate) exchanges: Count,
    pub(crate) conduct: Conduct,
    pub(crate) shared: Shared,
    engine: wasmtime::Engine,
    pub(crate) clock: Arc<Clock>,
    /// Ends slices as long as instances may run.
    _turner: Arc<Turner>,
    warm: Mutex<Vec<Instance>>,
    retired: AtomicBool,
    /// Seconds since `since` of the last complaint, plus one.
    complained: AtomicU64,
}

impl std::fmt::Debug for Generation {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digest = &self.plugin.digest;
        formatter.debug_struct("Generation").field("policy", &self.spec.name).field("digest", digest).finish_non_exhaustive()
    }
}

impl Host {
    /// Configures a plugin for a policy, proves it with one synthetic request, and warms one instance per worker. `countries` says
    /// whether there is a country database.
    ///
    /// # Errors
    /// What is wrong with the configuration or the plugin, and the remedy.
    pub async fn prepare(&self, spec: &PolicySpec, plugin: &Arc<Plugin>, countries: bool) -> Result<Arc<Generation>, LoadError> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        check_grants(spec, plugin, countries)?;
        spec.limits.check()?;
        check_config(plugin, &spec.config)?;
        let config_json = spec.config.to_string();
        let start = self.start(spec, plugin, &config_json)?;
        let mut generation = Generation {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            spec: spec.clone(),
            plugin: Arc::clone(plugin),
            since: SystemTime::now(),
            limits: spec.limits,
            version: Arc::new(PolicyVersion { policy: Arc::clone(&spec.name), digest: Arc::clone(&plugin.digest) }),
            needs: Needs::all(&plugin.manifest),
            stats: Stats::new(self.workers),
            gate: Gate::default(),
            alarm: self.alarm(),
            config_json,
            conduct: Conduct::new(start.pre().prompt, &spec.limits),
            start,
            exchanges: Count::default(),
            shared: self.shared(&plugin.name).granted(&spec.http_out),
            engine: self.engine.clone(),
            clock: Arc::clone(&self.clock),
            _turner: Arc::clone(&self.turner),
            warm: Mutex::default(),
            retired: AtomicBool::new(false),
            complained: AtomicU64::new(0),
        };
        // What the proof leaves in the plugin's shared state is nobody's traffic.
        let scratch = generation.shared.scratch();
        let (mut first, answer) = generation.instantiate_with(scratch).await?;
        let answer = match &generation.start {
            Start::Image { answer, .. } => answer,
            Start::Each { .. } => &answer,
        };
        generation.needs = Needs::parse(answer, &plugin.manifest)?;
        generation.prove(&mut first).await?;
        // The proven instance has seen a synthetic exchange; traffic starts on fresh ones.
        drop(first);
        let warm = if spec.isolation == Isolation::Pooled { self.workers } else { 0 };
        for _ in 0..warm {
            let instance = generation.instantiate().await?;
            generation.warm.get_mut().unwrap_or_else(PoisonError::into_inner).push(instance);
        }
        Ok(Arc::new(generation))
    }
}

impl Generation {
    /// Identifies what a generation is made from: equal keys need no new generation.
    #[must_use]
    pub fn key(spec: &PolicySpec, plugin: &Plugin) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&spec.name, &plugin.name, &plugin.digest, spec.mode, spec.on_error, spec.on_overflow, &spec.grants).hash(&mut hasher);
        (&spec.http_out, spec.isolation, spec.limits).hash(&mut hasher);
        spec.config.to_string().hash(&mut hasher);
        hasher.finish()
    }

    /// The key of this generation.
    #[must_use]
    pub fn own_key(&self) -> u64 {
        Self::key(&self.spec, &self.plugin)
    }

    /// Tells it from every other generation of this process.
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// Says which of its calls are made from now on.
    pub fn admit(&self, admission: Admission) {
        self.gate.set(admission);
    }

    /// Its counters.
    #[must_use]
    pub fn stats(&self) -> StatsSnapshot {
        self.stats.snapshot()
    }

    /// The window of the request body it wants to see, in bytes; 0 when it does not ask for the body.
    #[must_use]
    pub fn request_window(&self) -> usize {
        if self.wants(Phase::RequestBody) { self.needs.request_body } else { 0 }
    }

    pub(crate) fn wants(&self, phase: Phase) -> bool {
        self.spec.mode != Mode::Off && self.needs.phases.has(phase)
    }

    /// Whether it wants to be asked in a phase about this exchange: of responses, policies may want some only. `place` keys its state.
    pub(crate) fn wants_now(&self, phase: Phase, exchange: Option<&Exchange>, place: usize) -> bool {
        if !self.wants(phase) {
            return false;
        }
        let (Phase::Response, Some(when), Some(exchange)) = (phase, &self.needs.response_when, exchange) else { return true };
        let Some(response) = &exchange.response else { return true };
        let headers = response.headers.iter().map(|(name, value)| (std::str::from_utf8(name).unwrap_or_default(), value));
        when.holds(headers, exchange.has_state(place))
    }

    /// At most one complaint a second reaches the operator's log.
    pub(crate) fn may_complain(&self) -> bool {
        let second = self.since.elapsed().map_or(0, |age| age.as_secs()) + 1;
        self.complained.swap(second, Ordering::Relaxed) != second
    }

    /// No exchange begins on it any more. Those under way, which may last for hours, find no instance waiting for them from now on: the
    /// engine's pool is for all generations.
    pub fn retire(&self) {
        if !self.retired.swap(true, Ordering::Relaxed) {
            drop(std::mem::take(&mut *self.warm.lock().unwrap_or_else(PoisonError::into_inner)));
        }
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    pub(crate) fn take_warm(&self) -> Option<Instance> {
        self.warm.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// How its instances are configured: `snapshot`, or `per instance` and why.
    #[must_use]
    pub fn initialised(&self) -> (&'static str, Option<&str>) {
        match &self.start {
            Start::Image { .. } => ("snapshot", None),
            Start::Each { reason, .. } => ("per instance", Some(reason)),
        }
    }

    /// A fresh, configured instance.
    pub(crate) async fn instantiate(&self) -> Result<Instance, LoadError> {
        Ok(self.instantiate_with(self.shared.clone()).await?.0)
    }

    /// A fresh, configured instance, and the answer of `configure` if it had to be called.
    async fn instantiate_with(&self, shared: Shared) -> Result<(Instance, String), LoadError> {
        let (mode, limits) = (self.spec.mode, self.limits);
        let mut store = store(&self.engine, &self.spec.name, mode, limits, shared, wasi::serving());
        store.data_mut().cpu_left = Duration::from_millis(LOAD_TICKS);
        store.data_mut().wall_until = Instant::now() + LOAD_WALL;
        store.set_epoch_deadline(1);
        if self.conduct.needs_own() {
            wait_for_memory(&mut store);
        }
        let pre = match &self.start {
            Start::Image { pre, .. } => {
                // No code of the guest's author runs.
                let guest = pre.instantiate(&mut store).await;
                let guest = guest.map_err(|error| failed("instantiate", &error, store.data(), 1))?;
                return Ok((Instance { store, guest: Box::new(guest) }, String::new()));
            }
            Start::Each { pre, .. } => pre,
        };
        let running = self.clock.begin();
        let call = async {
            let guest = pre.instantiate(&mut store).await?;
            let answer = guest.handler.call_configure(&mut store, &self.config_json).await?;
            Ok::<_, wasmtime::Error>((guest, answer))
        };
        let called = tokio::time::timeout(LOAD_WALL, call).await;
        drop(running);
        match called {
            Ok(Ok((guest, Ok(answer)))) => Ok((Instance { store, guest: Box::new(guest) }, answer)),
            Ok(Ok((_, Err(message)))) => Err(LoadError::Configure(message)),
            Ok(Err(error)) => Err(failed("configure", &error, store.data(), 1)),
            Err(_) => Err(LoadError::Call { phase: "configure", error: wall(LOAD_WALL) }),
        }
    }

    /// One synthetic request through every phase it asks for: a plugin that traps on an ordinary GET never goes live.
    async fn prove(&self, instance: &mut Instance) -> Result<(), LoadError> {
        let _running = self.clock.begin();
        let local = std::net::IpAddr::from([127, 0, 0, 1]);
        let facts = ConnectionFacts {
            client_ip: local,
            peer_ip: local,
            listener: "self-test".into(),
            server_name: None,
            tls_version: None,
            ja4: None,
        };
        let head = (Method::GET, Version::HTTP_11, "/".to_owned(), "self-test.invalid".to_owned());
        let mut slot = Some(Box::new(Exchange::new(facts, "self-test".into(), 0, head, Fields::new())));
        for phase in [Phase::Connection, Phase::Request] {
            if self.needs.phases.has(phase) {
                let called = crate::call::verdict(instance, &mut slot, phase, &load_budget()).await;
                called.map_err(|error| LoadError::Call { phase: "self-test", error })?;
            }
        }
        Ok(())
    }
}

fn check_grants(spec: &PolicySpec, plugin: &Plugin, countries: bool) -> Result<(), LoadError> {
    for import in &plugin.imports {
        if !DEFAULT_GRANTS.contains(&import.as_str()) && !spec.grants.contains(import) {
            return Err(LoadError::NotGranted(import.clone()));
        }
        if import == "geoip" && !countries {
            return Err(LoadError::NoCountryDatabase);
        }
    }
    Ok(())
}

/// Whether a plugin's JSON Schema is one.
///
/// # Errors
/// What is wrong with it.
pub fn check_schema(schema: &serde_json::Value) -> Result<(), LoadError> {
    validator(schema).map(drop)
}

fn validator(schema: &serde_json::Value) -> Result<jsonschema::Validator, LoadError> {
    jsonschema::validator_for(schema).map_err(|error| LoadError::Describe(format!("schema: {error}")))
}

fn check_config(plugin: &Plugin, config: &serde_json::Value) -> Result<(), LoadError> {
    let Some(schema) = &plugin.manifest.schema else { return Ok(()) };
    let validator = validator(schema)?;
    match validator.iter_errors(config).next() {
        Some(error) => {
            let place = error.instance_path().to_string().replace('/', ".");
            Err(LoadError::Schema { place, message: error.to_string() })
        }
        None => Ok(()),
    }
}

fn load_budget() -> Budget {
    Budget { started: Instant::now(), ticks: LOAD_TICKS, wall: LOAD_WALL }
}
