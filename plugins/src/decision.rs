//! What a policy decided, in the words of the decision log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::candidate::{TrialMode, Tried};

/// The points at which a chain is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// A connection, before any byte of HTTP.
    Connection,
    /// A request head.
    Request,
    /// The window of a request body.
    RequestBody,
    /// A response head.
    Response,
    /// A piece of a response body.
    ResponseBody,
    /// The end of an exchange.
    Complete,
}

impl Phase {
    /// All phases in the order of an exchange.
    pub const ALL: [Self; 6] =
        [Self::Connection, Self::Request, Self::RequestBody, Self::Response, Self::ResponseBody, Self::Complete];

    /// The name in the contract and in the log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Request => "request",
            Self::RequestBody => "request-body",
            Self::Response => "response",
            Self::ResponseBody => "response-body",
            Self::Complete => "complete",
        }
    }

    pub(crate) const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// How a policy takes part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Decides.
    #[default]
    Enforce,
    /// Decides and logs, changes nothing.
    Observe,
    /// Is not called.
    Off,
}

impl Mode {
    /// The name in `weir.toml` and in the log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Observe => "observe",
            Self::Off => "off",
        }
    }
}

/// What happens to a request whose policy failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnError {
    /// It is refused.
    #[default]
    Deny,
    /// It goes on as if the policy had no opinion.
    Allow,
}

/// What happens to a request whose body is longer than the window its policy asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnOverflow {
    /// The policy sees the first bytes of it, and is told that more follows.
    #[default]
    InspectPrefix,
    /// The policy is not asked about the body.
    Pass,
    /// It is refused with 413.
    Reject,
}

/// The kind of a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerdictKind {
    /// No opinion.
    Next,
    /// Trusted.
    Accept,
    /// Refused.
    Deny,
    /// Answered.
    Reply,
    /// The call failed (trap, deadline, memory); the fail mode decided.
    Error,
}

impl VerdictKind {
    /// The name in the log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::Accept => "accept",
            Self::Deny => "deny",
            Self::Reply => "reply",
            Self::Error => "error",
        }
    }
}

/// A version of a policy.
#[derive(Debug)]
pub struct PolicyVersion {
    /// The policy's name in `weir.toml`.
    pub policy: Arc<str>,
    /// The SHA-256 of the plugin, in hex.
    pub digest: Arc<str>,
}

/// One call of one policy.
#[derive(Clone, Debug)]
pub struct Decision {
    /// Who was asked.
    pub version: Arc<PolicyVersion>,
    /// Where in the exchange.
    pub phase: Phase,
    /// What it answered.
    pub verdict: VerdictKind,
    /// The rule that decided; may be empty.
    pub rule: String,
    /// The reason; never empty for a refusal.
    pub reason: String,
    /// How the policy takes part.
    pub mode: Mode,
    /// Set when a candidate was asked: beside the policy's stable version, or in its place.
    pub tried: Option<Tried>,
    /// When the call began.
    pub started: Instant,
    /// How long it took, waiting included.
    pub elapsed: Duration,
}

impl Decision {
    /// Whether it is one of those that decide: a shadow's is not.
    #[must_use]
    pub fn counts(&self) -> bool {
        self.tried.is_none_or(|tried| tried.mode() != TrialMode::Shadow)
    }

    /// How the version that was asked takes part, as the log says it: `shadow` beside the policy's own modes.
    #[must_use]
    pub fn mode_name(&self) -> &'static str {
        if self.counts() { self.mode.name() } else { TrialMode::Shadow.name() }
    }
}

/// A rule that matched, with its evidence cut and masked.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The policy that reported it.
    pub policy: Arc<str>,
    /// The rule's id.
    pub rule: String,
    /// The kind of rule.
    pub category: String,
    /// Where it matched.
    pub target: String,
    /// What matched, masked.
    pub evidence: String,
    /// Points.
    pub score: u32,
}
