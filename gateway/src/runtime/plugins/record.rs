//! What is remembered of one plugin file, over a restart too: which digest is live, which was before it, which is not to be taken again.
//! Data and a time in, data out.

use serde::{Deserialize, Serialize};
use weir_plugins::signature::Release;

/// One build of a plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// SHA-256 of the file in hex.
    pub digest: String,
    /// The version it gives itself.
    pub version: String,
    /// When it went live, or ceased to be; Unix seconds.
    pub since: u64,
    /// What it was taken by, when signatures were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
}

/// The signature of a build that was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// The name the build gives itself.
    pub name: String,
    /// The text of its signature file.
    pub signature: String,
    /// The public key it was verified with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// When it was signed, if that is said; Unix seconds.
    pub at: Option<u64>,
}

impl Mark {
    /// The build, as far as builds are put in order.
    #[must_use]
    pub fn release(&self) -> Release {
        let name = self.proof.as_ref().map_or_else(String::new, |proof| proof.name.clone());
        Release { name, version: self.version.clone(), signed: self.proof.as_ref().and_then(|proof| proof.at) }
    }
}

/// What is remembered of one plugin file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What policies run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<Mark>,
    /// What they ran before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Mark>,
    /// What was live and is not taken again while the file holds it. The same digest as `live`, when there was nothing to restore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
    /// What the file held last and could not be taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refused>,
    /// The file is gone since; Unix seconds.
    #[serde(skip)]
    pub removed: Option<u64>,
}

/// A digest that is held back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Which build; its time is when it was held back.
    pub mark: Mark,
    /// By whom.
    pub cause: Cause,
    /// In words, for the operator.
    pub reason: String,
}

/// Why a digest is held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The operator rolled back from it.
    RolledBack,
    /// Too many of its calls failed.
    Quarantined,
}

impl Cause {
    /// As shown to the operator.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RolledBack => "rolled_back",
            Self::Quarantined => "quarantined",
        }
    }
}

/// A file that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// What it holds, when it could be read.
    pub digest: Option<String>,
    /// Why, and what to do.
    pub reason: String,
    /// When; Unix seconds.
    pub at: u64,
    /// What it takes to look at it again.
    pub again: Again,
}

/// When a refused file is looked at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Again {
    /// When it holds something else.
    FileChanges,
    /// Then, and with each new configuration: what was wrong is how policies use it.
    ConfigChanges,
    /// Then, and when its signature changes: that may come before the file or after it.
    SignatureChanges,
    /// Now and then: what was wrong is not in the file.
    Later,
}

/// What to do with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// It holds what is live.
    IsLive,
    /// It holds what is held back.
    IsHeld,
    /// It holds what was refused.
    IsRefused,
    /// Load it.
    Load,
}

impl Record {
    /// A file holds this digest. What was remembered of other digests of the file is forgotten with its refusal.
    pub fn seen(&mut self, digest: &str) -> Plan {
        self.removed = None;
        if self.held.as_ref().is_some_and(|held| held.mark.digest != digest) {
            self.held = None;
        }
        let is_open = |refused: &Refused| matches!(refused.again, Again::Later | Again::SignatureChanges);
        if self.refused.as_ref().is_some_and(|refused| refused.digest.as_deref() != Some(digest) || is_open(refused)) {
            self.refused = None;
        }
        if self.is_live(digest) {
            Plan::IsLive
        } else if self.held.is_some() {
            Plan::IsHeld
        } else if self.refused.is_some() {
            Plan::IsRefused
        } else {
            Plan::Load
        }
    }

    /// Whether this digest is live.
    #[must_use]
    pub fn is_live(&self, digest: &str) -> bool {
        self.live.as_ref().is_some_and(|live| live.digest == digest)
    }

    /// A file went live. What was live before is kept when policies ran it.
    pub fn taken(&mut self, new: Mark, was_used: bool) {
        let since = new.since;
        let old = self.live.replace(new).filter(|_| was_used);
        self.previous = old.map(|old| Mark { since, ..old });
        *self = Self { live: self.live.take(), previous: self.previous.take(), ..Self::default() };
    }

    /// A file was refused; what is live stays.
    pub fn refuse(&mut self, refused: Refused) {
        self.removed = None;
        self.refused = Some(refused);
    }

    /// What can be restored.
    #[must_use]
    pub fn restorable(&self) -> Option<&Mark> {
        self.live.as_ref()?;
        self.previous.as_ref()
    }

    /// The previous build is live again, and the file is not taken while it holds what was live. Answers what was live.
    pub fn restored(&mut self, cause: Cause, reason: &str, now: u64) -> Option<Mark> {
        let previous = self.previous.take()?;
        let bad = self.live.replace(Mark { since: now, ..previous })?;
        self.held = Some(Held { mark: Mark { since: now, ..bad.clone() }, cause, reason: reason.to_owned() });
        Some(bad)
    }

    /// What is live fails too often, and there is nothing to restore.
    pub fn quarantined(&mut self, reason: &str, now: u64) {
        let mark = self.live.clone().map(|live| Mark { since: now, ..live });
        self.held = mark.map(|mark| Held { mark, cause: Cause::Quarantined, reason: reason.to_owned() });
    }

    /// Whether what is live is itself in quarantine.
    #[must_use]
    pub fn is_quarantined(&self) -> bool {
        self.held.as_ref().is_some_and(|held| self.is_live(&held.mark.digest))
    }

    /// What is live works again.
    pub fn recovered(&mut self) {
        if self.is_quarantined() {
            self.held = None;
        }
    }

    /// The digest in the file, as far as it was judged for good: no reason to read it again.
    #[must_use]
    pub fn judged(&self) -> Option<&str> {
        let refused = self.refused.as_ref();
        let held = self.held.as_ref().map(|held| held.mark.digest.as_str());
        let live = self.live.as_ref().map(|live| live.digest.as_str());
        match refused {
            Some(refused) if matches!(refused.again, Again::Later | Again::SignatureChanges) => Some(""),
            Some(refused) => refused.digest.as_deref().or(Some("")),
            None => held.or(live),
        }
    }

    /// Every digest whose bytes are kept.
    pub fn kept(&self) -> impl Iterator<Item = &str> {
        let held = self.held.as_ref().map(|held| &held.mark);
        [self.live.as_ref(), self.previous.as_ref(), held].into_iter().flatten().map(|mark| mark.digest.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(digest: &str, since: u64) -> Mark {
        Mark { digest: digest.to_owned(), version: format!("v{digest}"), since, proof: None }
    }

    fn refused(digest: Option<&str>, again: Again) -> Refused {
        Refused { digest: digest.map(str::to_owned), reason: "bad".to_owned(), at: 9, again }
    }

    /// A after nothing, B after A.
    fn swapped() -> Record {
        let mut record = Record::default();
        assert_eq!(record.seen("a"), Plan::Load);
        record.taken(mark("a", 1), true);
        assert_eq!(record.seen("b"), Plan::Load);
        record.taken(mark("b", 2), true);
        record
    }

    fn digests(record: &Record) -> [Option<&str>; 3] {
        let held = record.held.as_ref().map(|held| held.mark.digest.as_str());
        [record.live.as_ref(), record.previous.as_ref()]
            .map(|mark| mark.map(|mark| mark.digest.as_str()))
            .into_iter()
            .chain([held])
            .collect::<Vec<_>>()
            .try_into()
            .unwrap()
    }

    #[test]
    fn a_swap_keeps_what_was_live() {
        let record = swapped();
        assert_eq!(digests(&record), [Some("b"), Some("a"), None]);
        assert_eq!(record.previous.unwrap().since, 2, "until the other came");
        let mut unused = Record::default();
        unused.taken(mark("a", 1), false);
        unused.taken(mark("b", 2), false);
        assert_eq!(digests(&unused), [Some("b"), None, None], "nobody ran it");
    }

    #[test]
    fn after_a_rollback_the_file_is_held_back_until_it_changes() {
        let mut record = swapped();
        assert_eq!(record.restored(Cause::RolledBack, "by the operator", 3), Some(mark("b", 2)));
        assert_eq!(digests(&record), [Some("a"), None, Some("b")]);
        assert_eq!((record.seen("b"), record.seen("b")), (Plan::IsHeld, Plan::IsHeld));
        assert_eq!(record.judged(), Some("b"));
        assert_eq!(record.restored(Cause::RolledBack, "again", 4), None, "there is nothing behind it");
        assert_eq!(digests(&record), [Some("a"), None, Some("b")], "and nothing changed");

        assert_eq!(record.seen("c"), Plan::Load);
        record.taken(mark("c", 5), true);
        assert_eq!(digests(&record), [Some("c"), Some("a"), None]);
        assert_eq!(record.seen("b"), Plan::Load, "the file has held something else");
    }

    #[test]
    fn the_restored_file_put_back_ends_the_hold() {
        let mut record = swapped();
        record.restored(Cause::Quarantined, "failed", 3);
        assert_eq!(record.seen("a"), Plan::IsLive);
        assert_eq!(digests(&record), [Some("a"), None, None]);
    }

    #[test]
    fn a_removed_file_that_comes_back_is_still_held() {
        let mut record = swapped();
        record.restored(Cause::RolledBack, "", 3);
        record.removed = Some(4);
        assert_eq!(record.seen("b"), Plan::IsHeld);
        assert_eq!(record.removed, None);
    }

    #[test]
    fn what_cannot_be_replaced_is_quarantined_where_it_is() {
        let mut record = Record::default();
        record.taken(mark("a", 1), true);
        assert_eq!(record.restorable(), None);
        record.quarantined("failed", 2);
        assert!(record.is_quarantined());
        assert_eq!(record.seen("a"), Plan::IsLive);
        assert!(record.is_quarantined(), "the same file changes nothing");
        record.recovered();
        assert_eq!(digests(&record), [Some("a"), None, None]);
        let mut held = swapped();
        held.restored(Cause::Quarantined, "", 3);
        held.recovered();
        assert!(held.held.is_some(), "what was restored works, what is held back does not");
    }

    #[test]
    fn a_refused_digest_is_not_tried_again() {
        let cases = [
            (Some("b"), Again::FileChanges, "b", Plan::IsRefused),
            (Some("b"), Again::ConfigChanges, "b", Plan::IsRefused),
            (Some("b"), Again::Later, "b", Plan::Load),
            (None, Again::Later, "b", Plan::Load),
            (Some("b"), Again::FileChanges, "c", Plan::Load),
            (Some("b"), Again::FileChanges, "a", Plan::IsLive),
        ];
        for (digest, again, seen, expected) in cases {
            let mut record = Record::default();
            record.taken(mark("a", 1), true);
            record.refuse(refused(digest, again));
            assert_eq!(record.seen(seen), expected, "{digest:?} {again:?} {seen}");
            assert_eq!(record.refused.is_some(), expected == Plan::IsRefused, "{digest:?} {again:?} {seen}");
        }
    }

    #[test]
    fn a_record_survives_a_restart() {
        let mut record = swapped();
        record.restored(Cause::Quarantined, "12 of 100 calls failed", 3);
        record.refuse(refused(Some("c"), Again::ConfigChanges));
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
        assert_eq!(record.kept().collect::<Vec<_>>(), ["a", "b"]);
    }
}
