//! Whether what was seen is well.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use weir_tests::chaos::Executed;
use weir_tests::open_loop::{Seen, Summary};
use weir_tests::slope::slope;

use super::actors::Count;

/// The first part of a run, in which pools fill, pages are touched for the first time and the allocator takes what it needs.
const WARM_UP: f64 = 0.25;
/// How much the line through the samples may rise over the rest, beyond what their scatter explains. Memory as a share of its mean: an
/// allocator's fragments come and go by a few percent. A connection, an instance or a generation forgotten each time would be far above:
/// there are a hundred broken-off requests, and more than one swap, for each percent.
const MEMORY: f64 = 0.03;
/// Descriptors: less than one for each change of the gateway that a run of a minute has.
const DESCRIPTORS: f64 = 8.0;
/// Standard errors of the slope that are taken for scatter.
const SCATTER: f64 = 3.0;

/// From just before to just after, on the clock of the load.
pub(super) type Event = (Duration, Duration);

/// The gateway at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) time: Duration,
    /// Resident memory, in bytes.
    pub(super) memory: u64,
    pub(super) descriptors: usize,
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Check {
    pub(super) what: String,
    pub(super) found: String,
    pub(super) limit: String,
    pub(super) good: bool,
}

impl Check {
    /// As text.
    pub(super) fn line(&self) -> String {
        let Self { what, found, limit, good } = self;
        format!("{} {what}: {found} ({limit})", if *good { "ok     " } else { "FAILED " })
    }
}

/// Requests lost and executed twice.
pub(super) fn requests(seen: &[Seen], kills: &[Event], executed: &Executed) -> Vec<Check> {
    let summary = Summary::of(seen);
    let lost_posts = seen.iter().filter(|one| one.is_post && one.is_lost());
    let without_reason = lost_posts.filter(|one| !one.was_under_way(kills)).count();
    let duplicates = executed.duplicates();
    let times =
        format!("p50 {:.1} ms, p99 {:.1} ms, max {:.0} ms", millis(summary.p50), millis(summary.p99), millis(summary.max));
    let none = |what: &str, count: u64| Check {
        what: what.to_owned(),
        found: count.to_string(),
        limit: "none".to_owned(),
        good: count == 0,
    };
    vec![
        Check {
            what: "requests".to_owned(),
            found: format!("{}, {times}", summary.requests),
            limit: "some".to_owned(),
            good: summary.requests > 0,
        },
        none("GETs lost", summary.lost_gets as u64),
        none("POSTs lost that were not under way at a kill", without_reason as u64),
        none("POSTs executed twice", duplicates),
    ]
}

/// Why answers of the gateway were 500 or more, from its decision log: status, reason, what became of each attempt, and how often.
pub(super) fn reasons(log: &str) -> Vec<String> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for line in log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let Some(status) = line["status"].as_u64().filter(|status| *status >= 500) else { continue };
        let attempts = line["attempts"].as_array().into_iter().flatten();
        let attempts: Vec<String> = attempts.map(|one| format!("{} {}", one["stage"], one["outcome"])).collect();
        let why = format!("{status} {} {} [{}]", line["method"], line["reason"], attempts.join(", ")).replace('"', "");
        *counts.entry(why).or_default() += 1;
    }
    counts.into_iter().map(|(why, count)| format!("{why} x{count}")).collect()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Memory and descriptors, after the warm-up.
pub(super) fn growth(samples: &[Sample], length: Duration) -> Vec<Check> {
    let after = length.mul_f64(WARM_UP);
    let late: Vec<&Sample> = samples.iter().filter(|sample| sample.time >= after).collect();
    let points = |of: fn(&Sample) -> f64| late.iter().map(|sample| (sample.time.as_secs_f64(), of(sample))).collect::<Vec<_>>();
    let memory = points(|sample| sample.memory as f64 / 1e6);
    let descriptors = points(|sample| sample.descriptors as f64);
    let mean = memory.iter().map(|(_, value)| value).sum::<f64>() / memory.len().max(1) as f64;
    vec![flat("memory (MB)", &memory, mean * MEMORY), flat("descriptors", &descriptors, DESCRIPTORS)]
}

/// Flat is what rises by less than the limit between the first sample and the last, after what scatter explains.
fn flat(what: &str, points: &[(f64, f64)], limit: f64) -> Check {
    let what = what.to_owned();
    let limit_text = format!("at most {limit:.1} over the run, beyond scatter");
    let (Some(line), Some(first), Some(last)) = (slope(points), points.first(), points.last()) else {
        return Check { what, found: "too few samples".to_owned(), limit: limit_text, good: false };
    };
    let seconds = last.0 - first.0;
    let (rise, scatter) = (line.per_unit * seconds, SCATTER * line.error * seconds);
    let found = format!(
        "{:.1} to {:.1}, slope {:+.3} a minute, {rise:+.1} +- {scatter:.1} over the run",
        first.1,
        last.1,
        line.per_unit * 60.0
    );
    Check { what, found, limit: limit_text, good: rise - scatter <= limit }
}

/// An actor whose deeds must all succeed, and who must have done one.
pub(super) fn actor(count: &Count) -> Check {
    let failed = count.failures.len();
    let first = count.failures.first().map(|failure| format!(", first: {failure}")).unwrap_or_default();
    Check {
        what: count.what.to_owned(),
        found: format!("{}, {failed} failed{first}", count.done),
        limit: "none failed".to_owned(),
        good: failed == 0 && count.done > 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_tests::chaos::executed;
    use weir_tests::open_loop::Outcome;

    fn samples(grows: impl Fn(u64) -> u64) -> Vec<Sample> {
        let sample = |second: u64| Sample { time: Duration::from_secs(second), memory: grows(second), descriptors: 50 };
        (0..60).map(sample).collect()
    }

    #[track_caller]
    fn check(grows: impl Fn(u64) -> u64, good: bool) {
        let checks = growth(&samples(grows), Duration::from_secs(60));
        assert_eq!(checks[0].good, good, "{checks:?}");
        assert!(checks[1].good, "{checks:?}");
    }

    #[test]
    fn what_grows_is_told_from_what_scatters() {
        check(|_| 100_000_000, true);
        check(|second| 100_000_000 + second % 7 * 1_000_000, true);
        check(|second| if second < 15 { second * 6_000_000 } else { 90_000_000 }, true);
        check(|second| 100_000_000 + second * 200_000, false);
        check(|second| 100_000_000 + second * 200_000 + second % 7 * 1_000_000, false);
    }

    #[test]
    fn too_few_samples_are_no_proof() {
        let checks = growth(&samples(|_| 1)[..2], Duration::from_secs(60));
        assert!(checks.iter().all(|check| !check.good));
    }

    #[test]
    fn a_lost_post_is_excused_only_when_its_upstream_died() {
        let seen = |id, is_post, outcome| Seen {
            number: id,
            id,
            is_post,
            offset: Duration::ZERO,
            latency: Duration::from_millis(1),
            outcome,
        };
        let all = [seen(1, true, Outcome::Status(502)), seen(2, false, Outcome::Status(200))];
        let good = |kill, journal: &str| {
            let checks =
                requests(&all, &[(Duration::from_secs(kill), Duration::from_secs(kill))], &executed(&[journal.to_owned()]));
            checks.iter().all(|check| check.good)
        };
        assert!(good(0, "s 1\n"));
        assert!(!good(5, "s 1\n"));
        assert!(!good(0, "s 1\nx 1\nx 1\n"));
        let lost = [seen(3, false, Outcome::NotConnected)];
        assert!(requests(&lost, &[], &Executed::default()).iter().any(|check| !check.good));
    }

    #[test]
    fn reasons_are_read_from_the_decision_log() {
        let line = r#"{"status":502,"method":"POST","reason":"upstream_reset","attempts":[{"stage":"head","outcome":"reset"}]}"#;
        let log = format!("{line}\n{line}\n{{\"status\":200}}\ngarbage\n");
        assert_eq!(reasons(&log), ["502 POST upstream_reset [head reset] x2"]);
    }

    #[test]
    fn an_actor_that_did_nothing_proves_nothing() {
        let count = |done, failures| Count { what: "reloads", done, failures };
        assert!(actor(&count(3, Vec::new())).good);
        assert!(!actor(&count(0, Vec::new())).good);
        assert!(!actor(&count(3, vec!["no".to_owned()])).good);
    }
}
