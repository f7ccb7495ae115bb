//! Destroys instances away from the workers: giving the memory of one that grew back to the system takes milliseconds, in which a
//! worker's other connections would stand still.

use std::sync::OnceLock;
use std::sync::mpsc::{SyncSender, sync_channel};

use crate::pool::Instance;

/// Instances that wait for their end. Beyond it a worker destroys its own: whoever makes them faster than they end pays for it.
const WAITING: usize = 64;

static QUEUE: OnceLock<Option<SyncSender<Instance>>> = OnceLock::new();

/// Destroys an instance, soon.
pub(crate) fn destroy(instance: Instance) {
    match QUEUE.get_or_init(start) {
        // Full, or the thread has ended: it comes back, and ends here.
        Some(queue) => drop(queue.try_send(instance)),
        None => drop(instance),
    }
}

fn start() -> Option<SyncSender<Instance>> {
    let (queue, waiting) = sync_channel::<Instance>(WAITING);
    let thread = std::thread::Builder::new().name("weir-reaper".to_owned()).spawn(move || waiting.into_iter().for_each(drop));
    thread.is_ok().then_some(queue)
}
