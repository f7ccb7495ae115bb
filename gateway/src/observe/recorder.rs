//! The one place where finished records go. The caller pays for counters and, when somebody wants the record, for one `try_send`; the
//! lines and the spans are made on a thread of their own.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::broadcast;

use super::access_log::{Output, Sink};
use super::background::{self, Message, Sinks, Stop};
use super::metrics::{Metrics, Signal};
use super::otlp::{self, Exporter};
use super::record::{AccessRecord, ConnectionRecord, TraceIds};
use super::spans;
use super::trace::{self, Parent, Sampler};

/// Takes finished records and never waits: what cannot be queued is dropped and counted. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Recorder {
    queue: SyncSender<Message>,
    shared: Arc<Shared>,
}

/// The `[telemetry]` section, resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Where the access log goes. Default: nowhere.
    pub access_log: Output,
    /// The collector's `http://host:port` (OTLP over gRPC). Default: none, no spans are made.
    pub otlp: Option<String>,
    /// The share of new traces that is sampled, 0.0 to 1.0. Default: 1.0. Refused, failed and slow exchanges are exported anyway.
    pub sample: f64,
    /// How many of the latest lines are kept in memory for [`Recorder::recent`]. Default: 0, none.
    pub recent: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { access_log: Output::Off, otlp: None, sample: 1.0, recent: 0 }
    }
}

/// Why [`Settings`] cannot be put into effect.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file of the access log cannot be opened.
    #[error("telemetry.access_log: cannot open {path}: {source}")]
    AccessLog {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The exporter cannot be built.
    #[error(transparent)]
    Otlp(#[from] otlp::Error),
    /// The thread cannot be started.
    #[error("cannot start the telemetry thread: {0}")]
    Thread(io::Error),
    /// The thread does not take orders: whatever reads the access log has stopped reading, or the recorder was shut down.
    #[error("telemetry is stuck: is anything reading the access log?")]
    Stuck,
}

impl Recorder {
    /// Opens what `settings` name and starts the thread, which ends with [`Recorder::shutdown`] or with the last clone.
    ///
    /// # Errors
    ///
    /// When the log's file cannot be opened, the endpoint cannot be used, or a thread cannot be started.
    pub fn start(settings: &Settings, metrics: Arc<Metrics>) -> Result<Self, Error> {
        let sinks = open(settings, &metrics)?;
        let (queue, records) = sync_channel(QUEUE);
        let shared = Arc::new(Shared::new(metrics));
        shared.adopt(settings);
        background::start(records, Arc::clone(&shared), sinks).map_err(Error::Thread)?;
        Ok(Self { queue, shared })
    }

    /// Changes the settings of a running recorder; records taken before still go by the old ones. Blocks while the queue is full.
    ///
    /// # Errors
    ///
    /// As [`Recorder::start`], or when the queue stays full for a second; nothing has changed then.
    pub fn apply(&self, settings: &Settings) -> Result<(), Error> {
        let sinks = open(settings, &self.shared.metrics)?;
        if !self.insist(Message::Apply(Box::new(sinks)), Instant::now() + ORDER_TIMEOUT) {
            return Err(Error::Stuck);
        }
        self.shared.adopt(settings);
        Ok(())
    }

    /// Takes a finished exchange.
    pub fn record(&self, record: Box<AccessRecord>) {
        self.shared.metrics.exchange(&record);
        let wants = self.shared.wants();
        if wants.lines() || (wants.spans() && spans::is_kept(&record)) {
            self.send(Message::Exchange(record));
        }
    }

    /// Takes a connection that never became a request.
    pub fn record_connection(&self, record: ConnectionRecord) {
        self.shared.metrics.lost_connection(&record);
        if self.shared.wants().lines() {
            self.send(Message::Connection(Box::new(record)));
        }
    }

    /// Takes a connection that carried requests, perhaps, and that the gateway ended for what its client did.
    pub fn record_closed(&self, reason: &'static str, record: ConnectionRecord) {
        self.shared.metrics.closed_connection(reason);
        if self.shared.wants().lines() {
            self.send(Message::Connection(Box::new(record)));
        }
    }

    /// The ids of a new exchange: the trusted caller's trace and decision, else a new trace sampled as configured. Without a collector
    /// no new trace is sampled.
    #[must_use]
    pub fn begin_trace(&self, parent: Option<Parent>) -> TraceIds {
        trace::begin(parent, Sampler::from_bound(self.shared.sample.load(Ordering::Relaxed)))
    }

    /// The metrics that records are counted in.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.shared.metrics
    }

    /// Every line from now on, access log or not.
    #[must_use]
    pub fn subscribe(&self) -> Subscription {
        let lines = self.shared.lines.subscribe();
        self.shared.wants.fetch_add(Wants::SUBSCRIBER, Ordering::Relaxed);
        Subscription { lines, shared: Arc::clone(&self.shared) }
    }

    /// The latest lines, oldest first; as many as [`Settings::recent`] asks for.
    #[must_use]
    pub fn recent(&self) -> Vec<Arc<str>> {
        self.shared.recent().iter().cloned().collect()
    }

    /// Opens the access log's file anew by its path, after it was rotated. Blocks while the queue is full, for at most a second.
    pub fn reopen(&self) {
        if !self.insist(Message::Reopen, Instant::now() + ORDER_TIMEOUT) {
            tracing::error!("the access log was not reopened: telemetry is stuck");
        }
    }

    /// Writes and exports what is queued, then ends the thread; records taken later are dropped and counted. Blocks for at most
    /// `timeout`; returns whether everything was handed over in time. A second call has nothing to do and returns false.
    pub fn shutdown(&self, timeout: Duration) -> bool {
        let (done, finished) = sync_channel(1);
        let deadline = Instant::now() + timeout;
        self.insist(Message::Stop(Stop { deadline, done }), deadline)
            && finished.recv_timeout(deadline.saturating_duration_since(Instant::now())) == Ok(true)
    }

    fn send(&self, message: Message) {
        if let Err(TrySendError::Full(message) | TrySendError::Disconnected(message)) = self.queue.try_send(message) {
            self.shared.lost(&message);
        }
    }

    /// Queues an order behind the records that were taken before it; returns whether there was room in time.
    fn insist(&self, mut order: Message, deadline: Instant) -> bool {
        loop {
            match self.queue.try_send(order) {
                Ok(()) => return true,
                Err(TrySendError::Full(back)) if Instant::now() < deadline => order = back,
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => return false,
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// A live view of the decision log.
#[derive(Debug)]
pub struct Subscription {
    lines: broadcast::Receiver<Arc<str>>,
    shared: Arc<Shared>,
}

/// The subscriber was too slow: this many lines were skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} lines were skipped")]
pub struct Skipped(pub u64);

impl Subscription {
    /// The next line, a JSON object without a line feed. Waits for as long as it takes; cancelling loses nothing.
    ///
    /// # Errors
    ///
    /// [`Skipped`] when lines came faster than they were taken; the next call goes on with the oldest line still held.
    pub async fn next(&mut self) -> Result<Arc<str>, Skipped> {
        match self.lines.recv().await {
            Ok(line) => Ok(line),
            Err(broadcast::error::RecvError::Lagged(lines)) => Err(Skipped(lines)),
            // Cannot happen while `shared` holds the sender.
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.shared.wants.fetch_sub(Wants::SUBSCRIBER, Ordering::Relaxed);
    }
}

/// What a worker's request rate fills in tens of milliseconds, and no more than about 16 MiB.
const QUEUE: usize = 8_192;
/// The thread empties a full queue in milliseconds, unless it is stuck.
const ORDER_TIMEOUT: Duration = Duration::from_secs(1);
/// Lines a subscriber may be behind.
const SUBSCRIBER_LINES: usize = 1_024;

fn open(settings: &Settings, metrics: &Arc<Metrics>) -> Result<Sinks, Error> {
    let log = Sink::open(settings.access_log.clone()).map_err(|source| {
        let path = if let Output::File(path) = &settings.access_log { path.clone() } else { PathBuf::new() };
        Error::AccessLog { path, source }
    })?;
    let exporter = settings.otlp.as_deref().map(|endpoint| Exporter::new(endpoint, Arc::clone(metrics))).transpose()?;
    Ok(Sinks { log, exporter, recent: settings.recent })
}

/// What the handles and the thread both see.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) metrics: Arc<Metrics>,
    wants: AtomicUsize,
    sample: AtomicU64,
    pub(super) lines: broadcast::Sender<Arc<str>>,
    recent: Mutex<VecDeque<Arc<str>>>,
}

impl Shared {
    fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            wants: AtomicUsize::new(0),
            sample: AtomicU64::new(0),
            lines: broadcast::Sender::new(SUBSCRIBER_LINES),
            recent: Mutex::default(),
        }
    }

    fn adopt(&self, settings: &Settings) {
        let ratio = if settings.otlp.is_some() { settings.sample } else { 0.0 };
        self.sample.store(Sampler::new(ratio).bound(), Ordering::Relaxed);
        for (flag, set) in [
            (Wants::LOG, settings.access_log != Output::Off),
            (Wants::SPANS, settings.otlp.is_some()),
            (Wants::RECENT, settings.recent > 0),
        ] {
            if set {
                self.wants.fetch_or(flag, Ordering::Relaxed);
            } else {
                self.wants.fetch_and(!flag, Ordering::Relaxed);
            }
        }
    }

    pub(super) fn wants(&self) -> Wants {
        Wants(self.wants.load(Ordering::Relaxed))
    }

    /// Counts what a record would have become.
    pub(super) fn lost(&self, message: &Message) {
        let wants = self.wants();
        if wants.log() && matches!(message, Message::Exchange(_) | Message::Connection(_)) {
            self.metrics.dropped(Signal::Log, 1);
        }
        if let Message::Exchange(record) = message
            && wants.spans()
            && spans::is_kept(record)
        {
            self.metrics.dropped(Signal::Span, spans::count(record) as u64);
        }
    }

    pub(super) fn recent(&self) -> MutexGuard<'_, VecDeque<Arc<str>>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who wants records: three flags, and the number of subscribers above them, so that a worker reads one number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wants(usize);

impl Wants {
    const LOG: usize = 1;
    const SPANS: usize = 2;
    const RECENT: usize = 4;
    const SUBSCRIBER: usize = 8;

    const fn lines(self) -> bool {
        self.0 & !Self::SPANS != 0
    }

    const fn log(self) -> bool {
        self.0 & Self::LOG != 0
    }

    const fn spans(self) -> bool {
        self.0 & Self::SPANS != 0
    }

    pub(super) const fn subscribed(self) -> bool {
        self.0 >= Self::SUBSCRIBER
    }
}

#[cfg(test)]
mod tests;
