//! The thread that turns records into lines and spans.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use super::access_log::{Sink, render, render_connection};
use super::metrics::Signal;
use super::otlp::Exporter;
use super::record::{AccessRecord, ConnectionRecord};
use super::recorder::Shared;
use super::spans;

/// What is sent to the thread. Boxed, so that a slot of the queue is small and a send moves a pointer.
#[derive(Debug)]
pub(super) enum Message {
    Exchange(Box<AccessRecord>),
    Connection(Box<ConnectionRecord>),
    /// Other settings from here on.
    Apply(Box<Sinks>),
    /// The log was rotated.
    Reopen,
    Stop(Stop),
}

/// The end: what is queued before it is handled.
#[derive(Debug)]
pub(super) struct Stop {
    /// For the export of the last spans.
    pub(super) deadline: Instant,
    /// Told at the end whether all was handed over.
    pub(super) done: SyncSender<bool>,
}

/// Where lines and spans go.
#[derive(Debug)]
pub(super) struct Sinks {
    pub(super) log: Sink,
    pub(super) exporter: Option<Exporter>,
    pub(super) recent: usize,
}

/// Starts the thread; it ends on an order, or when the sending side is gone.
pub(super) fn start(queue: Receiver<Message>, shared: Arc<Shared>, sinks: Sinks) -> io::Result<()> {
    let background = Background { queue, shared, sinks, line: Vec::new(), stop: None };
    thread::Builder::new().name("weir-telemetry".to_owned()).spawn(move || background.run()).map(drop)
}

/// Under load the thread looks at the queue this often instead of sleeping in it: waking a sleeper is a system call, and the worker
/// would pay for it with every record.
const PACE: Duration = Duration::from_millis(10);
/// After this many looks in vain it does sleep in the queue: an idle gateway wakes nobody.
const QUIET: u32 = 100;
/// Messages handled before lines are written, so that a line is never held for long.
const BATCH: usize = 1_024;
/// For the export of queued spans, when nobody set a deadline.
const LAST_SPANS: Duration = Duration::from_secs(10);

struct Background {
    queue: Receiver<Message>,
    shared: Arc<Shared>,
    sinks: Sinks,
    line: Vec<u8>,
    stop: Option<Stop>,
}

impl Background {
    fn run(mut self) {
        let (mut quiet, mut open) = (0, true);
        while open && self.stop.is_none() {
            let handled;
            (handled, open) = self.drain(BATCH);
            self.flush();
            quiet = if handled > 0 { 0 } else { quiet + 1 };
            if handled == BATCH || !open || self.stop.is_some() {
                continue;
            }
            if quiet < QUIET {
                thread::sleep(PACE);
                continue;
            }
            quiet = 0;
            match self.queue.recv() {
                Ok(message) => self.handle(message),
                Err(_) => open = false,
            }
        }
        self.flush();
        self.finish();
    }

    /// Handles up to `limit` messages; returns how many, and whether more can come.
    fn drain(&mut self, limit: usize) -> (usize, bool) {
        for handled in 0..limit {
            if self.stop.is_some() {
                return (handled, true);
            }
            match self.queue.try_recv() {
                Ok(message) => self.handle(message),
                Err(TryRecvError::Empty) => return (handled, true),
                Err(TryRecvError::Disconnected) => return (handled, false),
            }
        }
        (limit, true)
    }

    fn handle(&mut self, message: Message) {
        self.line.clear();
        match message {
            Message::Exchange(record) => {
                if self.wants_lines() {
                    render(&record, &mut self.line);
                    self.publish();
                }
                if let Some(exporter) = &self.sinks.exporter
                    && spans::is_kept(&record)
                {
                    exporter.export(&record);
                }
            }
            Message::Connection(record) => {
                if self.wants_lines() {
                    render_connection(&record, &mut self.line);
                    self.publish();
                }
            }
            Message::Apply(sinks) => self.apply(*sinks),
            Message::Reopen => {
                self.flush();
                self.sinks.log.reopen();
            }
            Message::Stop(stop) => self.stop = Some(stop),
        }
    }

    fn wants_lines(&self) -> bool {
        !self.sinks.log.is_off() || self.sinks.recent > 0 || self.shared.wants().subscribed()
    }

    fn publish(&mut self) {
        if !self.sinks.log.is_off() {
            let lost = self.sinks.log.push(&self.line);
            self.shared.metrics.dropped(Signal::Log, lost);
        }
        if self.sinks.recent == 0 && !self.shared.wants().subscribed() {
            return;
        }
        let line: Arc<str> = String::from_utf8_lossy(&self.line).into();
        if self.sinks.recent > 0 {
            let mut recent = self.shared.recent();
            while recent.len() >= self.sinks.recent {
                recent.pop_front();
            }
            recent.push_back(Arc::clone(&line));
        }
        // Nobody listening is no error.
        let _ = self.shared.lines.send(line);
    }

    fn flush(&mut self) {
        let lost = self.sinks.log.flush();
        self.shared.metrics.dropped(Signal::Log, lost);
    }

    fn apply(&mut self, sinks: Sinks) {
        self.flush();
        let old = std::mem::replace(&mut self.sinks, sinks);
        if self.sinks.recent == 0 {
            self.shared.recent().clear();
        }
        if let Some(exporter) = old.exporter {
            retire(exporter);
        }
    }

    fn finish(self) {
        let Self { queue, shared, sinks, stop, .. } = self;
        let deadline = stop.as_ref().map_or_else(|| Instant::now() + LAST_SPANS, |stop| stop.deadline);
        let exporter = sinks.exporter.as_ref();
        let complete = exporter.is_none_or(|exporter| exporter.shutdown(deadline.saturating_duration_since(Instant::now())));
        queue.try_iter().for_each(|message| shared.lost(&message));
        // Before anyone is told of the end: what comes afterwards finds no queue, and is counted where it was sent.
        drop(queue);
        if let Some(stop) = stop {
            // The one who asked may have given up waiting.
            let _ = stop.done.send(complete);
        }
    }
}

/// Sends its last spans on a thread of its own, for a dead collector takes its time.
fn retire(exporter: Exporter) {
    let spawned = thread::Builder::new().name("weir-telemetry-end".to_owned()).spawn(move || exporter.shutdown(LAST_SPANS));
    if let Err(error) = spawned {
        tracing::warn!(%error, "the last spans were not exported");
    }
}
