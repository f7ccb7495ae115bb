//! `weir demo --check`: sends what the six cases send and compares answers and decision log with what they expect.

use std::fmt::Write;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use thiserror::Error;

use super::cases::{Call, Case, Expected, Proof};
use super::client::{Answer, Client, ClientError};
use super::swap;

/// How long the decision log may take to show an answered request.
const LOG_LIMIT: Duration = Duration::from_secs(5);

/// Between two looks at something that is about to change.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Why a case does not behave.
#[derive(Debug, Error)]
pub(super) enum Misbehaviour {
    /// No answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Another answer or decision than expected.
    #[error("{0}")]
    Differs(String),
    /// The decision log has no line for an answered request, or cannot be read.
    #[error("the decision log does not show request {0}")]
    NotLogged(String),
    /// A plugin could not be put into its place.
    #[error("the plugin could not be replaced: {0}")]
    Replace(#[from] io::Error),
    /// The admin API answered something else than a list of plugins.
    #[error("the admin API does not list the plugins: {0}")]
    Admin(String),
}

/// How one case went.
#[derive(Debug)]
pub(super) struct Outcome {
    title: &'static str,
    took: Duration,
    /// What was observed in short, when it is as expected.
    result: Result<String, Misbehaviour>,
}

impl Outcome {
    /// Whether everything was as expected.
    pub(super) const fn behaves(&self) -> bool {
        self.result.is_ok()
    }
}

/// Checks the cases one after the other. `decisions` is the gateway's decision log, a file.
///
/// # Errors
/// When the runtime of the client cannot be started.
pub(super) fn check(cases: &[Case], client: &Client, decisions: &Path) -> io::Result<Vec<Outcome>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(async {
        let mut outcomes = Vec::with_capacity(cases.len());
        for case in cases {
            let started = Instant::now();
            let result = match &case.proof {
                Proof::Calls(calls) => check_calls(calls, client, decisions).await,
                Proof::Swap(swap) => swap::check(swap, client).await,
            };
            outcomes.push(Outcome { title: case.title, took: started.elapsed(), result });
        }
        outcomes
    }))
}

/// The outcomes as lines of a table, with a last line that counts them.
pub(super) fn table(outcomes: &[Outcome]) -> String {
    let width = |of: fn(&Outcome) -> String, heading: &str| {
        outcomes.iter().map(|outcome| of(outcome).chars().count()).fold(heading.len(), usize::max)
    };
    let (titles, results) = (width(|outcome| outcome.title.to_owned(), "case"), width(observed, "observed"));
    let mut table = format!("   {:titles$}  {:results$}  {:>8}\n", "case", "observed", "ms");
    for (number, outcome) in (1..).zip(outcomes) {
        let took = outcome.took.as_secs_f64() * 1000.0;
        let verdict = if outcome.behaves() { "ok" } else { "FAILED" };
        // Writing to a String cannot fail.
        let _ = writeln!(table, "{number}  {:titles$}  {:results$}  {took:>8.1}  {verdict}", outcome.title, observed(outcome));
    }
    let behaving = outcomes.iter().filter(|outcome| outcome.behaves()).count();
    let _ = write!(table, "{behaving} of {} behave", outcomes.len());
    table
}

fn observed(outcome: &Outcome) -> String {
    match &outcome.result {
        Ok(observed) => observed.clone(),
        Err(misbehaviour) => misbehaviour.to_string(),
    }
}

/// What the first call came to; the others must be as expected too.
async fn check_calls(calls: &[(Call, Expected)], client: &Client, decisions: &Path) -> Result<String, Misbehaviour> {
    let mut observed = String::new();
    for (call, expected) in calls {
        let answer = client.send(call).await?;
        compare_answer(expected, &answer)?;
        let decision = Decision::find(decisions, answer.header("x-request-id")).await?;
        let seen = compare_decision(expected, &decision)?;
        if observed.is_empty() {
            observed = seen;
        }
    }
    Ok(observed)
}

/// Whether an answer is the expected one.
///
/// # Errors
/// The first difference.
pub(super) fn compare_answer(expected: &Expected, answer: &Answer) -> Result<(), Misbehaviour> {
    let body = String::from_utf8_lossy(&answer.body);
    let reference = answer.header("x-request-id");
    let allowed_origin =
        answer.headers.contains_key("access-control-allow-origin").then(|| answer.header("access-control-allow-origin"));
    let differs = if answer.status != expected.status {
        format!("status {} instead of {}", answer.status, expected.status)
    } else if !body.contains(expected.in_body) {
        format!("no {:?} in the body", expected.in_body)
    } else if reference.is_empty() {
        "no x-request-id".to_owned()
    } else if expected.status >= 400 && !body.contains(reference) {
        "the refusal does not show its reference".to_owned()
    } else if allowed_origin != expected.allowed_origin.as_deref() {
        format!("access-control-allow-origin is {:?}", allowed_origin.unwrap_or_default())
    } else {
        return Ok(());
    };
    Err(Misbehaviour::Differs(differs))
}

fn compare_decision(expected: &Expected, decision: &Decision) -> Result<String, Misbehaviour> {
    let Decision { decided_by, reason } = decision;
    if decided_by != expected.decided_by || (!expected.reason.is_empty() && reason != expected.reason) {
        let wanted = [expected.decided_by, expected.reason].join(" ");
        return Err(Misbehaviour::Differs(format!("decided by {decided_by} {reason} instead of {}", wanted.trim_end())));
    }
    let status = expected.status;
    Ok(if reason.is_empty() { format!("{status} by {decided_by}") } else { format!("{status} by {decided_by}, {reason}") })
}

/// What the decision log says about one request.
#[derive(Debug, PartialEq, Eq)]
struct Decision {
    decided_by: String,
    reason: String,
}

impl Decision {
    /// Waits for the line about a request.
    async fn find(log: &Path, request_id: &str) -> Result<Self, Misbehaviour> {
        let started = Instant::now();
        while started.elapsed() < LOG_LIMIT {
            let lines = tokio::fs::read_to_string(log).await.unwrap_or_default();
            if let Some(decision) = lines.lines().rev().find_map(|line| Self::parse(line, request_id)) {
                return Ok(decision);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Err(Misbehaviour::NotLogged(request_id.to_owned()))
    }

    fn parse(line: &str, request_id: &str) -> Option<Self> {
        let record: serde_json::Value = serde_json::from_str(line).ok()?;
        let text = |key: &str| record.get(key).and_then(serde_json::Value::as_str);
        if text("request_id") != Some(request_id) {
            return None;
        }
        Some(Self { decided_by: text("decided_by")?.to_owned(), reason: text("reason").unwrap_or_default().to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;

    use super::*;

    const DENIED: Expected = Expected { status: 403, decided_by: "acl", reason: "r", in_body: "reference", allowed_origin: None };

    fn answer(status: u16, headers: &[(&'static str, &'static str)], body: &'static str) -> Answer {
        let headers: HeaderMap = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        Answer { status, headers, body: Bytes::from(body) }
    }

    #[test]
    fn every_difference_of_an_answer_is_told() {
        let id = ("x-request-id", "77");
        let acao = ("access-control-allow-origin", "https://a.test");
        for (answer, expected) in [
            (answer(403, &[id], "reference: 77"), None),
            (answer(200, &[id], "reference: 77"), Some("status 200 instead of 403")),
            (answer(403, &[id], "77"), Some("no \"reference\" in the body")),
            (answer(403, &[], "reference: 77"), Some("no x-request-id")),
            (answer(403, &[id], "reference: 78"), Some("does not show its reference")),
            (answer(403, &[id, acao], "reference: 77"), Some("https://a.test")),
        ] {
            let difference = compare_answer(&DENIED, &answer).err().map(|error| error.to_string());
            assert!(difference.as_deref().unwrap_or_default().contains(expected.unwrap_or_default()), "{difference:?}");
            assert_eq!(difference.is_some(), expected.is_some());
        }
    }

    #[test]
    fn a_decision_is_the_expected_one() {
        let decision = |decided_by: &str, reason: &str| Decision { decided_by: decided_by.to_owned(), reason: reason.to_owned() };
        assert_eq!(compare_decision(&DENIED, &decision("acl", "r")).unwrap(), "403 by acl, r");
        assert!(compare_decision(&DENIED, &decision("acl", "other")).is_err());
        assert!(compare_decision(&DENIED, &decision("geoip", "r")).is_err());
        let upstream = Expected { status: 200, decided_by: "upstream", reason: "", ..DENIED };
        assert_eq!(compare_decision(&upstream, &decision("upstream", "")).unwrap(), "200 by upstream");
    }

    #[test]
    fn the_line_of_a_request_is_found_among_others() {
        let line = r#"{"event":"request","request_id":"77","decided_by":"ips","reason":"sql_injection"}"#;
        let expected = Decision { decided_by: "ips".to_owned(), reason: "sql_injection".to_owned() };
        assert_eq!(Decision::parse(line, "77"), Some(expected));
        assert_eq!(Decision::parse(line, "7"), None);
        assert_eq!(Decision::parse("{\"request_id\":\"77\",", "77"), None);
    }

    #[test]
    fn the_table_counts_what_behaves() {
        let took = Duration::from_micros(1500);
        let outcomes = [
            Outcome { title: "one", took, result: Ok("200 by upstream".to_owned()) },
            Outcome { title: "the second", took, result: Err(Misbehaviour::Differs("status 200".to_owned())) },
        ];
        let table = table(&outcomes);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines[0], "   case        observed               ms");
        assert_eq!(lines[1], "1  one         200 by upstream       1.5  ok");
        assert_eq!(lines[2], "2  the second  status 200            1.5  FAILED");
        assert_eq!(lines[3], "1 of 2 behave");
    }
}
