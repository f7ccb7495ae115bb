//! From the bytes of a file to a compiled, described plugin.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use wasmtime::component::{Component, InstancePre};

use crate::contract::bindings::PolicyPre;
use crate::decision::{Mode, Phase};
use crate::engine::Host;
use crate::error::{CallError, LoadError};
use crate::inspect;
use crate::limits::PolicyLimits;
use crate::manifest::Manifest;
use crate::pool::{GuestState, store};

/// The largest plugin file.
pub const MAX_PLUGIN_BYTES: u64 = 64 * 1024 * 1024;

/// Time that `describe`, `configure` and the self-test may take each, in epochs and on the wall.
pub(crate) const LOAD_TICKS: u64 = 5_000;
pub const LOAD_WALL: Duration = Duration::from_secs(10);

/// A compiled plugin, not yet configured.
pub struct Plugin {
    /// The file's name without `.wasm`.
    pub name: Arc<str>,
    /// SHA-256 of the file in hex.
    pub digest: Arc<str>,
    /// The file's size in bytes.
    pub bytes: usize,
    pub(crate) manifest: Manifest,
    /// The capabilities it imports.
    pub(crate) imports: Vec<String>,
    pub(crate) pre: PolicyPre<GuestState>,
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Plugin").field("name", &self.name).field("digest", &self.digest).finish_non_exhaustive()
    }
}

impl Plugin {
    /// The version it gives itself.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.manifest.version
    }

    /// The name it gives itself.
    #[must_use]
    pub fn own_name(&self) -> &str {
        &self.manifest.name
    }

    /// The phases it may ask for, in the order of an exchange.
    #[must_use]
    pub fn phases(&self) -> Vec<Phase> {
        Phase::ALL.into_iter().filter(|phase| self.manifest.phases.has(*phase)).collect()
    }

    /// The largest window of the request body it may ask for, in bytes.
    #[must_use]
    pub const fn request_body(&self) -> usize {
        self.manifest.request_body
    }

    /// The JSON Schema of its configuration, when it has one.
    #[must_use]
    pub const fn schema(&self) -> Option<&serde_json::Value> {
        self.manifest.schema.as_ref()
    }

    /// The capabilities it imports.
    #[must_use]
    pub fn imports(&self) -> &[String] {
        &self.imports
    }
}

/// SHA-256 in lower-case hex.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Host {
    /// Checks, compiles and describes a plugin. Compiling takes up to seconds of CPU on the calling thread: never call it on a worker.
    ///
    /// # Errors
    /// What is wrong with the file, and the remedy.
    pub async fn load(&self, name: &str, bytes: &[u8]) -> Result<Arc<Plugin>, LoadError> {
        let size = bytes.len() as u64;
        if size > MAX_PLUGIN_BYTES {
            return Err(LoadError::TooLarge { bytes: size, limit: MAX_PLUGIN_BYTES });
        }
        inspect::check_header(bytes)?;
        let component = self.compile(bytes)?;
        let imports = inspect::check_type(&component)?;
        let pre = self.link(&component)?;
        let manifest = self.describe(name, &pre).await?;
        Ok(Arc::new(Plugin { name: name.into(), digest: digest(bytes).into(), bytes: bytes.len(), manifest, imports, pre }))
    }

    /// Compiles on threads that end with it: memory that a compiler has used and freed stays with the threads that used it.
    fn compile(&self, bytes: &[u8]) -> Result<Component, LoadError> {
        let failed = |error: &dyn std::fmt::Display| LoadError::Compile(format!("{error:#}"));
        let threads = rayon::ThreadPoolBuilder::new().thread_name(|number| format!("weir-compile-{number}"));
        let threads = threads.build().map_err(|error| failed(&error))?;
        threads.install(|| Component::new(&self.engine, bytes)).map_err(|error| failed(&error))
    }

    fn link(&self, component: &Component) -> Result<PolicyPre<GuestState>, LoadError> {
        let pre: InstancePre<GuestState> =
            self.linker.instantiate_pre(component).map_err(|error| LoadError::Compile(format!("{error:#}")))?;
        PolicyPre::new(pre).map_err(|error| LoadError::Compile(format!("{error:#}")))
    }

    async fn describe(&self, name: &str, pre: &PolicyPre<GuestState>) -> Result<Manifest, LoadError> {
        let mut store = store(&self.engine, &Arc::from(name), Mode::Observe, PolicyLimits::default(), self.shared(name));
        store.data_mut().ticks_left = LOAD_TICKS;
        store.data_mut().wall_until = Instant::now() + LOAD_WALL;
        store.set_epoch_deadline(1);
        let _running = self.clock.begin();
        let call = async {
            let policy = pre.instantiate_async(&mut store).await?;
            policy.weir_policy_handler().call_describe(&mut store).await
        };
        let answer = tokio::time::timeout(LOAD_WALL, call).await;
        let json = match answer {
            Ok(Ok(json)) => json,
            Ok(Err(error)) => return Err(LoadError::Call { phase: "describe", error: trap(&error, store.data()) }),
            Err(_) => return Err(LoadError::Call { phase: "describe", error: wall(LOAD_WALL) }),
        };
        Manifest::parse(&json)
    }
}

/// The error of a guest call, with the guest's own last words when it logged any.
pub(crate) fn trap(error: &wasmtime::Error, state: &GuestState) -> CallError {
    if state.out_of_time {
        return CallError::Cpu(0);
    }
    if state.out_of_wall {
        return CallError::Wall(0);
    }
    match &state.last_error {
        Some(message) => CallError::Trap(message.clone()),
        None => CallError::Trap(error.root_cause().to_string()),
    }
}

pub(crate) fn wall(limit: Duration) -> CallError {
    CallError::Wall(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX))
}
