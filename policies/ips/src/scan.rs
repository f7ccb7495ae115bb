//! One pass over a text finds the literals of every rule.

use std::cmp::Reverse;
use std::ops::Range;

use crate::bytes::{is_letter, is_word};
use crate::rules::{Confirm, Matcher, Rule, Targets};

/// The literals of all rules, indexed by their first two bytes.
///
/// A literal that starts with a letter matches at the start of a word only (a digit before it is allowed, as SQL does), one
/// that ends with a letter or digit at the end of a word only; a trailing `*` lifts the latter. A space in it matches one
/// white space, and white space before a `(` or `=` is skipped.
#[derive(Debug)]
pub struct Literals {
    literals: Vec<Literal>,
    /// For each key the first literal of its bucket; one more entry than there are keys.
    buckets: Vec<u16>,
    /// How many steps all sequences have together.
    slots: usize,
    /// For each byte its part of a key, and whether it is a letter.
    bytes: [u8; 256],
}

/// In [`Literals::bytes`]: what a keyword may not touch on its left.
const LETTER: u8 = 0x80;

/// Where a rule matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match {
    /// Its place in the catalogue.
    pub rule: u8,
    /// The first byte that matched.
    pub start: usize,
    /// The byte after the last one.
    pub end: usize,
}

/// How far each sequence has come in the current text.
#[derive(Debug, Default)]
pub struct Progress {
    steps: Vec<Option<(usize, usize)>>,
    /// Whether any step was noted.
    used: bool,
}

#[derive(Debug)]
struct Literal {
    /// The third byte, with which most literals of a bucket are told apart; 0 when it may differ.
    third: u8,
    bytes: &'static [u8],
    open_end: bool,
    rule: u8,
    targets: Targets,
    step: Step,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Only,
    /// Counts where a function confirms it.
    Around(Confirm),
    /// A step of a sequence: its slot, whether it is the first and the last, and how far behind the one before it may be.
    Of {
        slot: usize,
        first: bool,
        last: bool,
        gap: usize,
    },
}

const KEYS: usize = 1 << 12;

impl Literals {
    /// Indexes the literals of the rules; a rule's number is its place in the slice.
    #[must_use]
    pub fn new(rules: &[&'static Rule]) -> Self {
        let mut literals = Vec::new();
        let mut slots = 0;
        for (rule, number) in rules.iter().zip(0..=u8::MAX) {
            match rule.matcher {
                Matcher::Any(texts) => literals.extend(texts.iter().map(|text| Literal::new(text, number, rule, Step::Only))),
                Matcher::Around { literals: texts, confirm } => {
                    literals.extend(texts.iter().map(|text| Literal::new(text, number, rule, Step::Around(confirm))));
                }
                Matcher::Sequence { steps, gap } => {
                    for (at, texts) in steps.iter().enumerate() {
                        let step = Step::Of { slot: slots + at, first: at == 0, last: at + 1 == steps.len(), gap };
                        literals.extend(texts.iter().map(|text| Literal::new(text, number, rule, step)));
                    }
                    slots += steps.len();
                }
                Matcher::Check { .. } | Matcher::Message => {}
            }
        }
        // The later step of a sequence first: a literal that is both must not follow on itself.
        literals.sort_by_key(|literal| (literal.key(), Reverse(literal.step.slot())));
        let buckets = (0..=KEYS).map(|key| literals.partition_point(|literal| literal.key() < key));
        let buckets = buckets.map(|first| u16::try_from(first).unwrap_or(u16::MAX)).collect();
        let bytes = std::array::from_fn(|byte| {
            let byte = u8::try_from(byte).unwrap_or_default();
            (byte.to_ascii_lowercase() & 0x3f) | if is_letter(byte) { LETTER } else { 0 }
        });
        Self { literals, buckets, slots, bytes }
    }

    /// Calls `found` for every rule with one of these targets that matches `text`, which may be in any case.
    pub fn scan(&self, text: &[u8], targets: Targets, progress: &mut Progress, mut found: impl FnMut(Match)) {
        progress.begin(self.slots);
        let of = |byte: u8| self.bytes.get(usize::from(byte)).copied().unwrap_or_default();
        let mut second = text.first().map_or(0, |first| of(*first));
        let mut before = 0;
        for (at, next) in text.iter().skip(1).enumerate() {
            let first = std::mem::replace(&mut second, of(*next));
            // In the middle of a word nothing begins.
            if std::mem::replace(&mut before, first) & first & LETTER != 0 {
                continue;
            }
            let key = usize::from(first & 0x3f) << 6 | usize::from(second & 0x3f);
            let Some(&[from, to]) = self.buckets.get(key..).and_then(<[u16]>::first_chunk::<2>) else { continue };
            if from == to {
                continue;
            }
            let third = text.get(at + 2).map_or(0, u8::to_ascii_lowercase);
            for literal in self.literals.get(usize::from(from)..usize::from(to)).unwrap_or_default() {
                if (literal.third == third || literal.third == 0)
                    && literal.targets.intersects(targets)
                    && let Some(end) = literal.end_at(text, at)
                    && let Some(span) = progress.advance(literal.step, text, at..end)
                {
                    found(Match { rule: literal.rule, start: span.start, end: span.end });
                }
            }
        }
    }
}

impl Literal {
    fn new(text: &'static str, number: u8, rule: &Rule, step: Step) -> Self {
        let (bytes, open_end) = text.strip_suffix('*').map_or((text, false), |text| (text, true));
        let third = bytes.as_bytes().get(2).copied().filter(|byte| !matches!(byte, b' ' | b'(' | b'='));
        Self { third: third.unwrap_or_default(), bytes: bytes.as_bytes(), open_end, rule: number, targets: rule.targets, step }
    }

    fn key(&self) -> usize {
        match self.bytes {
            [first, second, ..] => key(*first, *second),
            _ => 0,
        }
    }

    /// Where this literal ends if it stands at `at`.
    fn end_at(&self, text: &[u8], at: usize) -> Option<usize> {
        let mut end = at;
        for &own in self.bytes {
            let mut byte = *text.get(end)?;
            if matches!(own, b'(' | b'=') && is_space(byte) {
                end += 1;
                byte = *text.get(end)?;
            }
            let same = byte.to_ascii_lowercase() == own || (own == b' ' && is_space(byte));
            if !same {
                return None;
            }
            end += 1;
        }
        let ends_a_word = self.open_end || !self.bytes.last().copied().is_some_and(is_word);
        (ends_a_word || !text.get(end).copied().is_some_and(is_word)).then_some(end)
    }
}

impl Step {
    const fn slot(self) -> usize {
        match self {
            Self::Only | Self::Around(_) => 0,
            Self::Of { slot, .. } => slot,
        }
    }
}

impl Progress {
    /// Begins a text.
    fn begin(&mut self, slots: usize) {
        if self.used || self.steps.len() != slots {
            self.steps.clear();
            self.steps.resize(slots, None);
            self.used = false;
        }
    }

    /// Notes that a step stands at a place; the whole match when it is complete.
    ///
    /// Of several places of a step only the last is kept: it is the nearest one for every step that follows.
    fn advance(&mut self, step: Step, text: &[u8], place: Range<usize>) -> Option<Range<usize>> {
        let (slot, first, last, gap) = match step {
            Step::Only => return Some(place),
            Step::Around(confirm) => return confirm(text, place),
            Step::Of { slot, first, last, gap } => (slot, first, last, gap),
        };
        let start = if first {
            place.start
        } else {
            let (start, reached) = (*self.steps.get(slot.checked_sub(1)?)?)?;
            if place.start.checked_sub(reached)? > gap {
                return None;
            }
            start
        };
        self.used = true;
        if let Some(own) = self.steps.get_mut(slot) {
            *own = Some((start, place.end));
        }
        last.then_some(start..place.end)
    }
}

const fn key(first: u8, second: u8) -> usize {
    let (first, second) = (first.to_ascii_lowercase(), second.to_ascii_lowercase());
    ((first & 0x3f) as usize) << 6 | (second & 0x3f) as usize
}

const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{Category, Severity};

    static RULES: [Rule; 4] = [
        Rule {
            id: "test-1",
            category: Category::Xss,
            severity: Severity::Critical,
            description: "",
            targets: Targets::ALL,
            matcher: Matcher::Any(&["alert(", "xp_*", "order by", "<b", "onload="]),
        },
        Rule {
            id: "test-2",
            category: Category::Xss,
            severity: Severity::Critical,
            description: "",
            targets: Targets::ALL,
            matcher: Matcher::Sequence { steps: &[&["one", "uno"], &["two"], &["three"]], gap: 5 },
        },
        Rule {
            id: "test-4",
            category: Category::Xss,
            severity: Severity::Critical,
            description: "",
            targets: Targets::ALL,
            matcher: Matcher::Sequence { steps: &[&["chr("], &["chr("]], gap: 5 },
        },
        Rule {
            id: "test-3",
            category: Category::Xss,
            severity: Severity::Critical,
            description: "",
            targets: Targets::PATH,
            matcher: Matcher::Any(&["/admin"]),
        },
    ];

    fn check(text: &str, want: &[(u8, &str)]) {
        let literals = Literals::new(&RULES.iter().collect::<Vec<_>>());
        let mut got = Vec::new();
        literals.scan(text.as_bytes(), Targets::QUERY, &mut Progress::default(), |found| {
            got.push((found.rule, &text[found.start..found.end]));
        });
        assert_eq!(got, want, "{text}");
    }

    #[test]
    fn literals_match_whole_words() {
        check("1;Alert(1)", &[(0, "Alert(")]);
        check("alert (1)", &[(0, "alert (")]);
        check("realert(1) alerts(1)", &[]);
        check("exec xp_cmdshell", &[(0, "xp_")]);
        check("order\nby 1", &[(0, "order\nby")]);
        check("border by, order bye", &[]);
        check("<B>", &[(0, "<B")]);
        check("onload =x", &[(0, "onload =")]);
        check("a", &[]);
        check("/admin", &[]);
    }

    #[test]
    fn sequences_match_in_order_and_nearby() {
        check("one two three", &[(1, "one two three")]);
        check("one uno two three", &[(1, "uno two three")]);
        check("two one three", &[]);
        check("one ...... two three", &[]);
        check("chr(1)+chr(2)", &[(2, "chr(1)+chr(")]);
        check("chr(1)", &[]);
        check("one two one two, three", &[(1, "one two, three")]);
    }
}
