//! Looks at what generations do, and takes those that fail too often out of service.

use std::sync::Arc;
use std::time::Instant;

use weir_plugins::{Admission, Generation, StatsSnapshot};

use super::Plugins;
use super::quarantine::{Action, Breaker, Counts, Health};
use super::record::Cause;
use super::rollback::RollbackError;
use crate::config::Config;

impl Plugins {
    /// Looks at all generations. Answers whether another build is live for it: publish a snapshot.
    pub async fn look(&mut self, config: &Config, now: Instant) -> bool {
        let mut failing = Vec::new();
        let mut changed = false;
        for generation in self.generations.values() {
            let Some(breaker) = self.breakers.get_mut(&generation.id()) else { continue };
            let policy = &*generation.spec.name;
            let rule = config.policies.get(&generation.spec.name).map(|policy| policy.quarantine).unwrap_or_default();
            match breaker.judge(&rule, counts(&generation.stats()), now) {
                Action::Nothing => continue,
                Action::Quarantine(recent) => failing.push((Arc::clone(generation), recent)),
                Action::Probe(count) => {
                    generation.admit(Admission::Probes(count));
                    tracing::info!(policy, plugin = &*generation.plugin.name, "in quarantine: {count} calls are tried");
                }
                Action::Rest(rest) => {
                    generation.admit(Admission::None);
                    tracing::warn!(policy, plugin = &*generation.plugin.name, "still fails, not called for {rest:?}");
                }
                Action::Recover => {
                    generation.admit(Admission::All);
                    tracing::warn!(policy, plugin = &*generation.plugin.name, "works again, its quarantine is over");
                }
            }
            changed = true;
        }
        let mut publish = false;
        for (generation, recent) in failing {
            publish |= self.quarantine(&generation, recent, config, now).await;
        }
        let ended = self.forget_ended();
        if changed || ended {
            self.note_recovered();
            self.remember();
            if !publish {
                self.show();
            }
        }
        publish
    }

    /// A generation fails too often: the build before it is restored, or its fail mode holds while it is hardly called.
    async fn quarantine(&mut self, generation: &Arc<Generation>, recent: Counts, config: &Config, now: Instant) -> bool {
        let (policy, name) = (Arc::clone(&generation.spec.name), Arc::clone(&generation.plugin.name));
        if self.generations.get(&policy).is_none_or(|running| running.id() != generation.id()) {
            // Another policy of the same plugin had it replaced just now.
            return false;
        }
        let Counts { calls, failures } = recent;
        let within = config.policies.get(&policy).map(|policy| policy.quarantine).unwrap_or_default().within;
        let reason = format!("policy {policy}: {failures} of {calls} calls within {within:?} trapped or ran out of time");
        self.status.quarantined(&policy);
        let why_not = match self.fall_back(&name, config, &format!("quarantined: {reason}")).await {
            // Requests under way finish on the one they began with.
            Ok(_) => return true,
            Err(RollbackError::Nothing(reason)) => reason,
            Err(error) => error.to_string(),
        };
        generation.admit(Admission::None);
        let rest = self.breakers.entry(generation.id()).or_insert_with(|| Breaker::new(now)).rest(now);
        let fail_mode = format!("{:?}", generation.spec.on_error).to_lowercase();
        tracing::error!(
            policy = &*policy,
            plugin = &*name,
            fail_mode,
            "quarantined, not called for {rest:?}: {reason}; not replaced: {why_not}"
        );
        if let Some(slot) = self.slots.get_mut(&*name) {
            slot.record.quarantined(&format!("quarantined: {reason}"), super::unix_now());
        }
        self.remember();
        false
    }

    /// A plugin in quarantine of which all generations work is in quarantine no more.
    fn note_recovered(&mut self) {
        for (name, slot) in self.slots.iter_mut().filter(|(_, slot)| slot.record.is_quarantined()) {
            let mut own = self.generations.values().filter(|generation| *generation.plugin.name == **name);
            let works = |id: u64| self.breakers.get(&id).is_none_or(|breaker| breaker.health() == Health::Working);
            if own.all(|generation| works(generation.id())) {
                slot.record.recovered();
            }
        }
    }

    /// What was in quarantine when the process before this one ended still is: its first calls are probes.
    pub(super) fn keep_in_quarantine(&mut self, now: Instant) {
        let held = |name: &str| {
            let held = self.slots.get(name).filter(|slot| slot.record.is_quarantined());
            held.and_then(|slot| slot.record.held.as_ref()).is_some_and(|held| held.cause == Cause::Quarantined)
        };
        for generation in self.generations.values().filter(|generation| held(&generation.plugin.name)) {
            generation.admit(Admission::None);
            self.breakers.insert(generation.id(), Breaker::resting(now));
            tracing::warn!(
                policy = &*generation.spec.name,
                plugin = &*generation.plugin.name,
                "still in quarantine after the restart"
            );
        }
    }

    /// Forgets generations that nobody uses any more, and retires the rest of those that were replaced. Answers whether there were any to
    /// forget.
    fn forget_ended(&mut self) -> bool {
        let before = self.retired.len();
        self.retired.retain(|retired| {
            let generation = retired.generation.upgrade();
            if let Some(generation) = &generation {
                generation.retire();
            } else {
                let (policy, plugin, digest) = (&*retired.policy, &*retired.plugin, &*retired.digest);
                tracing::info!(policy, plugin, digest, "a replaced generation has drained");
            }
            generation.is_some()
        });
        self.retired.len() < before
    }
}

/// What a build answers for: its traps, breaks of the contract and the time it took itself. Calls that were not made say nothing about it,
/// nor do those that an upstream kept waiting beyond their time: the build before would have waited as long.
fn counts(stats: &StatsSnapshot) -> Counts {
    let says_nothing = stats.exhausted + stats.quarantined + stats.waited;
    Counts {
        calls: stats.calls.saturating_sub(says_nothing),
        failures: stats.traps + stats.timeouts.saturating_sub(stats.waited),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_answers_for_what_it_did_itself() {
        let stats = |traps, timeouts, waited, exhausted, quarantined| StatsSnapshot {
            calls: 100,
            traps,
            timeouts,
            waited,
            exhausted,
            quarantined,
            ..StatsSnapshot::default()
        };
        for (what, stats, (calls, failures)) in [
            ("nothing failed", stats(0, 0, 0, 0, 0), (100, 0)),
            ("traps and breaks of the contract", stats(7, 0, 0, 0, 0), (100, 7)),
            ("its own time, on the processor or asleep", stats(0, 7, 0, 0, 0), (100, 7)),
            ("the time of an upstream", stats(0, 7, 7, 0, 0), (93, 0)),
            ("both", stats(1, 7, 4, 0, 0), (96, 4)),
            ("no instance", stats(0, 0, 0, 30, 0), (70, 0)),
            ("not called", stats(0, 0, 0, 0, 30), (70, 0)),
            ("read while they change", stats(0, 3, 5, 60, 60), (0, 0)),
        ] {
            assert_eq!(counts(&stats), Counts { calls, failures }, "{what}");
        }
    }
}
