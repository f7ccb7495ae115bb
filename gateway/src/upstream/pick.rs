//! Which server is tried next: the lowest priority that has an eligible server, round robin within it, nobody twice.

/// A server as the picker sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// 0 is preferred; a higher number is used only while no lower one is eligible.
    pub priority: u32,
    /// Whether requests may go there.
    pub eligible: bool,
    /// Whether this exchange has tried it.
    pub tried: bool,
}

/// The index of the server to try, or `None` when every eligible one was tried. `turn` rotates within one priority.
#[must_use]
pub fn pick(candidates: &[Candidate], turn: usize) -> Option<usize> {
    let open = |candidate: &Candidate| candidate.eligible && !candidate.tried;
    let priority = candidates.iter().filter(|candidate| open(candidate)).map(|candidate| candidate.priority).min()?;
    let mut peers = (0..candidates.len())
        .filter(|index| candidates.get(*index).is_some_and(|candidate| open(candidate) && candidate.priority == priority));
    let count = peers.clone().count();
    peers.nth(turn % count.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(candidates: &[(u32, bool, bool)], turn: usize, want: Option<usize>) {
        let candidates: Vec<_> =
            candidates.iter().map(|&(priority, eligible, tried)| Candidate { priority, eligible, tried }).collect();
        assert_eq!(pick(&candidates, turn), want, "{candidates:?} turn {turn}");
    }

    #[test]
    fn priorities_are_strict() {
        check(&[(0, true, false), (1, true, false)], 7, Some(0));
        check(&[(0, false, false), (1, true, false)], 7, Some(1));
        check(&[(0, true, true), (1, true, false)], 7, Some(1));
        check(&[(1, true, false), (0, true, false)], 0, Some(1));
        check(&[(0, false, false), (1, true, true)], 0, None);
        check(&[], 0, None);
    }

    #[test]
    fn equals_take_turns() {
        let three = [(0, true, false), (0, true, false), (0, true, false)];
        for turn in 0..6 {
            check(&three, turn, Some(turn % 3));
        }
    }
}
