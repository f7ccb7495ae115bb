//! What the calls of a generation cost and decided.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::decision::VerdictKind;
use crate::error::CallError;
use crate::per_worker::{Counter, PerWorker};

/// Buckets of call time: bucket `n` counts calls below `2^n / 4` µs, the last one everything else.
const BUCKETS: usize = 20;

#[derive(Debug)]
pub(crate) struct Stats {
    calls: PerWorker<Calls>,
    traps: AtomicU64,
    timeouts: AtomicU64,
    waited: AtomicU64,
    exhausted: AtomicU64,
    quarantined: AtomicU64,
}

/// What is counted at every call. Each has a bucket: their sum is the number of calls.
#[derive(Debug, Default)]
struct Calls {
    denials: Counter,
    nanos: Counter,
    buckets: [Counter; BUCKETS],
}

/// A copy of a generation's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StatsSnapshot {
    /// Calls of any phase, those that were not made included (`exhausted`, `quarantined`).
    pub calls: u64,
    /// Refusals and answers by the policy.
    pub denials: u64,
    /// Traps, contract breaks included.
    pub traps: u64,
    /// CPU or wall deadlines.
    pub timeouts: u64,
    /// Those of them that passed while the call waited for an upstream.
    pub waited: u64,
    /// Calls that found no instance.
    pub exhausted: u64,
    /// Calls that were not made, because it failed too often.
    pub quarantined: u64,
    /// Total call time in nanoseconds.
    pub nanos: u64,
    /// Median call time in µs, as the upper edge of its bucket.
    pub p50_us: f64,
    /// 99th percentile in µs, as the upper edge of its bucket.
    pub p99_us: f64,
}

impl Stats {
    /// Nothing yet, by so many workers.
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            calls: PerWorker::new(workers),
            traps: AtomicU64::new(0),
            timeouts: AtomicU64::new(0),
            waited: AtomicU64::new(0),
            exhausted: AtomicU64::new(0),
            quarantined: AtomicU64::new(0),
        }
    }

    pub(crate) fn record(&self, verdict: VerdictKind, elapsed: Duration) {
        let nanos = elapsed.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(elapsed.subsec_nanos()));
        let (calls, writers) = self.calls.here();
        calls.nanos.add(nanos, writers);
        if matches!(verdict, VerdictKind::Deny | VerdictKind::Reply) {
            calls.denials.add(1, writers);
        }
        let bucket = ((nanos / 250).checked_ilog2().map_or(0, |log| log as usize + 1)).min(BUCKETS - 1);
        if let Some(bucket) = calls.buckets.get(bucket) {
            bucket.add(1, writers);
        }
    }

    pub(crate) fn failed(&self, error: &CallError) {
        match error {
            CallError::Trap(_) | CallError::Contract(_) => self.traps.fetch_add(1, Relaxed),
            CallError::Cpu(_) | CallError::Wall(_) => self.timeouts.fetch_add(1, Relaxed),
            CallError::Waited(_) => {
                self.waited.fetch_add(1, Relaxed);
                self.timeouts.fetch_add(1, Relaxed)
            }
            CallError::Exhausted(_) => self.exhausted.fetch_add(1, Relaxed),
            CallError::Quarantined => self.quarantined.fetch_add(1, Relaxed),
        };
    }

    pub(crate) fn snapshot(&self) -> StatsSnapshot {
        let mut counts = [0; BUCKETS];
        for calls in self.calls.all() {
            counts.iter_mut().zip(&calls.buckets).for_each(|(sum, bucket)| *sum += bucket.load());
        }
        StatsSnapshot {
            calls: counts.iter().sum(),
            denials: self.calls.sum(|calls| &calls.denials),
            traps: self.traps.load(Relaxed),
            timeouts: self.timeouts.load(Relaxed),
            waited: self.waited.load(Relaxed),
            exhausted: self.exhausted.load(Relaxed),
            quarantined: self.quarantined.load(Relaxed),
            nanos: self.calls.sum(|calls| &calls.nanos),
            p50_us: quantile(&counts, 0.50),
            p99_us: quantile(&counts, 0.99),
        }
    }
}

fn quantile(counts: &[u64], share: f64) -> f64 {
    let total: u64 = counts.iter().sum();
    if total == 0 {
        return 0.0;
    }
    let wanted = (total as f64 * share).ceil() as u64;
    let mut seen = 0;
    for (bucket, count) in counts.iter().enumerate() {
        seen += count;
        if seen >= wanted {
            return 0.25 * 2f64.powi(i32::try_from(bucket).unwrap_or(0));
        }
    }
    f64::INFINITY
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_upper_edges_of_buckets() {
        let stats = Stats::new(1);
        for _ in 0..98 {
            stats.record(VerdictKind::Next, Duration::from_nanos(900));
        }
        stats.record(VerdictKind::Deny, Duration::from_micros(100));
        stats.record(VerdictKind::Deny, Duration::from_micros(100));
        let got = stats.snapshot();
        assert_eq!((got.calls, got.denials), (100, 2));
        assert_eq!(got.p50_us, 1.0);
        assert_eq!(got.p99_us, 128.0);
        assert_eq!(Stats::new(1).snapshot().p99_us, 0.0);
    }
}
