//! Waiting for conditions.

use std::time::{Duration, Instant};

/// Longer than anything takes that works, on a busy machine too.
pub const LONG: Duration = Duration::from_secs(20);

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(10);

/// Polls until `condition` holds; answers how long that took.
///
/// # Panics
/// It does not hold within `limit`.
#[track_caller]
pub fn eventually(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(POLL);
    }
    started.elapsed()
}
