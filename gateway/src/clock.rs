//! The time, asked for as seldom as it takes: each reading costs as much as a field of a head.

use std::cell::Cell;
use std::time::{Duration, Instant, SystemTime};

thread_local! {
    /// What was read last.
    static LAST: Cell<Option<Instant>> = const { Cell::new(None) };
    /// The two clocks at one moment.
    static BOTH: Cell<Option<(Instant, SystemTime)>> = const { Cell::new(None) };
}

/// How long the wall clock follows the other before it is read again: it may be set.
const FOLLOWED: Duration = Duration::from_secs(1);

/// Reads the clock.
#[must_use]
pub fn read() -> Instant {
    let now = Instant::now();
    LAST.set(Some(now));
    now
}

/// What this thread read last. For whoever knows that it has just been read, and counts in seconds.
#[must_use]
pub fn last() -> Instant {
    LAST.get().unwrap_or_else(read)
}

/// Reads the clock, and tells the date and time of day.
#[must_use]
pub fn with_date() -> (Instant, SystemTime) {
    let now = read();
    let (at, date) = match BOTH.get() {
        Some(both) if now.saturating_duration_since(both.0) < FOLLOWED => both,
        _ => {
            let both = (now, SystemTime::now());
            BOTH.set(Some(both));
            both
        }
    };
    (now, date + now.saturating_duration_since(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_clocks_go_on_together() {
        let (first, first_date) = with_date();
        assert_eq!(last(), first);
        let (second, second_date) = with_date();
        assert_eq!(second_date.duration_since(first_date).unwrap(), second - first);
        BOTH.set(Some((first, SystemTime::UNIX_EPOCH)));
        assert!(with_date().1 < SystemTime::UNIX_EPOCH + FOLLOWED);
        BOTH.set(first.checked_sub(FOLLOWED).map(|at| (at, SystemTime::UNIX_EPOCH)));
        assert!(with_date().1 >= first_date - Duration::from_secs(60), "read anew");
    }
}
