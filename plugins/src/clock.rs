//! The clock of CPU deadlines: it finds the guests that compute, whose slices a timer of their own ends from then on (`slice.rs`). It ticks
//! while guests run, slower while they are called, and hardly at all otherwise.
//!
//! It has another effect where few processors serve: the system asks itself who runs next when somebody wakes, and else every 4 ms. A
//! worker that wakes while memory is given back (`reaper.rs`) has its turn when the clock, which goes first, goes back to sleep.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::Duration;

use wasmtime::Engine;

use crate::per_worker::{Counter, PerWorker};
use crate::{priority, reaper};

/// A tick while memory is given back.
const SOON: Duration = Duration::from_micros(100);

/// A tick while a guest is running: most calls are over long before, or wait for the host.
const WATCH: Duration = Duration::from_micros(250);

/// A tick while guests were called since the last one, and none runs. The next guest may run for so long before its first tick.
const TICK: Duration = Duration::from_micros(500);

/// A rest, when no guest was called since the last tick; the first guest ends it.
const REST: Duration = Duration::from_millis(50);

/// Counts calls of guests.
#[derive(Debug)]
pub(crate) struct Clock {
    calls: PerWorker<Calls>,
    /// Whether the thread has to be told when a guest begins.
    resting: AtomicBool,
    thread: OnceLock<Thread>,
}

#[derive(Debug, Default)]
struct Calls {
    begun: Counter,
    ended: Counter,
}

/// A running call, until it is dropped.
pub(crate) struct Call<'a>(&'a Clock);

impl Clock {
    fn new(workers: usize) -> Self {
        Self { calls: PerWorker::new(workers), resting: AtomicBool::new(false), thread: OnceLock::new() }
    }

    /// Starts the clock's thread, which ends with the first engine.
    pub(crate) fn start(engines: [&Engine; 2], workers: usize) -> Result<Arc<Self>, String> {
        let clock = Arc::new(Self::new(workers));
        let ([weak, draft], own) = (engines.map(Engine::weak), Arc::clone(&clock));
        let run = move || {
            let mut seen = 0;
            own.thread.get_or_init(std::thread::current);
            // The system wakes a thread up to 50 us late otherwise, to wake several at once.
            let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
            // Where it cannot be had it is as late as the system's own tick when the processors are busy.
            let _ = priority::run_briefly();
            while let Some(engine) = weak.upgrade() {
                engine.increment_epoch();
                drop(engine);
                draft.upgrade().inspect(Engine::increment_epoch);
                match own.next_wait(&mut seen, reaper::is_busy()) {
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
        let (calls, writers) = self.calls.here();
        calls.begun.add(1, writers);
        // No fence, which costs as much as all else here: the thread that is about to rest looks twice.
        if self.resting.load(Ordering::Relaxed) {
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

    /// Rests until a guest begins, and then for a while: it has a tick of its own only if it needs one.
    fn rest(&self, seen: u64) {
        self.resting.store(true, Ordering::SeqCst);
        // A call that has just begun may not see the rest, nor the rest the call: what a processor writes, others see a little later.
        for wait in [WATCH, REST] {
            if self.begun() != seen || !self.resting.load(Ordering::SeqCst) {
                break;
            }
            std::thread::park_timeout(wait);
        }
        if !self.resting.swap(false, Ordering::SeqCst) {
            std::thread::sleep(WATCH);
        }
    }

    fn begun(&self) -> u64 {
        self.calls.sum(|calls| &calls.begun)
    }

    /// How long until the next tick, so many calls having begun before the last one, and memory being given back or not; none for a rest.
    fn next_wait(&self, seen: &mut u64, busy: bool) -> Option<Duration> {
        let ended = self.calls.sum(|calls| &calls.ended);
        let begun = self.begun();
        let called = std::mem::replace(seen, begun) != begun;
        match (begun != ended, called) {
            _ if busy => Some(SOON),
            (true, _) => Some(WATCH),
            (false, true) => Some(TICK),
            (false, false) => None,
        }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let (calls, writers) = self.0.calls.here();
        calls.ended.add(1, writers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_rests_when_no_guest_runs() {
        let (clock, mut seen) = (Clock::new(1), 0);
        assert_eq!(clock.next_wait(&mut seen, false), None);
        let call = clock.begin();
        assert_eq!(clock.next_wait(&mut seen, false), Some(WATCH));
        assert_eq!(clock.next_wait(&mut seen, false), Some(WATCH), "it runs still");
        drop(call);
        drop(clock.begin());
        assert_eq!(clock.next_wait(&mut seen, false), Some(TICK), "others ran meanwhile");
        assert_eq!(clock.next_wait(&mut seen, false), None);
        assert_eq!(clock.next_wait(&mut seen, true), Some(SOON));
    }

    #[test]
    fn the_first_guest_ends_a_rest_and_others_wake_nobody() {
        let clock = Arc::new(Clock::new(1));
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
        assert_eq!(clock.next_wait(&mut 0, false), Some(TICK));
    }
}
