//! The rules: data in one file per category.

mod application;
mod commands;
mod files;
mod jndi;
mod protocol;
mod reader;
mod scanner;
mod shell;
mod sqli;
mod ssrf;
mod statement;
mod xss;
mod xxe;

use std::ops::Range;

use crate::bytes::Classes;

pub use application::{DEPLOYMENT_BARE, DEPLOYMENT_TOKEN, RANGE_OVERFLOW, UPLOADED_PAGE, VIEWSTATE_SIZE, ZIP_SLIP};
pub use files::HIDDEN_TRAVERSAL;
pub use protocol::{
    AGENT_LENGTH, AMBIGUOUS_PATH, BROKEN_MULTIPART, DEEP_JSON, DOUBLE_ENCODING, MALFORMED_ENCODING, MANY_PARAMETERS, MANY_RANGES,
    NUL_BYTE, ODD_CHARSET, OVERLONG_UTF8, PARTIAL_BODY, PERCENT_U, TRACE_METHOD, UNKNOWN_LENGTH, WEBDAV_METHOD,
};
pub use sqli::COMMENT_BETWEEN_WORDS;
pub use xxe::{DTD, XML_ENCODING};

/// One rule of the set.
#[derive(Debug)]
pub struct Rule {
    /// Stable: operators name it in exclusions, and logs show it.
    pub id: &'static str,
    /// What kind of attack it is.
    pub category: Category,
    /// How sure it is that a match is an attack.
    pub severity: Severity,
    /// One line for the catalogue.
    pub description: &'static str,
    /// The parts of a message it looks at.
    pub targets: Targets,
    /// How it matches.
    pub matcher: Matcher,
}

/// Where a rule matches in a text.
pub type Find = fn(&[u8]) -> Option<Range<usize>>;

/// Where a rule matches in a text, around a literal.
pub type Confirm = fn(&[u8], Range<usize>) -> Option<Range<usize>>;

/// How a rule matches a text (lower case, decoded).
#[derive(Clone, Copy)]
pub enum Matcher {
    /// One of these literals; see [`crate::scan::Literals`] for where they match.
    Any(&'static [&'static str]),
    /// One literal of each step, in this order, each at most `gap` bytes behind the one before.
    Sequence {
        /// The alternatives of each step.
        steps: &'static [&'static [&'static str]],
        /// In bytes.
        gap: usize,
    },
    /// A function that looks around one of these literals and says where it matches.
    Around {
        /// Where it looks.
        literals: &'static [&'static str],
        /// Given the text and the place of a literal.
        confirm: Confirm,
    },
    /// A function that says where it matches, asked when the text holds one of `needs`.
    Check {
        /// The kinds of bytes without which it never matches.
        needs: Classes,
        /// Given the text.
        find: Find,
    },
    /// Decided while the message is taken apart, not by looking at a value.
    Message,
}

impl std::fmt::Debug for Matcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Any(_) => "Any",
            Self::Sequence { .. } => "Sequence",
            Self::Around { .. } => "Around",
            Self::Check { .. } => "Check",
            Self::Message => "Message",
        })
    }
}

/// What kind of attack a rule looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Category {
    /// SQL (and query object) injection.
    SqlInjection,
    /// Cross-site scripting.
    Xss,
    /// Directory traversal and reading of local files.
    PathTraversal,
    /// Operating system commands, code and templates.
    CommandInjection,
    /// XML external entities.
    Xxe,
    /// JNDI and other Log4j lookups.
    JndiInjection,
    /// Requests that the server is to make.
    ServerSideRequest,
    /// Security scanners and attack tools.
    Scanner,
    /// Messages that are not what the protocol allows.
    ProtocolViolation,
    /// Known holes and probes of web applications.
    ApplicationProbe,
}

impl Category {
    /// The name in findings, and the reason of a denial.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SqlInjection => "sql_injection",
            Self::Xss => "xss",
            Self::PathTraversal => "path_traversal",
            Self::CommandInjection => "command_injection",
            Self::Xxe => "xxe",
            Self::JndiInjection => "jndi_injection",
            Self::ServerSideRequest => "server_side_request",
            Self::Scanner => "scanner",
            Self::ProtocolViolation => "protocol_violation",
            Self::ApplicationProbe => "application_probe",
        }
    }
}

/// How sure a rule is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Score 5: denies alone at the default threshold.
    Critical,
    /// Score 4.
    Error,
    /// Score 3.
    Warning,
    /// Score 2.
    Notice,
    /// Score 0: shown, never counted.
    Info,
}

impl Severity {
    /// What a match adds to the score of a request.
    #[must_use]
    pub const fn score(self) -> u32 {
        match self {
            Self::Critical => 5,
            Self::Error => 4,
            Self::Warning => 3,
            Self::Notice => 2,
            Self::Info => 0,
        }
    }
}

/// A set of parts of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Targets(u16);

impl Targets {
    /// The path, decoded but with its dot segments.
    pub const PATH: Self = Self(1);
    /// Values of the query.
    pub const QUERY: Self = Self(1 << 1);
    /// Names of the query, of form fields and JSON keys.
    pub const NAMES: Self = Self(1 << 2);
    /// Cookies.
    pub const COOKIE: Self = Self(1 << 3);
    /// The User-Agent.
    pub const AGENT: Self = Self(1 << 4);
    /// The Referer.
    pub const REFERER: Self = Self(1 << 5);
    /// Every other header.
    pub const HEADER: Self = Self(1 << 6);
    /// Values of a body.
    pub const BODY: Self = Self(1 << 7);
    /// Names of uploaded files.
    pub const FILES: Self = Self(1 << 8);
    /// Declarations of an XML body: DTD, entities, processing instructions.
    pub const XML: Self = Self(1 << 9);
    /// A body of unknown type.
    pub const OPAQUE: Self = Self(1 << 10);
    /// The message as a whole.
    pub const MESSAGE: Self = Self(1 << 11);
    /// What an application reads as a parameter.
    pub const PARAMETERS: Self = Self::QUERY.union(Self::NAMES).union(Self::COOKIE).union(Self::BODY);
    /// Parameters, path and the headers that applications store.
    pub const INPUTS: Self = Self::PARAMETERS.union(Self::PATH).union(Self::AGENT).union(Self::REFERER);
    /// Everything.
    pub const ALL: Self = Self(u16::MAX);

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set without the other.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether the sets share a part.
    #[must_use]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// Every rule. A rule's number is its place here; there are at most 128.
#[must_use]
pub fn catalogue() -> Vec<&'static Rule> {
    let categories: [&[Rule]; 10] = [
        sqli::RULES,
        xss::RULES,
        files::RULES,
        commands::RULES,
        xxe::RULES,
        jndi::RULES,
        ssrf::RULES,
        scanner::RULES,
        protocol::RULES,
        application::RULES,
    ];
    categories.into_iter().flatten().collect()
}

/// A rule with a short spelling, for the tables.
const fn rule(
    id: &'static str,
    category: Category,
    severity: Severity,
    targets: Targets,
    matcher: Matcher,
    description: &'static str,
) -> Rule {
    Rule { id, category, severity, description, targets, matcher }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_catalogue_is_sound() {
        let rules = catalogue();
        assert!((60..=128).contains(&rules.len()), "{} rules", rules.len());
        let ids: HashSet<_> = rules.iter().map(|rule| rule.id).collect();
        assert_eq!(ids.len(), rules.len(), "ids are unique");
        for rule in rules {
            let (family, number) = rule.id.rsplit_once('-').unwrap();
            assert!(!family.is_empty() && number.parse::<u32>().is_ok(), "{}", rule.id);
            assert!(rule.description.len() > 10 && !rule.description.ends_with('.'), "{}", rule.id);
            let literals: Vec<&str> = match rule.matcher {
                Matcher::Any(texts) | Matcher::Around { literals: texts, .. } => texts.to_vec(),
                Matcher::Sequence { steps, .. } => steps.concat(),
                Matcher::Check { .. } | Matcher::Message => Vec::new(),
            };
            for literal in literals {
                assert!(literal.trim_end_matches('*').len() >= 2, "{literal} of {} is too short to index", rule.id);
                assert_eq!(literal, literal.to_lowercase(), "{literal} of {} can never match", rule.id);
            }
        }
    }

    #[test]
    fn rules_that_code_names_exist() {
        let ids: HashSet<_> =
            catalogue().iter().filter(|rule| matches!(rule.matcher, Matcher::Message)).map(|rule| rule.id).collect();
        let named = [
            AGENT_LENGTH,
            AMBIGUOUS_PATH,
            BROKEN_MULTIPART,
            COMMENT_BETWEEN_WORDS,
            DEEP_JSON,
            DEPLOYMENT_BARE,
            DEPLOYMENT_TOKEN,
            DOUBLE_ENCODING,
            DTD,
            HIDDEN_TRAVERSAL,
            MALFORMED_ENCODING,
            MANY_PARAMETERS,
            MANY_RANGES,
            NUL_BYTE,
            ODD_CHARSET,
            OVERLONG_UTF8,
            PARTIAL_BODY,
            PERCENT_U,
            RANGE_OVERFLOW,
            TRACE_METHOD,
            UNKNOWN_LENGTH,
            UPLOADED_PAGE,
            VIEWSTATE_SIZE,
            WEBDAV_METHOD,
            XML_ENCODING,
            ZIP_SLIP,
        ];
        assert_eq!(ids, HashSet::from(named));
    }
}
