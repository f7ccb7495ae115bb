//! A timer that is moved rarely. A connection's deadline changes with every request; its timer is set again only when it has fired too
//! early, or when the deadline is sooner than it would.

use std::future::Future as _;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until};

/// The timer of one task.
#[derive(Debug, Default)]
pub struct Deadline {
    sleep: Option<Pin<Box<Sleep>>>,
    /// Whether the timer will wake the task that polls.
    armed: bool,
}

impl Deadline {
    /// Ready when `at` has passed; else wakes the task then.
    pub fn poll(&mut self, context: &mut Context<'_>, at: Instant) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if at < sleep.deadline() {
            sleep.as_mut().reset(at);
            self.armed = false;
        }
        if self.armed && !sleep.is_elapsed() {
            return Poll::Pending;
        }
        // A task that has used up its turn must not be sent away by the timer, which would be taken for one that is set.
        while pin!(unconstrained(sleep.as_mut())).poll(context).is_ready() {
            self.armed = false;
            if at <= Instant::now() {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(at);
        }
        self.armed = true;
        Poll::Pending
    }

    /// Another task polls from now on.
    pub const fn moved(&mut self) {
        self.armed = false;
    }
}

/// A point in time after `wait`; the far future when there is none.
#[must_use]
pub fn after(now: Instant, wait: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(365 * 86_400);
    now + wait.min(FAR)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[test]
    fn a_timer_that_is_set_at_the_end_of_a_turn_fires() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (mut deadline, at) = (Deadline::default(), Instant::now() + Duration::from_millis(20));
        let passed = poll_fn(|context| {
            // As after many reads and writes that did not have to wait.
            while pin!(tokio::task::consume_budget()).poll(context).is_ready() {}
            deadline.poll(context, at)
        });
        let waited = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(10), passed).await });
        assert!(waited.is_ok());
    }
}
