//! The clock of CPU deadlines: it ticks while guests run, and hardly at all while none does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use wasmtime::Engine;

/// One epoch: the grain of CPU deadlines, and how long a guest runs before it yields to its worker's other connections.
pub(crate) const TICK: Duration = Duration::from_millis(1);

/// A tick when no guest ran since the last one. The first guest after a rest may run for so long before its first tick.
const REST: Duration = Duration::from_millis(5);

/// Counts calls of guests.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    begun: AtomicU64,
    ended: AtomicU64,
}

/// A running call, until it is dropped.
pub(crate) struct Call<'a>(&'a Clock);

impl Clock {
    /// Starts the clock's thread, which ends with the first engine.
    pub(crate) fn start(engines: [&Engine; 2]) -> Result<Arc<Self>, String> {
        let clock = Arc::new(Self::default());
        let ([weak, draft], own) = (engines.map(Engine::weak), Arc::clone(&clock));
        let run = move || {
            let mut seen = 0;
            while let Some(engine) = weak.upgrade() {
                engine.increment_epoch();
                drop(engine);
                draft.upgrade().inspect(Engine::increment_epoch);
                let wait = own.next_wait(&mut seen);
                std::thread::sleep(wait);
            }
        };
        let thread = std::thread::Builder::new().name("weir-epoch".to_owned()).spawn(run);
        thread.map(|_| clock).map_err(|error| format!("cannot start a thread: {error}"))
    }

    /// Notes that a guest runs.
    pub(crate) fn begin(&self) -> Call<'_> {
        self.begun.fetch_add(1, Ordering::Relaxed);
        Call(self)
    }

    /// How long to rest, having seen so many calls the last time.
    fn next_wait(&self, seen: &mut u64) -> Duration {
        let ended = self.ended.load(Ordering::Relaxed);
        let begun = self.begun.load(Ordering::Relaxed);
        let idle = begun == ended && begun == *seen;
        *seen = begun;
        if idle { REST } else { TICK }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_rests_when_no_guest_runs() {
        let (clock, mut seen) = (Clock::default(), 0);
        assert_eq!(clock.next_wait(&mut seen), REST);
        let call = clock.begin();
        assert_eq!(clock.next_wait(&mut seen), TICK);
        assert_eq!(clock.next_wait(&mut seen), TICK, "as long as it runs");
        drop(call);
        drop(clock.begin());
        assert_eq!(clock.next_wait(&mut seen), TICK, "others ran meanwhile");
        assert_eq!(clock.next_wait(&mut seen), REST);
    }
}
