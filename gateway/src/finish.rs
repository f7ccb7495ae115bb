//! The end of an exchange: exactly one record, whatever happened, and what the exchange held is given back.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use weir_plugins::{Exchange, Outcome, Phase};

use crate::clock;
use crate::http::body::BodyError;
use crate::http::respond;
use crate::http1::client::Connection;
use crate::observe::metrics::Active;
use crate::observe::record::{AccessRecord, DecidedBy};
use crate::runtime::snapshot::Site;
use crate::runtime::worker::{OpenTunnel, Worker};

/// How a response body ended.
#[derive(Clone, Copy, Debug)]
pub enum End<'a> {
    /// All of it was handed to the client's connection.
    Complete,
    /// The client's connection ended first.
    ClientGone,
    /// The upstream's body, or a policy on it, failed.
    Upstream(&'a BodyError),
}

/// An exchange in progress. Whoever holds one ends it: the pipeline's [`InFlight`] until there is a response, its body afterwards.
#[derive(Debug)]
pub struct Finish {
    /// What will be recorded.
    pub record: Box<AccessRecord>,
    /// What policies see, when the site has any.
    pub exchange: Option<Box<Exchange>>,
    /// Once routed.
    pub site: Option<Arc<Site>>,
    /// The server that answered, and how long a connection to it may be kept unused.
    pub server: Option<(u64, Duration)>,
    /// The connection to give back to it.
    pub reuse: Option<Box<Connection>>,
    /// The request id as the upstream and the client see it.
    pub id_text: respond::IdText,
    /// Counts the request body.
    pub bytes_in: Rc<Cell<u64>>,
    worker: Rc<Worker>,
    /// Held for the gauge of exchanges in progress.
    _active: Active,
}

/// An exchange that has no response yet. Dropped while it is so, the client has gone.
#[derive(Debug)]
pub struct InFlight(pub Option<Box<Finish>>);

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(finish) = self.0.take() {
            finish.end(End::ClientGone);
        }
    }
}

impl Finish {
    /// Starts following an exchange.
    #[must_use]
    pub fn new(record: Box<AccessRecord>, worker: Rc<Worker>) -> Box<Self> {
        let active = worker.shared.recorder.metrics().request();
        let bytes_in = Rc::default();
        let id_text = respond::request_id(record.request_id);
        Box::new(Self {
            record,
            exchange: None,
            site: None,
            server: None,
            reuse: None,
            id_text,
            bytes_in,
            worker,
            _active: active,
        })
    }

    /// Counts the exchange as a tunnel from now on.
    #[must_use]
    pub fn tunnel(&self) -> OpenTunnel {
        self.worker.tunnel()
    }

    /// Counts response bytes.
    pub const fn sent(&mut self, bytes: usize) {
        self.record.bytes_out += bytes as u64;
    }

    /// Takes the exchange back from whoever held it.
    pub fn give_back(&mut self, exchange: Option<Box<Exchange>>) {
        self.exchange = exchange.or_else(|| self.exchange.take());
    }

    /// Ends the exchange: gives the connection back, tells the policies that asked, and records.
    pub fn end(self, end: End<'_>) {
        let Self { mut record, exchange, site, server, reuse, bytes_in, worker, id_text: _, _active } = self;
        let now = clock::read();
        record.duration = now.saturating_duration_since(record.started);
        record.bytes_in = bytes_in.get();
        match end {
            End::Complete => {
                if let (Some((server, idle)), Some(connection)) = (server, reuse) {
                    worker.pool.keep(server, connection, idle, now);
                }
            }
            End::ClientGone if record.reason.is_empty() => "client_gone".clone_into(&mut record.reason),
            End::ClientGone => {}
            End::Upstream(error) => note_body_failure(&mut record, error),
        }
        let recorder = &worker.shared.recorder;
        let Some(exchange) = exchange else {
            recorder.record(record);
            return;
        };
        match site {
            Some(site) if site.chain.wants(Phase::Complete) => {
                let recorder = recorder.clone();
                tokio::task::spawn_local(async move {
                    let mut slot = Some(exchange);
                    site.chain.complete(&mut slot, &outcome(&record)).await;
                    absorb(&mut record, slot);
                    recorder.record(record);
                });
            }
            _ => {
                absorb(&mut record, Some(exchange));
                recorder.record(record);
            }
        }
    }
}

fn outcome(record: &AccessRecord) -> Outcome {
    Outcome {
        status: record.status,
        decided_by: record.decided_by.as_str().to_owned(),
        bytes_in: record.bytes_in,
        bytes_out: record.bytes_out,
        duration_us: u64::try_from(record.duration.as_micros()).unwrap_or(u64::MAX),
    }
}

fn note_body_failure(record: &mut AccessRecord, error: &BodyError) {
    record.reason = match error {
        BodyError::Broken(_) | BodyError::Cut(_) | BodyError::Malformed(_) => "upstream_body_failed".to_owned(),
        // Of a client's body only.
        BodyError::TooLarge(_) | BodyError::TooSlow(_) => "client_body_failed".to_owned(),
        BodyError::Stalled(_) => "upstream_body_stalled".to_owned(),
        BodyError::Policy(name) => {
            record.decided_by = DecidedBy::Policy(Arc::clone(name));
            "policy_failed_on_body".to_owned()
        }
    };
    if let (Some(attempt), false) = (record.attempts.last_mut(), matches!(error, BodyError::Policy(_))) {
        attempt.stage = "body";
        attempt.outcome = "broken";
    }
}

fn absorb(record: &mut AccessRecord, exchange: Option<Box<Exchange>>) {
    if let Some(exchange) = exchange {
        let exchange = *exchange;
        record.decisions = exchange.decisions;
        record.findings = exchange.findings;
        record.tags = exchange.tags;
        record.calls = exchange.calls;
    }
}
