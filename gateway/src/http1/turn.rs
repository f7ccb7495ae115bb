//! When to write: after everybody who is ready has been heard.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

thread_local!(static GIVEN: Cell<bool> = const { Cell::new(false) });

/// Polls a future, and tells whether it waits for its turn and for nothing else: then there is no need to look around, it is polled again
/// at once.
pub fn poll<F: Future>(future: Pin<&mut F>, context: &mut Context<'_>) -> (Poll<F::Output>, bool) {
    GIVEN.set(false);
    let polled = future.poll(context);
    let waits_for_turn = polled.is_pending() && GIVEN.get();
    (polled, waits_for_turn)
}

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
        GIVEN.set(true);
        Poll::Pending
    })
    .await;
}
