//! What clients saw, and what it adds up to.

use std::time::Duration;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With a whole answer.
    Status(u16),
    /// Without a connection.
    NotConnected,
    /// Without a whole answer.
    Broken {
        /// The connection had carried a request before.
        reused: bool,
    },
    /// With the answer to another request.
    Mixed,
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its place in the plan, from 0.
    pub number: u64,
    /// Its id.
    pub id: u64,
    /// POST, not GET.
    pub is_post: bool,
    /// When it should have begun, after the start.
    pub offset: Duration,
    /// From then to its end.
    pub latency: Duration,
    /// How it ended.
    pub outcome: Outcome,
}

impl Seen {
    /// No whole answer, or one of a server that failed.
    #[must_use]
    pub const fn is_lost(&self) -> bool {
        !matches!(self.outcome, Outcome::Status(..500))
    }

    /// Whether it was under way during one of these events: the times after the start before which it had not begun and after which it
    /// was over, such as around the kill of a server.
    #[must_use]
    pub fn was_under_way(&self, events: &[(Duration, Duration)]) -> bool {
        let (from, to) = (self.offset.saturating_sub(BLUR), self.offset + self.latency + BLUR);
        events.iter().any(|(before, after)| from <= *after && *before <= to)
    }
}

/// How exactly times are known: whoever looks at the clock may have to wait for a processor first.
const BLUR: Duration = Duration::from_millis(100);

/// What many requests saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Requests.
    pub requests: usize,
    /// GETs without a whole answer, or with a status of 500 or more.
    pub lost_gets: usize,
    /// The same of POSTs.
    pub lost_posts: usize,
    /// Half took no longer.
    pub p50: Duration,
    /// 90 of 100 took no longer.
    pub p90: Duration,
    /// 99 of 100 took no longer.
    pub p99: Duration,
    /// The slowest.
    pub max: Duration,
}

impl Summary {
    /// Adds them up.
    #[must_use]
    pub fn of<'a>(seen: impl IntoIterator<Item = &'a Seen>) -> Self {
        let mut all = Self::default();
        let mut latencies = Vec::new();
        for one in seen {
            all.requests += 1;
            latencies.push(one.latency);
            if one.is_lost() {
                let lost = if one.is_post { &mut all.lost_posts } else { &mut all.lost_gets };
                *lost += 1;
            }
        }
        latencies.sort_unstable();
        all.p50 = percentile(&latencies, 50);
        all.p90 = percentile(&latencies, 90);
        all.p99 = percentile(&latencies, 99);
        all.max = latencies.last().copied().unwrap_or_default();
        all
    }

    /// Lost requests.
    #[must_use]
    pub const fn lost(&self) -> usize {
        self.lost_gets + self.lost_posts
    }
}

/// How lost requests ended, the most frequent first, such as `502 x3, broken x1`; empty when none was lost.
#[must_use]
pub fn causes<'a>(seen: impl IntoIterator<Item = &'a Seen>) -> String {
    let mut counts: Vec<(String, usize)> = Vec::new();
    for one in seen.into_iter().filter(|one| one.is_lost()) {
        let cause = match one.outcome {
            Outcome::Status(status) => status.to_string(),
            Outcome::NotConnected => "not connected".to_owned(),
            Outcome::Broken { reused: true } => "broken on a kept connection".to_owned(),
            Outcome::Broken { reused: false } => "broken on a new connection".to_owned(),
            Outcome::Mixed => "another's answer".to_owned(),
        };
        match counts.iter_mut().find(|(own, _)| *own == cause) {
            Some((_, count)) => *count += 1,
            None => counts.push((cause, 1)),
        }
    }
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts.iter().map(|(cause, count)| format!("{cause} x{count}")).collect::<Vec<_>>().join(", ")
}

/// The smallest value that so many percent of the sorted values do not exceed (nearest rank); zero of nothing.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(number: u64, millis: u64, is_post: bool, outcome: Outcome) -> Seen {
        Seen { number, id: number, is_post, offset: Duration::ZERO, latency: Duration::from_millis(millis), outcome }
    }

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let values: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(percentile(&values, 50), Duration::from_millis(100));
        assert_eq!(percentile(&values, 99), Duration::from_millis(198));
        assert_eq!(percentile(&values[..1], 99), Duration::from_millis(1));
        assert_eq!(percentile(&[], 99), Duration::ZERO);
    }

    #[test]
    fn what_has_no_good_answer_is_lost() {
        let cases = [
            (Outcome::Status(200), false),
            (Outcome::Status(404), false),
            (Outcome::Status(499), false),
            (Outcome::Status(500), true),
            (Outcome::Status(503), true),
            (Outcome::NotConnected, true),
            (Outcome::Broken { reused: true }, true),
            (Outcome::Mixed, true),
        ];
        for (outcome, lost) in cases {
            assert_eq!(seen(0, 1, false, outcome).is_lost(), lost, "{outcome:?}");
        }
    }

    #[test]
    fn a_request_is_under_way_from_its_start_to_its_end() {
        let request = Seen { offset: Duration::from_secs(10), ..seen(0, 500, true, Outcome::Status(502)) };
        let under_way = |millis| {
            let (zero, before) = (Duration::ZERO, Duration::from_millis(millis));
            request.was_under_way(&[(zero, zero), (before, before + Duration::from_millis(50))])
        };
        assert_eq!([9_800, 9_900, 10_300, 10_550, 10_700].map(under_way), [false, true, true, true, false]);
    }

    #[test]
    fn gets_and_posts_are_told_apart() {
        let all = [
            seen(0, 1, false, Outcome::Status(200)),
            seen(1, 9, false, Outcome::Status(502)),
            seen(2, 3, true, Outcome::NotConnected),
            seen(3, 2, true, Outcome::Mixed),
        ];
        let summary = Summary::of(&all);
        assert_eq!((summary.requests, summary.lost_gets, summary.lost_posts, summary.lost()), (4, 1, 2, 3));
        assert_eq!((summary.p50, summary.max), (Duration::from_millis(2), Duration::from_millis(9)));
        assert_eq!(Summary::of(&[]), Summary::default());
        assert_eq!(causes(&all), "502 x1, not connected x1, another's answer x1");
    }
}
