//! The way of one request from server to server: who was tried, how it went, and what may still be tried.

use std::cell::OnceCell;
use std::sync::Arc;
use std::time::Instant;

use super::group::Group;
use super::server::Server;
use crate::observe::record::Attempt;
use crate::observe::trace;

/// One request's attempts.
#[derive(Debug)]
pub struct Journey<'a> {
    /// When it began.
    pub started: Instant,
    attempts: &'a mut Vec<Attempt>,
    /// Servers turned to in this round; `turned` of them.
    tried: [u64; MAX_TURNS],
    turned: usize,
    /// Servers turned to so far, the same one twice counted twice.
    turns: u32,
    /// Its place in the rotation, once it matters.
    lot: OnceCell<usize>,
}

/// The first attempt and the most that `retry.attempts` allows after it.
const MAX_TURNS: usize = 1 + crate::config::MAX_RETRY_ATTEMPTS as usize;

impl<'a> Journey<'a> {
    /// Begins a journey whose attempts are noted in this list.
    #[must_use]
    pub fn new(attempts: &'a mut Vec<Attempt>, now: Instant) -> Self {
        Self { started: now, attempts, tried: [0; MAX_TURNS], turned: 0, turns: 0, lot: OnceCell::new() }
    }

    /// When the response head must be there.
    #[must_use]
    pub fn deadline(&self, group: &Group) -> Option<Instant> {
        group.timeouts.total.and_then(|total| self.started.checked_add(total))
    }

    /// The next server that may be tried: one that was not, as long as `retry.attempts` allows.
    #[must_use]
    pub fn may_try<'g>(&self, group: &'g Group, now: Instant) -> Option<&'g Arc<Server>> {
        let tried = self.tried.get(..self.turned).unwrap_or_default();
        let lot = || *self.lot.get_or_init(|| group.draw_lot());
        (self.turns <= group.retry.attempts).then(|| group.pick(tried, lot, now)).flatten()
    }

    /// Turns to a server.
    pub fn try_now(&mut self, server: &Server) {
        self.turns += 1;
        if let Some(slot) = self.tried.get_mut(self.turned) {
            *slot = server.id;
            self.turned += 1;
        }
    }

    /// Turns to the next server: another one, or when all were tried one of them again.
    pub fn turn<'g>(&mut self, group: &'g Group, now: Instant) -> Option<&'g Arc<Server>> {
        let mut server = self.may_try(group, now);
        if server.is_none() && self.turned > 0 {
            self.turned = 0;
            server = self.may_try(group, now);
        }
        self.try_now(server?);
        server
    }

    /// Notes an attempt that brought no answer.
    pub fn note_failed(&mut self, server: &Arc<Server>, started: Instant, (stage, outcome): (&'static str, &'static str)) {
        self.note(server, started, trace::random_u64(), (stage, outcome), None);
    }

    /// Notes an attempt: how far it came and how it ended, and the status that came back.
    pub fn note(
        &mut self,
        server: &Arc<Server>,
        started: Instant,
        span_id: u64,
        (stage, outcome): (&'static str, &'static str),
        status: Option<u16>,
    ) {
        let elapsed = started.elapsed();
        if self.attempts.capacity() == 0 {
            // What most requests take.
            *self.attempts = Vec::with_capacity(1);
        }
        self.attempts.push(Attempt { server: Arc::clone(&server.label), stage, outcome, status, started, elapsed, span_id });
    }
}
