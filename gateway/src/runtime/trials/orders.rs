//! Promotion and abandonment. Both leave the plugin directory as what runs: a file that says something else would come back with the
//! next start.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use thiserror::Error;
use weir_plugins::directory;

use crate::config::Config;
use crate::runtime::builder::Builder;
use crate::runtime::plugins::Outcome;
use crate::runtime::plugins::judge::{Job, Judged};

/// What the operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The candidate becomes the plugin.
    Promote,
    /// The candidate is given up.
    Abandon,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// The plugin.
    pub plugin: String,
    /// Its candidate's file, without `.wasm`.
    pub candidate: String,
    /// Digest of the candidate.
    pub digest: Arc<str>,
    /// The version it gives itself.
    pub version: String,
    /// What the operator should know beside.
    pub note: Option<String>,
}

impl Promotion {
    /// The refusal of another one meanwhile.
    #[must_use]
    pub fn busy(&self) -> Refusal {
        Refusal::Busy(self.candidate.clone())
    }
}

impl Done {
    /// For the admin API.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "plugin": self.plugin, "candidate": self.candidate, "digest": &*self.digest, "version": self.version, "note": self.note,
        })
    }
}

/// Why an order was not carried out. Nothing changed then.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    /// No policy with a candidate has or uses this name.
    #[error(
        "no policy or plugin {0:?} has a candidate: add candidate = {{ plugin = \"NAME@new\", mode = \"shadow\" }} to its policy"
    )]
    Unknown(String),
    /// Several candidates.
    #[error("{0:?} has several candidates: name one of {1}")]
    Ambiguous(String, String),
    /// There is nothing to promote or to abandon.
    #[error("{file}.wasm is not there, or not live{reason}: nothing to do")]
    NotLive {
        /// The file, without `.wasm`.
        file: String,
        /// Why it is not live, when that is known.
        reason: String,
    },
    /// The file is not what was tried.
    #[error(
        "{0}.wasm is not the file that is on trial: it has changed and has not been taken yet; look at `weir plugins` and try again"
    )]
    Changed(String),
    /// A policy cannot use it.
    #[error("{0}")]
    Unfit(String),
    /// One promotion after the other.
    #[error("{0} is being promoted: try again when that is done")]
    Busy(String),
    /// The directory cannot be changed, and it has to say what runs.
    #[error("cannot rename {from} to {to}: {reason}; do it where the directory is made: what lies there has to be what runs")]
    Directory {
        /// The candidate's file.
        from: String,
        /// The plugin's file.
        to: String,
        /// What the system said.
        reason: String,
    },
}

/// A promotion under way: the candidate is being proven for every policy that uses the plugin.
#[derive(Debug)]
pub struct Promotion {
    plugin: String,
    candidate: String,
    /// Of the candidate when it began.
    digest: Arc<str>,
}

impl Builder {
    /// Begins a promotion, which goes on when the file is judged.
    ///
    /// # Errors
    /// Why not; then everything is as it was.
    pub fn promote(&self, name: &str, config: &Config) -> Result<(Promotion, Job), Refusal> {
        let (plugin, candidate) = resolve(name, config)?;
        let digest = self.on_trial(&plugin, &candidate)?.digest;
        let bytes = directory::read(&config.server.plugins, &candidate).map_err(|_| Refusal::Changed(candidate.clone()))?;
        if weir_plugins::digest(&bytes) != *digest {
            return Err(Refusal::Changed(candidate));
        }
        let job = self.plugins.job(&plugin, &candidate, bytes, config);
        Ok((Promotion { plugin, candidate, digest }, job))
    }

    /// Renames the file of a candidate that was judged well over the plugin's, and makes it the plugin. A snapshot has to be published
    /// afterwards.
    ///
    /// # Errors
    /// Why not; then everything is as it was.
    pub fn promoted(&mut self, promotion: &Promotion, judged: Judged, config: &Config) -> Result<Done, Refusal> {
        let Promotion { plugin, candidate, digest } = promotion;
        self.plugins.fit(&judged).map_err(Refusal::Unfit)?;
        let mut done = self.on_trial(plugin, candidate)?;
        if done.digest != *digest {
            return Err(Refusal::Changed(candidate.clone()));
        }
        let plugins = &config.server.plugins;
        let from = file(plugins, candidate);
        let to = file(plugins, plugin);
        rename(&from, &to)?;
        if let Err(error) = move_signature(plugins, candidate, plugin) {
            // Without its signature it would be refused by the next start.
            drop(rename(&to, &from));
            return Err(error);
        }
        if !matches!(self.plugins.finish(judged, config), Outcome::Live) {
            let reason = self.plugins.refusal(plugin).unwrap_or_else(|| "it was refused".to_owned());
            return Err(Refusal::Unfit(reason));
        }
        self.plugins.removed(candidate, config);
        let configured = config.policies.values().filter_map(|policy| policy.candidate.as_ref());
        if configured.filter(|tried| tried.plugin == *candidate).any(|tried| tried.config.is_some()) {
            done.note = Some("the candidate was tried with settings of its own; now the policy's own `config` counts".to_owned());
        }
        tracing::info!(plugin, candidate, version = done.version, digest = &*done.digest, "the candidate is the plugin now");
        Ok(done)
    }

    /// Puts the candidate's file aside. It stops whether or not that works. A snapshot has to be published afterwards.
    ///
    /// # Errors
    /// Why not; then everything is as it was.
    pub fn abandon(&mut self, name: &str, config: &Config) -> Result<Done, Refusal> {
        let (plugin, candidate) = resolve(name, config)?;
        let (plugin, candidate) = (&*plugin, &*candidate);
        let mut done = self.on_trial(plugin, candidate)?;
        let from = file(&config.server.plugins, candidate);
        match rename(&from, &from.with_extension("wasm.abandoned")) {
            Ok(()) => {
                let signature = directory::signature_path(&config.server.plugins, candidate);
                // Nothing looks at it any more; it only belongs to the file that was put aside.
                drop(std::fs::rename(&signature, signature.with_extension("minisig.abandoned")));
                self.plugins.removed(candidate, config);
            }
            Err(error) => {
                done.note = Some(format!("it is tried again after a restart, for its file is still there: {error}"));
                self.trials.abandon(candidate, &done.digest);
            }
        }
        tracing::info!(plugin, candidate, digest = &*done.digest, "the candidate is given up");
        Ok(done)
    }

    fn on_trial(&self, plugin: &str, candidate: &str) -> Result<Done, Refusal> {
        let live = self.plugins.live(candidate).ok_or_else(|| Refusal::NotLive {
            file: candidate.to_owned(),
            reason: self.plugins.refusal(candidate).map_or_else(String::new, |reason| format!(" ({reason})")),
        })?;
        Ok(Done {
            plugin: plugin.to_owned(),
            candidate: candidate.to_owned(),
            digest: Arc::clone(&live.digest),
            version: live.version().to_owned(),
            note: None,
        })
    }
}

/// The plugin and the candidate that `name` means: a plugin's, a candidate's or a policy's name.
fn resolve(name: &str, config: &Config) -> Result<(String, String), Refusal> {
    let tried = config.policies.values().filter_map(|policy| Some((policy, policy.candidate.as_ref()?)));
    let mut found: Vec<(String, String)> = tried
        .filter(|(policy, candidate)| [&*policy.name, &policy.plugin, &candidate.plugin].contains(&name))
        .map(|(policy, candidate)| (policy.plugin.clone(), candidate.plugin.clone()))
        .collect();
    found.sort();
    found.dedup();
    match found.pop() {
        None => Err(Refusal::Unknown(name.to_owned())),
        Some(only) if found.is_empty() => Ok(only),
        Some(last) => {
            let names: Vec<String> = found.into_iter().chain([last]).map(|(_, candidate)| candidate).collect();
            Err(Refusal::Ambiguous(name.to_owned(), names.join(", ")))
        }
    }
}

fn file(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.wasm"))
}

/// A plugin's signature goes where the plugin goes. One that is left over from what was there before would fit nothing.
fn move_signature(plugins: &Path, from: &str, to: &str) -> Result<(), Refusal> {
    let (from, to) = (directory::signature_path(plugins, from), directory::signature_path(plugins, to));
    if from.exists() {
        return rename(&from, &to);
    }
    drop(std::fs::remove_file(to));
    Ok(())
}

fn rename(from: &Path, to: &Path) -> Result<(), Refusal> {
    let failed = |error: io::Error| Refusal::Directory {
        from: from.display().to_string(),
        to: to.display().to_string(),
        reason: error.to_string(),
    };
    std::fs::rename(from, to).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn a_name_is_a_plugins_a_candidates_or_a_policys() {
        let policy = |name: &str, plugin: &str, version: &str| {
            let candidate = format!("candidate = {{ plugin = \"{plugin}@{version}\", mode = \"shadow\" }}");
            format!("[policy.{name}]\nplugin = \"{plugin}\"\n{candidate}\n")
        };
        let text = format!(
            "[[listener]]\naddress = \"127.0.0.1:0\"\n{}{}{}[policy.plain]\nplugin = \"plain\"\n",
            policy("guard", "ips", "new"),
            policy("strict", "acl", "a"),
            policy("loose", "acl", "b"),
        );
        let config = config::parse(&text, Path::new("weir.toml")).unwrap();
        let pair = |plugin: &str, candidate: &str| Ok((plugin.to_owned(), candidate.to_owned()));
        for name in ["guard", "ips", "ips@new"] {
            assert_eq!(resolve(name, &config), pair("ips", "ips@new"), "{name}");
        }
        for (name, candidate) in [("strict", "acl@a"), ("acl@b", "acl@b")] {
            assert_eq!(resolve(name, &config), pair("acl", candidate), "{name}");
        }
        assert_eq!(resolve("acl", &config), Err(Refusal::Ambiguous("acl".to_owned(), "acl@a, acl@b".to_owned())));
        for name in ["plain", "nobody"] {
            assert_eq!(resolve(name, &config), Err(Refusal::Unknown(name.to_owned())), "{name}");
        }
    }
}
