//! What every worker counts for itself: a counter with one writer needs no exclusive access to memory, which costs as much as a short
//! call does when other processors write there too.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

thread_local! {
    static WORKER: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Makes this thread the worker of that number, the only one with it, for as long as it runs. Other threads than workers count in a place
/// that they share.
pub fn become_worker(number: usize) {
    WORKER.set(number);
}

/// One `T` for each worker, and one for all other threads.
#[derive(Debug)]
pub(crate) struct PerWorker<T> {
    workers: Box<[Apart<T>]>,
    others: Apart<T>,
}

/// No two of these share a line of the processor's cache.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Apart<T>(T);

/// Who else may write where a thread counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writers {
    This,
    Many,
}

impl<T: Default> PerWorker<T> {
    pub(crate) fn new(workers: usize) -> Self {
        Self { workers: (0..workers).map(|_| Apart::default()).collect(), others: Apart::default() }
    }

    /// That of this thread.
    pub(crate) fn here(&self) -> (&T, Writers) {
        match self.workers.get(WORKER.get()) {
            Some(own) => (&own.0, Writers::This),
            None => (&self.others.0, Writers::Many),
        }
    }

    /// All of them.
    pub(crate) fn all(&self) -> impl Iterator<Item = &T> {
        self.workers.iter().chain([&self.others]).map(|one| &one.0)
    }

    /// The sum of a counter.
    pub(crate) fn sum(&self, counter: impl Fn(&T) -> &Counter) -> u64 {
        self.all().map(|one| counter(one).load()).fold(0, u64::wrapping_add)
    }
}

/// A number that grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, more: u64, writers: Writers) {
        match writers {
            Writers::This => self.0.store(self.0.load(Relaxed).wrapping_add(more), Relaxed),
            Writers::Many => {
                self.0.fetch_add(more, Relaxed);
            }
        }
    }

    pub(crate) fn load(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_count_apart_and_others_together() {
        let counts: PerWorker<Counter> = PerWorker::new(2);
        let count = || {
            let (own, writers) = counts.here();
            (0..1_000).for_each(|_| own.add(1, writers));
            writers
        };
        let as_worker = |number| {
            become_worker(number);
            count()
        };
        let seen: Vec<_> = std::thread::scope(|scope| {
            let workers = [0, 1, 7].map(|number| scope.spawn(move || as_worker(number)));
            let others = [(); 2].map(|()| scope.spawn(count));
            workers.into_iter().chain(others).map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(seen, [Writers::This, Writers::This, Writers::Many, Writers::Many, Writers::Many]);
        assert_eq!(counts.all().map(Counter::load).collect::<Vec<_>>(), [1_000, 1_000, 3_000]);
        assert_eq!(counts.sum(|count| count), 5_000);
    }
}
