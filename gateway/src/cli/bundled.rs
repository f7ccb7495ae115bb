//! The policies that come with the binary. Nothing is loaded from here: only from a plugin directory.

use std::fs;
use std::io::{Error, Write};
use std::path::{Path, PathBuf};

/// Name without `.wasm`, and the component.
pub const POLICIES: [(&str, &[u8]); 4] = [
    ("geoip", include_bytes!(concat!(env!("OUT_DIR"), "/geoip.wasm"))),
    ("ips", include_bytes!(concat!(env!("OUT_DIR"), "/ips.wasm"))),
    ("agent-acl", include_bytes!(concat!(env!("OUT_DIR"), "/agent-acl.wasm"))),
    ("sso-cors", include_bytes!(concat!(env!("OUT_DIR"), "/sso-cors.wasm"))),
];

/// Writes them into a directory, each whole or not at all, so that a gateway may be watching. Answers the paths.
///
/// # Errors
/// The directory cannot be made or written.
pub fn unpack(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    fs::create_dir_all(directory)?;
    let mut written = Vec::with_capacity(POLICIES.len());
    for (name, bytes) in POLICIES {
        let path = directory.join(format!("{name}.wasm"));
        let temporary = directory.join(format!(".{name}.wasm.tmp"));
        let mut file = fs::File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        written.push(path);
    }
    Ok(written)
}
