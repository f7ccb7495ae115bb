//! What the upstreams answer to a policy that asks them (`http-out`).

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::data::{Data, Headers};

/// What each upstream says, by its name.
pub type Upstreams = BTreeMap<String, Replies>;

/// At least one reply: each call gets the next, and when there is none left the last one again.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Written")]
pub struct Replies(Vec<Reply>);

/// An answer of an upstream, or why there is none.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reply {
    /// Default 200.
    pub status: u16,
    /// Header fields.
    pub headers: Headers,
    /// The body.
    pub body: Data,
    /// Instead of an answer.
    pub error: Option<Failure>,
}

/// Why a call has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// Too many calls at once.
    Busy,
    /// Every server is down.
    NoServer,
    /// No connection.
    Connect,
    /// Not in time.
    Timeout,
    /// It broke off, or is no HTTP.
    Broken,
    /// Its body is over the limit.
    AnswerTooLarge,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "an answer such as { status = 204 } or { error = \"timeout\" }, or a list of them")]
enum Written {
    // First: a list is read as one answer's parts otherwise.
    Many(Vec<Reply>),
    One(Box<Reply>),
}

impl Default for Reply {
    fn default() -> Self {
        Self { status: 200, headers: Headers::default(), body: Data::default(), error: None }
    }
}

impl TryFrom<Written> for Replies {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let replies = match written {
            Written::One(reply) => vec![*reply],
            Written::Many(replies) => replies,
        };
        if replies.is_empty() {
            return Err("upstreams: a list without an answer: an upstream that is down is { error = \"no_server\" }");
        }
        if replies.iter().any(|reply| !(200..600).contains(&reply.status)) {
            return Err("upstreams: a status is 200 to 599");
        }
        Ok(Self(replies))
    }
}

impl Replies {
    /// What the call of this number gets, from 0.
    #[must_use]
    pub fn of(&self, call: usize) -> &Reply {
        const NONE: &Reply =
            &Reply { status: 200, headers: Headers(Vec::new()), body: Data(Vec::new()), error: Some(Failure::NoServer) };
        self.0.get(call).or_else(|| self.0.last()).unwrap_or(NONE)
    }
}
