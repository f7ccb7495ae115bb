//! `isolation = "request"`: instances that belong to one exchange, from its first phase to its last.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::call::Slot;
use crate::decision::Phase;
use crate::error::CallError;
use crate::exchange::Exchange;
use crate::generation::Generation;
use crate::pool::Instance;

/// Exchanges of one policy that may have an instance at once, all workers together. The engine's pool is for all policies: one whose
/// exchanges wait for a slow server must leave room for the others.
const MAX_EXCHANGES: usize = 256;

/// How many exchanges have an instance of one generation.
#[derive(Debug, Default)]
pub(crate) struct Count(Arc<AtomicUsize>);

/// The right of one exchange to an instance.
#[derive(Debug)]
pub(crate) struct Right {
    policy: u32,
    count: Arc<AtomicUsize>,
}

/// An instance between two phases of its exchange.
#[derive(Debug)]
pub(crate) struct Held {
    right: Right,
    instance: Instance,
}

impl Count {
    fn right(&self, policy: u32) -> Result<Right, CallError> {
        let right = Right { policy, count: Arc::clone(&self.0) };
        if self.0.fetch_add(1, Relaxed) >= MAX_EXCHANGES {
            return Err(CallError::Exhausted(format!("{MAX_EXCHANGES} exchanges have an instance of their own")));
        }
        Ok(right)
    }
}

impl Drop for Right {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Relaxed);
    }
}

impl Right {
    /// Gives an instance back to its exchange, if another phase may need it.
    pub(crate) fn keep(self, generation: &Generation, instance: Instance, phase: Phase, slot: &mut Slot) {
        let later = |other: &Phase| *other > phase || (phase == Phase::ResponseBody && *other == phase);
        if Phase::ALL.iter().any(|other| later(other) && generation.wants(*other))
            && let Some(exchange) = slot
        {
            exchange.instances.push(Held { right: self, instance });
        }
    }
}

/// The exchange's own instance of a policy: the one of its earlier phases, or a fresh one.
///
/// # Errors
/// Too many exchanges have one, or the engine has no room.
pub(crate) async fn take(generation: &Generation, index: usize, slot: &mut Slot) -> Result<(Right, Instance), CallError> {
    let policy = u32::try_from(index).unwrap_or(u32::MAX);
    if let Some(held) = slot.as_deref_mut().and_then(|exchange| exchange.take_instance(index)) {
        return Ok((held.right, held.instance));
    }
    let right = generation.exchanges.right(policy)?;
    let mut instance = generation.instantiate().await.map_err(|error| CallError::Exhausted(error.to_string()))?;
    instance.store.data_mut().policy_index = policy;
    Ok((right, instance))
}

impl Exchange {
    /// The instance that it has for the policy in this place of the chain.
    pub(crate) fn take_instance(&mut self, index: usize) -> Option<Held> {
        let position = self.instances.iter().position(|held| held.right.policy as usize == index)?;
        Some(self.instances.swap_remove(position))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_and_bounded() {
        let count = Count::default();
        let places: Vec<_> = (0..MAX_EXCHANGES).map(|_| count.right(0).unwrap()).collect();
        assert!(matches!(count.right(0), Err(CallError::Exhausted(_))));
        drop(places);
        assert!(count.right(0).is_ok());
        assert_eq!(count.0.load(Relaxed), 0, "what was refused counts no more");
    }
}
