//! How many requests a second a machine can bear: where they queue up, percentiles tell of the queue alone.

use std::time::Duration;

use weir_tests::open_loop::{Seen, Summary};

use crate::say;

/// Half of all requests may take so long where they do not queue up.
const BEARABLE: Duration = Duration::from_millis(2);
/// Fewer are never tried.
const LEAST: u32 = 200;

/// The rate, or half of it, and again, until requests do not queue up on this machine. `load` makes requests at a rate for a moment.
pub(crate) fn bearable(rate: u32, load: impl Fn(u32) -> Vec<Seen>) -> u32 {
    let mut rate = rate;
    loop {
        let p50 = Summary::of(&load(rate)).p50;
        if p50 < BEARABLE || rate < LEAST {
            return rate;
        }
        say(&format!("  {rate} requests a second are too many here (p50 {p50:?})"));
        rate /= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_tests::open_loop::Outcome;

    #[track_caller]
    fn check(most: u32, expected: u32) {
        let load = |rate| {
            let latency = if rate > most { BEARABLE * 2 } else { BEARABLE / 2 };
            vec![Seen { number: 0, id: 0, is_post: false, offset: Duration::ZERO, latency, outcome: Outcome::Status(200) }]
        };
        assert_eq!(bearable(5_000, load), expected);
    }

    #[test]
    fn the_rate_is_halved_until_nothing_queues_up() {
        check(9_999, 5_000);
        check(2_000, 1_250);
        check(0, 156);
    }
}
