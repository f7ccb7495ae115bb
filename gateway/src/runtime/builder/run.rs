//! The builder's loop: orders, changed files, judged plugins and failing generations, one after the other. Files are judged, candidates
//! configured and the policies of a new configuration prepared beside the loop, so that neither an order nor a quarantine waits for a
//! compiler.

use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use weir_plugins::directory::{Change, Watcher};

use super::{Builder, Building, watched};
use crate::config::{self, Config, Errors};
use crate::observe::Metrics;
use crate::observe::metrics::Family;
use crate::runtime::files::Watched;
use crate::runtime::plugins::judge::{Job, Judged};
use crate::runtime::plugins::record::Again;
use crate::runtime::plugins::rollback::{RollbackError, RolledBack};
use crate::runtime::plugins::wanted::{Generations, Prepared};
use crate::runtime::plugins::{Outcome, Plugins};
use crate::runtime::snapshot::Snapshot;
use crate::runtime::trials::{Done, Order, Promotion, Refusal};

/// Something the builder shall do.
#[derive(Debug)]
pub enum Event {
    /// Read the configuration again and tell the result.
    Reload(oneshot::Sender<Result<u64, Errors>>),
    /// Make the build of a plugin live that was live before, and tell the result.
    RollBack(String, oneshot::Sender<Result<RolledBack, RollbackError>>),
    /// Promote or abandon a candidate and tell the result.
    Trial(Order, String, oneshot::Sender<Result<Done, Refusal>>),
    /// End.
    Stop,
}

/// How often configuration, certificates and databases are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How often generations are looked at while nothing fails: often enough for the window of the quarantine.
const JUDGE_EVERY: Duration = Duration::from_secs(1);
/// How often names that are gone are forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(5);
/// How soon they are looked at again when calls fail: what a failing generation costs until then is bounded.
const JUDGE_AGAIN: Duration = Duration::from_millis(100);

/// Runs the builder until it is told to stop: takes events, looks at files, publishes snapshots.
pub async fn run(
    builder: Builder,
    current: Arc<Snapshot>,
    files: Watched,
    mut events: mpsc::UnboundedReceiver<Event>,
    publish: impl Fn(&Arc<Snapshot>),
    metrics: Arc<Metrics>,
) {
    let directory = Directory::watch(&builder, &current.config);
    let alarm = builder.host.alarm();
    let (judging, promoting, reloading) = (None, None, None);
    let mut state =
        State { builder, current, files, directory, judging, promoting, reloading, waiting: Vec::new(), publish, metrics };
    state.reconfigured();
    let mut look = tokio::time::interval(LOOK_EVERY);
    let mut judge_at = Instant::now() + JUDGE_EVERY;
    let mut forget_at = Instant::now() + FORGET_EVERY;
    let mut quiet_until = Instant::now();
    loop {
        let failing = async {
            sleep_until(quiet_until).await;
            alarm.raised().await;
        };
        tokio::select! {
            biased;
            event = events.recv() => match event {
                None | Some(Event::Stop) => return,
                Some(Event::Reload(reply)) => state.reload(vec![reply]),
                Some(Event::RollBack(name, reply)) => state.roll_back(&name, reply).await,
                Some(Event::Trial(order, name, reply)) => state.trial(order, name, reply),
            },
            () = failing => {
                state.judge_generations().await;
                quiet_until = Instant::now() + JUDGE_AGAIN;
            }
            () = sleep_until(judge_at) => {
                state.judge_generations().await;
                judge_at = Instant::now() + JUDGE_EVERY;
            }
            () = sleep_until(forget_at) => {
                state.forget();
                forget_at = Instant::now() + FORGET_EVERY;
            }
            _ = look.tick() => state.look(),
            () = state.builder.trials.ready() => state.republish(false),
            prepared = prepared(&mut state.reloading) => state.prepared(prepared).await,
            judged = promoted(&mut state.promoting) => state.promoted(judged),
            judged = judged(&mut state.judging), if state.judging.is_some() => state.finish(judged).await,
            change = Directory::change(&mut state.directory), if state.judging.is_none() => state.apply(change).await,
        }
    }
}

/// A file that is being judged.
type Judging = Pin<Box<dyn Future<Output = Judged>>>;

/// A candidate that is being proven for the policies of a configuration.
struct Promoting {
    name: String,
    config: Arc<Config>,
    promotion: Promotion,
    judging: Judging,
    reply: oneshot::Sender<Result<Done, Refusal>>,
}

/// A configuration that was read and is being prepared.
struct Reloading {
    building: Building,
    files: Watched,
    replies: Vec<Reply>,
}

/// For whoever asked for a reload.
type Reply = oneshot::Sender<Result<u64, Errors>>;

/// Everything the loop works on.
struct State<P> {
    builder: Builder,
    current: Arc<Snapshot>,
    files: Watched,
    directory: Option<Directory>,
    judging: Option<Judging>,
    promoting: Option<Promoting>,
    reloading: Option<Reloading>,
    /// Who asked while a configuration was being prepared, which may have been read before it had changed.
    waiting: Vec<Reply>,
    publish: P,
    metrics: Arc<Metrics>,
}

/// The watched plugin directory. It reports one change, and the next when this one was taken.
struct Directory {
    watcher: Watcher,
    changes: mpsc::Receiver<Change>,
}

impl Directory {
    fn watch(builder: &Builder, config: &Config) -> Option<Self> {
        let (report, changes) = mpsc::channel(1);
        // Fails when the directory is watched no more.
        let report = move |change| drop(report.blocking_send(change));
        let watcher = Watcher::start(config.server.plugins.clone(), builder.plugins.digests(), report);
        let watcher = watcher.map_err(|error| tracing::error!("{error}")).ok()?;
        watcher.prefer(Plugins::used(config));
        Some(Self { watcher, changes })
    }

    /// The next change; never, when nothing is watched.
    async fn change(directory: &mut Option<Self>) -> Change {
        let change = match directory {
            Some(directory) => directory.changes.recv().await,
            None => None,
        };
        match change {
            Some(change) => change,
            None => std::future::pending().await,
        }
    }
}

async fn promoted(promoting: &mut Option<Promoting>) -> Judged {
    match promoting {
        Some(promoting) => (&mut promoting.judging).await,
        None => std::future::pending().await,
    }
}

async fn prepared(reloading: &mut Option<Reloading>) -> Prepared {
    match reloading {
        Some(reloading) => (&mut reloading.building.prepared).await,
        None => std::future::pending().await,
    }
}

async fn judged(judging: &mut Option<Judging>) -> Judged {
    let judged = match judging {
        Some(judging) => judging.await,
        None => std::future::pending().await,
    };
    *judging = None;
    judged
}

impl<P: Fn(&Arc<Snapshot>)> State<P> {
    /// Publishes the same configuration with the plugins as they are now, if chains changed or those of candidates did.
    fn republish(&mut self, changed: bool) {
        let Builder { trials, host, plugins, .. } = &mut self.builder;
        if trials.refresh(host, plugins, &self.current.config) || changed {
            self.current = self.builder.rebuild(&self.current);
            (self.publish)(&self.current);
        }
        if changed {
            self.builder.plugins.show();
        }
    }

    fn trial(&mut self, order: Order, name: String, reply: oneshot::Sender<Result<Done, Refusal>>) {
        match order {
            Order::Promote => self.promote(name, reply),
            Order::Abandon => {
                let done = self.builder.abandon(&name, &self.current.config);
                self.republish(done.is_ok());
                // Whoever asked may have gone.
                drop(reply.send(done));
            }
        }
    }

    fn promote(&mut self, name: String, reply: oneshot::Sender<Result<Done, Refusal>>) {
        let config = Arc::clone(&self.current.config);
        let begun = match &self.promoting {
            Some(other) => Err(other.promotion.busy()),
            None => self.builder.promote(&name, &config),
        };
        match begun {
            Ok((promotion, job)) => {
                let judging = Box::pin(job.judge(self.builder.host()));
                self.promoting = Some(Promoting { name, config, promotion, judging, reply });
            }
            Err(refusal) => drop(reply.send(Err(refusal))),
        }
    }

    fn promoted(&mut self, judged: Judged) {
        let Some(Promoting { name, config, promotion, reply, .. }) = self.promoting.take() else { return };
        if !Arc::ptr_eq(&config, &self.current.config) {
            // Judged for policies that may be others now.
            return self.promote(name, reply);
        }
        let done = self.builder.promoted(&promotion, judged, &config);
        self.republish(done.is_ok());
        drop(reply.send(done));
    }

    fn look(&mut self) {
        // While a configuration is being prepared, changes to its files are seen when it is live or refused.
        if self.reloading.is_none() && self.files.look() {
            self.reload(Vec::new());
        }
        if self.directory.is_none() {
            self.directory = Directory::watch(&self.builder, &self.current.config);
        }
        let due = self.builder.plugins.due(std::time::Instant::now());
        self.read_again(due);
    }

    /// Reads the configuration and begins to prepare it, or does so after the one that is being prepared.
    fn reload(&mut self, replies: Vec<Reply>) {
        if self.reloading.is_some() {
            self.waiting.extend(replies);
        } else {
            self.prepare(replies, &Generations::new());
        }
    }

    fn prepare(&mut self, replies: Vec<Reply>, before: &Generations) {
        match read(&self.current) {
            Ok((config, files)) => {
                let building = self.builder.begin(Arc::new(config), before);
                self.reloading = Some(Reloading { building, files, replies });
            }
            Err(errors) => self.reloaded(Err(errors), replies),
        }
    }

    /// The policies of a new configuration are prepared, or known to be unfit.
    async fn prepared(&mut self, prepared: Prepared) {
        let Some(Reloading { building, files, replies }) = self.reloading.take() else { return };
        if !self.builder.is_current(&building) {
            return self.prepare(replies, &prepared.unwrap_or_default());
        }
        let snapshot = self.builder.finish(building, prepared, Duration::ZERO).await;
        self.reloaded(snapshot.map(|snapshot| (snapshot, files)), replies);
    }

    /// A new configuration is ready, or refused. It is the turn of those who asked meanwhile.
    fn reloaded(&mut self, result: Result<(Arc<Snapshot>, Watched), Errors>, replies: Vec<Reply>) {
        self.metrics.reload(result.is_ok());
        let result = result.map(|(snapshot, files)| {
            self.files = files;
            let old = std::mem::replace(&mut self.current, snapshot);
            if old.config.server.plugins != self.current.config.server.plugins {
                self.directory = Directory::watch(&self.builder, &self.current.config);
            }
            (self.publish)(&self.current);
            tracing::info!(generation = self.current.generation, "configuration is live");
            self.builder.plugins.keep_copies(&self.current.config);
            self.reconfigured();
            self.current.generation
        });
        if let Err(errors) = &result {
            for error in errors.iter() {
                tracing::error!("configuration refused, the running one stays: {error}");
            }
        }
        for reply in replies {
            // Whoever asked may have gone.
            drop(reply.send(result.clone()));
        }
        let waiting = std::mem::take(&mut self.waiting);
        if !waiting.is_empty() {
            self.reload(waiting);
        }
    }

    /// Files that were refused for how policies used them have another chance, and those that policies use come first.
    fn reconfigured(&mut self) {
        let again = self.builder.plugins.reconfigured();
        self.read_again(again);
        if let Some(directory) = &self.directory {
            directory.watcher.prefer(Plugins::used(&self.current.config));
        }
    }

    fn read_again(&self, names: Vec<String>) {
        if let Some(directory) = self.directory.as_ref().filter(|_| !names.is_empty()) {
            directory.watcher.again(names);
        }
    }

    async fn roll_back(&mut self, name: &str, reply: oneshot::Sender<Result<RolledBack, RollbackError>>) {
        let result = self.builder.plugins.roll_back(name, &self.current.config).await;
        if let Ok(done) = &result {
            self.metrics.plugin_live(&done.plugin, self.builder.generation + 1);
            self.republish(true);
        }
        drop(reply.send(result));
    }

    /// Names come and go for as long as a process runs: what is kept of those that are gone ends.
    fn forget(&mut self) {
        let config = Arc::clone(&self.current.config);
        self.builder.plugins.forget(&config, &self.metrics);
        let sites: HashSet<&str> = config.sites.iter().map(|site| &*site.name).collect();
        self.metrics.retain(Family::Sites, |name| sites.contains(name));
        self.metrics.retain(Family::Upstreams, |name| config.upstreams.contains_key(name));
    }

    async fn judge_generations(&mut self) {
        if self.builder.plugins.look(&self.current.config, std::time::Instant::now()).await {
            self.republish(true);
        }
    }

    async fn apply(&mut self, change: Change) {
        match change {
            Change::Settled(name, bytes) => {
                if let Some(job) = self.builder.plugins.seen(&name, bytes, &self.current.config) {
                    self.judge(job);
                    return;
                }
            }
            Change::Unreadable(name, error) => {
                let again = if error.is_lasting() { Again::FileChanges } else { Again::Later };
                self.builder.plugins.refuse(&name, None, error.to_string(), again);
                self.metrics.plugin_rejected(&name);
            }
            Change::Removed(name) => self.builder.plugins.removed(&name, &self.current.config),
            Change::Directory(trouble) => self.builder.plugins.status().directory(trouble),
        }
        self.republish(false);
    }

    fn judge(&mut self, job: Job) {
        self.builder.status().judges(Some(job.name.clone()));
        self.judging = Some(Box::pin(job.judge(self.builder.host())));
    }

    async fn finish(&mut self, judged: Judged) {
        let name = judged.name().to_owned();
        self.builder.status().judges(None);
        match self.builder.plugins.finish(judged, &self.current.config) {
            Outcome::Live => {
                self.metrics.plugin_live(&name, self.builder.generation + 1);
                self.republish(true);
            }
            Outcome::Rejected => {
                self.metrics.plugin_rejected(&name);
                self.republish(false);
            }
            Outcome::Again(job) => self.judge(*job),
        }
    }
}

/// The configuration as its files are now, and these.
fn read(current: &Snapshot) -> Result<(Config, Watched), Errors> {
    let config = config::load(&current.config.path)?;
    let (old, new) = (&current.config.server, &config.server);
    if old.state != new.state || old.admin != new.admin || old.workers != new.workers {
        tracing::warn!("server.workers, server.state and server.admin take effect with the next start");
    }
    let files = watched(&config);
    Ok((config, files))
}
