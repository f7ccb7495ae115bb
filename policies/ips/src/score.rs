//! What was found in a request, and what follows from it.

use crate::config::{RuleSet, Settings, bit};
use crate::rules::Rule;

/// A rule that matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// Its place in the catalogue.
    pub rule: u8,
    /// Where it matched, e.g. `query:id`.
    pub target: String,
    /// What matched, decoded; [`EVIDENCE_MAX`] bytes at most.
    pub evidence: Vec<u8>,
}

/// The rules that matched in a request so far.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// All of them, those of an earlier phase included.
    pub seen: RuleSet,
    /// Those of this phase, in the order they were found.
    pub hits: Vec<Hit>,
}

/// How much of what matched is kept.
pub const EVIDENCE_MAX: usize = 120;

impl Tally {
    /// Goes on from what an earlier phase kept with [`Tally::to_state`]; from nothing when the bytes are none of it.
    #[must_use]
    pub fn from_state(state: &[u8]) -> Self {
        Self { seen: state.try_into().map_or(0, RuleSet::from_le_bytes), hits: Vec::new() }
    }

    /// What a later phase has to know; `None` when nothing matched.
    #[must_use]
    pub fn to_state(&self) -> Option<[u8; 16]> {
        (self.seen != 0).then(|| self.seen.to_le_bytes())
    }

    /// The sum over all rules seen, each counted once.
    #[must_use]
    pub fn score(&self, settings: &Settings) -> u32 {
        self.rules(settings).map(|rule| rule.severity.score()).sum()
    }

    /// The rule that a denial names: the first of those with the highest score, when the sum reaches the threshold.
    #[must_use]
    pub fn decisive(&self, settings: &Settings) -> Option<&'static Rule> {
        if self.seen == 0 || self.score(settings) < settings.threshold {
            return None;
        }
        self.rules(settings).reduce(|best, rule| if rule.severity.score() > best.severity.score() { rule } else { best })
    }

    fn rules<'a>(&self, settings: &'a Settings) -> impl Iterator<Item = &'static Rule> + use<'a> {
        let seen = self.seen;
        settings.rules.iter().zip(0..).filter(move |(_, number)| seen & bit(*number) != 0).map(|(rule, _)| *rule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_score_is_carried_over_and_the_highest_rule_decides() {
        let settings = Config::default().resolve().unwrap();
        let number = |id: &str| settings.rules.iter().zip(0..).find(|(rule, _)| rule.id == id).unwrap().1;
        let mut tally = Tally::default();
        assert_eq!((tally.to_state(), tally.score(&settings)), (None, 0));
        tally.seen |= bit(number("protocol-5"));
        assert!(tally.decisive(&settings).is_none());
        let mut later = Tally::from_state(&tally.to_state().unwrap());
        later.seen |= bit(number("protocol-12"));
        assert_eq!(later.score(&settings), 7);
        assert_eq!(later.decisive(&settings).unwrap().id, "protocol-12");
        assert_eq!(Tally::from_state(b"short").seen, 0);
    }
}
