//! Work that takes seconds, beside the loop that wants its result.

use std::io;

use tokio::sync::oneshot;
use weir_plugins::priority::{Behind, stand};

/// Does it on a thread of its own, which stands behind workers and ends with it. The result does not come when the work panics.
///
/// # Errors
/// The system starts no thread.
pub fn beside<T, W>(name: &str, work: W) -> io::Result<oneshot::Receiver<T>>
where
    T: Send + 'static,
    W: AsyncFnOnce() -> T + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let (reply, result) = oneshot::channel();
    // Whoever asked may have gone.
    let run = move || {
        stand(Behind::Close);
        drop(reply.send(runtime.block_on(work())));
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(run)?;
    Ok(result)
}
