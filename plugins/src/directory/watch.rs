//! Watching: file system events wake a thread that lists the directory; every 30 s it is listed anyway.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

use super::settle::{QUIET, Settler, Stamp};
use crate::inspect::is_cut;
use crate::load::MAX_PLUGIN_BYTES;

/// File systems without events (NFS, some containers) are seen by this.
const RESCAN: Duration = Duration::from_secs(30);
/// How often the directory is listed while a file is on its way.
const WHILE_WAITING: Duration = Duration::from_millis(50);
/// A file that ends in the middle of a section and does not grow for so long is judged as it is.
const PATIENCE: Duration = Duration::from_secs(10);

const CLOSED_AFTER_WRITE: AccessKind = AccessKind::Close(AccessMode::Write);

/// Something happened to a plugin file.
#[derive(Debug)]
pub enum Change {
    /// A file is whole: its name without `.wasm`, its bytes.
    Settled(String, Vec<u8>),
    /// A file cannot be read: its name and why.
    Unreadable(String, String),
    /// A file is gone.
    Removed(String),
}

/// Watches a directory until it is dropped.
#[derive(Debug)]
pub struct Watcher {
    stop: Sender<Wake>,
}

enum Wake {
    Event,
    Stop,
}

impl Watcher {
    /// Starts to watch. What is in the directory now is reported too, unless its digest is among `known`.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn start(
        directory: PathBuf,
        known: HashMap<String, String>,
        report: impl Fn(Change) + Send + 'static,
    ) -> Result<Self, String> {
        let (wake, woken) = channel();
        let stop = wake.clone();
        let mut settler = Settler::default();
        settler.seed(known.keys().cloned(), Instant::now());
        let watching =
            Watching { directory, settler, digests: known, pending: HashMap::new(), events: None, unreadable: false, wake };
        let run = move || watching.run(&woken, &report);
        std::thread::Builder::new()
            .name("weir-plugins".to_owned())
            .spawn(run)
            .map_err(|error| format!("cannot start a thread: {error}"))?;
        Ok(Self { stop })
    }

    /// Lists the directory now.
    pub fn rescan(&self) {
        drop(self.stop.send(Wake::Event));
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        drop(self.stop.send(Wake::Stop));
    }
}

/// The plugin files of a directory: name without `.wasm`, and stamp. Dotfiles and other endings are not plugins.
///
/// # Errors
/// The directory cannot be read.
pub fn list(directory: &Path) -> std::io::Result<HashMap<String, Stamp>> {
    let mut files = HashMap::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".wasm"));
        let Some(name) = name.filter(|name| !name.is_empty() && !name.starts_with('.')) else { continue };
        // Symbolic links are followed, so that flipping one counts as a change.
        let Ok(metadata) = std::fs::metadata(&path) else { continue };
        if metadata.is_file() {
            let stamp = Stamp { length: metadata.len(), modified: metadata.modified().ok(), inode: metadata.ino() };
            files.insert(name.to_owned(), stamp);
        }
    }
    Ok(files)
}

struct Watching {
    directory: PathBuf,
    settler: Settler,
    /// Digest last reported of each file: a touched or restored file is no news.
    digests: HashMap<String, String>,
    /// Since when a file that looks cut has not grown.
    pending: HashMap<String, (u64, Instant)>,
    events: Option<RecommendedWatcher>,
    /// The operator was told that the directory cannot be read.
    unreadable: bool,
    wake: Sender<Wake>,
}

impl Watching {
    fn run(mut self, woken: &Receiver<Wake>, report: &impl Fn(Change)) {
        loop {
            self.ensure_events();
            self.look(Instant::now(), report);
            let pause = if self.settler.is_waiting() { WHILE_WAITING } else { RESCAN };
            match woken.recv_timeout(pause) {
                Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(Wake::Event) | Err(RecvTimeoutError::Timeout) => {}
            }
            // A burst of events is one reason to look.
            while let Ok(wake) = woken.try_recv() {
                if matches!(wake, Wake::Stop) {
                    return;
                }
            }
        }
    }

    /// Events die with the directory's inode; a directory that is made again is watched again.
    fn ensure_events(&mut self) {
        if !self.directory.is_dir() {
            self.events = None;
        } else if self.events.is_none() {
            let wake = self.wake.clone();
            let on_event = move |event: notify::Result<notify::Event>| {
                // Looking at the directory opens and closes it: those events would keep this thread awake for ever.
                let is_own_look =
                    matches!(&event, Ok(event) if matches!(event.kind, EventKind::Access(kind) if kind != CLOSED_AFTER_WRITE));
                if !is_own_look {
                    drop(wake.send(Wake::Event));
                }
            };
            let watcher = notify::recommended_watcher(on_event).and_then(|mut watcher| {
                watcher.watch(&self.directory, RecursiveMode::NonRecursive)?;
                Ok(watcher)
            });
            match watcher {
                Ok(watcher) => self.events = Some(watcher),
                Err(error) => {
                    let directory = self.directory.display();
                    tracing::warn!(%directory, "no file events, rescanning every 30 s: {error}");
                }
            }
        }
    }

    fn look(&mut self, now: Instant, report: &impl Fn(Change)) {
        let listing = match list(&self.directory) {
            Ok(listing) => listing,
            Err(error) => {
                if !std::mem::replace(&mut self.unreadable, true) {
                    tracing::warn!(directory = %self.directory.display(), "cannot read the plugin directory: {error}");
                }
                return;
            }
        };
        self.unreadable = false;
        for name in self.settler.observe(&listing, now) {
            self.digests.remove(&name);
            self.pending.remove(&name);
            report(Change::Removed(name));
        }
        for name in self.settler.settled(now) {
            self.read(&name, now, report);
        }
    }

    fn read(&mut self, name: &str, now: Instant, report: &impl Fn(Change)) {
        let path = self.directory.join(format!("{name}.wasm"));
        let Some(before) = stamp(&path) else { return };
        if before.length > MAX_PLUGIN_BYTES {
            self.settler.take(name, before);
            report(Change::Unreadable(
                name.to_owned(),
                format!("{} bytes: a plugin may have at most {MAX_PLUGIN_BYTES}", before.length),
            ));
            return;
        }
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) => {
                self.settler.take(name, before);
                report(Change::Unreadable(name.to_owned(), format!("cannot read {}: {error}", path.display())));
                return;
            }
        };
        // Changed while it was read, or cut: whoever writes it is not done.
        if stamp(&path) != Some(before) || self.is_growing(name, &bytes, now) {
            self.settler.wait(name, now);
            return;
        }
        self.settler.take(name, before);
        self.pending.remove(name);
        let digest = crate::load::digest(&bytes);
        if self.digests.get(name) != Some(&digest) {
            self.digests.insert(name.to_owned(), digest);
            report(Change::Settled(name.to_owned(), bytes));
        }
    }

    fn is_growing(&mut self, name: &str, bytes: &[u8], now: Instant) -> bool {
        if !is_cut(bytes) {
            return false;
        }
        let length = bytes.len() as u64;
        let (last, since) = *self.pending.entry(name.to_owned()).or_insert((length, now));
        if last != length {
            self.pending.insert(name.to_owned(), (length, now));
            return true;
        }
        now.duration_since(since) < PATIENCE
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some(Stamp { length: metadata.len(), modified: metadata.modified().ok(), inode: metadata.ino() })
}

const _: () = assert!(WHILE_WAITING.as_millis() < QUIET.as_millis());
