//! What a host saw a policy do in one step.

use crate::expect::Verdict;

/// Everything a case can ask about.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The first refusal, answer or failure of any phase; else `accept` if any phase said so.
    pub verdict: Verdict,
    /// The phase that gave it; none for `next`.
    pub phase: Option<&'static str>,
    /// The status of a refusal or an answer.
    pub status: Option<u16>,
    /// The rule of a refusal.
    pub rule: String,
    /// The reason of a refusal, an answer or a failure.
    pub reason: String,
    /// A failure in words, such as a panic's message with its place.
    pub failure: Option<String>,
    /// Key and value.
    pub tags: Vec<(String, String)>,
    /// In the order they were reported.
    pub findings: Vec<SeenFinding>,
    /// Calls to upstreams in their order, each as `auth POST /check`.
    pub calls: Vec<String>,
    /// The request after edits.
    pub request: Message,
    /// The answer that the client would get; none where nothing answered.
    pub response: Option<Message>,
    /// Name, label and value.
    pub metrics: Vec<(String, String, u64)>,
}

/// A message after edits. Of a request, status is 0; of a response, target and host are empty.
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// Path and query.
    pub target: String,
    /// Host.
    pub host: String,
    /// The status.
    pub status: u16,
    /// Name in lower case, value.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body.
    pub body: Vec<u8>,
}

/// A finding without its evidence, which the gateway masks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeenFinding {
    /// The rule's id.
    pub rule: String,
    /// The kind of rule.
    pub category: String,
    /// Where it matched.
    pub target: String,
    /// Points.
    pub score: u32,
}
