//! A private directory that ends with the command.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// Removed when dropped.
#[derive(Debug)]
pub(super) struct Temporary(PathBuf);

impl Temporary {
    /// Makes it among the system's temporary files.
    ///
    /// # Errors
    /// It cannot be made.
    pub(super) fn new() -> Result<Self, String> {
        let root = std::env::temp_dir();
        for attempt in 0..100 {
            let path = root.join(format!("weir-plugin-{}-{attempt}", std::process::id()));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(format!("cannot create {}: {error}", path.display())),
            }
        }
        Err(format!("cannot create a directory in {}: remove weir-plugin-* there", root.display()))
    }

    /// Its path.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Nobody is left to tell, and the system clears its temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
