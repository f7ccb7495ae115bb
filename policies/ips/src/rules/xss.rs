//! Cross-site scripting.

use std::ops::Range;

use super::Category::Xss;
use super::Severity::{Critical, Error, Warning};
use super::reader::{Reader, holds, near, places};
use super::{Confirm, Find, Matcher, Rule, Targets, rule};
use crate::bytes::{Classes, find};

const MARKUP: Targets = Targets::INPUTS.union(Targets::FILES);

/// The rules of this category.
pub(super) const RULES: &[Rule] = &[
    rule("xss-1", Xss, Critical, MARKUP, Matcher::Any(&["<script*", "</script*"]), "A script element"),
    rule("xss-2", Xss, Critical, MARKUP, around(&["on*"], event_handler), "An event handler attribute: onerror="),
    rule("xss-3", Xss, Critical, MARKUP, check(Classes::COLON, script_url), "A javascript: or vbscript: URL"),
    rule("xss-4", Xss, Critical, MARKUP, Matcher::Any(DATA_URLS), "A data: URL that holds a document"),
    rule("xss-5", Xss, Critical, MARKUP, Matcher::Any(ACTIVE_TAGS), "An element that loads or runs something"),
    rule("xss-6", Xss, Warning, MARKUP, Matcher::Any(TAGS), "An element often used to carry script"),
    rule("xss-7", Xss, Critical, MARKUP, Matcher::Any(PAGE_ACCESS), "Script that reads or rewrites the page"),
    rule(
        "xss-8",
        Xss,
        Critical,
        MARKUP,
        around(CALLS, script_call),
        "A script function called behind a quote or tag: '-alert(1)",
    ),
    rule(
        "xss-9",
        Xss,
        Critical,
        MARKUP,
        check(Classes::ANGLE, loading_attribute),
        "An attribute that holds a document or a script URL",
    ),
    rule("xss-10", Xss, Critical, MARKUP, Matcher::Any(STYLES), "Script in a style sheet"),
    rule("xss-11", Xss, Error, MARKUP, check(Classes::ANGLE, tag_behind_attribute), "A tag behind a closed attribute: \"><b"),
    rule(
        "xss-12",
        Xss,
        Critical,
        MARKUP,
        Matcher::Any(&["+adw-script*", "+adw-img*", "+adw-svg*", "+adw-/script*"]),
        "Markup in UTF-7",
    ),
    rule("xss-13", Xss, Critical, Targets::PARAMETERS, Matcher::Any(POLLUTION), "A prototype set through a parameter"),
];

const DATA_URLS: &[&str] = &[
    "data:text/html",
    "data:text/xml",
    "data:image/svg*",
    "data:application/x-javascript",
    "data:text/javascript",
    "data:;base64",
];
const ACTIVE_TAGS: &[&str] = &[
    "<iframe",
    "<object",
    "<embed",
    "<applet",
    "<base ",
    "<svg",
    "<math",
    "<frameset",
    "<isindex",
    "<meta http-equiv",
    "<link rel",
    "<portal",
];
const TAGS: &[&str] = &[
    "<img",
    "<video",
    "<audio",
    "<details",
    "<style",
    "<form",
    "<input",
    "<button",
    "<marquee",
    "<body",
    "<select",
    "<textarea",
    "<keygen",
];
const PAGE_ACCESS: &[&str] = &[
    "document.cookie",
    "document.write*",
    "document.location",
    "document.domain",
    "window.location",
    "window.name",
    "self.location",
    "top.location",
    "localstorage.*",
    "sessionstorage.*",
    "string.fromcharcode",
    "document[*",
    "window[*",
    "constructor.constructor",
    "eval(atob(",
    "fetch('*",
    "new function(",
    "navigator.sendbeacon",
    "xmlhttprequest(",
];
const ATTRIBUTES: [&[u8]; 3] = [b"srcdoc=", b"xlink:href=", b"formaction="];
const STYLES: &[&str] =
    &["-moz-binding", "behavior:url(", "behavior: url(", "expression(alert*", "expression(document*", "@import url(javascript*"];
const POLLUTION: &[&str] = &["__proto__", "constructor[prototype]", "constructor.prototype", "[__proto__]"];
const CALLS: &[&str] = &[
    "alert(",
    "confirm(",
    "prompt(",
    "eval(",
    "print(",
    "settimeout(",
    "setinterval(",
    "function(",
    "import(",
    "alert`",
    "confirm`",
    "prompt`",
];

/// The beginnings of event names, without `on`.
const EVENTS: &[&[u8]] = &[
    b"abort",
    b"after",
    b"animation",
    b"auxclick",
    b"before",
    b"begin",
    b"blur",
    b"bounce",
    b"canplay",
    b"change",
    b"click",
    b"close",
    b"contextmenu",
    b"copy",
    b"cuechange",
    b"cut",
    b"dblclick",
    b"drag",
    b"drop",
    b"end",
    b"error",
    b"finish",
    b"focus",
    b"fullscreen",
    b"hashchange",
    b"input",
    b"invalid",
    b"key",
    b"load",
    b"message",
    b"mouse",
    b"page",
    b"paste",
    b"play",
    b"pointer",
    b"popstate",
    b"progress",
    b"readystatechange",
    b"repeat",
    b"reset",
    b"resize",
    b"scroll",
    b"search",
    b"seek",
    b"select",
    b"show",
    b"start",
    b"submit",
    b"time",
    b"toggle",
    b"touch",
    b"transition",
    b"unload",
    b"volume",
    b"wheel",
    b"webkit",
];

const fn around(literals: &'static [&'static str], confirm: Confirm) -> Matcher {
    Matcher::Around { literals, confirm }
}

const fn check(needs: Classes, find: Find) -> Matcher {
    Matcher::Check { needs, find }
}

/// How far before an event handler its tag or quote may begin, in bytes.
const TAG_MAX: usize = 1024;

fn event_handler(text: &[u8], on: Range<usize>) -> Option<Range<usize>> {
    let begin = on.start.saturating_sub(TAG_MAX);
    let before = text.get(begin..on.start)?;
    if !matches!(before.last(), Some(b' ' | b'\n' | b'/' | b'\'' | b'"' | b';' | b'`')) {
        return None;
    }
    let mut reader = Reader::new(text, on.end);
    let event = reader.word();
    reader.skip_space();
    let assigned = EVENTS.iter().any(|known| event.starts_with(known)) && reader.eat(b"=");
    (assigned && before.iter().any(|byte| matches!(byte, b'<' | b'\'' | b'"' | b'`'))).then_some(on.start..reader.at)
}

/// Browsers drop white space inside a scheme, so it is dropped here too.
fn script_url(text: &[u8]) -> Option<Range<usize>> {
    places(text, b":").find_map(|colon| {
        let schemes: [&[u8]; 3] = [b"javascript", b"vbscript", b"livescript"];
        let start = schemes.iter().find_map(|scheme| ends_with_spaced(text.get(..colon)?, scheme))?;
        let followed = text.get(colon + 1).is_some_and(|byte| !matches!(byte, b' ' | b'\n'));
        followed.then_some(start..colon + 2)
    })
}

fn ends_with_spaced(text: &[u8], word: &[u8]) -> Option<usize> {
    let mut at = text.len();
    for own in word.iter().rev() {
        loop {
            at = at.checked_sub(1)?;
            match text.get(at) {
                Some(byte) if byte == own => break,
                Some(b' ' | b'\n') => {}
                _ => return None,
            }
        }
    }
    Some(at)
}

/// How near a call the quote or tag is that it breaks out of, in bytes.
const CALL_REACH: usize = 64;

fn script_call(text: &[u8], call: Range<usize>) -> Option<Range<usize>> {
    let before = call.start.checked_sub(1).and_then(|at| text.get(at)).copied();
    let glued = before.is_some_and(|byte| !matches!(byte, b' ' | b'\n'));
    let near = near(text, &call, CALL_REACH);
    let broken_out = near.iter().any(|byte| matches!(byte, b'\'' | b'"' | b'<' | b'>' | b'`')) || holds(near, b"${");
    (glued && broken_out).then_some(call)
}

fn loading_attribute(text: &[u8]) -> Option<Range<usize>> {
    ATTRIBUTES.iter().find_map(|attribute| find(text, attribute, 0).map(|at| at..at + attribute.len()))
}

fn tag_behind_attribute(text: &[u8]) -> Option<Range<usize>> {
    places(text, b"'\"").find_map(|start| {
        let mut reader = Reader::new(text, start + 1);
        reader.skip(b" \n/");
        if !reader.eat(b">") {
            return None;
        }
        reader.skip_space();
        let opened = reader.eat(b"<") && reader.peek().is_some_and(|byte| byte.is_ascii_alphabetic());
        opened.then_some(start..reader.at)
    })
}
