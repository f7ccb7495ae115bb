//! When to write: after everybody who is ready has been heard.

use std::future::poll_fn;
use std::task::Poll;

/// Lets every task of this worker that is ready go first.
///
/// Who writes to a peer that sleeps pays for waking it, which costs more than the write. When several exchanges are ready at once their
/// writes follow each other closely this way, and only the first of them finds the peer asleep. Alone, it costs one turn of the queue.
pub async fn others_first() {
    let mut waited = false;
    poll_fn(|context| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
