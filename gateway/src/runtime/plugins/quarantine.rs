//! When a generation fails too often to be called, and when it may be called again. Counts and a time in, an action out.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::config::Quarantine as Rule;

/// Calls that are made after a rest, to see whether it works again.
pub const PROBES: u32 = 5;
/// How long probes may take to be made. A rarely asked policy gets new ones then, in place of those that told nothing.
const PROBING: Duration = Duration::from_secs(5);
/// The first rest.
const FIRST_REST: Duration = Duration::from_secs(1);
/// The longest: a fault that has gone is noticed within a minute.
const LONGEST_REST: Duration = Duration::from_secs(60);
/// Who has worked for so long begins with the first rest again.
const FORGIVEN: Duration = Duration::from_secs(300);
/// Grain of the window: so many samples make it up.
const SAMPLES: u32 = 30;

/// What a generation has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls that were made.
    pub calls: u64,
    /// Those of them that trapped, ran out of time or broke the contract.
    pub failures: u64,
}

impl Counts {
    fn since(self, before: Self) -> Self {
        Self { calls: self.calls.saturating_sub(before.calls), failures: self.failures.saturating_sub(before.failures) }
    }

    fn is_too_much(self, rule: &Rule) -> bool {
        rule.failures > 0.0 && self.calls >= rule.calls && self.failures as f64 >= self.calls as f64 * rule.failures
    }
}

/// What is to be done about a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    Nothing,
    /// So many calls failed: take it out of service.
    Quarantine(Counts),
    /// Its rest is over: let so many calls through.
    Probe(u32),
    /// A probe failed: it rests for so long.
    Rest(Duration),
    /// It works again.
    Recover,
}

/// How a generation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It is called.
    Working,
    /// It is not called.
    Resting,
    /// A few calls are made.
    Probing,
}

/// Judges one generation.
#[derive(Debug)]
pub struct Breaker {
    state: State,
    /// How long the next rest is.
    rest: Duration,
}

#[derive(Debug)]
enum State {
    Working { samples: VecDeque<(Instant, Counts)>, since: Instant },
    Resting { until: Instant },
    Probing { before: Counts, until: Instant },
}

impl Breaker {
    /// Of a generation that begins.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { state: State::working(now, Counts::default()), rest: FIRST_REST }
    }

    /// Of a generation that was in quarantine when the process before this one ended.
    #[must_use]
    pub fn resting(now: Instant) -> Self {
        let mut breaker = Self::new(now);
        breaker.rest(now);
        breaker
    }

    /// How it is.
    #[must_use]
    pub const fn health(&self) -> Health {
        match self.state {
            State::Working { .. } => Health::Working,
            State::Resting { .. } => Health::Resting,
            State::Probing { .. } => Health::Probing,
        }
    }

    /// It is taken out of service for a while, twice as long as the last time. Answers how long.
    pub fn rest(&mut self, now: Instant) -> Duration {
        let rest = self.rest;
        self.state = State::Resting { until: now + rest };
        self.rest = (rest * 2).min(LONGEST_REST);
        rest
    }

    /// Looks at what it has done.
    pub fn judge(&mut self, rule: &Rule, counts: Counts, now: Instant) -> Action {
        match &mut self.state {
            State::Working { samples, since } => {
                if now.duration_since(*since) >= FORGIVEN {
                    self.rest = FIRST_REST;
                }
                while samples.front().is_some_and(|(at, _)| now.duration_since(*at) > rule.within) {
                    samples.pop_front();
                }
                let before = samples.front().map_or(counts, |(_, before)| *before);
                if samples.back().is_none_or(|(at, _)| now.duration_since(*at) >= rule.within / SAMPLES) {
                    samples.push_back((now, counts));
                }
                let recent = counts.since(before);
                if recent.is_too_much(rule) { Action::Quarantine(recent) } else { Action::Nothing }
            }
            State::Resting { until } if now < *until => Action::Nothing,
            State::Resting { .. } => {
                self.state = State::Probing { before: counts, until: now + PROBING };
                Action::Probe(PROBES)
            }
            State::Probing { before, until } => {
                let probes = counts.since(*before);
                if probes.failures > 0 {
                    Action::Rest(self.rest(now))
                } else if probes.calls >= u64::from(PROBES) {
                    self.state = State::working(now, counts);
                    Action::Recover
                } else if now >= *until {
                    // A probe whose client has gone, or that found no instance, says nothing and does not come back.
                    self.state = State::Probing { before: counts, until: now + PROBING };
                    Action::Probe(PROBES)
                } else {
                    Action::Nothing
                }
            }
        }
    }
}

impl State {
    fn working(now: Instant, counts: Counts) -> Self {
        Self::Working { samples: VecDeque::from([(now, counts)]), since: now }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(calls: u64, failures: u64) -> Counts {
        Counts { calls, failures }
    }

    #[test]
    fn five_percent_of_a_hundred_calls_within_thirty_seconds_are_too_much() {
        /// Seconds, and calls and failures by then.
        type Steps = &'static [(u64, u64, u64)];
        let cases: &[(&str, Steps, bool)] = &[
            ("few calls", &[(1, 99, 99)], false),
            ("a hundred, five failed", &[(1, 100, 5)], true),
            ("a hundred, four failed", &[(1, 100, 4)], false),
            ("one percent of many", &[(1, 5_000, 50), (2, 10_000, 100), (30, 150_000, 1_500)], false),
            ("failures long ago", &[(1, 99, 50), (32, 99, 50), (33, 300, 52)], false),
            ("slowly, within the window", &[(10, 40, 2), (20, 70, 3), (29, 100, 5)], true),
            ("slowly, beyond the window", &[(15, 50, 3), (30, 90, 4), (46, 140, 7)], false),
            ("all of a sudden, after much good", &[(20, 100_000, 0), (21, 105_000, 5_300)], true),
            ("no call at all", &[(1, 0, 0), (2, 0, 0)], false),
            ("a query of death among much good", &[(20, 100_000, 0), (21, 105_000, 40)], false),
        ];
        for (name, steps, expected) in cases {
            let start = Instant::now();
            let mut breaker = Breaker::new(start);
            let mut last = Action::Nothing;
            for (second, calls, failures) in *steps {
                last = breaker.judge(&Rule::default(), counts(*calls, *failures), start + Duration::from_secs(*second));
            }
            assert_eq!(matches!(last, Action::Quarantine(_)), *expected, "{name}: {last:?}");
        }
    }

    #[test]
    fn the_operator_sets_the_rule() {
        let rule = |failures, calls, within| Rule { failures, calls, within: Duration::from_secs(within) };
        let cases = [
            (rule(0.0, 100, 30), counts(1_000, 1_000), false),
            (rule(0.5, 100, 30), counts(1_000, 499), false),
            (rule(0.5, 100, 30), counts(1_000, 500), true),
            (rule(0.5, 10, 30), counts(10, 5), true),
            (rule(1.0, 10, 5), counts(10, 9), false),
        ];
        for (rule, seen, expected) in cases {
            let start = Instant::now();
            let action = Breaker::new(start).judge(&rule, seen, start + Duration::from_secs(1));
            assert_eq!(matches!(action, Action::Quarantine(_)), expected, "{rule:?} {seen:?}");
        }
    }

    #[test]
    fn the_window_moves_with_looks_at_any_pace() {
        let start = Instant::now();
        for pace in [50, 1_000, 3_000] {
            let mut breaker = Breaker::new(start);
            for step in 1..2_000 {
                // 40 calls a second, 4 % of them fail.
                let at = step * pace;
                let calls = at * 40 / 1_000;
                let got = breaker.judge(&Rule::default(), counts(calls, calls * 4 / 100), start + Duration::from_millis(at));
                assert_eq!(got, Action::Nothing, "at {at} ms");
            }
            let State::Working { samples, .. } = &breaker.state else { panic!("{breaker:?}") };
            assert!(samples.len() <= 31, "{} samples", samples.len());
        }
    }

    #[test]
    fn rests_grow_until_probes_succeed() {
        let start = Instant::now();
        let mut breaker = Breaker::new(start);
        let mut now = start;
        let mut done = counts(100, 100);
        assert_eq!(breaker.judge(&Rule::default(), done, now), Action::Quarantine(done));
        let mut rest = breaker.rest(now);
        for expected in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(rest, Duration::from_secs(expected));
            assert_eq!(breaker.judge(&Rule::default(), done, now + rest - Duration::from_millis(1)), Action::Nothing);
            now += rest;
            assert_eq!(breaker.judge(&Rule::default(), done, now), Action::Probe(PROBES));
            assert_eq!(
                (breaker.judge(&Rule::default(), done, now), breaker.health()),
                (Action::Nothing, Health::Probing),
                "no call yet"
            );
            done = counts(done.calls + 2, done.failures + 1);
            let Action::Rest(next) = breaker.judge(&Rule::default(), done, now) else { panic!("{breaker:?}") };
            rest = next;
        }
        now += rest;
        assert_eq!(breaker.judge(&Rule::default(), done, now), Action::Probe(PROBES));
        // A client that goes away takes its probe along.
        done.calls += u64::from(PROBES) - 1;
        assert_eq!(breaker.judge(&Rule::default(), done, now + PROBING - Duration::from_millis(1)), Action::Nothing);
        now += PROBING;
        assert_eq!(breaker.judge(&Rule::default(), done, now), Action::Probe(PROBES));
        done.calls += u64::from(PROBES);
        assert_eq!((breaker.judge(&Rule::default(), done, now), breaker.health()), (Action::Recover, Health::Working));
        done = counts(done.calls + 200, done.failures + 100);
        assert!(matches!(breaker.judge(&Rule::default(), done, now), Action::Quarantine(_)));
        assert_eq!(breaker.rest(now), LONGEST_REST, "not forgiven yet");
    }

    #[test]
    fn who_has_worked_long_begins_anew() {
        let start = Instant::now();
        let mut breaker = Breaker::resting(start);
        assert_eq!(breaker.health(), Health::Resting);
        let now = start + FIRST_REST;
        assert_eq!(breaker.judge(&Rule::default(), Counts::default(), now), Action::Probe(PROBES));
        assert_eq!(breaker.judge(&Rule::default(), counts(5, 0), now), Action::Recover);
        assert_eq!(breaker.judge(&Rule::default(), counts(5, 0), now + FORGIVEN), Action::Nothing);
        assert_eq!(breaker.rest(now + FORGIVEN), FIRST_REST);
    }
}
