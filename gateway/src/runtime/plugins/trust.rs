//! Signatures: what is asked of a file, and whether what runs has what a new configuration asks for.

use weir_plugins::{Plugin, directory};

use super::Plugins;
use super::record::{Mark, Proof};
use crate::config::{self, Config};
use crate::runtime::signing::Asked;

impl Plugins {
    /// What is asked of a file that shall be the plugin `name`; its signature lies beside `file`. A candidate must not be older than its
    /// plugin either.
    #[must_use]
    pub fn asked(&self, name: &str, file: &str, config: &Config) -> Asked {
        let keys = config.keys(name).to_vec();
        if keys.is_empty() {
            return Asked::default();
        }
        let release = |name: &str| Some(self.slots.get(name)?.record.live.as_ref()?.release());
        let stable = config::plugin_of(name);
        let running = release(stable).into_iter().chain(release(name).filter(|_| name != stable)).collect();
        Asked { keys, signature: directory::signature(&config.server.plugins, file), running }
    }

    /// The kept bytes of a build, if they have the signature that is asked for.
    pub(super) fn copy(&self, name: &str, mark: &Mark, config: &Config) -> Result<Vec<u8>, String> {
        let bytes = self.store.read(&mark.digest)?;
        let signature = mark.proof.as_ref().map(|proof| proof.signature.clone());
        let asked = Asked { keys: config.keys(name).to_vec(), signature, running: Vec::new() };
        asked.verify(name, &bytes)?;
        Ok(bytes)
    }

    /// Whether what is live under a name has the signature that this configuration asks for.
    ///
    /// # Errors
    /// Why not, and the remedy.
    pub fn trust(&self, name: &str, config: &Config) -> Result<(), String> {
        self.proof(name, config).map(drop)
    }

    /// The proof of what is live, by keys that were not asked for when it was taken; none when there is nothing new to prove.
    fn proof(&self, name: &str, config: &Config) -> Result<Option<Proof>, String> {
        let keys = config.keys(name);
        let Some((slot, live)) = self.slots.get(name).and_then(|slot| Some((slot, slot.live.as_ref()?))) else { return Ok(None) };
        if keys.is_empty() || slot.keys == keys {
            return Ok(None);
        }
        let bytes = self.bytes(name, live, config)?;
        let known = slot.record.live.as_ref().and_then(|mark| mark.proof.clone()).map(|proof| proof.signature);
        let mut asked = Asked { running: Vec::new(), ..self.asked(name, name, config) };
        let verified = match asked.verify(name, &bytes) {
            Err(_) if known.is_some() => {
                asked.signature = known;
                asked.verify(name, &bytes)
            }
            first => first,
        };
        asked.admit(live, verified?)
    }

    /// The bytes of what is live: its private copy, or the file while that is what runs.
    fn bytes(&self, name: &str, live: &Plugin, config: &Config) -> Result<Vec<u8>, String> {
        if let Ok(bytes) = self.store.read(&live.digest) {
            return Ok(bytes);
        }
        let bytes = directory::read(&config.server.plugins, name).map_err(|error| error.to_string())?;
        if weir_plugins::digest(&bytes) == *live.digest {
            return Ok(bytes);
        }
        Err("the file is not the build that runs, whose signature cannot be looked at then: put that back first".to_owned())
    }

    /// Notes by which keys everything that is live is trusted now.
    pub(super) fn trusted(&mut self, config: &Config) {
        let names: Vec<String> = self.slots.keys().cloned().collect();
        for name in names {
            let Ok(proof) = self.proof(&name, config) else { continue };
            let Some(slot) = self.slots.get_mut(&name) else { continue };
            slot.keys = config.keys(&name).to_vec();
            if let (Some(proof), Some(mark)) = (proof, slot.record.live.as_mut()) {
                mark.proof = Some(proof);
            }
        }
    }
}
