//! How many requests may be sent again: a share of all, so that servers that already fail are not asked ever more.

use std::time::{Duration, Instant};

/// Retries are weighed against the requests of so long.
const WINDOW: Duration = Duration::from_secs(10);
/// Retries allowed in a window whatever the traffic, three a second: a quiet site must be able to retry at all.
const FLOOR: u64 = 30;

/// The retries of one upstream. Requests are counted elsewhere, so that the common path needs no lock.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    ratio: f64,
    from: Instant,
    /// Requests so far when the window began.
    base: u64,
    /// Requests of a window's length before that.
    before: u64,
    spent: u64,
}

impl Budget {
    /// Retries as a share of requests, 0 to 1.
    #[must_use]
    pub const fn new(ratio: f64, now: Instant) -> Self {
        Self { ratio, from: now, base: 0, before: 0, spent: 0 }
    }

    /// Takes one retry, if there is one; `requests` is how many there were in all.
    pub fn take(&mut self, requests: u64, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.from);
        let mut seen = requests.saturating_sub(self.base);
        if elapsed >= WINDOW {
            self.before = (seen as f64 * WINDOW.as_secs_f64() / elapsed.as_secs_f64()) as u64;
            (self.from, self.base, self.spent, seen) = (now, requests, 0, 0);
        }
        let allowed = FLOOR + (self.ratio * self.before.max(seen) as f64) as u64;
        let granted = self.ratio > 0.0 && self.spent < allowed;
        self.spent += u64::from(granted);
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Retries granted of many asked for at once, after windows with so many requests.
    fn granted(ratio: f64, windows: &[u64]) -> usize {
        let start = Instant::now();
        let mut budget = Budget::new(ratio, start);
        let (mut requests, mut now) = (0, start);
        for count in windows {
            requests += count;
            now += WINDOW;
            let _ = budget.take(requests, now);
        }
        budget.spent = 0;
        (0..100_000).filter(|_| budget.take(requests, now + Duration::from_secs(1))).count()
    }

    #[test]
    fn a_share_of_the_traffic_and_a_floor() {
        for (ratio, windows, want) in [
            (0.2, [].as_slice(), 30),
            (0.2, &[0], 30),
            (0.2, &[1000], 230),
            (0.2, &[1000, 0], 30),
            (0.5, &[10, 20_000], 10_030),
            (0.0, &[1000], 0),
        ] {
            assert_eq!(granted(ratio, windows), want, "{ratio} of {windows:?}");
        }
    }

    #[test]
    fn requests_of_a_long_quiet_time_count_by_their_rate() {
        let start = Instant::now();
        let mut budget = Budget::new(0.2, start);
        let now = start + WINDOW * 100;
        assert_eq!((0..1000).filter(|_| budget.take(10_000, now)).count(), 50, "100 in ten seconds");
        assert_eq!((0..1000).filter(|_| budget.take(11_000, now)).count(), 180, "1000 in this window");
    }
}
