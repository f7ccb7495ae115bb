//! What a generation may ask, how much of it is under way, and what came of it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::{CallOutError, ENDED, HttpOut, MAX_FIELD_BYTES};

/// What one generation was granted, and how much of it is in use.
#[derive(Debug, Default)]
pub(crate) struct Allowance {
    pub(crate) id: u64,
    pub(super) granted: HttpOut,
    under_way: AtomicUsize,
}

impl Allowance {
    pub(crate) fn new(granted: &HttpOut) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self { id, granted: granted.clone(), under_way: AtomicUsize::new(0) })
    }

    /// Bytes that the host takes from a guest for one call. Twice the limit, so that a body that is a little too long is refused with its
    /// reason.
    pub(crate) fn taken(&self) -> usize {
        if self.granted.upstreams.is_empty() {
            return 0;
        }
        self.granted.body.saturating_mul(2).saturating_add(4 * MAX_FIELD_BYTES)
    }

    pub(super) fn upstream(&self, name: &str) -> Result<Arc<str>, CallOutError> {
        self.granted.upstreams.iter().find(|own| ***own == *name).cloned().ok_or(CallOutError::NotGranted)
    }

    pub(super) fn begin(
        self: &Arc<Self>,
        counts: &Arc<CallCounts>,
        upstream: &Arc<str>,
        deadline: Instant,
    ) -> Result<UnderWay, CallOutError> {
        // The count is right before the look at it: two that begin at once see each other.
        let before = self.under_way.fetch_add(1, Ordering::Relaxed);
        if before < self.granted.calls {
            let (allowance, counts, upstream) = (Arc::clone(self), Arc::clone(counts), Arc::clone(upstream));
            return Ok(UnderWay { allowance, counts, upstream, deadline, answered: false });
        }
        self.under_way.fetch_sub(1, Ordering::Relaxed);
        Err(CallOutError::Busy)
    }
}

/// A call under way, until it is dropped.
pub(super) struct UnderWay {
    allowance: Arc<Allowance>,
    counts: Arc<CallCounts>,
    upstream: Arc<str>,
    deadline: Instant,
    /// There is a result, which is counted by whoever takes it.
    pub(super) answered: bool,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.allowance.under_way.fetch_sub(1, Ordering::Relaxed);
        if !self.answered {
            let is_late = Instant::now() >= self.deadline;
            self.counts.count(&self.upstream, if is_late { CallOutError::Timeout.as_str() } else { ENDED });
        }
    }
}

/// Calls of one plugin by upstream and outcome. Upstreams are those of the configuration, so there are few.
#[derive(Debug, Default)]
pub struct CallCounts(Mutex<BTreeMap<(Arc<str>, &'static str), u64>>);

impl CallCounts {
    pub(super) fn count(&self, upstream: &Arc<str>, outcome: &'static str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry((Arc::clone(upstream), outcome)).or_default() += 1;
    }

    /// Upstream, outcome and number of calls.
    #[must_use]
    pub fn snapshot(&self) -> Vec<(Arc<str>, &'static str, u64)> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.iter().map(|((upstream, outcome), count)| (Arc::clone(upstream), *outcome, *count)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn so_many_calls_are_under_way_and_no_more() {
        let allowance = Allowance::new(&HttpOut { upstreams: vec![Arc::from("auth")], calls: 2, body: 0 });
        assert_eq!(allowance.upstream("auth").as_deref(), Ok("auth"));
        assert_eq!(allowance.upstream("other"), Err(CallOutError::NotGranted));
        let (counts, auth, now) = (Arc::<CallCounts>::default(), Arc::from("auth"), Instant::now());
        let later = now + Duration::from_secs(60);
        let begin = |deadline| allowance.begin(&counts, &auth, deadline);
        let (first, second) = (begin(now).unwrap(), begin(later).unwrap());
        assert_eq!(begin(later).map(|_| ()).err(), Some(CallOutError::Busy));
        drop(first);
        let mut third = begin(later).unwrap();
        third.answered = true;
        drop((second, third));
        assert_eq!(allowance.under_way.load(Ordering::Relaxed), 0);
        let auth = |outcome| (Arc::from("auth"), outcome, 1);
        assert_eq!(counts.snapshot(), [auth("ended"), auth("timeout")], "an answer is counted by whoever takes it");
    }
}
