//! `[plugin.NAME]`: what is asked of one plugin's file.

use std::sync::Arc;

use toml::de::DeValue;
use weir_plugins::signature::Key;

use super::error::Invalid;
use super::reader::Reader;
use super::values;

/// What is asked of a plugin's file, and of those of its candidates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plugin {
    /// Public keys, one of which must have signed it; none when it need not be signed. Default: those of `[server]`.
    pub require_signature: Vec<Key>,
}

/// One `[plugin.NAME]`; none when it says nothing, and then the defaults are what counts.
pub(super) fn plugin(_: Arc<str>, mut reader: Reader<'_, '_>) -> Option<Plugin> {
    let says = reader.length("require_signature").is_some();
    let require_signature = keys(&mut reader);
    reader.finish();
    says.then_some(Plugin { require_signature })
}

/// `require_signature`.
pub(super) fn keys(reader: &mut Reader<'_, '_>) -> Vec<Key> {
    reader.list("require_signature", key).into_iter().map(|key| key.value).collect()
}

fn key(value: &DeValue<'_>) -> Result<Key, Invalid> {
    let text = values::string(value)?;
    Key::parse(text).map_err(|error| Invalid::new(format!("{error} ({})", values::shown(value))))
}
