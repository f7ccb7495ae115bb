//! The clock of CPU deadlines: it ticks fast while a guest computes, slower while guests run and are called, and hardly at all otherwise.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use wasmtime::Engine;

use crate::per_worker::{Counter, PerWorker};
use crate::priority;

/// A tick while a guest computes: the grain of CPU deadlines, and how long it keeps its worker's other connections waiting.
const SLICE: Duration = Duration::from_micros(125);

/// Slices in a millisecond of CPU time.
pub(crate) const SLICES: u64 = 8;

/// A guest computes that met one of the last so many ticks: it may wait for its turn meanwhile.
const PATIENCE: u32 = 8;

/// Where a guest has computed in one of the last so many ticks, the next one that is called may, too: its first slice is no longer than
/// the others. An eighth of a second.
const RECENTLY: u32 = 1_000;

/// A tick while a guest is running that does not compute yet: most calls are over long before, or wait for the host.
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

/// Ticks that guests met, of all clocks of the process.
static MET: AtomicU64 = AtomicU64::new(0);

/// The processor on which a guest computed last, plus one; 0 when the clock has seen it.
static COMPUTED_ON: AtomicUsize = AtomicUsize::new(0);

/// Notes that a guest met a tick, and whether it had met one before in the same call.
pub(crate) fn met(again: bool) {
    MET.fetch_add(1, Ordering::Relaxed);
    if again {
        COMPUTED_ON.store(sched_getcpu() + 1, Ordering::Relaxed);
    }
}

/// Keeps the clock's thread on the processor of guests that compute. Elsewhere it would be late: an idle processor of a virtual machine
/// takes up to milliseconds to wake. Where that cannot be had, the clock is late now and then.
#[derive(Debug, Default)]
struct Follower {
    on: Option<usize>,
    /// Where the thread may run otherwise.
    anywhere: Option<CpuSet>,
}

impl Follower {
    fn follow(&mut self, processor: usize) {
        if self.on == Some(processor) {
            return;
        }
        if self.on.replace(processor).is_none() {
            self.anywhere = sched_getaffinity(None).ok();
        }
        let mut one = CpuSet::new();
        one.set(processor);
        let _ = sched_setaffinity(None, &one);
    }

    fn leave(&mut self) {
        if self.on.take().is_some() {
            let _ = self.anywhere.take().map(|anywhere| sched_setaffinity(None, &anywhere));
        }
    }
}

/// What the clock saw at its last tick.
#[derive(Debug)]
struct Seen {
    begun: u64,
    met: u64,
    /// Ticks since a guest met one.
    unmet: u32,
    /// Ticks since one computed.
    idle: u32,
}

impl Seen {
    const NOTHING: Self = Self { begun: 0, met: 0, unmet: PATIENCE, idle: RECENTLY };
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
            let (mut seen, mut follower) = (Seen::NOTHING, Follower::default());
            own.thread.get_or_init(std::thread::current);
            // The system wakes a thread up to 50 us late otherwise, to wake several at once: half a slice.
            let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
            // Where it cannot be had the first tick that a guest meets is as late as the system's own.
            let _ = priority::go_first();
            while let Some(engine) = weak.upgrade() {
                engine.increment_epoch();
                drop(engine);
                draft.upgrade().inspect(Engine::increment_epoch);
                let computed_on = COMPUTED_ON.swap(0, Ordering::Relaxed).checked_sub(1);
                match own.next_wait(&mut seen, MET.load(Ordering::Relaxed), computed_on.is_some()) {
                    Some(wait) => {
                        if let Some(processor) = computed_on {
                            follower.follow(processor);
                        } else if seen.idle >= RECENTLY {
                            follower.leave();
                        }
                        std::thread::sleep(wait);
                    }
                    None => {
                        follower.leave();
                        own.rest(seen.begun);
                    }
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
        for wait in [SLICE, REST] {
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

    /// How long until the next tick, guests having met so many, and one having computed or not; none for a rest.
    fn next_wait(&self, seen: &mut Seen, met: u64, computed: bool) -> Option<Duration> {
        let ended = self.calls.sum(|calls| &calls.ended);
        let begun = self.begun();
        let unmet = if met == seen.met { seen.unmet.saturating_add(1) } else { 0 };
        let idle = if computed { 0 } else { seen.idle.saturating_add(1) };
        let called = begun != seen.begun;
        *seen = Seen { begun, met, unmet, idle };
        match (begun != ended, called) {
            (true, _) | (_, true) if idle < RECENTLY => Some(SLICE),
            (true, _) if unmet < PATIENCE => Some(SLICE),
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
    fn the_clock_rests_when_no_guest_runs_and_hurries_while_one_computes() {
        let (clock, mut seen) = (Clock::new(1), Seen::NOTHING);
        assert_eq!(clock.next_wait(&mut seen, 0, false), None);
        let call = clock.begin();
        assert_eq!(clock.next_wait(&mut seen, 0, false), Some(WATCH), "it may wait for the host");
        assert_eq!(clock.next_wait(&mut seen, 1, false), Some(SLICE), "it has met a tick");
        for _ in 1..PATIENCE {
            assert_eq!(clock.next_wait(&mut seen, 1, false), Some(SLICE), "it may wait for its turn");
        }
        assert_eq!(clock.next_wait(&mut seen, 1, false), Some(WATCH));
        drop(call);
        drop(clock.begin());
        assert_eq!(clock.next_wait(&mut seen, 1, false), Some(TICK), "others ran meanwhile");
        assert_eq!(clock.next_wait(&mut seen, 1, false), None);
    }

    #[test]
    fn where_one_guest_has_computed_the_next_one_is_watched_from_the_beginning() {
        let (clock, mut seen) = (Clock::new(1), Seen::NOTHING);
        drop(clock.begin());
        assert_eq!(clock.next_wait(&mut seen, 2, true), Some(SLICE));
        for _ in 1..RECENTLY {
            drop(clock.begin());
            assert_eq!(clock.next_wait(&mut seen, 2, false), Some(SLICE));
        }
        drop(clock.begin());
        assert_eq!(clock.next_wait(&mut seen, 2, false), Some(TICK));
        drop(clock.begin());
        assert_eq!(clock.next_wait(&mut seen, 4, true), Some(SLICE));
        assert_eq!(clock.next_wait(&mut seen, 4, false), None, "nobody is called");
    }

    #[test]
    fn the_clock_goes_where_a_guest_computes_and_comes_back() {
        std::thread::spawn(|| {
            let (before, mut follower) = (sched_getaffinity(None).unwrap(), Follower::default());
            let processor = (0..CpuSet::MAX_CPU).find(|processor| before.is_set(*processor)).unwrap();
            (0..2).for_each(|_| follower.follow(processor));
            assert_eq!((sched_getaffinity(None).unwrap().count(), sched_getcpu()), (1, processor));
            follower.leave();
            assert_eq!(sched_getaffinity(None).unwrap(), before);
        })
        .join()
        .unwrap();
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
        let mut seen = Seen::NOTHING;
        assert_eq!(clock.next_wait(&mut seen, 0, false), Some(TICK));
    }
}
