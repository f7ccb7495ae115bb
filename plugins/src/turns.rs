//! Guests that compute take turns: of those on a worker one goes on after a look at the sockets that found nothing, so that its other
//! connections wait for what is left of one slice, however many guests compute.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::task::yield_now;

/// A look at the sockets that found nothing takes no longer.
const NOTHING: Duration = Duration::from_micros(4);

/// So long does the guest whose turn it is let others go first, however many come.
const PATIENCE: Duration = Duration::from_micros(250);

thread_local! {
    static WAITING: RefCell<Queue> = RefCell::default();
}

/// Who waits for a turn, in the order they came. As long as the calls that may run at once on a worker.
#[derive(Debug, Default)]
struct Queue {
    last: u64,
    waiting: VecDeque<(u64, Waker)>,
}

impl Queue {
    fn join(&mut self, waker: &Waker) -> u64 {
        self.last += 1;
        self.waiting.push_back((self.last, waker.clone()));
        self.last
    }

    /// Whether it is the first one; otherwise it is woken when it is.
    fn is_first(&mut self, number: u64, waker: &Waker) -> bool {
        if let Some((_, own)) = self.waiting.iter_mut().find(|(other, _)| *other == number) {
            own.clone_from(waker);
        }
        self.waiting.front().is_none_or(|(first, _)| *first == number)
    }

    /// Takes it out of the queue; who is to be woken.
    fn leave(&mut self, number: u64) -> Option<Waker> {
        let was_first = self.waiting.front().is_some_and(|(first, _)| *first == number);
        self.waiting.retain(|(other, _)| *other != number);
        self.waiting.front().filter(|_| was_first).map(|(_, waker)| waker.clone())
    }
}

/// A place in the queue of this thread, until it is dropped.
struct Place(u64);

impl Drop for Place {
    fn drop(&mut self) {
        // No queue any more: the thread ends.
        let next = WAITING.try_with(|queue| queue.borrow_mut().leave(self.0)).ok().flatten();
        next.inspect(Waker::wake_by_ref);
    }
}

/// Ready when nobody is ahead.
struct First(Option<Place>);

impl Future for First {
    type Output = Option<Place>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let waker = context.waker();
        let is_first = WAITING.with_borrow_mut(|queue| {
            let place = self.0.get_or_insert_with(|| Place(queue.join(waker)));
            queue.is_first(place.0, waker)
        });
        if is_first { Poll::Ready(self.0.take()) } else { Poll::Pending }
    }
}

/// Lets others run; returns when it is this guest's turn.
pub(crate) async fn next() {
    let place = First(None).await;
    let begun = Instant::now();
    let mut looked = begun;
    loop {
        // The runtime looks at its sockets and timers before it comes back, and the next in the queue begins to wait for that only then.
        yield_now().await;
        // Whom that has woken goes once to the end of the queue before it writes (`http1/turn.rs` of the gateway), and must not find a
        // guest there.
        behind_all().await;
        let now = Instant::now();
        if now.duration_since(looked) < NOTHING || now.duration_since(begun) >= PATIENCE {
            break;
        }
        looked = now;
    }
    drop(place);
}

/// Once to the end of the runtime's queue.
async fn behind_all() {
    let mut been = false;
    poll_fn(|context| {
        if std::mem::replace(&mut been, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_leaves_first_wakes_the_next() {
        let (mut queue, nobody) = (Queue::default(), Waker::noop());
        let [first, second, third] = [0; 3].map(|_| queue.join(nobody));
        let ready = |queue: &mut Queue| [first, second, third].map(|number| queue.is_first(number, nobody));
        assert_eq!(ready(&mut queue), [true, false, false]);
        assert!(queue.leave(second).is_none(), "it was not its turn");
        assert!(queue.leave(first).is_some());
        assert_eq!(ready(&mut queue), [false, false, true]);
        assert!(queue.leave(third).is_none(), "nobody is left");
        assert!(queue.waiting.is_empty());
    }

    /// How many of so many guests have had a turn, after so many looks at the sockets.
    #[tokio::test(flavor = "current_thread")]
    async fn one_guest_goes_on_between_two_looks_at_the_sockets() {
        let guests: Vec<_> = (0..5).map(|_| tokio::spawn(next())).collect();
        let mut finished = Vec::new();
        while finished.last() != Some(&guests.len()) {
            yield_now().await;
            finished.push(guests.iter().filter(|guest| guest.is_finished()).count());
            assert!(finished.len() < 100, "{finished:?}");
        }
        let most = finished.windows(2).map(|pair| pair[1] - pair[0]).max();
        assert_eq!(most, Some(1), "{finished:?}");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_guest_waits_while_others_have_something_to_do_but_not_for_ever() {
        let others = tokio::spawn(async {
            loop {
                let begun = Instant::now();
                while begun.elapsed() < NOTHING * 2 {
                    std::hint::spin_loop();
                }
                yield_now().await;
            }
        });
        let begun = Instant::now();
        tokio::time::timeout(Duration::from_secs(10), next()).await.unwrap();
        assert!(begun.elapsed() >= PATIENCE, "{:?}", begun.elapsed());
        others.abort();
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_guest_that_is_given_up_holds_up_nobody() {
        let guests: Vec<_> = (0..3).map(|_| tokio::spawn(next())).collect();
        yield_now().await;
        guests[0].abort();
        guests[1].abort();
        tokio::time::timeout(Duration::from_secs(10), next()).await.unwrap();
        assert!(guests[2].is_finished());
    }
}
