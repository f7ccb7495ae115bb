//! JNDI and other Log4j lookups.

use std::ops::Range;

use super::Category::JndiInjection as Jndi;
use super::Severity::{Critical, Error};
use super::{Matcher, Rule, Targets, rule};
use crate::bytes::{Classes, find};

/// The rules of this category.
pub(super) const RULES: &[Rule] = &[
    rule("log4j-1", Jndi, Critical, Targets::ALL, Matcher::Any(&["${jndi*"]), "A JNDI lookup"),
    rule(
        "log4j-2",
        Jndi,
        Critical,
        Targets::ALL,
        Matcher::Check { needs: Classes::DOLLAR, find: disguised },
        "A JNDI lookup put together by other lookups",
    ),
    rule("log4j-3", Jndi, Critical, Targets::ALL, Matcher::Any(JNDI_URLS), "The URL of a JNDI lookup"),
    rule("log4j-4", Jndi, Error, Targets::ALL, Matcher::Any(LOOKUPS), "Another lookup: ${env:..}, ${sys:..}"),
    rule(
        "log4j-5",
        Jndi,
        Critical,
        Targets::ALL,
        Matcher::Any(&["${script:*", "${dns:*", "${url:*"]),
        "A lookup of Commons Text that runs or fetches",
    ),
];

const JNDI_URLS: &[&str] = &["jndi:ldap*", "jndi:rmi*", "jndi:dns*", "jndi:nis*", "jndi:iiop*", "jndi:corba*", "jndi:http*"];
const LOOKUPS: &[&str] = &[
    "${env:*",
    "${sys:*",
    "${java:*",
    "${ctx:*",
    "${lower:*",
    "${upper:*",
    "${date:*",
    "${::-*",
    "${main:*",
    "${base64:*",
    "${k8s:*",
    "${docker:*",
    "${bundle:*",
    "${hostname}*",
    "${spring:*",
    "${${*",
];

/// What one lookup may add: the name `jndi` is short, and a nest of long texts shall cost nothing.
const SPELLED_MAX: usize = 64;

/// Resolves nested lookups from the inside, as Log4j does, and looks for what they spell.
fn disguised(text: &[u8]) -> Option<Range<usize>> {
    let start = find(text, b"${", 0)?;
    let mut spelled = Vec::with_capacity(text.len());
    let mut open = Vec::new();
    let mut rest = text.get(start..)?;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match (byte, tail.first()) {
            (b'$', Some(b'{')) => {
                open.push(spelled.len());
                rest = tail.get(1..).unwrap_or_default();
            }
            (b'}', _) if !open.is_empty() => {
                let from = open.pop().unwrap_or_default();
                let inner = spelled.split_off(from);
                if is_jndi(&inner) {
                    return Some(start..text.len() - rest.len());
                }
                spelled.extend(resolved(&inner).iter().take(SPELLED_MAX));
            }
            _ => spelled.push(byte),
        }
    }
    open.iter().any(|from| spelled.get(*from..).is_some_and(is_jndi)).then_some(start..text.len())
}

fn is_jndi(spelled: &[u8]) -> bool {
    spelled.starts_with(b"jndi:")
}

fn resolved(inner: &[u8]) -> &[u8] {
    if let Some(default) = find(inner, b":-", 0) {
        return inner.get(default + 2..).unwrap_or_default();
    }
    let prefixes: [&[u8]; 2] = [b"lower:", b"upper:"];
    prefixes.iter().find_map(|prefix| inner.strip_prefix(*prefix)).unwrap_or(inner)
}
