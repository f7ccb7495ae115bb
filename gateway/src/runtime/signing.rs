//! What a plugin's file must have to be taken: a signature by one of the keys that the configuration asks for, and no age.

use weir_plugins::Plugin;
use weir_plugins::signature::{Key, Release, Signed, verify};

use super::plugins::record::Proof;

/// What is asked of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Any of these; none when nothing is asked.
    pub keys: Vec<Key>,
    /// What lies beside the file.
    pub signature: Option<String>,
    /// What runs, which the file must not be older than.
    pub running: Vec<Release>,
}

impl Asked {
    /// Before anything in the file is looked at: was it signed?
    ///
    /// # Errors
    /// Why it is not taken, and the remedy.
    pub fn verify(&self, name: &str, bytes: &[u8]) -> Result<Signed, String> {
        if self.keys.is_empty() {
            return Ok(Signed::default());
        }
        verify(name, bytes, self.signature.as_deref(), &self.keys).map_err(|error| error.to_string())
    }

    /// When it has said what it is: may it take the place of what runs? Answers what is remembered of its signature.
    ///
    /// # Errors
    /// Why it is not taken, and the remedy.
    pub fn admit(&self, plugin: &Plugin, signed: Signed) -> Result<Option<Proof>, String> {
        if self.keys.is_empty() {
            return Ok(None);
        }
        let name = plugin.own_name().to_owned();
        let release = Release { name: name.clone(), version: plugin.version().to_owned(), signed: signed.at };
        self.running.iter().try_for_each(|running| release.replaces(running)).map_err(|error| error.to_string())?;
        let key = signed.key.map(|key| key.to_string());
        Ok(self.signature.clone().map(|signature| Proof { name, signature, key, at: signed.at }))
    }
}
