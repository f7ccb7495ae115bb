//! Which processors who may use. A worker that computes is always ready to run, and the system gives those who are ready slices of
//! milliseconds: load and origin on the same processor would see, and cause, delays that have nothing to do with the gateway.

use rustix::io::{self, Errno};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Until it is dropped, this thread and whatever it starts keep off a processor that was given away.
#[derive(Debug)]
pub(crate) struct Given {
    before: CpuSet,
}

impl Drop for Given {
    fn drop(&mut self) {
        // It was so before.
        let _ = sched_setaffinity(None, &self.before);
    }
}

/// Gives one processor to a process, and the rest to others and to whatever this thread starts from now on. Nothing changes where there
/// is only one.
///
/// # Errors
/// The system's.
pub(crate) fn give_one(process: u32, others: &[u32]) -> io::Result<Given> {
    let before = sched_getaffinity(None)?;
    let given = Given { before };
    let (mut rest, mut one) = (before, CpuSet::new());
    let Some(first) = (0..CpuSet::MAX_CPU).find(|processor| rest.is_set(*processor)) else { return Ok(given) };
    one.set(first);
    rest.unset(first);
    if rest.count() == 0 {
        return Ok(given);
    }
    let all = others.iter().map(|id| (id, &rest)).chain([(&process, &one)]);
    for (id, processors) in all {
        threads(*id).into_iter().try_for_each(|thread| place(thread, processors))?;
    }
    sched_setaffinity(None, &rest)?;
    Ok(given)
}

/// A thread that has ended needs no place.
fn place(thread: Pid, processors: &CpuSet) -> io::Result<()> {
    match sched_setaffinity(Some(thread), processors) {
        Err(Errno::SRCH) => Ok(()),
        placed => placed,
    }
}

fn threads(process: u32) -> Vec<Pid> {
    let entries = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    entries.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_measures_next_has_all_processors_again() {
        std::thread::spawn(|| {
            let before = sched_getaffinity(None).unwrap();
            let given = give_one(0, &[]).unwrap();
            let during = sched_getaffinity(None).unwrap();
            assert_eq!(during.count(), before.count().saturating_sub(1).max(1));
            drop(given);
            assert_eq!(sched_getaffinity(None).unwrap(), before);
        })
        .join()
        .unwrap();
    }
}
