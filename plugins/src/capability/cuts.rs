//! What policies of one plugin reported beyond their limits, and was left out.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// Lines a second that one plugin may write to the operator's log: more is read by nobody, and each is a write on a worker.
const LINES_PER_SECOND: u64 = 200;
/// Bits of the counter of a second's lines.
const COUNT_BITS: u32 = 24;

/// Counters.
#[derive(Debug)]
pub struct Cuts {
    tags: AtomicU64,
    findings: AtomicU64,
    started: Instant,
    /// The second, and the lines written in it.
    lines: AtomicU64,
}

impl Default for Cuts {
    fn default() -> Self {
        Self { tags: AtomicU64::new(0), findings: AtomicU64::new(0), started: Instant::now(), lines: AtomicU64::new(0) }
    }
}

impl Cuts {
    pub(crate) fn tag(&self) {
        self.tags.fetch_add(1, Relaxed);
    }

    pub(crate) fn finding(&self) {
        self.findings.fetch_add(1, Relaxed);
    }

    /// Tags and findings left out.
    #[must_use]
    pub fn snapshot(&self) -> [(&'static str, u64); 2] {
        [("tags", self.tags.load(Relaxed)), ("findings", self.findings.load(Relaxed))]
    }

    /// Whether one more line may be written now.
    pub(crate) fn may_log(&self) -> bool {
        self.may_log_in(self.started.elapsed().as_secs())
    }

    fn may_log_in(&self, second: u64) -> bool {
        let lines = self.lines.load(Relaxed);
        let (of, count) = (lines >> COUNT_BITS, lines & ((1 << COUNT_BITS) - 1));
        let count = if of == second { count } else { 0 };
        if count >= LINES_PER_SECOND {
            return false;
        }
        // Two workers may count one line for two: a few more lines, never a flood.
        self.lines.store((second << COUNT_BITS) | (count + 1), Relaxed);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_lines_a_second_and_no_more() {
        let cuts = Cuts::default();
        let written = |second| (0..1_000).filter(|_| cuts.may_log_in(second)).count() as u64;
        assert_eq!([0, 0, 1, 7].map(written), [LINES_PER_SECOND, 0, LINES_PER_SECOND, LINES_PER_SECOND]);
    }
}
