//! What the calls of a generation cost and decided, in atomics.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::decision::VerdictKind;
use crate::error::CallError;

/// Buckets of call time: bucket `n` counts calls below `2^n / 4` µs, the last one everything else.
const BUCKETS: usize = 20;

#[derive(Debug, Default)]
pub(crate) struct Stats {
    calls: AtomicU64,
    denials: AtomicU64,
    traps: AtomicU64,
    timeouts: AtomicU64,
    exhausted: AtomicU64,
    quarantined: AtomicU64,
    nanos: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
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
    pub(crate) fn record(&self, verdict: VerdictKind, elapsed: Duration) {
        let nanos = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        self.calls.fetch_add(1, Relaxed);
        self.nanos.fetch_add(nanos, Relaxed);
        if matches!(verdict, VerdictKind::Deny | VerdictKind::Reply) {
            self.denials.fetch_add(1, Relaxed);
        }
        let bucket = ((nanos / 250).checked_ilog2().map_or(0, |log| log as usize + 1)).min(BUCKETS - 1);
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn failed(&self, error: &CallError) {
        match error {
            CallError::Trap(_) | CallError::Contract(_) => self.traps.fetch_add(1, Relaxed),
            CallError::Cpu(_) | CallError::Wall(_) => self.timeouts.fetch_add(1, Relaxed),
            CallError::Exhausted(_) => self.exhausted.fetch_add(1, Relaxed),
            CallError::Quarantined => self.quarantined.fetch_add(1, Relaxed),
        };
    }

    pub(crate) fn snapshot(&self) -> StatsSnapshot {
        let counts: Vec<u64> = self.buckets.iter().map(|bucket| bucket.load(Relaxed)).collect();
        StatsSnapshot {
            calls: self.calls.load(Relaxed),
            denials: self.denials.load(Relaxed),
            traps: self.traps.load(Relaxed),
            timeouts: self.timeouts.load(Relaxed),
            exhausted: self.exhausted.load(Relaxed),
            quarantined: self.quarantined.load(Relaxed),
            nanos: self.nanos.load(Relaxed),
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
        let stats = Stats::default();
        for _ in 0..98 {
            stats.record(VerdictKind::Next, Duration::from_nanos(900));
        }
        stats.record(VerdictKind::Deny, Duration::from_micros(100));
        stats.record(VerdictKind::Deny, Duration::from_micros(100));
        let got = stats.snapshot();
        assert_eq!((got.calls, got.denials), (100, 2));
        assert_eq!(got.p50_us, 1.0);
        assert_eq!(got.p99_us, 128.0);
        assert_eq!(Stats::default().snapshot().p99_us, 0.0);
    }
}
