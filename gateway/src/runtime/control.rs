//! The control thread: health checks, listeners, the admin API, signals, upgrades. Nothing on it is in the path of a request.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, Interval};

use super::builder::Event;
use super::drain::{Open, Orders, Plan};
use super::listeners::Listeners;
use super::snapshot::Snapshot;
use super::sockets::Inherited;
use super::upgrade::successor::notify;
use super::upgrade::{Heritage, Refusal, Successor};
use super::wishes::{Wish, Wishes};
use super::worker::{Command, Handle, Shared};
use crate::admin;
use crate::upstream::probe;

/// What the control thread works with.
#[derive(Debug)]
pub struct Control {
    /// Shared with the workers.
    pub shared: Arc<Shared>,
    /// The workers.
    pub workers: Vec<Handle>,
    /// What they listen on.
    pub listeners: Listeners,
    /// Orders for the builder.
    pub events: mpsc::UnboundedSender<Event>,
    /// Published snapshots.
    pub published: watch::Receiver<Arc<Snapshot>>,
    /// Where the admin API is served.
    pub admin_socket: admin::Socket,
    /// What the admin API answers from.
    pub admin: Arc<admin::State>,
    /// Asks for an upgrade; each with where to tell the result.
    pub upgrades: mpsc::UnboundedReceiver<UpgradeReply>,
    /// What a successor is left besides listeners and what the snapshot knows.
    pub heritage: Heritage,
}

/// Where the result of an upgrade is told.
pub type UpgradeReply = oneshot::Sender<Result<Successor, Refusal>>;

type Upgrading = (Pin<Box<dyn Future<Output = Result<Successor, Refusal>>>>, Option<UpgradeReply>);

/// How often the end of connections is looked at while draining.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// A listener that could not be bound is tried again: the address may be that of one that is just being closed.
const BIND_AGAIN: Duration = Duration::from_millis(500);
const BIND_ATTEMPTS: u32 = 4;
/// For requests on connections that the admin API has just accepted.
const ADMIN_BREATH: Duration = Duration::from_millis(100);
/// For the last answers of the admin API.
const ADMIN_GOODBYE: Duration = Duration::from_secs(2);

impl Control {
    /// Runs until it is asked to stop or a successor serves, then drains. Asked again, it hurries. Call in a `LocalSet`.
    pub async fn run(mut self, mut wishes: Wishes) {
        // Not kept: the first plugins would live as long as the process.
        let groups = self.published.borrow_and_update().groups.clone();
        let mut probes = probe::start(&groups, self.shared.recorder.metrics());
        drop(groups);
        let admin_passed = self.admin_socket.pass();
        let admin = AdminTask::start(std::mem::replace(&mut self.admin_socket, admin::Socket::None), &self.admin);
        let mut upgrading: Option<Upgrading> = None;
        let mut bind_again: Option<(Instant, u32)> = None;
        let mut watchdog = sd_notify::watchdog_enabled().map(|limit| tokio::time::interval(limit / 3));
        let successor = loop {
            tokio::select! {
                wish = wishes.next() => match wish {
                    Wish::Stop => break None,
                    Wish::Reload => self.reload(),
                    Wish::Upgrade => self.upgrade(&mut upgrading, None, admin_passed.as_ref().ok()),
                },
                changed = self.published.changed() => {
                    if changed.is_err() {
                        break None;
                    }
                    let snapshot = self.published.borrow_and_update().clone();
                    self.retain_servers(&snapshot);
                    probes = probe::start(&snapshot.groups, self.shared.recorder.metrics());
                    bind_again = self.listen(0);
                }
                () = at(bind_again.map(|(time, _)| time)) => bind_again = self.listen(bind_again.map_or(0, |(_, attempt)| attempt)),
                Some(reply) = self.upgrades.recv() => self.upgrade(&mut upgrading, Some(reply), admin_passed.as_ref().ok()),
                result = upgraded(&mut upgrading) => {
                    let reply = upgrading.take().and_then(|(_, reply)| reply);
                    match result {
                        Ok(successor) => break Some((successor, reply)),
                        Err(refusal) => tell(Err(refusal), reply),
                    }
                }
                () = tick(&mut watchdog) => notify(&[NotifyState::Watchdog]),
            }
        };
        // A candidate that is not the successor yet never will be.
        drop(upgrading);
        self.end(wishes, successor, admin).await;
        drop(probes);
    }

    fn retain_servers(&self, snapshot: &Snapshot) {
        self.shared.recorder.metrics().retain_servers(|upstream, server| {
            let is_known = |known: &Arc<crate::upstream::Server>| *known.label == *server;
            snapshot.groups.iter().any(|group| *group.name == *upstream && group.servers.iter().any(is_known))
        });
    }

    /// Makes the listeners those of the current snapshot. Answers when to try again, and how often that was.
    fn listen(&mut self, attempt: u32) -> Option<(Instant, u32)> {
        let wanted = self.published.borrow().config.listeners.clone();
        let errors = self.listeners.apply(&wanted, &self.workers, &mut Inherited::default()).err()?;
        if attempt < BIND_ATTEMPTS {
            return Some((Instant::now() + BIND_AGAIN, attempt + 1));
        }
        errors.iter().for_each(|error| tracing::error!("{error}"));
        None
    }

    fn reload(&self) {
        self.shared.recorder.reopen();
        let (reply, result) = oneshot::channel();
        drop(self.events.send(Event::Reload(reply)));
        notify_reloading();
        tokio::task::spawn_local(async move {
            // The builder logs what it refuses; either way the service is ready again.
            drop(result.await);
            notify(&[NotifyState::Ready]);
        });
    }

    fn upgrade(&self, upgrading: &mut Option<Upgrading>, reply: Option<UpgradeReply>, admin: Option<&admin::Passed>) {
        if upgrading.is_some() {
            return tell(Err(Refusal::Busy), reply);
        }
        let snapshot = self.shared.snapshot.load_full();
        match self.heritage.pass(&self.listeners, admin, &snapshot) {
            Ok(passed) => {
                tracing::info!("starting a new process: {}", passed.program().display());
                notify_reloading();
                let patience = snapshot.config.limits.upgrade;
                *upgrading = Some((Box::pin(passed.start(patience)), reply));
            }
            Err(refusal) => tell(Err(refusal), reply),
        }
    }

    async fn end(self, mut wishes: Wishes, successor: Option<(Successor, Option<UpgradeReply>)>, admin: AdminTask) {
        let has_successor = successor.is_some();
        let limits = self.shared.snapshot.load().config.limits;
        self.shared.leaving.store(true, Ordering::Relaxed);
        // Whatever changes from now on is the successor's business, or nobody's.
        drop(self.events.send(Event::Stop));
        if has_successor {
            admin.close();
        } else {
            tracing::info!("draining");
            notify(&[NotifyState::Stopping]);
            if let Some(grace) = limits.drain_grace {
                tokio::select! {
                    () = tokio::time::sleep(grace) => {}
                    () = wishes.stop() => {}
                }
            }
        }
        self.shared.draining.store(true, Ordering::Relaxed);
        let began = Instant::now();
        let mut told = Orders { draining: true, ..Orders::default() };
        self.workers.iter().for_each(|worker| worker.tell(Command::Orders(told)));
        self.listeners.close(&self.workers, has_successor).await;
        if let Some((successor, reply)) = successor {
            // Not before: whoever hears of it and connects is the new process's client.
            tell(Ok(successor), reply);
        }
        let mut plan = Plan::new(&limits, has_successor);
        while !told.end {
            let orders = plan.orders(began.elapsed(), self.shared.open());
            if orders != told {
                self.shared.report(told, orders);
                told = orders;
                self.workers.iter().for_each(|worker| worker.tell(Command::Orders(told)));
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = wishes.stop() => plan.hurry(began.elapsed()),
            }
        }
        let workers = self.workers;
        // The admin API answers while the last requests finish.
        let joined = tokio::task::spawn_blocking(move || workers.into_iter().for_each(Handle::join)).await;
        if joined.is_err() {
            tracing::error!("a worker ended badly");
        }
        admin.end().await;
    }
}

/// The admin API while it is served.
#[derive(Debug)]
struct AdminTask {
    stage: watch::Sender<admin::Stage>,
    task: JoinHandle<()>,
}

impl AdminTask {
    fn start(socket: admin::Socket, state: &Arc<admin::State>) -> Self {
        let (stage, told) = watch::channel(admin::Stage::default());
        let task = tokio::task::spawn_local(admin::serve(socket, Arc::clone(state), told));
        Self { stage, task }
    }

    /// No new connections from now on.
    fn close(&self) {
        self.stage.send_replace(admin::Stage::Closed);
    }

    /// Answers what has been asked, and ends.
    async fn end(self) {
        self.close();
        tokio::time::sleep(ADMIN_BREATH).await;
        self.stage.send_replace(admin::Stage::Ending);
        let abort = self.task.abort_handle();
        if tokio::time::timeout(ADMIN_GOODBYE, self.task).await.is_err() {
            abort.abort();
        }
    }
}

impl Shared {
    fn open(&self) -> Open {
        let tunnels = self.tunnels.load(Ordering::Relaxed);
        Open { connections: self.connections.load(Ordering::Relaxed).saturating_sub(tunnels), tunnels }
    }

    fn report(&self, before: Orders, now: Orders) {
        let open = self.open();
        if now.end && open.connections > 0 {
            tracing::warn!("{} connections are still open after limits.drain; they are cut", open.connections);
        }
        if now.close_tunnels && !before.close_tunnels && open.tunnels > 0 {
            tracing::warn!("{} tunnels are still open; they are closed", open.tunnels);
        }
    }
}

/// Tells whoever asked, and the log, how an upgrade went.
fn tell(result: Result<Successor, Refusal>, reply: Option<UpgradeReply>) {
    match &result {
        Ok(successor) => {
            tracing::info!(pid = successor.pid, version = successor.version, "the new process serves; this one drains");
        }
        Err(refusal) => {
            tracing::error!("no upgrade, this process goes on: {refusal}");
            if !matches!(refusal, Refusal::Busy) {
                notify(&[NotifyState::Ready]);
            }
        }
    }
    // Whoever asked may have gone.
    drop(reply.map(|reply| reply.send(result)));
}

async fn upgraded(upgrading: &mut Option<Upgrading>) -> Result<Successor, Refusal> {
    match upgrading {
        Some((future, _)) => future.await,
        None => std::future::pending().await,
    }
}

async fn tick(interval: &mut Option<Interval>) {
    match interval {
        Some(interval) => drop(interval.tick().await),
        None => std::future::pending().await,
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn notify_reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(_) => notify(&[NotifyState::Reloading]),
    }
}
