//! Watching: file system events wake a thread that lists the directory; every 30 s it is listed anyway.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

use super::look::{self, MAX_FILES, ReadError, list, read};
use super::settle::{QUIET, Settler};
use crate::inspect::is_cut;
use crate::priority::{Behind, stand};

/// File systems without events (NFS, some containers) are seen by this.
const RESCAN: Duration = Duration::from_secs(30);
/// How often the directory is listed while a file is on its way.
const WHILE_WAITING: Duration = Duration::from_millis(50);
/// How often a directory that cannot be read is looked for.
const WHILE_GONE: Duration = Duration::from_secs(1);
/// A file that ends in the middle of a section and does not grow for so long is judged as it is.
const PATIENCE: Duration = Duration::from_secs(10);

const CLOSED_AFTER_WRITE: AccessKind = AccessKind::Close(AccessMode::Write);

/// Something happened to a plugin file.
#[derive(Debug)]
pub enum Change {
    /// A file is whole: its name without `.wasm`, its bytes.
    Settled(String, Vec<u8>),
    /// A file cannot be taken as it lies there.
    Unreadable(String, ReadError),
    /// A file is gone.
    Removed(String),
    /// The directory cannot be read, or holds too many files; `None` when it is well again.
    Directory(Option<String>),
}

/// Watches a directory until it is dropped.
#[derive(Debug)]
pub struct Watcher {
    orders: Arc<Mutex<Orders>>,
    wake: SyncSender<()>,
}

/// What the watching thread is told.
#[derive(Debug, Default)]
struct Orders {
    stop: bool,
    again: BTreeSet<String>,
    first: HashSet<String>,
}

impl Watcher {
    /// Starts to watch. What is in the directory now is reported too, unless its digest is among `known`. `report` may take its time: one
    /// file is read after the other, and the next is not read before it returns.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn start(
        directory: PathBuf,
        known: HashMap<String, String>,
        report: impl Fn(Change) + Send + 'static,
    ) -> Result<Self, String> {
        let (wake, woken) = sync_channel(1);
        let orders = Arc::<Mutex<Orders>>::default();
        let mut settler = Settler::default();
        settler.seed(known.keys().cloned(), Instant::now());
        let watching = Watching {
            directory,
            settler,
            known,
            pending: HashMap::new(),
            events: None,
            without_events: false,
            trouble: None,
            orders: Arc::clone(&orders),
            wake: wake.clone(),
        };
        let run = move || {
            stand(Behind::Far);
            watching.run(&woken, &report);
        };
        std::thread::Builder::new()
            .name("weir-plugins".to_owned())
            .spawn(run)
            .map_err(|error| format!("cannot start a thread: {error}"))?;
        Ok(Self { orders, wake })
    }

    /// Lists the directory now.
    pub fn rescan(&self) {
        wake(&self.wake);
    }

    /// These files are reported again, although they have not changed.
    pub fn again(&self, names: impl IntoIterator<Item = String>) {
        lock(&self.orders).again.extend(names);
        wake(&self.wake);
    }

    /// When many files have settled, those of these names are reported first.
    pub fn prefer(&self, names: HashSet<String>) {
        lock(&self.orders).first = names;
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        lock(&self.orders).stop = true;
        wake(&self.wake);
    }
}

/// One waiting wake-up stands for any number of reasons.
fn wake(sender: &SyncSender<()>) {
    let _waiting_already = sender.try_send(());
}

fn lock(orders: &Mutex<Orders>) -> MutexGuard<'_, Orders> {
    orders.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Watching {
    directory: PathBuf,
    settler: Settler,
    /// What files held that were judged before the watch began.
    known: HashMap<String, String>,
    /// Since when a file that looks cut has not grown.
    pending: HashMap<String, (u64, Instant)>,
    /// Events, and the directory they are of.
    events: Option<(RecommendedWatcher, Identity)>,
    /// The operator was told that there are none.
    without_events: bool,
    /// What the operator was told of the directory.
    trouble: Option<String>,
    orders: Arc<Mutex<Orders>>,
    wake: SyncSender<()>,
}

/// Device and inode.
type Identity = (u64, u64);

impl Watching {
    fn run(mut self, woken: &Receiver<()>, report: &impl Fn(Change)) {
        loop {
            if self.obey() {
                return;
            }
            self.ensure_events();
            let more = self.look(Instant::now(), report);
            let pause = match () {
                () if more => Duration::ZERO,
                () if self.settler.is_waiting() => WHILE_WAITING,
                () if self.events.is_none() => WHILE_GONE,
                () => RESCAN,
            };
            if woken.recv_timeout(pause) == Err(RecvTimeoutError::Disconnected) {
                return;
            }
        }
    }

    /// Does what it was told. Answers whether it is to end.
    fn obey(&mut self) -> bool {
        let (stop, again) = {
            let mut orders = lock(&self.orders);
            (orders.stop, std::mem::take(&mut orders.again))
        };
        for name in again {
            self.settler.forget(&name);
            self.known.remove(&name);
        }
        stop
    }

    /// Events die with the directory's inode; a directory that is made again is watched again.
    fn ensure_events(&mut self) {
        let identity = std::fs::metadata(&self.directory).ok().filter(std::fs::Metadata::is_dir);
        let Some(identity) = identity.map(|metadata| (metadata.dev(), metadata.ino())) else {
            self.events = None;
            return;
        };
        if self.events.as_ref().is_some_and(|(_, watched)| *watched == identity) {
            return;
        }
        let sender = self.wake.clone();
        let on_event = move |event: notify::Result<notify::Event>| {
            // Looking at the directory opens and closes it: those events would keep this thread awake for ever.
            let is_own_look =
                matches!(&event, Ok(event) if matches!(event.kind, EventKind::Access(kind) if kind != CLOSED_AFTER_WRITE));
            if !is_own_look {
                wake(&sender);
            }
        };
        let watcher = notify::recommended_watcher(on_event).and_then(|mut watcher| {
            watcher.watch(&self.directory, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        match watcher {
            Ok(watcher) => {
                self.events = Some((watcher, identity));
                self.without_events = false;
            }
            Err(error) => {
                self.events = None;
                if !std::mem::replace(&mut self.without_events, true) {
                    let directory = self.directory.display();
                    tracing::warn!(%directory, "no file events, looking every second: {error}");
                }
            }
        }
    }

    /// Looks at the directory, and reports one settled file at most. Answers whether there are more.
    fn look(&mut self, now: Instant, report: &impl Fn(Change)) -> bool {
        let mut listing = match list(&self.directory) {
            Ok(listing) => listing,
            Err(error) => {
                self.trouble(Some(format!("cannot read the plugin directory {}: {error}", self.directory.display())), report);
                return false;
            }
        };
        let first = lock(&self.orders).first.clone();
        let trouble = (listing.len() > MAX_FILES).then(|| {
            let count = listing.len();
            let mut names: Vec<String> = listing.keys().cloned().collect();
            names.sort_by_key(|name| (!first.contains(name), name.clone()));
            names.truncate(MAX_FILES);
            let looked_at: HashSet<String> = names.into_iter().collect();
            listing.retain(|name, _| looked_at.contains(name));
            format!("{count} plugin files in {}: only {MAX_FILES} are looked at", self.directory.display())
        });
        self.trouble(trouble, report);
        for name in self.settler.observe(&listing, now) {
            self.known.remove(&name);
            self.pending.remove(&name);
            report(Change::Removed(name));
        }
        let mut settled = self.settler.settled(now);
        settled.sort_by_key(|name| (!first.contains(name), name.clone()));
        let mut settled = settled.into_iter();
        // Reporting may take long: what is most important then is asked anew.
        let reported = settled.by_ref().any(|name| self.read(&name, now, report));
        reported && settled.next().is_some()
    }

    /// Tells the operator once how the directory is.
    fn trouble(&mut self, trouble: Option<String>, report: &impl Fn(Change)) {
        if self.trouble != trouble {
            match &trouble {
                Some(trouble) => tracing::warn!("{trouble}; what was running keeps running"),
                None => tracing::info!(directory = %self.directory.display(), "the plugin directory can be read again"),
            }
            self.trouble.clone_from(&trouble);
            report(Change::Directory(trouble));
        }
    }

    /// Reads a file. Answers whether it was reported.
    fn read(&mut self, name: &str, now: Instant, report: &impl Fn(Change)) -> bool {
        let path = self.directory.join(format!("{name}.wasm"));
        let Some(before) = look::stamp(&path) else { return false };
        let bytes = match read(&self.directory, name) {
            Ok(bytes) => bytes,
            Err(error) => {
                self.settler.take(name, before);
                self.known.remove(name);
                report(Change::Unreadable(name.to_owned(), error));
                return true;
            }
        };
        // Changed while it was read, or cut: whoever writes it is not done.
        if look::stamp(&path) != Some(before) || self.is_growing(name, &bytes, now) {
            self.settler.wait(name, now);
            return false;
        }
        self.settler.take(name, before);
        self.pending.remove(name);
        if self.known.remove(name).is_some_and(|known| known == crate::load::digest(&bytes)) {
            return false;
        }
        report(Change::Settled(name.to_owned(), bytes));
        true
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

const _: () = assert!(WHILE_WAITING.as_millis() < QUIET.as_millis());
