//! Whether a server is eligible. Results and a time in, a state out; no IO and no clock.

use std::time::{Duration, Instant};

/// How probe results turn into a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Failed probes in a row that take a server out.
    pub fall: u32,
    /// Good probes in a row that bring it back.
    pub rise: u32,
}

/// First pause after a failed connection when no probes run, doubled up to [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause before a request is let through again when no probes run.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// The health of one server.
///
/// With probes, a failed connection takes the server out at once and only probes bring it back, so that no client's request is the
/// guinea pig. Without probes it is left out for a pause that doubles with every further failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    probes: Option<Thresholds>,
    up: bool,
    good: u32,
    bad: u32,
    /// Without probes: not before this time.
    paused_until: Option<Instant>,
    pause: Duration,
}

impl Health {
    /// A server is presumed up until something says otherwise.
    #[must_use]
    pub const fn new(probes: Option<Thresholds>) -> Self {
        Self { probes, up: true, good: 0, bad: 0, paused_until: None, pause: MIN_PAUSE }
    }

    /// Whether only probes bring the server back.
    #[must_use]
    pub const fn has_probes(&self) -> bool {
        self.probes.is_some()
    }

    /// Whether requests may go there.
    #[must_use]
    pub fn is_eligible(&self, now: Instant) -> bool {
        if self.probes.is_some() { self.up } else { self.paused_until.is_none_or(|until| until <= now) }
    }

    /// A probe came back.
    pub fn on_probe(&mut self, ok: bool) {
        let Some(thresholds) = self.probes else { return };
        if ok {
            self.bad = 0;
            self.good = self.good.saturating_add(1);
            if self.good >= thresholds.rise {
                self.up = true;
            }
        } else {
            self.good = 0;
            self.bad = self.bad.saturating_add(1);
            if self.bad >= thresholds.fall {
                self.up = false;
            }
        }
    }

    /// A connection for a request could not be made.
    pub fn on_connect_failure(&mut self, now: Instant) {
        if self.probes.is_some() {
            self.up = false;
            self.good = 0;
        } else if self.is_eligible(now) {
            self.paused_until = now.checked_add(self.pause);
            self.pause = (self.pause * 2).min(MAX_PAUSE);
        }
    }

    /// A connection for a request was made.
    pub const fn on_connect_success(&mut self) {
        self.paused_until = None;
        self.pause = MIN_PAUSE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_decide_with_hysteresis() {
        let now = Instant::now();
        let mut health = Health::new(Some(Thresholds { fall: 2, rise: 3 }));
        health.on_probe(false);
        assert!(health.is_eligible(now), "one failed probe is no outage");
        health.on_probe(false);
        assert!(!health.is_eligible(now));
        for _ in 0..2 {
            health.on_probe(true);
            assert!(!health.is_eligible(now));
        }
        health.on_probe(true);
        assert!(health.is_eligible(now));
    }

    #[test]
    fn a_failed_connection_counts_at_once_and_only_probes_forgive() {
        let now = Instant::now();
        let mut health = Health::new(Some(Thresholds { fall: 2, rise: 3 }));
        health.on_connect_failure(now);
        assert!(!health.is_eligible(now + MAX_PAUSE * 10));
        (0..3).for_each(|_| health.on_probe(true));
        assert!(health.is_eligible(now));
    }

    #[test]
    fn without_probes_pauses_double() {
        let now = Instant::now();
        let mut health = Health::new(None);
        health.on_connect_failure(now);
        health.on_connect_failure(now);
        assert!(!health.is_eligible(now));
        assert!(health.is_eligible(now + MIN_PAUSE), "two failures at one time are one");
        health.on_connect_failure(now + MIN_PAUSE);
        assert!(!health.is_eligible(now + MIN_PAUSE * 2));
        assert!(health.is_eligible(now + MIN_PAUSE * 3));
        health.on_connect_success();
        health.on_connect_failure(now + MIN_PAUSE * 4);
        assert!(health.is_eligible(now + MIN_PAUSE * 5), "a success resets the pause");
    }
}
