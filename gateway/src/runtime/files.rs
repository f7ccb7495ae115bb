//! Notices changes to files by looking at them: renames, edits in place, flipped links and file systems without events alike.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Files and what they looked like.
#[derive(Debug, Default)]
pub struct Watched {
    seen: HashMap<PathBuf, Option<Stamp>>,
    /// Something changed at the last look; it counts once it has been quiet for one look.
    pending: bool,
}

type Stamp = (u64, u64, Option<SystemTime>);

impl Watched {
    /// Watches these paths from their present state on.
    #[must_use]
    pub fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        Self { seen: paths.into_iter().map(|path| (path.clone(), stamp(&path))).collect(), pending: false }
    }

    /// Looks. Answers whether something changed and has been quiet since the look before.
    pub fn look(&mut self) -> bool {
        let mut changed = false;
        for (path, seen) in &mut self.seen {
            let now = stamp(path);
            if now != *seen {
                *seen = now;
                changed = true;
            }
        }
        let settled = self.pending && !changed;
        self.pending = changed;
        settled
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.ino(), metadata.len(), metadata.modified().ok()))
}
