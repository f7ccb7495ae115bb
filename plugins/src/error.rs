//! Why a plugin was not loaded, and why a call failed.

use thiserror::Error;

/// Why a plugin file or a policy's use of it was refused. The text says what to do.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read {path}: {reason}")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        reason: String,
    },
    /// Larger than a plugin may be.
    #[error("{bytes} bytes: a plugin may have at most {limit}")]
    TooLarge {
        /// The file's size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// Not WebAssembly at all.
    #[error("not a WebAssembly file (it does not start with \\0asm)")]
    NotWasm,
    /// A core module.
    #[error("a core module, not a component: build it with `cargo build --target wasm32-wasip2`")]
    CoreModule,
    /// Valid sections that do not fit together, or unsupported features.
    #[error("does not compile: {0}")]
    Compile(String),
    /// Neither imports nor exports anything of the contract.
    #[error("a component that does not export weir:policy/handler: build it with weir-sdk")]
    NotAPolicy,
    /// Another version of the contract.
    #[error(
        "built for weir:policy {built}, this gateway supports {supported}: upgrade weir or rebuild with weir-sdk {supported}"
    )]
    Contract {
        /// The version in the component.
        built: String,
        /// What this gateway supports.
        supported: &'static str,
    },
    /// An import that no grant can allow.
    #[error("imports {0}, which no policy can be granted: remove the dependency that needs it")]
    Import(String),
    /// An import that was not granted.
    #[error(
        "imports the capability `{0}`, which is not granted: add grants = [\"{0}\"] to the policy if you trust the plugin with it"
    )]
    NotGranted(String),
    /// `geoip` without a database.
    #[error("uses the capability `geoip`, but no country database is configured: add [geoip] database = \"country.mmdb\"")]
    NoCountryDatabase,
    /// `describe` is not what the contract says.
    #[error("its description is not valid: {0}")]
    Describe(String),
    /// The configuration does not fit the plugin's schema.
    #[error("config{place}: {message}")]
    Schema {
        /// JSON pointer into the configuration, or empty.
        place: String,
        /// What is wrong.
        message: String,
    },
    /// `configure` refused the configuration.
    #[error("config: {0}")]
    Configure(String),
    /// A call at load time failed.
    #[error("{phase} failed: {error}")]
    Call {
        /// `describe`, `configure`, `instantiate` or `self-test`.
        phase: &'static str,
        /// How.
        error: CallError,
    },
    /// A policy names a plugin that is not in the directory.
    #[error("there is no {0}.wasm in the plugin directory")]
    Missing(String),
    /// A limit that the host cannot give.
    #[error("limits.{key}: {message}")]
    Limit {
        /// The key.
        key: &'static str,
        /// What is possible.
        message: String,
    },
}

/// Why a call of a policy gave no verdict.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CallError {
    /// The guest trapped: a panic, an out-of-bounds access, a stack overflow.
    #[error("trapped: {0}")]
    Trap(String),
    /// It used more CPU time than allowed.
    #[error("used more than its {0} ms of CPU time")]
    Cpu(u64),
    /// It took more wall time than allowed.
    #[error("took more than its {0} ms")]
    Wall(u64),
    /// It took more wall time than allowed, and waited for an upstream when that was over: another build would have, too.
    #[error("took more than its {0} ms, waiting for an upstream")]
    Waited(u64),
    /// No instance could be had.
    #[error("no instance available: {0}")]
    Exhausted(String),
    /// It is not called for now: it failed too often.
    #[error("quarantined: it failed too often")]
    Quarantined,
    /// It answered something the contract does not allow.
    #[error("broke the contract: {0}")]
    Contract(&'static str),
}

impl CallError {
    /// The `reason` of the decision log.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Trap(_) => "policy_trapped",
            Self::Cpu(_) => "policy_cpu_exceeded",
            Self::Wall(_) | Self::Waited(_) => "policy_timed_out",
            Self::Exhausted(_) => "policy_exhausted",
            Self::Quarantined => "policy_quarantined",
            Self::Contract(_) => "policy_broke_contract",
        }
    }
}
