//! Ends the slice of a guest that computes: a timer of its thread interrupts it with a signal, whose handler turns the epoch over, which the
//! guest meets at the next loop or function. Go preempts its goroutines with the same signal, which nobody else uses.
//!
//! Another thread that turns the epoch over is as late as the system lets it run, which on a busy processor is milliseconds
//! (`clock.rs`); a timer of the thread that computes needs no turn on any processor. Four of the seven unsafe lines of the project.

#![allow(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::io;
use std::time::{Duration, Instant};

use rustix::thread::gettid;
use signal_hook_registry::SigId;
use wasmtime::Engine;

/// How long a guest that computes keeps its worker's other connections waiting.
pub(crate) const SLICE: Duration = Duration::from_micros(40);

/// Ignored where nobody listens.
const SIGNAL: libc::c_int = libc::SIGURG;

/// Turns epochs over at the end of slices, until it is dropped.
pub(crate) struct Turner(SigId);

impl Turner {
    /// Whoever has it must not be kept by the engines, which it keeps.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn start(engines: [Engine; 2]) -> io::Result<Self> {
        let turn = move || {
            note_end();
            engines.iter().for_each(Engine::increment_epoch);
        };
        // SAFETY: what the handler does may be done in one: it writes a number of its thread that needs no making and has no destructor,
        // and adds to two atomic ones.
        let id = unsafe { signal_hook_registry::register(SIGNAL, turn) }?;
        Ok(Self(id))
    }
}

impl Drop for Turner {
    fn drop(&mut self) {
        signal_hook_registry::unregister(self.0);
    }
}

/// How it is with the slice of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slice {
    None,
    Runs,
    Over,
}

/// The timer of a thread.
struct Timer(libc::c_int);

thread_local! {
    static SLICE_HERE: Cell<Slice> = const { Cell::new(Slice::None) };
    static BEGUN: Cell<Option<Instant>> = const { Cell::new(None) };
    /// None before a guest has computed on this thread, or where none can be had: the clock ends slices then, later.
    static TIMER: RefCell<Option<Timer>> = const { RefCell::new(None) };
}

/// In the signal's handler.
fn note_end() {
    if SLICE_HERE.get() == Slice::Runs {
        SLICE_HERE.set(Slice::Over);
    }
}

/// Whether a slice runs on this thread. The epoch is everybody's: a guest may meet it turned over for another thread's. A signal that is
/// late, or blocked, does not lengthen a slice for ever.
pub(crate) fn runs() -> bool {
    SLICE_HERE.get() == Slice::Runs && BEGUN.get().is_some_and(|begun| begun.elapsed() < SLICE * 2)
}

/// The guest that runs on this thread has a slice from now on.
pub(crate) fn begin() {
    let _ = TIMER.try_with(|timer| {
        let mut timer = timer.borrow_mut();
        if timer.is_none() {
            *timer = Timer::new().ok();
        }
        if let Some(timer) = timer.as_ref() {
            SLICE_HERE.set(Slice::Runs);
            BEGUN.set(Some(Instant::now()));
            timer.set(SLICE);
        }
    });
}

/// It has returned.
pub(crate) fn end() {
    if SLICE_HERE.replace(Slice::None) == Slice::Runs {
        let _ = TIMER.try_with(|timer| timer.borrow().as_ref().map(|timer| timer.set(Duration::ZERO)));
    }
}

/// What the system calls `sigevent`.
#[repr(C)]
struct Event {
    value: usize,
    signal: libc::c_int,
    notify: libc::c_int,
    thread: libc::c_int,
    rest: [libc::c_int; 11],
}

const _: () = assert!(size_of::<Event>() == 64, "the system reads so many bytes");

impl Timer {
    /// One that tells this thread.
    fn new() -> io::Result<Self> {
        let thread = gettid().as_raw_nonzero().get();
        let event = Event { value: 0, signal: SIGNAL, notify: libc::SIGEV_THREAD_ID, thread, rest: [0; 11] };
        let mut id = 0;
        // SAFETY: the call reads one `sigevent`, of 64 bytes, and writes one number; both live until it returns.
        // It is made directly because a library may give the number another form.
        let answer = unsafe { libc::syscall(libc::SYS_timer_create, libc::CLOCK_MONOTONIC, &raw const event, &raw mut id) };
        if answer == 0 { Ok(Self(id)) } else { Err(io::Error::last_os_error()) }
    }

    /// To end after this time, or never with none.
    fn set(&self, after: Duration) {
        let none = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let after = libc::timespec { tv_nsec: after.subsec_nanos().into(), ..none };
        let wanted = libc::itimerspec { it_interval: none, it_value: after };
        let nothing = std::ptr::null_mut::<libc::itimerspec>();
        // SAFETY: the call reads one `itimerspec`, which lives until it returns, and writes nothing. It cannot fail for a timer that exists.
        unsafe { libc::syscall(libc::SYS_timer_settime, self.0, 0, &raw const wanted, nothing) };
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // SAFETY: nobody else has the number of this timer.
        unsafe { libc::syscall(libc::SYS_timer_delete, self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    fn wait_until(mut done: impl FnMut() -> bool) -> bool {
        let until = Instant::now() + Duration::from_secs(10);
        while !done() && Instant::now() < until {
            std::hint::spin_loop();
        }
        done()
    }

    #[test]
    fn a_slice_interrupts_the_thread_that_began_it_once_and_no_other() {
        thread_local!(static HERE: AtomicU64 = const { AtomicU64::new(0) });
        let all = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&all);
        let count = move || {
            note_end();
            seen.fetch_add(1, Relaxed);
            HERE.with(|here| here.fetch_add(1, Relaxed));
        };
        // SAFETY: it adds to atomic numbers.
        let id = unsafe { signal_hook_registry::register(SIGNAL, count) }.unwrap();
        let here = || HERE.with(|here| here.load(Relaxed));
        std::thread::spawn(move || {
            for expected in 1..=3 {
                begin();
                assert!(wait_until(|| here() >= expected && !runs()));
                std::thread::sleep(SLICE * 10);
                assert_eq!(here(), expected);
            }
            begin();
            assert!(runs() || here() == 4);
            end();
            assert!(!runs());
            std::thread::sleep(SLICE * 10);
            // It may have been over before it was ended.
            assert!(here() <= 4);
        })
        .join()
        .unwrap();
        assert_eq!(here(), 0);
        signal_hook_registry::unregister(id);
    }

    #[test]
    fn a_signal_that_does_not_come_leaves_no_slice_for_ever() {
        SLICE_HERE.set(Slice::Runs);
        BEGUN.set(Some(Instant::now() + SLICE));
        assert!(runs());
        BEGUN.set(Instant::now().checked_sub(SLICE * 2));
        assert!(!runs());
        SLICE_HERE.set(Slice::None);
    }

    #[test]
    fn a_turner_that_is_dropped_keeps_no_engine() {
        let engine = Engine::default();
        let weak = engine.weak();
        let turner = Turner::start([engine.clone(), engine]).unwrap();
        assert!(weak.upgrade().is_some());
        drop(turner);
        assert!(weak.upgrade().is_none());
    }
}
