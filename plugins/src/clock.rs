//! The clock of CPU deadlines: it ticks fast while a guest is seen running, slower while guests are called, and hardly at all otherwise.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::Duration;

use wasmtime::Engine;

/// A tick while a guest is running: the grain of CPU deadlines, and how long one that computes keeps its worker's other connections
/// waiting. Most calls are over long before the first.
const SLICE: Duration = Duration::from_micros(250);

/// Slices in a millisecond of CPU time.
pub(crate) const SLICES: u64 = 4;

/// A tick while guests were called since the last one, and none runs. The next guest may run for so long before its first tick.
const TICK: Duration = Duration::from_micros(500);

/// A rest, when no guest was called since the last tick; the first guest ends it.
const REST: Duration = Duration::from_millis(20);

/// Counts calls of guests.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    begun: AtomicU64,
    ended: AtomicU64,
    /// Whether the thread has to be told when a guest begins.
    resting: AtomicBool,
    thread: OnceLock<Thread>,
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
            own.thread.get_or_init(std::thread::current);
            while let Some(engine) = weak.upgrade() {
                engine.increment_epoch();
                drop(engine);
                draft.upgrade().inspect(Engine::increment_epoch);
                match own.next_wait(&mut seen) {
                    Some(wait) => std::thread::sleep(wait),
                    None => own.rest(seen),
                }
            }
        };
        let thread = std::thread::Builder::new().name("weir-epoch".to_owned()).spawn(run);
        thread.map(|_| clock).map_err(|error| format!("cannot start a thread: {error}"))
    }

    /// Notes that a guest runs.
    pub(crate) fn begin(&self) -> Call<'_> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        if self.resting.load(Ordering::SeqCst) {
            self.wake();
        }
        Call(self)
    }

    #[cold]
    fn wake(&self) {
        if self.resting.swap(false, Ordering::SeqCst)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }

    /// Rests until a guest begins, and then for a slice: it has a tick of its own only if it needs one.
    fn rest(&self, seen: u64) {
        self.resting.store(true, Ordering::SeqCst);
        // Either this sees a call that has just begun, or that call sees the rest.
        if self.begun.load(Ordering::SeqCst) == seen {
            std::thread::park_timeout(REST);
        }
        if !self.resting.swap(false, Ordering::SeqCst) {
            std::thread::sleep(SLICE);
        }
    }

    /// How long until the next tick, having seen so many calls the last time; none for a rest.
    fn next_wait(&self, seen: &mut u64) -> Option<Duration> {
        let ended = self.ended.load(Ordering::Relaxed);
        let begun = self.begun.load(Ordering::Relaxed);
        let (running, called) = (begun != ended, begun != *seen);
        *seen = begun;
        match (running, called) {
            (true, _) => Some(SLICE),
            (false, true) => Some(TICK),
            (false, false) => None,
        }
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
    fn the_clock_rests_when_no_guest_runs_and_hurries_while_one_does() {
        let (clock, mut seen) = (Clock::default(), 0);
        assert_eq!(clock.next_wait(&mut seen), None);
        let call = clock.begin();
        assert_eq!(clock.next_wait(&mut seen), Some(SLICE));
        assert_eq!(clock.next_wait(&mut seen), Some(SLICE), "as long as it runs");
        drop(call);
        drop(clock.begin());
        assert_eq!(clock.next_wait(&mut seen), Some(TICK), "others ran meanwhile");
        assert_eq!(clock.next_wait(&mut seen), None);
    }

    #[test]
    fn the_first_guest_ends_a_rest_and_others_wake_nobody() {
        let clock = Arc::new(Clock::default());
        let own = Arc::clone(&clock);
        let resting = std::thread::spawn(move || {
            own.thread.get_or_init(std::thread::current);
            own.rest(0);
        });
        while !clock.resting.load(Ordering::SeqCst) && !resting.is_finished() {
            std::thread::yield_now();
        }
        drop(clock.begin());
        resting.join().unwrap();
        assert!(!clock.resting.load(Ordering::SeqCst));
        drop(clock.begin());
        assert_eq!(clock.next_wait(&mut 0), Some(TICK));
    }
}
