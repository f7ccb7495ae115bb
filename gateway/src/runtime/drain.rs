//! How a process comes to its end: what may go on for how long. Times and counts in, orders out; no IO and no clock.

use std::time::Duration;

use crate::config::Limits;

/// What connections of a process that ends shall do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Orders {
    /// Answers are the last of their connections; idle connections are closed one after another.
    pub draining: bool,
    /// Tunnels are closed.
    pub close_tunnels: bool,
    /// The worker ends, with whatever requests still run.
    pub end: bool,
}

/// What is still open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    /// Connections that are no tunnels, with or without a request on them.
    pub connections: usize,
    /// Tunnels.
    pub tunnels: usize,
}

/// The limits of a drain, counted from its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    requests: Duration,
    tunnels: Duration,
}

/// For closed tunnels to come to their end.
const GOODBYE: Duration = Duration::from_secs(5);
/// The share of the grace in which no idle connection is closed: clients that ask often find out by an answer that says so.
const UNTOUCHED: f64 = 0.2;

impl Plan {
    /// The configured plan. Tunnels may outlast requests only when a successor serves: nobody is served while a stopped process waits.
    #[must_use]
    pub fn new(limits: &Limits, has_successor: bool) -> Self {
        let tunnels = if has_successor { limits.drain_tunnels } else { limits.drain.min(limits.drain_tunnels) };
        Self { requests: limits.drain, tunnels }
    }

    /// Tunnels end now, requests when they should; asked once more, everything ends now.
    pub fn hurry(&mut self, elapsed: Duration) {
        if self.tunnels <= elapsed {
            self.requests = self.requests.min(elapsed);
        }
        self.tunnels = self.tunnels.min(elapsed);
    }

    /// The orders after `elapsed` with this still open.
    #[must_use]
    pub fn orders(&self, elapsed: Duration, open: Open) -> Orders {
        let close_tunnels = elapsed >= self.tunnels;
        // While tunnels keep the process, requests that take longer than they may do no harm.
        let requests_ended = open.connections == 0 || elapsed >= self.requests;
        let tunnels_ended = open.tunnels == 0 || elapsed >= self.tunnels.saturating_add(GOODBYE);
        Orders { draining: true, close_tunnels, end: requests_ended && tunnels_ended }
    }
}

/// When the idle connection with this number is closed, within `grace`: evenly spread, so that clients do not come back all at once.
#[must_use]
pub fn spread(number: u32, grace: Duration) -> Duration {
    // Multiples of the golden ratio fall evenly into the unit interval, however many there are.
    let place = (f64::from(number) * 0.618_033_988_749_895).fract();
    grace.mul_f64(UNTOUCHED + (1.0 - UNTOUCHED) * place)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUESTS: u64 = 30;
    const TUNNELS: u64 = 600;

    fn plan(has_successor: bool) -> Plan {
        let limits =
            Limits { drain: Duration::from_secs(REQUESTS), drain_tunnels: Duration::from_secs(TUNNELS), ..Limits::default() };
        Plan::new(&limits, has_successor)
    }

    fn check(plan: Plan, seconds: u64, connections: usize, tunnels: usize, want: &str) {
        let orders = plan.orders(Duration::from_secs(seconds), Open { connections, tunnels });
        assert!(orders.draining);
        let parts = [(orders.close_tunnels, "close"), (orders.end, "end")];
        let got: Vec<&str> = parts.iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect();
        assert_eq!(got.join(" "), want, "{plan:?} after {seconds} s with {connections} and {tunnels}");
    }

    #[test]
    fn a_process_with_a_successor_keeps_its_tunnels() {
        let plan = plan(true);
        check(plan, 0, 0, 0, "end");
        check(plan, 0, 3, 1, "");
        check(plan, 29, 1, 0, "");
        check(plan, 1, 0, 1, "");
        check(plan, REQUESTS, 1, 0, "end");
        check(plan, REQUESTS, 1, 1, "");
        check(plan, 599, 0, 1, "");
        check(plan, TUNNELS, 0, 1, "close");
        check(plan, TUNNELS, 0, 0, "close end");
        check(plan, TUNNELS + 5, 0, 1, "close end");
    }

    #[test]
    fn a_stopped_process_closes_its_tunnels_with_its_requests() {
        let plan = plan(false);
        check(plan, 29, 1, 1, "");
        check(plan, REQUESTS, 1, 1, "close");
        check(plan, REQUESTS + 5, 1, 1, "close end");
    }

    #[test]
    fn hurrying_ends_tunnels_first_and_requests_when_repeated() {
        let mut plan = plan(true);
        plan.hurry(Duration::from_secs(10));
        check(plan, 10, 1, 1, "close");
        check(plan, 15, 1, 1, "close");
        check(plan, 15, 0, 1, "close end");
        plan.hurry(Duration::from_secs(16));
        check(plan, 16, 1, 1, "close end");
    }

    #[test]
    fn idle_connections_are_closed_evenly_within_the_grace() {
        let grace = Duration::from_secs(10);
        let mut times: Vec<Duration> = (0..100).map(|number| spread(number, grace)).collect();
        times.sort();
        assert!(times[0] >= Duration::from_secs(2) && times[99] <= grace);
        let widest = times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
        assert!(widest < Duration::from_millis(250), "{widest:?}");
    }
}
