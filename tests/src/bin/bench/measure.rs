//! Rows of the report: the CPU time of a proxy per request, the median of some rounds.

use std::time::Duration;

use weir_tests::process::ProcessError;

use crate::error::Error;
use crate::load::{Generator, Sample, Target, Traffic};
use crate::notes::{self, Notes};
use crate::options::Options;
use crate::proxies::Proxy;

/// Seconds of traffic before the first round: pools fill and caches warm.
const WARM_UP: u32 = 1;

/// All rows, in the order in which they were measured.
pub(crate) type Rows = Vec<Row>;

/// One proxy under one kind of traffic: the round with the median CPU time, and the sums of what went wrong in all rounds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    /// The proxy's name.
    pub(crate) proxy: &'static str,
    /// The kind of traffic.
    pub(crate) traffic: Traffic,
    /// CPU time of the proxy and its children per request, in microseconds.
    pub(crate) cpu_us: f64,
    /// What the clients saw in that round.
    pub(crate) sample: Sample,
    /// Resident memory after that round, in bytes.
    pub(crate) memory: u64,
    /// Answers of all rounds that were not 2xx.
    pub(crate) refused: u64,
    /// Broken connections of all rounds.
    pub(crate) errors: u64,
}

/// Drives the proxies in turn, round after round, so that what else the machine does falls on all of them. One that fails is noted and
/// has no row.
pub(crate) fn interleaved(
    traffic: Traffic,
    proxies: &[&Proxy],
    generator: &Generator,
    options: &Options,
    notes: &mut Notes,
) -> Rows {
    let Options { rounds, seconds, .. } = *options;
    notes::say(&format!("{}: {} proxies, {rounds} x {seconds} s each", traffic.title(), proxies.len()));
    let mut measured: Vec<(&Proxy, Result<Vec<Row>, Error>)> = Vec::new();
    for proxy in proxies {
        measured.push((proxy, warm_up(proxy, traffic, generator).map(|()| Vec::new())));
    }
    for _ in 0..rounds {
        for (proxy, rows) in &mut measured {
            let Ok(so_far) = rows else { continue };
            match round(proxy, traffic, generator, seconds) {
                Ok(row) => so_far.push(row),
                Err(error) => *rows = Err(error),
            }
        }
    }
    let mut medians = Rows::new();
    for (_, rows) in measured {
        match rows {
            Ok(rows) => medians.extend(median(rows)),
            Err(error) => notes.fail(&format!("{}: {error}", traffic.title())),
        }
    }
    medians
}

fn warm_up(proxy: &Proxy, traffic: Traffic, generator: &Generator) -> Result<(), Error> {
    let target = target(proxy, traffic)?;
    generator.probe(&target)?;
    generator.drive(&target, WARM_UP).map(drop)
}

fn round(proxy: &Proxy, traffic: Traffic, generator: &Generator, seconds: u32) -> Result<Row, Error> {
    timed(proxy, traffic, seconds, |target| generator.drive(target, seconds))
}

/// One round with any load.
///
/// # Errors
/// The load's, or there was no answer.
pub(crate) fn timed(
    proxy: &Proxy,
    traffic: Traffic,
    seconds: u32,
    drive: impl FnOnce(&Target) -> Result<Sample, Error>,
) -> Result<Row, Error> {
    let target = target(proxy, traffic)?;
    let before = proxy.process.usage()?;
    let sample = drive(&target)?;
    let after = proxy.process.usage()?;
    if sample.requests == 0 {
        let reason = format!("no request was answered in {seconds} s; {} connections broke", sample.errors);
        return Err(Error::Load { target: proxy.name.to_owned(), reason });
    }
    Ok(Row {
        proxy: proxy.name,
        traffic,
        cpu_us: per_request(after.cpu.saturating_sub(before.cpu), sample.requests),
        sample,
        memory: after.memory,
        refused: sample.refused,
        errors: sample.errors,
    })
}

/// Whom to ask.
///
/// # Errors
/// It has no listener for this traffic.
pub(crate) fn target(proxy: &Proxy, traffic: Traffic) -> Result<Target, Error> {
    let address =
        proxy.address(traffic).ok_or_else(|| ProcessError::Gone { program: format!("the listener of {}", proxy.name) })?;
    Ok(Target { name: proxy.name, address, traffic })
}

fn per_request(cpu: Duration, requests: u64) -> f64 {
    cpu.as_secs_f64() * 1e6 / requests.max(1) as f64
}

/// The round in the middle by CPU time; of two, the dearer.
pub(crate) fn median(mut rounds: Vec<Row>) -> Option<Row> {
    rounds.sort_by(|one, other| one.cpu_us.total_cmp(&other.cpu_us));
    let middle = rounds.get(rounds.len() / 2)?;
    let refused = rounds.iter().map(|row| row.refused).sum();
    let errors = rounds.iter().map(|row| row.errors).sum();
    Some(Row { refused, errors, ..middle.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cpu_us: f64, refused: u64) -> Row {
        Row { proxy: "weir", traffic: Traffic::Plain, cpu_us, sample: Sample::default(), memory: 0, refused, errors: 1 }
    }

    #[test]
    fn the_median_round_counts_and_no_refusal_is_lost() {
        let median = median(vec![row(30.0, 0), row(10.0, 7), row(12.0, 0)]).unwrap();
        assert_eq!((median.cpu_us, median.refused, median.errors), (12.0, 7, 3));
    }

    #[test]
    fn no_rounds_are_no_row() {
        assert_eq!(median(Vec::new()), None);
    }

    #[test]
    fn cpu_time_is_shared_among_requests() {
        assert_eq!(per_request(Duration::from_millis(500), 50_000), 10.0);
        assert_eq!(per_request(Duration::ZERO, 0), 0.0);
    }
}
