//! Judging a file: compiled, described, and configured for every policy that uses it. It takes seconds and touches nothing that runs.

use std::sync::Arc;

use weir_plugins::{Generation, Host, LoadError, Plugin, PolicySpec};

use super::record::{Again, Proof};
use super::spec::{spec, users};
use super::store::Store;
use crate::config::Config;
use crate::runtime::beside::beside;
use crate::runtime::signing::Asked;

/// A file to be judged, with all that this needs.
#[derive(Clone, Debug)]
pub struct Job {
    /// The file's name without `.wasm`.
    pub name: String,
    /// What it holds.
    pub bytes: Vec<u8>,
    /// SHA-256 of that in hex.
    pub digest: String,
    /// The same plugin, when it is compiled already.
    pub(super) loaded: Option<Arc<Plugin>>,
    pub(super) specs: Vec<PolicySpec>,
    pub(super) countries: bool,
    /// Where a private copy goes: waiting for the disk is not for whoever waits for the result.
    pub(super) copies: Option<Store>,
    /// Its signature, and by whom it must be.
    pub(super) asked: Asked,
}

/// A file that was judged.
#[derive(Debug)]
pub struct Judged {
    pub(super) job: Job,
    pub(super) result: Result<Ready, Refusal>,
}

impl Judged {
    /// The file's name without `.wasm`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.job.name
    }
}

/// A plugin, and a generation for every policy that uses it.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) plugin: Arc<Plugin>,
    pub(super) generations: Vec<Arc<Generation>>,
    pub(super) proof: Option<Proof>,
}

/// Why not.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) reason: String,
    pub(super) again: Again,
}

impl Refusal {
    fn later(reason: &str) -> Self {
        Self { reason: reason.to_owned(), again: Again::Later }
    }
}

impl Job {
    pub(super) fn new(name: &str, bytes: Vec<u8>, digest: String, asked: Asked, config: Option<&Config>) -> Self {
        let mut job =
            Self { name: name.to_owned(), bytes, digest, loaded: None, specs: Vec::new(), countries: false, copies: None, asked };
        job.aim(config);
        job
    }

    /// Which policies of this configuration it must satisfy.
    pub(super) fn aim(&mut self, config: Option<&Config>) {
        self.specs = config.into_iter().flat_map(|config| users(config, &self.name)).map(spec).collect();
        self.countries = config.is_some_and(|config| config.geoip.is_some());
    }

    /// Judges it, on a thread of its own: compiling and configuring hold up whoever waits for them.
    pub async fn judge(self, host: Arc<Host>) -> Judged {
        let own = self.clone();
        let result = match beside("weir-judge", async move || own.ready(&host).await) {
            Ok(judged) => judged.await.unwrap_or_else(|_| Err(Refusal::later("it could not be judged"))),
            Err(error) => Err(Refusal::later(&format!("cannot start a thread: {error}"))),
        };
        Judged { job: self, result }
    }

    async fn ready(&self, host: &Host) -> Result<Ready, Refusal> {
        let unsigned = |reason| Refusal { reason, again: Again::SignatureChanges };
        let signed = self.asked.verify(&self.name, &self.bytes).map_err(unsigned)?;
        let plugin = match &self.loaded {
            Some(plugin) => Arc::clone(plugin),
            None => host.load(&self.name, &self.bytes).await.map_err(|error| Refusal {
                again: if matches!(error, LoadError::Read { .. }) { Again::Later } else { Again::FileChanges },
                reason: error.to_string(),
            })?,
        };
        let proof = self.asked.admit(&plugin, signed).map_err(unsigned)?;
        let generations = prepare(host, &self.specs, &plugin, self.countries).await;
        let generations = generations.map_err(|reason| Refusal { reason, again: Again::ConfigChanges })?;
        if let Some(copies) = self.copies.as_ref().filter(|_| !self.specs.is_empty()) {
            let kept = copies.keep(&self.digest, &self.bytes);
            kept.map_err(|error| Refusal { reason: super::no_copy(&error), again: Again::Later })?;
        }
        Ok(Ready { plugin, generations, proof })
    }
}

/// A generation for each of these policies, or why the first one that cannot have it cannot.
pub(super) async fn prepare(
    host: &Host,
    specs: &[PolicySpec],
    plugin: &Arc<Plugin>,
    countries: bool,
) -> Result<Vec<Arc<Generation>>, String> {
    let mut generations = Vec::with_capacity(specs.len());
    for spec in specs {
        let prepared = host.prepare(spec, plugin, countries).await;
        generations.push(prepared.map_err(|error| format!("policy {}: {error}", spec.name))?);
    }
    Ok(generations)
}
