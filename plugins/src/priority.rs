//! How threads stand among those that want the processors. Two of the seven unsafe lines of the project.

#![allow(unsafe_code)]

use rustix::process::{getpriority_process, setpriority_process};
use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};

/// Runs only while nobody else wants the processor, from now on, with every thread that this one starts. `nice` alone is not enough: a
/// worker that wakes would wait until the slice of whoever runs is over, which is milliseconds.
///
/// # Errors
/// The system's. Nothing has changed then.
pub(crate) fn stand_back() -> std::io::Result<()> {
    let none = libc::sched_param { sched_priority: 0 };
    // SAFETY: the call reads one `sched_param`, which lives until it returns, and changes nothing but how this thread is scheduled. It is
    // made directly because the function of musl does nothing.
    let answer = unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, libc::SCHED_IDLE, &raw const none) };
    if answer == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// This thread, and those that it starts, keep to half of the processors that it may use: the one on which it is, where the system has
/// found room for it, and those after that. They do not go from one to the other then, each time with cold caches, whenever somebody wakes.
///
/// # Errors
/// The system's. Nothing has changed then.
pub(crate) fn keep_to_half() -> std::io::Result<()> {
    let allowed = sched_getaffinity(None)?;
    let allowed: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|processor| allowed.is_set(*processor)).collect();
    let mut half = CpuSet::new();
    half_from(sched_getcpu(), &allowed).for_each(|processor| half.set(processor));
    sched_setaffinity(None, &half)?;
    Ok(())
}

/// Half of them, in a circle.
fn half_from(here: usize, allowed: &[usize]) -> impl Iterator<Item = usize> {
    let first = allowed.partition_point(|processor| *processor < here);
    allowed.iter().cycle().skip(first).take(allowed.len().div_ceil(2)).copied()
}

/// What the system calls `sched_attr`, in its first version.
#[repr(C)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    /// Of an ordinary thread: how long it runs at a time, in nanoseconds (since Linux 6.12; before, nobody reads it).
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// How far a thread stands behind workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behind {
    /// It gets a seventieth of a processor that others want: they hardly notice it.
    Far,
    /// It gets a tenth: somebody waits for what it does, or nothing would be left for it.
    Close,
}

impl Behind {
    const fn nice(self) -> i32 {
        match self {
            Self::Far => 19,
            Self::Close => 10,
        }
    }
}

/// This thread, and those that it starts, work behind workers, which go first: whoever wakes has the processor at once, because it wants it
/// for a shorter time. It does not stand back altogether, since it may hold what others wait for. Where the system knows no such thing
/// (before Linux 6.12) `nice` alone must do.
pub fn stand(behind: Behind) {
    // The operator may have made all of this nicer.
    let _ = getpriority_process(None).and_then(|own| setpriority_process(None, own.max(behind.nice())));
    let _ = run_for(WHILE);
}

/// This thread runs for a moment at a time, the shortest that the system knows, instead of milliseconds. So it goes before whoever runs
/// for long when it wakes, and nobody who wakes waits for it for long. It gets no more of the processor than before.
///
/// # Errors
/// The system's. Nothing has changed then.
pub(crate) fn run_briefly() -> std::io::Result<()> {
    run_for(MOMENT)
}

fn run_for(runtime: u64) -> std::io::Result<()> {
    let size = u32::try_from(size_of::<Attributes>()).unwrap_or(0);
    // The operator may have had his reasons.
    let nice = getpriority_process(None)?;
    let attributes = Attributes { size, policy: 0, flags: 0, nice, priority: 0, runtime, deadline: 0, period: 0 };
    // SAFETY: the call reads one `sched_attr` of the size that it names, which lives until it returns, and changes nothing but how this
    // thread is scheduled. The C library has no function for it.
    let answer = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if answer == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// The shortest and the longest that a thread may ask for, in nanoseconds.
const MOMENT: u64 = 100_000;
const WHILE: u64 = 100_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_thread_may_run_briefly_and_stays_as_nice_as_it_was() {
        let run = || {
            setpriority_process(None, 7).unwrap();
            run_briefly().unwrap();
            getpriority_process(None).unwrap()
        };
        assert_eq!(std::thread::spawn(run).join().unwrap(), 7);
    }

    #[test]
    fn those_whom_a_thread_starts_stand_behind_with_it() {
        let nice = || getpriority_process(None).unwrap();
        let before = nice();
        let run = move || {
            stand(Behind::Close);
            let close = std::thread::spawn(nice).join().unwrap();
            stand(Behind::Far);
            stand(Behind::Close);
            (close, std::thread::spawn(nice).join().unwrap())
        };
        assert_eq!(std::thread::spawn(run).join().unwrap(), (before.max(10), 19), "whoever is far stays there");
        assert_eq!(nice(), before, "this one does not");
    }

    #[test]
    fn a_thread_keeps_to_half_of_its_processors_and_those_it_starts_with_it() {
        let half = |here, allowed: &[usize]| half_from(here, allowed).collect::<Vec<_>>();
        assert_eq!(half(0, &[0]), [0]);
        assert_eq!([half(0, &[0, 1]), half(1, &[0, 1])], [[0], [1]]);
        assert_eq!(half(5, &[1, 3, 5]), [5, 1], "after the last comes the first");
        assert_eq!(half(4, &[1, 3]), [1], "it has just been moved from one that is not allowed");
        let processors = || sched_getaffinity(None).unwrap().count();
        let before = processors();
        let kept = std::thread::spawn(move || {
            keep_to_half().unwrap();
            std::thread::spawn(processors).join().unwrap()
        });
        assert_eq!((kept.join().unwrap(), processors()), (before.div_ceil(2), before));
    }

    #[test]
    fn a_thread_that_stands_back_is_idle_and_so_are_those_it_starts() {
        let policy = || {
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            // The 41st field; the second is the name in parentheses.
            stat.rsplit_once(") ").unwrap().1.split_whitespace().nth(38).unwrap().to_owned()
        };
        let (before, after) = std::thread::spawn(move || {
            let before = policy();
            stand_back().unwrap();
            (before, std::thread::spawn(policy).join().unwrap())
        })
        .join()
        .unwrap();
        assert_eq!((before.as_str(), after.as_str()), ("0", "5"));
    }
}
