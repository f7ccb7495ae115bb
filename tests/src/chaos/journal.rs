//! What an upstream executed, kept where its end does not reach.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// A file with a line for every step of a request that must not be executed twice. What was written before a `kill -9` stays.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
}

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The head of the request was read.
    Seen,
    /// The whole request was read: whatever it asks for is done now.
    Executed,
}

impl Journal {
    /// Goes on in a file, or begins it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Adds a line, whole even when others write too.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn add(&self, entry: Entry, id: &str) -> io::Result<()> {
        let letter = match entry {
            Entry::Seen => 's',
            Entry::Executed => 'x',
        };
        (&self.file).write_all(format!("{letter} {id}\n").as_bytes())
    }

    /// Everything so far.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn text(&self) -> io::Result<String> {
        std::fs::read_to_string(&self.path)
    }
}

/// What several upstreams executed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Executed {
    seen: HashMap<String, u32>,
    executed: HashMap<String, u32>,
}

impl Executed {
    /// Executions beyond the first of each request.
    #[must_use]
    pub fn duplicates(&self) -> u64 {
        self.executed.values().map(|count| u64::from(count.saturating_sub(1))).sum()
    }

    /// Whether an upstream saw the head of this request.
    #[must_use]
    pub fn has_seen(&self, id: &str) -> bool {
        self.seen.contains_key(id)
    }

    /// How often it was executed.
    #[must_use]
    pub fn count(&self, id: &str) -> u32 {
        self.executed.get(id).copied().unwrap_or(0)
    }
}

/// Adds the journals of several upstreams up. A line that the end of a process cut off counts as far as it goes, so not at all.
#[must_use]
pub fn executed(journals: &[String]) -> Executed {
    let mut all = Executed::default();
    for line in journals.iter().flat_map(|text| text.split_inclusive('\n')) {
        let Some(line) = line.strip_suffix('\n') else { continue };
        match line.split_once(' ') {
            Some(("s", id)) => *all.seen.entry(id.to_owned()).or_default() += 1,
            Some(("x", id)) => *all.executed.entry(id.to_owned()).or_default() += 1,
            _ => {}
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_upstreams_executed_is_a_duplicate() {
        let all = executed(&["s 1\nx 1\ns 2\nx 2\ns 3\n".to_owned(), "s 1\nx 1\nx 1\ns 4\nx ".to_owned()]);
        assert_eq!(all.duplicates(), 2);
        assert_eq!((all.count("1"), all.count("2"), all.count("3"), all.count("4")), (3, 1, 0, 0));
        assert!(all.has_seen("3") && all.has_seen("4") && !all.has_seen("5"));
    }

    #[test]
    fn a_journal_goes_on_after_its_writer() {
        let scratch = crate::Scratch::new();
        let path = scratch.path().join("journal");
        Journal::open(&path).unwrap().add(Entry::Seen, "7").unwrap();
        let again = Journal::open(&path).unwrap();
        again.add(Entry::Executed, "7").unwrap();
        assert_eq!(again.text().unwrap(), "s 7\nx 7\n");
    }
}
