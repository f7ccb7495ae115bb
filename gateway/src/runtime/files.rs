//! Notices changes to files by looking at them: renames, edits in place, flipped links and file systems without events alike.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Files that one look takes in while nothing changes. A look costs a microsecond or two a file and comes four times a second: ten
/// thousand sites with a file each would keep a core busy for a twentieth of its time, and are seen within three seconds like this.
const PORTION: usize = 1000;

/// Files and what they looked like.
#[derive(Debug, Default)]
pub struct Watched {
    seen: Vec<(PathBuf, Option<Stamp>)>,
    /// The file that comes first in the next look.
    next: usize,
    /// Something changed at the last look; it counts once all files have been quiet for one look.
    pending: bool,
}

type Stamp = (u64, u64, Option<SystemTime>);

impl Watched {
    /// Watches these paths from their present state on.
    #[must_use]
    pub fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let paths: BTreeSet<PathBuf> = paths.into_iter().collect();
        let seen = paths
            .into_iter()
            .map(|path| {
                let stamp = stamp(&path);
                (path, stamp)
            })
            .collect();
        Self { seen, next: 0, pending: false }
    }

    /// Looks: at all files after a change, else at some of them in turn. Answers whether something changed and has been quiet since the
    /// look before.
    pub fn look(&mut self) -> bool {
        let all = self.seen.len();
        let count = if self.pending { all } else { all.min(PORTION) };
        let (before, from_next) = self.seen.split_at_mut(self.next.min(all));
        let mut changed = false;
        for (path, seen) in from_next.iter_mut().chain(before).take(count) {
            let now = stamp(path);
            if now != *seen {
                *seen = now;
                changed = true;
            }
        }
        self.next = (self.next + count).checked_rem(all).unwrap_or(0);
        let settled = self.pending && !changed;
        self.pending = changed;
        settled
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.ino(), metadata.len(), metadata.modified().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks until a change has settled; answers how many looks that took.
    fn looks(watched: &mut Watched) -> Option<usize> {
        (1..=20).find(|_| watched.look())
    }

    #[test]
    fn a_change_anywhere_is_seen_in_a_few_looks_and_settles_in_one_more() {
        let directory = std::env::temp_dir().join(format!("weir-files-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = |number: usize| directory.join(format!("{number}.toml"));
        let count = PORTION * 2 + 500;
        (0..count).for_each(|number| std::fs::write(path(number), "a").unwrap());
        let mut watched = Watched::new((0..count).map(path));
        assert_eq!(looks(&mut watched), None, "nothing changed");
        for number in [0, 1, PORTION, count - 1] {
            std::fs::write(path(number), "longer").unwrap();
            std::fs::write(path(count / 2), format!("together with {number}")).unwrap();
            let took = looks(&mut watched);
            assert!(took.is_some_and(|took| (2..=5).contains(&took)), "file {number}: {took:?}");
            std::fs::write(path(number), "a").unwrap();
            assert!(looks(&mut watched).is_some(), "file {number} changes again");
            assert_eq!(looks(&mut watched), None, "file {number} is quiet");
        }
        std::fs::remove_file(path(7)).unwrap();
        assert!(looks(&mut watched).is_some(), "a file that is gone");
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn nothing_to_watch_never_changes() {
        assert_eq!(looks(&mut Watched::default()), None);
    }
}
