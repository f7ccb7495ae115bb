//! What tells two versions of a policy apart in one phase of one exchange.

use std::hash::{DefaultHasher, Hasher};

use crate::chain::Answer;
use crate::decision::VerdictKind;
use crate::error::CallError;
use crate::exchange::{Exchange, ResponseHead};

/// How a candidate differs from the version it is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Another verdict.
    Verdict,
    /// The same verdict with another status.
    Status,
    /// The same refusal by another rule.
    Rule,
    /// The same verdict with another effect on the request line, on headers or on the response's status.
    Edits,
    /// The same verdict with other tags, which later policies read.
    Tags,
    /// Another response body.
    Body,
    /// The candidate gave no verdict: it trapped or ran out of time.
    Failed,
}

impl Difference {
    /// The name in the log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Verdict => "verdict",
            Self::Status => "status",
            Self::Rule => "rule",
            Self::Edits => "edits",
            Self::Tags => "tags",
            Self::Body => "body",
            Self::Failed => "failed",
        }
    }
}

/// A verdict, as far as versions are compared by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) kind: VerdictKind,
    status: u16,
    rule: String,
}

impl Said {
    pub(crate) const fn nothing() -> Self {
        Self { kind: VerdictKind::Next, status: 0, rule: String::new() }
    }

    pub(crate) fn of(called: &Result<Answer, CallError>) -> Self {
        let plain = |kind| Self { kind, ..Self::nothing() };
        match called {
            Ok(Answer::Next) => plain(VerdictKind::Next),
            Ok(Answer::Accept) => plain(VerdictKind::Accept),
            Ok(Answer::Deny(denial)) => Self { kind: VerdictKind::Deny, status: denial.status, rule: denial.rule.clone() },
            Ok(Answer::Reply(reply)) => Self { kind: VerdictKind::Reply, status: reply.status, rule: String::new() },
            Err(_) => plain(VerdictKind::Error),
        }
    }

    /// Whether the exchange goes on with the policy's edits.
    const fn goes_on(&self) -> bool {
        matches!(self.kind, VerdictKind::Next | VerdictKind::Accept)
    }
}

/// Compares verdicts. The words of a reason are for people and are not compared.
pub(crate) fn verdicts(stable: &Said, candidate: &Said) -> Option<Difference> {
    match () {
        () if candidate.kind == VerdictKind::Error => Some(Difference::Failed),
        () if stable.kind != candidate.kind => Some(Difference::Verdict),
        () if stable.status != candidate.status => Some(Difference::Status),
        () if stable.rule != candidate.rule => Some(Difference::Rule),
        () => None,
    }
}

/// Compares verdicts, and what an exchange that goes on became. `edits` says whether the stable version's edits were made: those of a
/// policy that only observes are not.
pub(crate) fn exchanges(stable: (&Said, &Exchange), candidate: (&Said, &Exchange), edits: bool) -> Option<Difference> {
    let ((said, one), (also, other)) = (stable, candidate);
    verdicts(said, also).or_else(|| match () {
        () if !said.goes_on() => None,
        () if edits && !same_heads(one, other) => Some(Difference::Edits),
        () if one.tags != other.tags => Some(Difference::Tags),
        () => None,
    })
}

fn same_heads(one: &Exchange, other: &Exchange) -> bool {
    let head = |response: &ResponseHead| (response.status, response.headers.clone());
    one.target == other.target
        && one.authority == other.authority
        && one.headers == other.headers
        && one.response.as_ref().map(head) == other.response.as_ref().map(head)
}

/// Bodies that pass in pieces, which two versions may cut in different places.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bodies {
    stable: DefaultHasher,
    candidate: DefaultHasher,
}

impl Bodies {
    pub(crate) fn note(&mut self, stable: &[u8], candidate: &[u8]) {
        // `write` of the bytes alone: `hash` would add each piece's length.
        self.stable.write(stable);
        self.candidate.write(candidate);
    }

    pub(crate) fn difference(&self) -> Option<Difference> {
        (self.stable.finish() != self.candidate.finish()).then_some(Difference::Body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::bindings::weir::policy::types as wit;

    fn deny(status: u16, rule: &str, reason: &str) -> Result<Answer, CallError> {
        Ok(Answer::Deny(Box::new(wit::Denial { status, rule: rule.to_owned(), reason: reason.to_owned() })))
    }

    fn reply(status: u16, body: &str) -> Result<Answer, CallError> {
        let body = body.as_bytes().to_vec();
        Ok(Answer::Reply(Box::new(wit::Reply { status, headers: Vec::new(), body, reason: String::new() })))
    }

    #[test]
    fn verdicts_differ_by_kind_status_and_rule() {
        let trap = || Err(CallError::Trap("oh".to_owned()));
        let check = |stable: Result<Answer, CallError>, candidate: Result<Answer, CallError>, want: Option<Difference>| {
            let (stable, candidate) = (Said::of(&stable), Said::of(&candidate));
            assert_eq!(verdicts(&stable, &candidate), want, "{stable:?} and {candidate:?}");
        };
        check(Ok(Answer::Next), Ok(Answer::Next), None);
        check(deny(403, "a", "x"), deny(403, "a", "other words"), None);
        check(reply(200, ""), reply(200, ""), None);
        check(Ok(Answer::Next), Ok(Answer::Accept), Some(Difference::Verdict));
        check(Ok(Answer::Next), deny(403, "a", "x"), Some(Difference::Verdict));
        check(deny(403, "a", "x"), reply(403, ""), Some(Difference::Verdict));
        check(deny(403, "a", "x"), deny(429, "a", "x"), Some(Difference::Status));
        check(reply(200, ""), reply(204, ""), Some(Difference::Status));
        check(deny(403, "a", "x"), deny(403, "b", "x"), Some(Difference::Rule));
        check(Ok(Answer::Next), trap(), Some(Difference::Failed));
        check(trap(), trap(), Some(Difference::Failed));
        check(trap(), Ok(Answer::Next), Some(Difference::Verdict));
    }

    #[test]
    fn bodies_are_the_same_however_they_are_cut() {
        let mut bodies = Bodies::default();
        bodies.note(b"ab", b"");
        bodies.note(b"c", b"abc");
        assert_eq!(bodies.difference(), None);
        bodies.note(b"d", b"e");
        assert_eq!(bodies.difference(), Some(Difference::Body));
    }
}
