//! Intrusion prevention as a Weir policy.
//!
//! Every request is scored against a built-in set of rules ([`rules`]); at the threshold it is denied, in `detect` mode only
//! reported. Each part of a request is decoded the way servers decode it before a rule sees it, and most parts are never
//! looked at: a value that holds no byte any rule needs is skipped.
//!
//! | to know | see |
//! |---|---|
//! | what can be configured | `schema.json`, [`config`] |
//! | which rules there are | [`rules`] |
//! | what a rule reads | [`decode`], [`inspect`] |
//! | how one pass finds all literals | [`scan`] |
//! | what the protected application may send | [`profile`] |
//!
//! The score of the request head is carried over to its body. Only the first part of a body is inspected (`body_window`); a
//! longer one passes with a finding of `protocol-11` that says so. Contents of uploaded files are not inspected, their names are.

mod body;
pub mod bytes;
pub mod config;
pub mod decode;
pub mod glob;
mod head;
pub mod inspect;
pub mod profile;
pub mod rules;
pub mod scan;
pub mod score;

use weir_sdk::prelude::*;

use config::{Config, Mode};
use inspect::Engine;
use score::Tally;

/// The policy.
#[derive(Debug)]
pub struct Ips {
    engine: Engine,
}

/// What the documentation says about a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleInfo {
    /// Stable: operators name it in exclusions, and logs show it.
    pub id: &'static str,
    /// The reason of a denial that this rule decides.
    pub category: &'static str,
    /// What a match adds to the score of a request.
    pub score: u32,
    /// One line.
    pub description: &'static str,
}

/// Every rule, in the order of the catalogue.
pub fn rules() -> impl Iterator<Item = RuleInfo> {
    rules::catalogue().into_iter().map(|rule| RuleInfo {
        id: rule.id,
        category: rule.category.name(),
        score: rule.severity.score(),
        description: rule.description,
    })
}

#[policy(schema = "schema.json", request_body = 65536)]
impl Policy for Ips {
    type Config = Config;

    fn configure(config: Config) -> Result<Self, String> {
        Ok(Self { engine: Engine::new(config.resolve()?) })
    }

    fn needs(&self) -> Needs {
        match self.engine.settings.body_window {
            0 => Needs::only(&[Phase::Request]),
            window => Needs { request_body: Some(window), ..Needs::default() },
        }
    }

    fn request(&self, request: Request<'_>) -> Verdict {
        let tally = self.engine.inspect_head(&request.head());
        let verdict = self.conclude(request, &tally);
        if let (Verdict::Next, Some(state)) = (&verdict, tally.to_state())
            && request.set_state(&state).is_err()
        {
            // Without the state the body would be judged as if the head had been clean.
            return Verdict::deny_with(500, "state", "state_refused");
        }
        verdict
    }

    fn request_body(&self, request: Request<'_>, window: &[u8], complete: bool) -> Verdict {
        let earlier = Tally::from_state(&request.state());
        let tally = self.engine.inspect_body(&request.head(), window, complete, earlier);
        self.conclude(request, &tally)
    }
}

impl Ips {
    fn conclude(&self, request: Request<'_>, tally: &Tally) -> Verdict {
        let settings = &self.engine.settings;
        for hit in &tally.hits {
            let Some(rule) = settings.rules.get(usize::from(hit.rule)) else { continue };
            let finding = Finding::new(rule.id, rule.category.name(), &hit.target, rule.severity.score());
            request.report(&finding.evidence(&hit.evidence));
        }
        match tally.decisive(settings) {
            Some(rule) if settings.mode == Mode::Block => Verdict::deny(rule.id, rule.category.name()),
            _ => Verdict::Next,
        }
    }
}
