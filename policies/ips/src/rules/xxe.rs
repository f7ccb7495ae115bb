//! XML external entities.

use super::Category::Xxe;
use super::Severity::{Critical, Error};
use super::{Matcher, Rule, Targets, rule};

/// An XML body declares a document type.
pub const DTD: &str = "xxe-2";
/// An XML body declares an encoding that hides its text.
pub const XML_ENCODING: &str = "xxe-4";

const ANYWHERE: Targets = Targets::PARAMETERS.union(Targets::XML).union(Targets::OPAQUE);

/// The rules of this category.
pub(super) const RULES: &[Rule] = &[
    rule("xxe-1", Xxe, Critical, ANYWHERE, Matcher::Any(&["<!entity"]), "An entity declaration"),
    rule(DTD, Xxe, Critical, Targets::XML, Matcher::Message, "A document type declaration in an XML body"),
    rule("xxe-3", Xxe, Critical, ANYWHERE, Matcher::Any(&["<!entity %*", "<!entity%*"]), "A parameter entity"),
    rule(XML_ENCODING, Xxe, Critical, Targets::XML, Matcher::Message, "An XML encoding that hides its text: UTF-7, EBCDIC"),
    rule(
        "xxe-5",
        Xxe,
        Critical,
        Targets::BODY.union(Targets::XML).union(Targets::QUERY),
        Matcher::Any(&["<xi:include", "<x:include", "xinclude href="]),
        "An included document",
    ),
    rule("xxe-6", Xxe, Error, Targets::XML, Matcher::Any(&["<?xml-stylesheet"]), "A style sheet to load"),
    rule("xxe-7", Xxe, Critical, ANYWHERE, EXTERNAL_TYPE, "A document type from outside: <!DOCTYPE .. SYSTEM"),
    rule(
        "xxe-8",
        Xxe,
        Critical,
        ANYWHERE,
        Matcher::Any(&["+adw-!doctype*", "+adwaiq-doctype*", "+adw-!entity*"]),
        "A declaration in UTF-7",
    ),
];

const EXTERNAL_TYPE: Matcher =
    Matcher::Sequence { steps: &[&["<!doctype"], &["system \"*", "system '*", "[<*", "[ <*"]], gap: 64 };
