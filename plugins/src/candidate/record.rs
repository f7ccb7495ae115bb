//! What came of a trial so far, for the operator: counters, and the last exchanges that differed.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use super::compare::Difference;
use crate::decision::{Phase, VerdictKind};

/// Differing exchanges that are kept to be looked up.
const KEPT: usize = 16;
/// A candidate that fails more often than this, of so many calls, is asked no more: its time is its requests' time.
const FAILED_OF: u64 = 20;
const ENOUGH_CALLS: u64 = 100;

/// The record of one trial.
#[derive(Debug, Default)]
pub struct Record {
    agreed: AtomicU64,
    differed: AtomicU64,
    failed: AtomicU64,
    suspended: AtomicBool,
    last: Mutex<VecDeque<Differing>>,
}

/// One exchange in which a candidate differed.
#[derive(Clone, Debug)]
pub struct Differing {
    /// The request id; 0 of a connection.
    pub request: u128,
    /// When.
    pub at: SystemTime,
    /// In which phase.
    pub phase: Phase,
    /// How.
    pub difference: Difference,
    /// The stable version's verdict.
    pub stable: VerdictKind,
    /// The candidate's.
    pub candidate: VerdictKind,
}

impl Record {
    /// Calls of a shadow that agreed; all calls of a canary that did not fail.
    #[must_use]
    pub fn agreed(&self) -> u64 {
        self.agreed.load(Relaxed)
    }

    /// Calls of a shadow that differed from the stable version.
    #[must_use]
    pub fn differed(&self) -> u64 {
        self.differed.load(Relaxed)
    }

    /// Calls that gave no verdict.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failed.load(Relaxed)
    }

    /// It failed too often and is asked no more.
    #[must_use]
    pub fn is_suspended(&self) -> bool {
        self.suspended.load(Relaxed)
    }

    /// The last exchanges that differed, newest first.
    #[must_use]
    pub fn last(&self) -> Vec<Differing> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    pub(super) fn agree(&self) {
        self.agreed.fetch_add(1, Relaxed);
    }

    pub(super) fn differ(&self, differing: Differing) {
        self.differed.fetch_add(1, Relaxed);
        self.keep(differing);
    }

    /// Answers whether the candidate is suspended by this failure.
    pub(super) fn fail(&self, differing: Option<Differing>) -> bool {
        let failed = self.failed.fetch_add(1, Relaxed) + 1;
        if let Some(differing) = differing {
            self.keep(differing);
        }
        let calls = failed + self.agreed() + self.differed();
        is_too_often(failed, calls) && !self.suspended.swap(true, Relaxed)
    }

    /// A request does not wait for whoever looks at the list: one exchange less is kept then.
    fn keep(&self, differing: Differing) {
        if let Ok(mut last) = self.last.try_lock() {
            last.truncate(KEPT - 1);
            last.push_front(differing);
        }
    }
}

const fn is_too_often(failed: u64, calls: u64) -> bool {
    calls >= ENOUGH_CALLS && failed * FAILED_OF >= calls
}

#[cfg(test)]
mod tests {
    use super::*;

    fn differing(request: u128) -> Differing {
        let (stable, candidate) = (VerdictKind::Next, VerdictKind::Deny);
        Differing {
            request,
            at: SystemTime::UNIX_EPOCH,
            phase: Phase::Request,
            difference: Difference::Verdict,
            stable,
            candidate,
        }
    }

    #[test]
    fn the_last_are_kept_and_no_more() {
        let record = Record::default();
        (0..100).for_each(|request| record.differ(differing(request)));
        let last: Vec<u128> = record.last().iter().map(|one| one.request).collect();
        assert_eq!(last, (84..100).rev().collect::<Vec<u128>>());
        assert_eq!(record.differed(), 100);
    }

    #[test]
    fn a_candidate_that_fails_too_often_is_suspended_once() {
        for (failed, calls, want) in
            [(1, 1, false), (99, 99, false), (4, 100, false), (5, 100, true), (49, 1000, false), (50, 1000, true)]
        {
            assert_eq!(is_too_often(failed, calls), want, "{failed} of {calls}");
        }
        let record = Record::default();
        (0..95).for_each(|_| record.agree());
        let told = (0..10).filter(|_| record.fail(None)).count();
        assert!(record.is_suspended() && told == 1);
    }
}
