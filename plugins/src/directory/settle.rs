//! When a file that is being written is whole. Data and a time in, a decision out.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

/// No change for so long means that whoever writes has finished, or pauses.
pub(super) const QUIET: Duration = Duration::from_millis(150);

/// What tells two states of a file apart without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Size in bytes.
    pub length: u64,
    /// Last modification.
    pub modified: Option<SystemTime>,
    /// Last change of anything about it, permissions included: seconds and nanoseconds.
    pub changed: (i64, i64),
    /// Device and inode, so that a rename over the file counts as a change.
    pub inode: (u64, u64),
    /// The signature beside it, which may come before the file or after it: length, inode, last change.
    pub signature: Option<(u64, u64, (i64, i64))>,
}

/// Files by name, each on its way to being whole.
#[derive(Debug, Default)]
pub struct Settler {
    files: HashMap<String, File>,
}

#[derive(Debug)]
struct File {
    stamp: Stamp,
    since: Instant,
    /// The stamp that was last handed out; nothing is handed out twice.
    taken: Option<Stamp>,
}

impl Settler {
    /// Files that were taken before the watch began: if they are gone by then, that is news.
    pub fn seed(&mut self, names: impl IntoIterator<Item = String>, now: Instant) {
        let unknown = Stamp { length: 0, modified: None, changed: (0, 0), inode: (0, 0), signature: None };
        for name in names {
            self.files.insert(name, File { stamp: unknown, since: now, taken: Some(unknown) });
        }
    }

    /// Notes what the directory holds now. Answers the names that are gone.
    pub fn observe(&mut self, listing: &HashMap<String, Stamp>, now: Instant) -> Vec<String> {
        for (name, stamp) in listing {
            match self.files.get_mut(name) {
                Some(file) if file.stamp == *stamp => {}
                Some(file) => {
                    file.stamp = *stamp;
                    file.since = now;
                }
                None => {
                    self.files.insert(name.clone(), File { stamp: *stamp, since: now, taken: None });
                }
            }
        }
        let gone: Vec<String> = self.files.keys().filter(|name| !listing.contains_key(*name)).cloned().collect();
        for name in &gone {
            self.files.remove(name);
        }
        gone
    }

    /// The names that have been quiet long enough and were not taken in this state.
    pub fn settled(&self, now: Instant) -> Vec<String> {
        let ready = |file: &File| file.taken != Some(file.stamp) && now.duration_since(file.since) >= QUIET;
        self.files.iter().filter(|(_, file)| ready(file)).map(|(name, _)| name.clone()).collect()
    }

    /// Whether any file is still on its way.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.files.values().any(|file| file.taken != Some(file.stamp))
    }

    /// The file was read in this state and is whole: do not hand it out again until it changes.
    pub fn take(&mut self, name: &str, stamp: Stamp) {
        if let Some(file) = self.files.get_mut(name) {
            file.taken = Some(stamp);
        }
    }

    /// The file is handed out again although it has not changed.
    pub fn forget(&mut self, name: &str) {
        if let Some(file) = self.files.get_mut(name) {
            file.taken = None;
        }
    }

    /// The file was read and is not whole yet: wait for another quiet period.
    pub fn wait(&mut self, name: &str, now: Instant) {
        if let Some(file) = self.files.get_mut(name) {
            file.since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(length: u64) -> HashMap<String, Stamp> {
        HashMap::from([("a".to_owned(), Stamp { length, modified: None, changed: (0, 0), inode: (1, 1), signature: None })])
    }

    #[test]
    fn a_slow_copy_settles_once_and_a_replaced_file_again() {
        let mut settler = Settler::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        for (step, length) in (0..10).map(|step| (step * 100, step)) {
            settler.observe(&listing(length), at(step));
            assert!(settler.settled(at(step)).is_empty(), "still growing");
        }
        assert!(settler.settled(at(1000)).is_empty());
        assert_eq!(settler.settled(at(1050)), ["a"]);
        settler.take("a", listing(9)["a"]);
        assert!(settler.settled(at(9000)).is_empty() && !settler.is_waiting());
        settler.observe(&listing(10), at(9000));
        assert!(settler.is_waiting());
        assert_eq!(settler.settled(at(9150)), ["a"]);
        assert_eq!(settler.observe(&HashMap::new(), at(9200)), ["a"]);
        settler.observe(&listing(10), at(9200));
        settler.take("a", listing(10)["a"]);
        assert!(settler.settled(at(9500)).is_empty());
        settler.forget("a");
        assert_eq!(settler.settled(at(9500)), ["a"], "asked for again");
        assert_eq!(settler.observe(&HashMap::new(), at(9500)), ["a"]);
        settler.seed(["b".to_owned()], at(9200));
        assert!(!settler.is_waiting());
        assert_eq!(settler.observe(&HashMap::new(), at(9300)), ["b"], "gone before the first look");
    }
}
