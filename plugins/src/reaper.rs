//! Destroys instances whose call failed or whose generation was replaced, away from the workers: giving the memory of one that grew back
//! to the system takes milliseconds, in which a worker's other connections would stand still.
//!
//! Meanwhile the system gives no memory to others of the process, either: a worker that asked for some would stand still as long. So
//! guests ask here first, and wait as guests do, while their worker goes on.

use std::pin::pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use tokio::sync::Notify;

use crate::pool::Instance;
use crate::priority::{Behind, stand};

/// Instances that wait for their end. Beyond it a worker destroys its own: whoever makes them faster than they end pays for it.
const WAITING: usize = 64;

/// Between two instances: time for those who wait for memory.
const PAUSE: Duration = Duration::from_micros(250);

/// A guest waits for memory no longer than that. The largest instance takes less.
const MAX_WAIT: Duration = Duration::from_millis(100);

static QUEUE: OnceLock<Option<SyncSender<Instance>>> = OnceLock::new();
static BUSY: AtomicBool = AtomicBool::new(false);
static DONE: Notify = Notify::const_new();

/// Destroys an instance, soon.
pub(crate) fn destroy(instance: Instance) {
    match QUEUE.get_or_init(start) {
        // Full, or the thread has ended: it comes back, and ends here.
        Some(queue) => drop(queue.try_send(instance)),
        None => drop(instance),
    }
}

/// Whether the memory of an instance is given back just now.
pub(crate) fn is_busy() -> bool {
    BUSY.load(Relaxed)
}

/// Waits while the memory of an instance is given back.
pub(crate) async fn memory_is_free() {
    if BUSY.load(SeqCst) {
        wait().await;
    }
}

#[cold]
async fn wait() {
    let mut done = pin!(DONE.notified());
    done.as_mut().enable();
    // Either this sees the end, or the end sees who waits.
    if BUSY.load(SeqCst) {
        drop(tokio::time::timeout(MAX_WAIT, done).await);
    }
}

/// Until it is dropped, others wait.
struct Busy;

impl Busy {
    fn begin() -> Self {
        BUSY.store(true, SeqCst);
        Self
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        BUSY.store(false, SeqCst);
        DONE.notify_waiters();
    }
}

fn start() -> Option<SyncSender<Instance>> {
    let (queue, waiting) = sync_channel::<Instance>(WAITING);
    let run = move || {
        stand(Behind::Close);
        for instance in waiting {
            let busy = Busy::begin();
            drop(instance);
            drop(busy);
            std::thread::sleep(PAUSE);
        }
    };
    let thread = std::thread::Builder::new().name("weir-reaper".to_owned()).spawn(run);
    thread.is_ok().then_some(queue)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_asks_for_memory_waits_until_it_was_given_back() {
        let soon = |limit| tokio::time::timeout(limit, memory_is_free());
        let busy = Busy::begin();
        assert!(soon(Duration::from_millis(5)).await.is_err(), "it waits");
        tokio::time::timeout(Duration::from_secs(10), memory_is_free()).await.expect("but not for ever");
        let (waited, ()) = tokio::join!(soon(Duration::from_secs(10)), async {
            tokio::task::yield_now().await;
            drop(busy);
        });
        waited.expect("it was told");
        memory_is_free().await;
    }
}
