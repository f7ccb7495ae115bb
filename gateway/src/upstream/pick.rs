//! Which server is tried next: the best standing, within it the lowest priority, round robin among equals, nobody twice.

use super::health::Standing;

/// A server as the picker sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// 0 is preferred; a higher number is used only while no lower one is ready.
    pub priority: u32,
    /// Whether requests may go there.
    pub standing: Standing,
    /// Whether this exchange has tried it.
    pub tried: bool,
}

/// The index of the server to try, or `None` when every one that is not down was tried. `turn` rotates among equals.
#[must_use]
pub fn pick(candidates: &[Candidate], turn: usize) -> Option<usize> {
    let open = |candidate: &Candidate| candidate.standing != Standing::Down && !candidate.tried;
    let rank = |candidate: &Candidate| (candidate.standing, candidate.priority);
    let best = candidates.iter().filter(|candidate| open(candidate)).map(rank).min()?;
    let mut peers = (0..candidates.len())
        .filter(|index| candidates.get(*index).is_some_and(|candidate| open(candidate) && rank(candidate) == best));
    let count = peers.clone().count();
    peers.nth(turn % count.max(1))
}

#[cfg(test)]
mod tests {
    use super::Standing::{Down, Ready, Spare, Suspect};
    use super::*;

    fn check(candidates: &[(u32, Standing, bool)], turn: usize, want: Option<usize>) {
        let candidates: Vec<_> =
            candidates.iter().map(|&(priority, standing, tried)| Candidate { priority, standing, tried }).collect();
        assert_eq!(pick(&candidates, turn), want, "{candidates:?} turn {turn}");
    }

    #[test]
    fn priorities_are_strict() {
        check(&[(0, Ready, false), (1, Ready, false)], 7, Some(0));
        check(&[(0, Down, false), (1, Ready, false)], 7, Some(1));
        check(&[(0, Ready, true), (1, Ready, false)], 7, Some(1));
        check(&[(5, Ready, false), (3, Ready, false), (4, Ready, false)], 0, Some(1));
    }

    #[test]
    fn equals_take_turns() {
        let three = [(0, Ready, false), (0, Ready, false), (0, Ready, false)];
        (0..6).for_each(|turn| check(&three, turn, Some(turn % 3)));
        check(&[(0, Ready, false), (0, Down, false), (0, Ready, false)], 1, Some(2));
    }

    #[test]
    fn a_better_standing_goes_before_a_better_priority() {
        check(&[(0, Spare, false), (1, Ready, false)], 0, Some(1));
        check(&[(0, Suspect, false), (1, Ready, false)], 0, Some(1));
        check(&[(0, Suspect, false), (1, Spare, false)], 0, Some(1));
        check(&[(0, Spare, false), (1, Spare, false)], 0, Some(0));
    }

    #[test]
    fn the_last_resort_is_whoever_is_not_down() {
        check(&[(0, Suspect, false), (1, Down, false)], 0, Some(0));
        check(&[(0, Spare, false), (1, Down, false)], 0, Some(0));
        check(&[(0, Suspect, false), (1, Ready, true)], 0, Some(0));
    }

    #[test]
    fn nobody_is_left() {
        check(&[], 0, None);
        check(&[(0, Down, false)], 0, None);
        check(&[(0, Ready, true), (1, Down, true)], 3, None);
    }
}
