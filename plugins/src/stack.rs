//! Which stack a call runs on: that of its worker, or one of its own (a fiber). On its worker's it costs half as much, but the worker does
//! nothing else until it returns. So only guests that can neither wait nor be seen to compute run there.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::limits::PolicyLimits;

/// Calls on every worker that have stacks of their own, while it is seen whether the guest computes: one that does in a hundredth of its
/// calls gets through them once in twenty thousand times.
pub(crate) const PROBATION: u32 = 1_000;

/// The longest CPU limit of a guest that runs on its worker's stack: should it compute there for the first time, everybody waits so long.
const CPU: Duration = Duration::from_millis(10);

/// CPU time between two ticks that makes a call a long one. A short one meets two when the system takes the processor away from it twice.
const LONG: Duration = Duration::from_micros(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stack {
    Workers,
    Own,
}

/// What is known of the guests of a generation.
#[derive(Debug)]
pub(crate) struct Conduct {
    prompt: bool,
    computes: AtomicBool,
}

impl Conduct {
    /// Of guests that may have to wait, or never.
    pub(crate) fn new(prompt: bool, limits: &PolicyLimits) -> Self {
        Self { prompt: prompt && limits.cpu <= CPU, computes: AtomicBool::new(false) }
    }

    /// Whether all its calls have stacks of their own from now on.
    pub(crate) fn needs_own(&self) -> bool {
        !self.prompt || self.computes.load(Relaxed)
    }

    /// The stack of the next call on this worker.
    pub(crate) fn stack(&self, probation: &Probation) -> Stack {
        if self.needs_own() || probation.0.get() > 0 { Stack::Own } else { Stack::Workers }
    }

    /// Whether the next call on this worker has slices from its beginning, because one of the last thousand needed them. That costs a
    /// microsecond or two; otherwise the clock finds the guest when it computes, a little late.
    pub(crate) fn is_watched(&self, probation: &Probation) -> bool {
        probation.0.get() > 0 && self.computes.load(Relaxed)
    }

    /// What a call has shown, on whichever stack.
    pub(crate) fn saw(&self, probation: &Probation, long: bool) {
        if long {
            self.computes.store(true, Relaxed);
        }
        probation.0.set(if long { PROBATION } else { probation.0.get().saturating_sub(1) });
    }
}

/// Calls of a generation that one worker still makes on stacks of their own, or watches from the beginning.
#[derive(Debug)]
pub(crate) struct Probation(Cell<u32>);

impl Default for Probation {
    fn default() -> Self {
        Self(Cell::new(PROBATION))
    }
}

thread_local! {
    /// CPU time of this thread when the guest that runs on it last met a tick that was its own, or last went on after others.
    static SINCE: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// The ticks that a running call has met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Pace {
    /// None, and nobody has noted when it began.
    #[default]
    Unmet,
    /// One at least, or it has had slices from its beginning.
    Met,
    /// It is a long one.
    Long,
}

/// What a guest that meets a tick has done since it last went on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Nobody knows: it may be a short call that met one by chance.
    Unknown,
    /// It has had a slice, in which it computed for so long.
    Slice(Duration),
}

impl Pace {
    /// Notes a tick.
    pub(crate) fn meet(&mut self) -> Turn {
        let now = own_time();
        let computed = now.saturating_sub(SINCE.replace(now));
        self.meet_after(computed)
    }

    fn meet_after(&mut self, computed: Duration) -> Turn {
        let turn = match self {
            Self::Unmet => Turn::Unknown,
            Self::Met | Self::Long => Turn::Slice(computed),
        };
        *self = match *self {
            Self::Met if computed >= LONG => Self::Long,
            Self::Unmet => Self::Met,
            other => other,
        };
        turn
    }
}

/// Notes that a guest goes on after others did: what they had is not its own.
pub(crate) fn goes_on() {
    SINCE.set(own_time());
}

/// CPU time of this thread.
fn own_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_is_short_for_long_enough_has_its_workers_stack_until_it_computes() {
        let (conduct, here, there) = (Conduct::new(true, &PolicyLimits::default()), Probation::default(), Probation::default());
        for _ in 0..PROBATION {
            assert_eq!(conduct.stack(&here), Stack::Own);
            conduct.saw(&here, false);
        }
        assert_eq!((conduct.stack(&here), conduct.stack(&there)), (Stack::Workers, Stack::Own), "each worker sees for itself");
        conduct.saw(&there, true);
        (0..=PROBATION).for_each(|_| conduct.saw(&here, false));
        assert_eq!((conduct.stack(&here), conduct.stack(&there)), (Stack::Own, Stack::Own), "what one sees, all know");
    }

    #[test]
    fn who_waits_or_may_compute_for_long_never_has_it() {
        let longer = PolicyLimits { cpu: CPU + Duration::from_millis(1), ..PolicyLimits::default() };
        for (prompt, limits) in [(false, PolicyLimits::default()), (true, longer)] {
            let (conduct, here) = (Conduct::new(prompt, &limits), Probation::default());
            (0..=PROBATION).for_each(|_| conduct.saw(&here, false));
            assert_eq!(conduct.stack(&here), Stack::Own);
        }
    }

    #[test]
    fn calls_are_watched_for_a_while_after_a_long_one() {
        let (conduct, here, there) = (Conduct::new(true, &PolicyLimits::default()), Probation::default(), Probation::default());
        assert!(!conduct.is_watched(&here));
        (0..PROBATION).for_each(|_| conduct.saw(&there, false));
        conduct.saw(&here, true);
        assert!(conduct.is_watched(&here) && !conduct.is_watched(&there), "each worker sees for itself");
        (1..PROBATION).for_each(|_| conduct.saw(&here, false));
        assert!(conduct.is_watched(&here));
        conduct.saw(&here, false);
        assert!(!conduct.is_watched(&here));
    }

    #[test]
    fn a_call_is_long_when_it_computes_between_ticks() {
        let micros = Duration::from_micros;
        let mut preempted = Pace::default();
        assert_eq!(preempted.meet_after(micros(100)), Turn::Unknown);
        assert_eq!(preempted.meet_after(micros(10)), Turn::Slice(micros(10)));
        assert_eq!(preempted.meet_after(micros(20)), Turn::Slice(micros(20)));
        assert_eq!(preempted, Pace::Met);
        assert_eq!(preempted.meet_after(micros(60)), Turn::Slice(micros(60)), "it computes after all");
        assert_eq!(preempted, Pace::Long);
        assert_eq!(preempted.meet_after(micros(1)), Turn::Slice(micros(1)));
        assert_eq!(preempted, Pace::Long);
    }

    #[test]
    fn what_others_compute_in_their_turns_makes_no_call_a_long_one() {
        for (goes_on_after, expected) in [(true, Pace::Met), (false, Pace::Long)] {
            let mut pace = Pace::default();
            pace.meet();
            let begun = own_time();
            while own_time() < begun + LONG * 3 {
                std::hint::spin_loop();
            }
            if goes_on_after {
                goes_on();
            }
            pace.meet();
            assert_eq!(pace, expected);
        }
    }
}
