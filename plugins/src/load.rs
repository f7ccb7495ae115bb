//! From the bytes of a file to a compiled, described plugin.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use wasmtime::component::Component;

use crate::compiler::Compiler;
use crate::decision::{Mode, Phase};
use crate::engine::{Grade, Host};
use crate::error::{CallError, LoadError};
use crate::guest::GuestPre;
use crate::limits::PolicyLimits;
use crate::manifest::Manifest;
use crate::pool::{GuestState, store};
use crate::priority::{Behind, stand};
use crate::{image, inspect, pieces, wasi};

/// The largest plugin file.
pub const MAX_PLUGIN_BYTES: u64 = 64 * 1024 * 1024;

/// Time that `describe`, `configure` and the self-test may take each: milliseconds of CPU, and on the wall.
pub(crate) const LOAD_TICKS: u64 = 5_000;
pub const LOAD_WALL: Duration = Duration::from_secs(10);

/// A plugin that was checked and described, not yet configured.
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
    pub(crate) content: Box<[u8]>,
    /// Kept from the description to the first configuration.
    draft: Mutex<Option<Draft>>,
    /// The plugin as it is, for the policies that configure each instance.
    whole: Mutex<Option<GuestPre>>,
}

/// A plugin compiled fast, to describe and configure itself once.
pub(crate) struct Draft {
    pub(crate) pre: GuestPre,
    /// Why no image can be made of it.
    pub(crate) obstacle: Option<String>,
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

    /// What the file holds.
    #[must_use]
    pub fn content(&self) -> &[u8] {
        &self.content
    }

    /// Frees what only the preparation of a policy needs; it is made again when there is any.
    pub fn rest(&self) {
        drop(lock(&self.draft).take());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
    #[allow(clippy::unused_async, reason = "callers wait for it like for the rest of the preparation")]
    pub async fn load(&self, name: &str, bytes: &[u8]) -> Result<Arc<Plugin>, LoadError> {
        let size = bytes.len() as u64;
        if size > MAX_PLUGIN_BYTES {
            return Err(LoadError::TooLarge { bytes: size, limit: MAX_PLUGIN_BYTES });
        }
        inspect::check_header(bytes)?;
        let (component, obstacle) = self.compile_draft(bytes)?;
        let (draft, imports, manifest) = self.apart(async {
            let imports = inspect::check_type(&component)?;
            let draft = Draft { pre: GuestPre::link(&self.draft_linkers, &component)?, obstacle };
            let manifest = self.describe(name, &draft.pre).await?;
            Ok::<_, LoadError>((draft, imports, manifest))
        })??;
        Ok(Arc::new(Plugin {
            name: name.into(),
            digest: digest(bytes).into(),
            bytes: bytes.len(),
            manifest,
            imports,
            content: bytes.into(),
            draft: Mutex::new(Some(draft)),
            whole: Mutex::default(),
        }))
    }

    /// The draft of a plugin. It is not kept: the next policy's comes out of the compiled cache.
    pub(crate) fn draft(&self, plugin: &Plugin) -> Result<Draft, LoadError> {
        if let Some(draft) = lock(&plugin.draft).take() {
            return Ok(draft);
        }
        let (component, obstacle) = self.compile_draft(&plugin.content)?;
        Ok(Draft { pre: GuestPre::link(&self.draft_linkers, &component)?, obstacle })
    }

    /// The plugin as it is, compiled well; once for all policies that need it so.
    pub(crate) fn whole(&self, plugin: &Plugin) -> Result<GuestPre, LoadError> {
        if let Some(whole) = &*lock(&plugin.whole) {
            return Ok(whole.clone());
        }
        let whole = self.serving(&plugin.content)?;
        *lock(&plugin.whole) = Some(whole.clone());
        Ok(whole)
    }

    /// A component compiled well and linked. On a worker it gives way to others, in whatever it does.
    pub(crate) fn serving(&self, component: &[u8]) -> Result<GuestPre, LoadError> {
        match self.apart(async { pieces::cut(component) })? {
            Ok(cut) => GuestPre::link(&self.linkers, &self.compile(Grade::Serving, &cut)?),
            // The compiler knows better what is wrong with it.
            Err(reason) => Err(self.compile(Grade::Serving, component).err().unwrap_or(LoadError::Compile(reason))),
        }
    }

    /// The instrumented copy, or the plugin itself and why there is no copy.
    fn compile_draft(&self, plugin: &[u8]) -> Result<(Component, Option<String>), LoadError> {
        let refused = match self.apart(async { image::instrument(plugin) })? {
            Ok(instrumented) => match self.compile(Grade::Draft, &instrumented) {
                Ok(component) => return Ok((component, None)),
                Err(error) => error.to_string(),
            },
            Err(reason) => reason,
        };
        // What is no valid component at all says so here.
        Ok((self.compile(Grade::Draft, plugin)?, Some(refused)))
    }

    /// Compiled by another process where one can be had: it is found in the cache then.
    fn compile(&self, grade: Grade, bytes: &[u8]) -> Result<Component, LoadError> {
        let engine = match grade {
            Grade::Draft => &self.draft_engine,
            Grade::Serving => &self.engine,
        };
        if let Some(compiler) = &self.compiler {
            // What it starts begins as far behind as it is itself.
            self.apart(async { compiler.fill_cache(engine, grade, bytes) })??;
        }
        let failed = |error: &dyn std::fmt::Display| LoadError::Compile(format!("{error:#}"));
        let behind = self.behind();
        let threads = rayon::ThreadPoolBuilder::new().thread_name(|number| format!("weir-compile-{number}"));
        let threads = threads.start_handler(move |_| stand(behind)).build().map_err(|error| failed(&error))?;
        threads.install(|| Component::new(engine, bytes)).map_err(|error| failed(&error))
    }

    /// Works on a thread that stands behind workers and ends with it: memory that a compiler has used and freed stays with the threads that
    /// used it.
    pub(crate) fn apart<T: Send>(&self, work: impl Future<Output = T> + Send) -> Result<T, LoadError> {
        let failed = |error: &dyn std::fmt::Display| LoadError::Compile(format!("cannot start a thread: {error}"));
        let behind = self.behind();
        let run = move || {
            stand(behind);
            Ok(tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(work))
        };
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("weir-configure".to_owned()).spawn_scoped(scope, run);
            let joined = thread.map_err(|error| failed(&error))?.join();
            joined.map_err(|_| failed(&"it panicked"))?.map_err(|error: std::io::Error| failed(&error))
        })
    }

    /// How far from workers a build is made ready: close when none serve, when somebody needs it now, or where nothing was left a moment ago.
    fn behind(&self) -> Behind {
        let is_busy = self.compiler.as_ref().is_some_and(Compiler::was_busy);
        let is_wanted = !self.serving.load(Relaxed) || self.hurries.load(Relaxed) > 0;
        if is_busy || is_wanted { Behind::Close } else { Behind::Far }
    }

    async fn describe(&self, name: &str, pre: &GuestPre) -> Result<Manifest, LoadError> {
        let shared = self.shared(name);
        let mut store =
            store(&self.draft_engine, &Arc::from(name), Mode::Observe, PolicyLimits::default(), shared, wasi::serving());
        store.data_mut().cpu_left = Duration::from_millis(LOAD_TICKS);
        store.data_mut().wall_until = Instant::now() + LOAD_WALL;
        store.set_epoch_deadline(1);
        let _running = self.clock.begin();
        let call = async {
            let guest = pre.instantiate(&mut store).await?;
            guest.handler.call_describe(&mut store).await
        };
        let answer = tokio::time::timeout(LOAD_WALL, call).await;
        let json = match answer {
            Ok(Ok(json)) => json,
            Ok(Err(error)) => return Err(failed("describe", &error, store.data(), 1)),
            Err(_) => return Err(LoadError::Call { phase: "describe", error: wall(LOAD_WALL) }),
        };
        Manifest::parse(&json)
    }
}

/// The error of a guest call at load time that had so many times the usual limits.
pub(crate) fn failed(phase: &'static str, error: &wasmtime::Error, state: &GuestState, factor: u32) -> LoadError {
    let error = match trap(error, state) {
        CallError::Cpu(_) => CallError::Cpu(LOAD_TICKS * u64::from(factor)),
        CallError::Wall(_) => wall(LOAD_WALL * factor),
        other => other,
    };
    LoadError::Call { phase, error }
}

/// The error of a guest call, with the guest's own last words when it logged any.
pub(crate) fn trap(error: &wasmtime::Error, state: &GuestState) -> CallError {
    if state.out_of_time {
        return CallError::Cpu(0);
    }
    if state.out_of_wall {
        return CallError::Wall(0);
    }
    let said = state.last_error.clone().or_else(|| state.stderr.take());
    CallError::Trap(said.unwrap_or_else(|| error.root_cause().to_string()))
}

pub(crate) fn wall(limit: Duration) -> CallError {
    CallError::Wall(millis(limit))
}

pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
