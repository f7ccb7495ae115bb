//! How many connections the process can hold.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Share of the open-file limit that client connections may take; the rest is for upstreams, files and the admin API.
const SHARE: u64 = 70;

/// Raises the soft open-file limit to the hard one, and answers how many client connections go with it.
#[must_use]
pub fn max_connections() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let files = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    // No limit at all is still one: a connection costs memory.
    let connections = files.map_or(1_000_000, |files| files.saturating_mul(SHARE) / 100);
    usize::try_from(connections).unwrap_or(usize::MAX).max(1)
}
