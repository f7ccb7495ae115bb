//! Which processors who may use. A worker that computes is always ready to run, and the system gives those who are ready slices of
//! milliseconds: load and origin on the same processor would see, and cause, delays that have nothing to do with the gateway.

use rustix::io;
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Gives one processor to a process, and the rest to others and to whatever this thread starts from now on. Nothing changes where there
/// is only one.
///
/// # Errors
/// The system's.
pub(crate) fn give_one(process: u32, others: &[u32]) -> io::Result<()> {
    let (mut rest, mut one) = (sched_getaffinity(None)?, CpuSet::new());
    let Some(first) = (0..CpuSet::MAX_CPU).find(|processor| rest.is_set(*processor)) else { return Ok(()) };
    one.set(first);
    rest.unset(first);
    if rest.count() == 0 {
        return Ok(());
    }
    let all = others.iter().map(|id| (id, &rest)).chain([(&process, &one)]);
    for (id, processors) in all {
        threads(*id).into_iter().try_for_each(|thread| sched_setaffinity(Some(thread), processors))?;
    }
    sched_setaffinity(None, &rest)
}

fn threads(process: u32) -> Vec<Pid> {
    let entries = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    entries.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)).collect()
}
