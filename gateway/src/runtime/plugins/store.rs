//! The private side of the plugin directory, `state/plugins`: the bytes of what is live and of what was before it, and what is remembered
//! of every file. Nothing that lies there is trusted further than its digest goes.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use weir_plugins::MAX_PLUGIN_BYTES;

use super::record::Record;

/// Records that are kept; a directory holds far fewer plugins that policies use.
const MAX_RECORDS: usize = 1_000;
/// A larger file is not ours.
const MAX_LEDGER: u64 = 4 * 1024 * 1024;

/// Where it is.
#[derive(Clone, Debug, Default)]
pub(super) struct Store {
    directory: PathBuf,
    /// What was written last.
    saved: String,
}

#[derive(Default, Serialize, Deserialize)]
struct Ledger {
    plugins: BTreeMap<String, Record>,
}

impl Store {
    /// The store in a state directory; nothing is made yet.
    #[must_use]
    pub(super) fn new(state: &Path) -> Self {
        Self { directory: state.join("plugins"), saved: String::new() }
    }

    /// The same place, for whoever keeps bytes only.
    #[must_use]
    pub(super) fn copies(&self) -> Self {
        Self { directory: self.directory.clone(), saved: String::new() }
    }

    /// What is remembered. A ledger that cannot be read is said and counts as empty.
    pub(super) fn records(&mut self) -> BTreeMap<String, Record> {
        let path = self.directory.join("ledger.json");
        let text = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return BTreeMap::new(),
            Ok(metadata) if metadata.len() > MAX_LEDGER => Err(io::ErrorKind::FileTooLarge.into()),
            _ => fs::read_to_string(&path),
        };
        let ledger = text.map_err(|error| error.to_string()).and_then(|text| {
            let ledger = serde_json::from_str::<Ledger>(&text).map_err(|error| error.to_string());
            self.saved = text;
            ledger
        });
        match ledger {
            Ok(ledger) => ledger.plugins,
            Err(error) => {
                tracing::warn!(path = %path.display(), "what was remembered of plugins cannot be read and is forgotten: {error}");
                BTreeMap::new()
            }
        }
    }

    /// Keeps the bytes of a plugin. A copy that is not what it was is said and written again.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn keep(&self, digest: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.copy(digest);
        let is_there = path.is_file();
        if is_there && self.read(digest).is_ok() {
            return Ok(());
        }
        self.write(&path, bytes)?;
        if is_there {
            tracing::warn!(path = %path.display(), "a private copy was damaged, and is written again: look at the disk");
        }
        Ok(())
    }

    /// Whether the bytes of a plugin are kept.
    #[must_use]
    pub(super) fn has(&self, digest: &str) -> bool {
        self.copy(digest).is_file()
    }

    /// The bytes of a plugin.
    ///
    /// # Errors
    /// They are not there, or not what they were.
    pub(super) fn read(&self, digest: &str) -> Result<Vec<u8>, String> {
        let path = self.copy(digest);
        let is_ours = fs::metadata(&path).map(|metadata| metadata.len() <= MAX_PLUGIN_BYTES);
        let bytes = is_ours.and_then(|is_ours| if is_ours { fs::read(&path) } else { Ok(Vec::new()) });
        let bytes = bytes.map_err(|error| format!("cannot read the private copy {}: {error}", path.display()))?;
        if weir_plugins::digest(&bytes) == digest {
            return Ok(bytes);
        }
        Err(format!("the private copy {} is damaged: put that build into the plugin directory", path.display()))
    }

    /// Remembers these records, and lets go of bytes that none of them needs.
    ///
    /// # Errors
    /// The system's; what was remembered before is still remembered then.
    pub(super) fn save(&mut self, records: BTreeMap<String, Record>) -> io::Result<()> {
        let ledger = Ledger { plugins: records.into_iter().take(MAX_RECORDS).collect() };
        let text = serde_json::to_string_pretty(&ledger)?;
        if text == self.saved {
            return Ok(());
        }
        self.write(&self.directory.join("ledger.json"), text.as_bytes())?;
        // The new names, too: this one's and those of the copies before it. A file system that cannot has them in its next moment.
        drop(fs::File::open(&self.directory).and_then(|directory| directory.sync_all()));
        self.saved = text;
        self.sweep(&ledger);
        Ok(())
    }

    fn sweep(&self, ledger: &Ledger) {
        let kept: HashSet<String> =
            ledger.plugins.values().flat_map(Record::kept).map(|digest| format!("{digest}.wasm")).collect();
        let Ok(entries) = fs::read_dir(&self.directory) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let is_ours = name.to_str().is_some_and(|name| name.ends_with(".wasm") || name.ends_with(".new"));
            if is_ours && !name.to_str().is_some_and(|name| kept.contains(name)) {
                // What cannot be removed is tried again with the next change.
                drop(fs::remove_file(entry.path()));
            }
        }
    }

    fn copy(&self, digest: &str) -> PathBuf {
        // Digests are hexadecimal, but they are also read from a file.
        let digest: String = digest.chars().filter(char::is_ascii_hexdigit).collect();
        self.directory.join(format!("{digest}.wasm"))
    }

    /// Writes beside and renames: a file is there whole or not at all, also after a power failure.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        let beside = path.with_extension("new");
        let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        let written = (&file).write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&beside, path));
        if written.is_err() {
            drop(fs::remove_file(&beside));
            return written;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Mark;
    use super::*;

    struct Scratch(PathBuf);

    impl Drop for Scratch {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    fn scratch(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("weir-store-{name}-{}", std::process::id()));
        drop(fs::remove_dir_all(&path));
        Scratch(path)
    }

    fn record(digest: &str) -> Record {
        let mut record = Record::default();
        record.taken(Mark { digest: digest.to_owned(), version: "1".to_owned(), since: 1, proof: None }, true);
        record
    }

    #[test]
    fn bytes_come_back_as_they_were_or_not_at_all() {
        let state = scratch("bytes");
        let store = Store::new(&state.0);
        let digest = weir_plugins::digest(b"plugin");
        assert!(store.read(&digest).unwrap_err().contains("cannot read"));
        store.keep(&digest, b"plugin").unwrap();
        assert_eq!(store.read(&digest).unwrap(), b"plugin");
        fs::write(state.0.join(format!("plugins/{digest}.wasm")), b"plugIn").unwrap();
        assert!(store.read(&digest).unwrap_err().contains("damaged"));
    }

    #[test]
    fn a_damaged_copy_is_written_again_whatever_its_length() {
        let state = scratch("again");
        let store = Store::new(&state.0);
        let digest = weir_plugins::digest(b"plugin");
        store.keep(&digest, b"plugin").unwrap();
        let copy = state.0.join(format!("plugins/{digest}.wasm"));
        let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
        let first = inode(&copy);
        store.keep(&digest, b"plugin").unwrap();
        assert_eq!(inode(&copy), first, "what is whole is left alone");
        // A power failure leaves files without their content; a bad disk leaves them the length they had.
        for damage in [&b""[..], b"plugi", b"PLUGIN", b"plugin and more"] {
            fs::write(&copy, damage).unwrap();
            store.keep(&digest, b"plugin").unwrap();
            assert_eq!(store.read(&digest).unwrap(), b"plugin", "{damage:?}");
        }
    }

    #[test]
    fn records_come_back_and_bytes_that_none_needs_go() {
        let state = scratch("records");
        let mut store = Store::new(&state.0);
        assert!(store.records().is_empty());
        let digests = ["one", "two"].map(|bytes| weir_plugins::digest(bytes.as_bytes()));
        store.keep(&digests[0], b"one").unwrap();
        store.keep(&digests[1], b"two").unwrap();
        let records = BTreeMap::from([("ips".to_owned(), record(&digests[1]))]);
        store.save(records.clone()).unwrap();
        assert_eq!(Store::new(&state.0).records(), records);
        assert_eq!((store.has(&digests[0]), store.has(&digests[1])), (false, true));
    }

    #[test]
    fn a_damaged_ledger_is_an_empty_one() {
        let state = scratch("damaged");
        fs::create_dir_all(state.0.join("plugins")).unwrap();
        for text in ["", "{", "[]", "{\"plugins\": {\"ips\": {\"live\": 3}}}"] {
            fs::write(state.0.join("plugins/ledger.json"), text).unwrap();
            assert!(Store::new(&state.0).records().is_empty(), "{text}");
        }
    }
}
