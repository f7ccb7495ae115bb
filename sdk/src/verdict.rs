//! What a policy answers.

#[cfg(target_family = "wasm")]
use crate::host::Header;

/// A policy's decision in one phase.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// No opinion: the next policy decides.
    #[default]
    Next,
    /// Trusted: the remaining policies of this phase are skipped.
    Accept,
    /// Refused. The gateway renders the answer with a reference id.
    Deny(Denial),
    /// Answered by the policy instead of the upstream.
    Reply(Reply),
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// 400 to 599, or 0 to close the connection without an answer.
    pub status: u16,
    /// The rule that decided; only the decision log shows it.
    pub rule: String,
    /// One of the policy's own closed set of reasons, in snake_case.
    pub reason: String,
}

/// A complete answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// 200 to 599.
    pub status: u16,
    /// Name in lower case, value.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body.
    pub body: Vec<u8>,
    /// One of the policy's own closed set of reasons, in snake_case.
    pub reason: String,
}

impl Verdict {
    /// A refusal with status 403.
    #[must_use]
    pub fn deny(rule: &str, reason: &str) -> Self {
        Self::deny_with(403, rule, reason)
    }

    /// A refusal with a status of its own.
    #[must_use]
    pub fn deny_with(status: u16, rule: &str, reason: &str) -> Self {
        Self::Deny(Denial { status, rule: rule.to_owned(), reason: reason.to_owned() })
    }

    /// An answer without headers and body; add them with [`Reply`]'s methods.
    #[must_use]
    pub fn reply(status: u16, reason: &str) -> Reply {
        Reply { status, headers: Vec::new(), body: Vec::new(), reason: reason.to_owned() }
    }
}

impl Reply {
    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    #[cfg(target_family = "wasm")]
    pub(crate) fn host_headers(&self) -> Vec<Header> {
        self.headers.iter().map(|(name, value)| Header { name: name.clone(), value: value.clone() }).collect()
    }
}

impl From<Reply> for Verdict {
    fn from(reply: Reply) -> Self {
        Self::Reply(reply)
    }
}
