//! How this process stands among those that want the processors. One of the two unsafe lines of the project.

#![allow(unsafe_code)]

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

#[cfg(test)]
mod tests {
    use super::*;

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
