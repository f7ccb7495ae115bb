//! How what was seen differs from what was expected.

use std::fmt::{Display, Formatter};

use crate::data::shown;
use crate::expect::{Expect, Finding, Wanted};
use crate::seen::{Seen, SeenFinding};

/// One thing that is not as expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Which, in the words of the file: `status`, `response.headers.x-a`.
    pub what: String,
    /// As written.
    pub expected: String,
    /// As seen.
    pub found: String,
}

impl Display for Difference {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        let Self { what, expected, found } = self;
        write!(formatter, "{what}: expected {expected}, found {found}")
    }
}

/// Everything that is not as expected, the verdict first.
#[must_use]
pub fn differences(expect: &Expect, seen: &Seen) -> Vec<Difference> {
    let mut all = Vec::new();
    if expect.verdict != seen.verdict {
        all.push(difference("verdict", expect.verdict.name().to_owned(), verdict(seen)));
    }
    let none = || "none".to_owned();
    let number = |number: Option<u16>| number.map_or_else(none, |number| number.to_string());
    equal(&mut all, "phase", expect.phase.clone(), seen.phase.map_or_else(none, str::to_owned));
    equal(&mut all, "status", expect.status.map(|status| status.to_string()), number(seen.status));
    equal(&mut all, "rule", expect.rule.as_deref().map(quoted), quoted(&seen.rule));
    equal(&mut all, "reason", expect.reason.as_deref().map(quoted), quoted(&seen.reason));
    for (key, wanted) in &expect.tags {
        let values = seen.tags.iter().rev().filter(|(own, _)| own == key).map(|(_, value)| value.as_bytes()).take(1);
        fields(&mut all, &format!("tags.{key}"), wanted, &values.collect::<Vec<_>>());
    }
    if let Some(findings) = &expect.findings {
        found(&mut all, findings, &seen.findings);
    }
    equal(&mut all, "request.target", expect.request.target.as_deref().map(quoted), quoted(&seen.request.target));
    equal(&mut all, "request.host", expect.request.host.as_deref().map(quoted), quoted(&seen.request.host));
    for (name, wanted) in &expect.request.headers {
        fields(&mut all, &format!("request.headers.{name}"), wanted, &values(&seen.request.headers, name));
    }
    let response = seen.response.as_ref();
    let status = expect.response.status.map(|status| status.to_string());
    equal(&mut all, "response.status", status, number(response.map(|response| response.status)));
    for (name, wanted) in &expect.response.headers {
        let values = response.map(|response| values(&response.headers, name)).unwrap_or_default();
        fields(&mut all, &format!("response.headers.{name}"), wanted, &values);
    }
    if let Some(body) = &expect.response.body {
        let own = response.map_or_else(none, |response| shown(&response.body));
        equal(&mut all, "response.body", Some(shown(&body.0)), own);
    }
    if let Some(calls) = &expect.calls {
        let list = |calls: &[String]| if calls.is_empty() { "none".to_owned() } else { calls.join(", ") };
        equal(&mut all, "calls", Some(list(calls)), list(&seen.calls));
    }
    for (series, wanted) in &expect.metrics {
        let (name, label) = series.split_once('/').unwrap_or((series, ""));
        let own = seen.metrics.iter().find(|(own, value, _)| own == name && value == label).map_or(0, |(_, _, value)| *value);
        equal(&mut all, &format!("metrics.{series}"), Some(wanted.to_string()), own.to_string());
    }
    all
}

fn difference(what: &str, expected: String, found: String) -> Difference {
    Difference { what: what.to_owned(), expected, found }
}

fn equal(all: &mut Vec<Difference>, what: &str, expected: Option<String>, found: String) {
    if let Some(expected) = expected.filter(|expected| *expected != found) {
        all.push(difference(what, expected, found));
    }
}

fn quoted(text: &str) -> String {
    format!("{text:?}")
}

/// The verdict with what explains it.
fn verdict(seen: &Seen) -> String {
    let mut text = seen.verdict.name().to_owned();
    if let Some(phase) = seen.phase {
        text.push_str(&format!(" in {phase}"));
    }
    if !seen.reason.is_empty() {
        text.push_str(&format!(" ({})", seen.reason));
    }
    if let Some(failure) = &seen.failure {
        text.push_str(&format!(": {failure}"));
    }
    text
}

fn values<'a>(headers: &'a [(String, Vec<u8>)], name: &str) -> Vec<&'a [u8]> {
    headers.iter().filter(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_slice()).collect()
}

fn fields(all: &mut Vec<Difference>, what: &str, wanted: &Wanted, seen: &[&[u8]]) {
    let list = |values: &[&[u8]]| match values {
        [] => "none".to_owned(),
        [one] => shown(one),
        many => format!("[{}]", many.iter().map(|value| shown(value)).collect::<Vec<_>>().join(", ")),
    };
    let expected = match wanted {
        Wanted::Present(true) if seen.is_empty() => "any value".to_owned(),
        Wanted::Present(true) => return,
        Wanted::Present(false) => list(&[]),
        Wanted::One(value) => list(&[&value.0]),
        Wanted::All(values) => list(&values.iter().map(|value| value.0.as_slice()).collect::<Vec<_>>()),
    };
    equal(all, what, Some(expected), list(seen));
}

/// Every expected finding takes one that was seen; what is left over on either side differs.
fn found(all: &mut Vec<Difference>, expected: &[Finding], seen: &[SeenFinding]) {
    let mut left: Vec<&SeenFinding> = seen.iter().collect();
    for finding in expected {
        match left.iter().position(|own| matches(finding, own)) {
            Some(place) => drop(left.remove(place)),
            None => {
                let others: Vec<_> = seen.iter().map(show).collect();
                let others = if others.is_empty() { "none".to_owned() } else { others.join(", ") };
                all.push(difference("findings", wanted(finding), others));
            }
        }
    }
    all.extend(left.into_iter().map(|own| difference("findings", "no other".to_owned(), show(own))));
}

fn matches(finding: &Finding, own: &SeenFinding) -> bool {
    let same = |wanted: &Option<String>, own: &String| wanted.as_ref().is_none_or(|wanted| wanted == own);
    same(&finding.rule, &own.rule)
        && same(&finding.category, &own.category)
        && same(&finding.target, &own.target)
        && finding.score.is_none_or(|score| score == own.score)
}

fn show(own: &SeenFinding) -> String {
    format!("{} ({}) at {} for {}", own.rule, own.category, own.target, own.score)
}

fn wanted(finding: &Finding) -> String {
    let any = |text: &Option<String>| text.clone().unwrap_or_else(|| "*".to_owned());
    let score = finding.score.map_or_else(|| "*".to_owned(), |score| score.to_string());
    format!("{} ({}) at {} for {score}", any(&finding.rule), any(&finding.category), any(&finding.target))
}
