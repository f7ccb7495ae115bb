//! Whether a generation may be called. It is decided elsewhere, from what its calls did; here it is only asked, at every call.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Relaxed};

use tokio::sync::Notify;

/// Which calls of a generation are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// All.
    All,
    /// None: its fail mode decides.
    None,
    /// The next so many, then none: to see whether it works again.
    Probes(u32),
}

/// Everything, until told otherwise.
#[derive(Debug)]
pub(crate) struct Gate(AtomicU64);

/// What the gate holds when it is open; anything else is how many more calls pass.
const OPEN: u64 = u64::MAX;

impl Default for Gate {
    fn default() -> Self {
        Self(AtomicU64::new(OPEN))
    }
}

impl Gate {
    pub(crate) fn set(&self, admission: Admission) {
        let state = match admission {
            Admission::All => OPEN,
            Admission::None => 0,
            Admission::Probes(count) => u64::from(count),
        };
        self.0.store(state, Relaxed);
    }

    /// Whether this call is made. One load when the gate is open.
    pub(crate) fn admits(&self) -> bool {
        match self.0.load(Relaxed) {
            OPEN => true,
            0 => false,
            _ => {
                self.0.fetch_update(Relaxed, Relaxed, |left| if left == OPEN { Some(OPEN) } else { left.checked_sub(1) }).is_ok()
            }
        }
    }
}

/// Raised by calls that failed, for whoever judges generations.
#[derive(Debug, Default)]
pub struct Alarm {
    raised: AtomicBool,
    wake: Notify,
}

impl Alarm {
    /// A call failed.
    pub(crate) fn raise(&self) {
        // The first failure since the last look wakes; the others cost one load.
        if !self.raised.load(Relaxed) && !self.raised.swap(true, AcqRel) {
            self.wake.notify_one();
        }
    }

    /// Waits for a failure since the last time.
    pub async fn raised(&self) {
        self.wake.notified().await;
        self.raised.store(false, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_lets_through_what_it_was_told() {
        let gate = Gate::default();
        let passed = || (0..10).filter(|_| gate.admits()).count();
        for (admission, expected) in
            [(Admission::All, 10), (Admission::None, 0), (Admission::Probes(3), 3), (Admission::None, 0), (Admission::All, 10)]
        {
            gate.set(admission);
            assert_eq!(passed(), expected, "{admission:?}");
        }
        gate.set(Admission::Probes(3));
        assert_eq!((passed(), passed()), (3, 0), "they are used up");
    }

    #[tokio::test]
    async fn an_alarm_wakes_once_for_many_failures() {
        let alarm = Alarm::default();
        (0..3).for_each(|_| alarm.raise());
        alarm.raised().await;
        let again = tokio::time::timeout(std::time::Duration::from_millis(20), alarm.raised()).await;
        assert!(again.is_err(), "nothing failed since");
        alarm.raise();
        alarm.raised().await;
    }
}
