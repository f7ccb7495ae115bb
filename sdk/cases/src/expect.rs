//! What a case expects.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::data::Data;

/// The kind of a verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// No opinion in any phase.
    #[default]
    Next,
    /// Trusted.
    Accept,
    /// Refused.
    Deny,
    /// Answered by the policy.
    Reply,
    /// A call failed: it panicked, or broke a limit or the contract.
    Error,
}

impl Verdict {
    /// As written in a file.
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

/// What must be seen; what is not written may be anything.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// The verdict of the exchange.
    pub verdict: Verdict,
    /// The phase that decided.
    pub phase: Option<String>,
    /// The status of a refusal or an answer.
    pub status: Option<u16>,
    /// The rule of a refusal.
    pub rule: Option<String>,
    /// The reason.
    pub reason: Option<String>,
    /// Tags by key; `false` for one that must not be set.
    #[serde(default)]
    pub tags: BTreeMap<String, Wanted>,
    /// All findings, each by the fields that are written.
    pub findings: Option<Vec<Finding>>,
    /// The request as the upstream would see it.
    #[serde(default)]
    pub request: Request,
    /// The answer as the client would see it: the upstream's after edits, or the policy's own.
    #[serde(default)]
    pub response: Response,
    /// All calls to upstreams in their order, each as `auth POST /check`.
    pub calls: Option<Vec<String>>,
    /// Counters after the case, `name` or `name/label`.
    #[serde(default)]
    pub metrics: BTreeMap<String, u64>,
}

/// A value that must be there, all values that must be there, or whether there is one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "a value, a list of values, or true or false")]
pub enum Wanted {
    /// Whether there is any.
    Present(bool),
    /// Exactly this one.
    One(Data),
    /// Exactly these, in order.
    All(Vec<Data>),
}

/// One finding, by the fields that are written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// The rule's id.
    pub rule: Option<String>,
    /// The kind of rule.
    pub category: Option<String>,
    /// Where it matched.
    pub target: Option<String>,
    /// Points.
    pub score: Option<u32>,
}

/// The request after edits.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Path and query.
    pub target: Option<String>,
    /// Host.
    pub host: Option<String>,
    /// Header fields by name in any case.
    #[serde(default)]
    pub headers: BTreeMap<String, Wanted>,
}

/// The answer after edits.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Response {
    /// The status.
    pub status: Option<u16>,
    /// Header fields by name in any case.
    #[serde(default)]
    pub headers: BTreeMap<String, Wanted>,
    /// The whole body.
    pub body: Option<Data>,
}
