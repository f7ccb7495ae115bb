//! The engine: which rules match which part of a request.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use crate::bytes::{ClassTable, Classes};
use crate::config::{RuleSet, Settings, bit};
use crate::decode::{Buffers, Oddities, Reading, normalise};
use crate::rules::{self, Find, Matcher, Targets};
use crate::scan::{Literals, Progress};
use crate::score::{EVIDENCE_MAX, Hit, Tally};

/// A configured rule set, ready to inspect requests.
pub struct Engine {
    /// What the configuration says.
    pub settings: Settings,
    literals: Literals,
    checks: Vec<Check>,
    classes: ClassTable,
    work: Cell<Work>,
}

/// One request while it is inspected.
#[derive(Debug)]
pub(crate) struct Inspection<'a> {
    pub(crate) engine: &'a Engine,
    /// The normalised path, for exclusions.
    pub(crate) path: Cow<'a, str>,
    pub(crate) tally: Tally,
    /// Rules found to be off for the whole body.
    off: RuleSet,
    work: Work,
}

/// The part of a message a value comes from; displayed as findings and exclusions name it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target<'a> {
    Path,
    QueryName,
    Query(&'a [u8]),
    Cookie(&'a [u8]),
    Header(&'a str),
    BodyName,
    Body(&'a [u8]),
    File,
    Declaration,
    Opaque,
    Message,
}

/// Buffers that outlive a request so that the next one need not allocate.
#[derive(Debug, Default)]
struct Work {
    buffers: Buffers,
    progress: Progress,
}

#[derive(Debug)]
struct Check {
    rule: u8,
    targets: Targets,
    needs: Classes,
    find: Find,
}

/// Bytes that no ordinary parameter needs decoding or rules for are those that are in none of these classes.
const PARAMETER: Classes = Classes::ALL;

/// A Referer is a URL: slashes and colons mean nothing in it.
const REFERER: Classes = Classes::ALL.without(Classes::SLASH).without(Classes::COLON).without(Classes::AMPERSAND);

/// A User-Agent is words, comments in parentheses and versions.
const AGENT: Classes = REFERER.without(Classes::SPACE).without(Classes::PAREN).without(Classes::SEMICOLON).without(Classes::HIGH);

/// Other headers are looked at for lookups and function definitions only.
const HEADER: Classes = Classes::DOLLAR.union(Classes::BRACE).union(Classes::CONTROL);

const PATH: Classes = Classes::ALL.without(Classes::SLASH).without(Classes::COLON);

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Engine {
    /// Prepares the rules.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let literals = Literals::new(&settings.rules);
        let checks = settings.rules.iter().zip(0..=u8::MAX).filter_map(|(rule, number)| match rule.matcher {
            Matcher::Check { needs, find } => Some(Check { rule: number, targets: rule.targets, needs, find }),
            Matcher::Any(_) | Matcher::Sequence { .. } | Matcher::Around { .. } | Matcher::Message => None,
        });
        let checks = checks.collect();
        Self { settings, literals, checks, classes: ClassTable::new(), work: Cell::default() }
    }

    pub(crate) fn begin<'a>(&'a self, path: Cow<'a, str>, tally: Tally) -> Inspection<'a> {
        Inspection { engine: self, path, tally, off: 0, work: self.work.take() }
    }

    /// The kinds of bytes of a text.
    pub(crate) fn classes(&self, text: &[u8]) -> Classes {
        self.classes.of(text)
    }
}

impl Inspection<'_> {
    /// Ends the inspection with what was found.
    pub(crate) fn finish(self) -> Tally {
        self.engine.work.set(self.work);
        self.tally
    }

    /// Looks at one value, as it came over the wire.
    pub(crate) fn value(&mut self, target: Target<'_>, value: &[u8], reading: Reading) {
        let parts = target.parts();
        let internal = parts == Targets::NAMES && value.starts_with(INTERNAL);
        if internal || self.engine.classes.of(value).intersects(gate(parts)) {
            self.decoded(target, value, reading);
        } else if value.len() >= SHORTEST && parts.intersects(PLAIN) {
            self.literals(target, value);
        }
    }

    /// Notes a rule that is decided by the message itself.
    pub(crate) fn message(&mut self, id: &str, target: Target<'_>, evidence: &[u8]) {
        let number = self.engine.settings.rules.iter().zip(0..=u8::MAX).find(|(rule, _)| rule.id == id);
        if let Some((_, number)) = number {
            self.hit(number, target, evidence);
        }
    }

    /// The text that [`Inspection::value`] read last, after decoding.
    pub(crate) fn last_text(&self) -> &[u8] {
        &self.work.buffers.text
    }

    /// Looks at a value whatever it holds.
    pub(crate) fn decoded(&mut self, target: Target<'_>, value: &[u8], reading: Reading) {
        let engine = self.engine;
        let mut buffers = std::mem::take(&mut self.work.buffers);
        let odd = normalise(value, reading, &mut buffers);
        self.literals(target, &buffers.text);
        let (parts, classes) = (target.parts(), engine.classes.of(&buffers.text));
        for check in engine.checks.iter().filter(|check| check.targets.intersects(parts) && check.needs.intersects(classes)) {
            if let Some(span) = (check.find)(&buffers.text) {
                self.hit(check.rule, target, buffers.text.get(span).unwrap_or_default());
            }
        }
        if odd != Oddities::default() {
            self.oddities(target, value, odd);
        }
        self.work.buffers = buffers;
    }

    fn literals(&mut self, target: Target<'_>, text: &[u8]) {
        let engine = self.engine;
        let mut progress = std::mem::take(&mut self.work.progress);
        engine.literals.scan(text, target.parts(), &mut progress, |found| {
            self.hit(found.rule, target, text.get(found.start..found.end).unwrap_or_default());
        });
        self.work.progress = progress;
    }

    fn oddities(&mut self, target: Target<'_>, value: &[u8], odd: Oddities) {
        let parts = target.parts();
        if parts.intersects(Targets::PARAMETERS) && odd.intersects(Oddities::COMMENT) {
            self.message(rules::COMMENT_BETWEEN_WORDS, target, value);
        }
        if !matches!(target, Target::Path | Target::Query(_) | Target::QueryName) {
            return;
        }
        let table = [
            (Oddities::NUL, rules::NUL_BYTE),
            (Oddities::OVERLONG, rules::OVERLONG_UTF8),
            (Oddities::MALFORMED, rules::MALFORMED_ENCODING),
            (Oddities::DOUBLED, rules::DOUBLE_ENCODING),
            (Oddities::PERCENT_U, rules::PERCENT_U),
        ];
        for (_, id) in table.into_iter().filter(|(oddity, _)| odd.intersects(*oddity)) {
            self.message(id, target, value);
        }
    }

    /// Counts a rule unless it was counted before or is off here.
    fn hit(&mut self, rule: u8, target: Target<'_>, evidence: &[u8]) {
        let settings = &self.engine.settings;
        if (self.tally.seen | settings.disabled | self.off) & bit(rule) != 0 {
            return;
        }
        let in_body = target.parts().intersects(Targets::BODY.union(Targets::FILES).union(Targets::OPAQUE));
        let target = target.to_string();
        if let Some(exclusion) = settings.exclusions.iter().find(|exclusion| exclusion.covers(rule, &self.path, &target)) {
            if in_body && exclusion.spans_bodies() {
                self.off |= bit(rule);
            }
            return;
        }
        self.tally.seen |= bit(rule);
        let evidence = evidence.get(..EVIDENCE_MAX).unwrap_or(evidence).to_vec();
        self.tally.hits.push(Hit { rule, target, evidence });
    }
}

impl Target<'_> {
    fn parts(self) -> Targets {
        match self {
            Self::Path => Targets::PATH,
            Self::Query(_) => Targets::QUERY,
            Self::QueryName | Self::BodyName => Targets::NAMES,
            Self::Cookie(_) => Targets::COOKIE,
            Self::Header("user-agent") => Targets::AGENT,
            Self::Header("referer") => Targets::REFERER,
            Self::Header(_) => Targets::HEADER,
            Self::Body(_) => Targets::BODY,
            Self::File => Targets::FILES,
            Self::Declaration => Targets::XML,
            Self::Opaque => Targets::OPAQUE,
            Self::Message => Targets::MESSAGE,
        }
    }
}

impl fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (part, name) = match self {
            Self::Path => ("path", &b""[..]),
            Self::QueryName => ("query-names", &b""[..]),
            Self::Query(name) => ("query", *name),
            Self::Cookie(name) => ("cookie", *name),
            Self::Header(name) => ("header", name.as_bytes()),
            Self::BodyName => ("body-names", &b""[..]),
            Self::Body(name) => ("body", *name),
            Self::File => ("body-files", &b""[..]),
            Self::Declaration => ("body-declaration", &b""[..]),
            Self::Opaque => ("body", &b""[..]),
            Self::Message => ("message", &b""[..]),
        };
        f.write_str(part)?;
        if name.is_empty() {
            return Ok(());
        }
        write!(f, ":{}", String::from_utf8_lossy(name.get(..NAME_MAX).unwrap_or(name)))
    }
}

/// The parts in which a name alone may be an attack: `web.config`, `sqlmap`.
const PLAIN: Targets = Targets::PATH.union(Targets::AGENT).union(Targets::QUERY).union(Targets::BODY);

/// No rule for a plain text looks for less, in bytes.
const SHORTEST: usize = 4;

/// How the names begin that languages keep for themselves, e.g. `__proto__`; they hold no unusual byte.
const INTERNAL: &[u8] = b"__";

/// How much of a parameter's name a finding shows.
const NAME_MAX: usize = 64;

/// The kinds of bytes without which no rule for these parts can match.
fn gate(parts: Targets) -> Classes {
    match parts {
        Targets::PATH => PATH,
        Targets::AGENT => AGENT,
        Targets::REFERER => REFERER,
        Targets::HEADER => HEADER,
        _ => PARAMETER,
    }
}
