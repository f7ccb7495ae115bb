//! Request bodies, taken apart by what they are rather than only by what they say they are.

mod form;
mod json;
mod multipart;
mod xml;

use std::borrow::Cow;

use weir_sdk::Head;

use crate::bytes::find;
use crate::decode::Reading;
use crate::head::{PARAMETERS_MAX, VIEWSTATE_MAX, split_target};
use crate::inspect::{Engine, Inspection, Target};
use crate::rules;
use crate::score::Tally;

/// A part of a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// The name of a field or key.
    Name(&'a [u8], Reading),
    /// A value, with its name (empty when it has none).
    Value(&'a [u8], &'a [u8], Reading),
    /// The name of an uploaded file.
    File(&'a [u8]),
    /// An XML declaration other than the document type.
    Declaration(&'a [u8]),
    /// A rule that the structure itself trips, with what trips it.
    Irregular(&'static str, &'a [u8]),
}

/// How a body is taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Form,
    Json,
    Xml,
    Multipart,
    Text,
    Opaque,
}

/// Endings of file names that the server behind the gateway would run.
const PAGES: [&str; 14] = [
    ".aspx", ".ashx", ".asmx", ".asp", ".asa", ".cer.asp", ".cshtml", ".vbhtml", ".soap", ".svc", ".php", ".phtml", ".jsp",
    ".jspx",
];

impl Engine {
    /// Inspects the first bytes of a body; `complete` when that is all of it. Goes on from what the head's inspection found.
    #[must_use]
    pub fn inspect_body(&self, head: &Head, body: &[u8], complete: bool, earlier: Tally) -> Tally {
        let (path, _) = split_target(head.target());
        let mut inspection = self.begin(weir_path::normalise(path).text, earlier);
        if !body.is_empty() {
            inspect(&mut inspection, head.get("content-type").unwrap_or_default(), body);
        }
        if !complete {
            inspection.message(rules::PARTIAL_BODY, Target::Message, b"");
        }
        inspection.finish()
    }
}

/// Whether a Content-Type or XML declaration names a charset that hides ASCII text.
pub(crate) fn odd_charset(value: &[u8]) -> bool {
    if !value.contains(&b'=') {
        return false;
    }
    let lower = value.to_ascii_lowercase();
    let charsets: [&[u8]; 8] = [b"utf-7", b"utf7", b"ibm0", b"ibm5", b"ibm1", b"cp037", b"ebcdic", b"utf-32"];
    charsets.iter().any(|charset| find(&lower, charset, 0).is_some())
}

fn inspect(inspection: &mut Inspection<'_>, content_type: &[u8], body: &[u8]) {
    let mut parameters = 0;
    let mut take = |piece: Piece<'_>| match piece {
        Piece::Name(name, reading) => {
            parameters += 1;
            inspection.value(Target::BodyName, name, reading);
        }
        Piece::Value(name, value, reading) => {
            if value.len() > VIEWSTATE_MAX && name.eq_ignore_ascii_case(b"__viewstate") {
                inspection.message(rules::VIEWSTATE_SIZE, Target::Body(name), value);
            }
            inspection.value(Target::Body(name), value, reading);
        }
        Piece::File(name) => inspect_file_name(inspection, name),
        Piece::Declaration(text) => inspection.decoded(Target::Declaration, text, Reading::Plain),
        Piece::Irregular(rule, evidence) => inspection.message(rule, Target::Declaration, evidence),
    };
    match kind(content_type, body) {
        Kind::Form => form::pieces(body, &mut take),
        Kind::Json => json::pieces(body, &mut take),
        Kind::Xml => xml::pieces(&without_utf16(body), &mut take),
        Kind::Multipart => multipart::pieces(content_type, body, &mut take),
        Kind::Text => take(Piece::Value(b"", &without_utf16(body), Reading::Plain)),
        Kind::Opaque => {
            if may_hold_markup_or_lookup(body) {
                inspection.decoded(Target::Opaque, body, Reading::Plain);
            }
            return;
        }
    }
    if parameters > PARAMETERS_MAX && !matches!(kind(content_type, body), Kind::Json | Kind::Xml) {
        inspection.message(rules::MANY_PARAMETERS, Target::Message, b"");
    }
}

/// Declared types are believed unless the body begins like XML or JSON: servers that sniff would read it so.
fn kind(content_type: &[u8], body: &[u8]) -> Kind {
    let essence =
        content_type.split(|byte| matches!(byte, b';' | b',')).next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
    let declared = match essence.as_slice() {
        b"application/x-www-form-urlencoded" => Kind::Form,
        b"multipart/form-data" | b"multipart/mixed" | b"multipart/related" => return Kind::Multipart,
        b"application/csp-report" | b"application/graphql" | b"text/json" => Kind::Json,
        other if other.ends_with(b"/json") || other.ends_with(b"+json") => Kind::Json,
        other if other.ends_with(b"/xml") || other.ends_with(b"+xml") => return Kind::Xml,
        other if other.starts_with(b"text/") || other.is_empty() => Kind::Text,
        _ => Kind::Opaque,
    };
    let mut text = body
        .iter()
        .filter(|byte| **byte != 0 && !byte.is_ascii_whitespace() && !matches!(byte, 0xef | 0xbb | 0xbf | 0xfe | 0xff));
    match (declared, text.next(), text.next()) {
        (Kind::Opaque, ..) => Kind::Opaque,
        (_, Some(b'<'), Some(b'!' | b'?')) => Kind::Xml,
        (Kind::Text, Some(b'<'), _) => Kind::Xml,
        (Kind::Text | Kind::Form, Some(b'{' | b'['), _) => Kind::Json,
        (Kind::Text, ..) if essence.is_empty() && body.contains(&b'=') => Kind::Form,
        _ => declared,
    }
}

/// UTF-16 as the ASCII in it, which is all that rules look for.
fn without_utf16(body: &[u8]) -> Cow<'_, [u8]> {
    let head = body.get(..64).unwrap_or(body);
    let nuls = head.iter().filter(|byte| **byte == 0).count();
    let marked = body.starts_with(b"\xff\xfe") || body.starts_with(b"\xfe\xff");
    if !marked && nuls * 4 < head.len() {
        return Cow::Borrowed(body);
    }
    Cow::Owned(body.iter().copied().filter(|byte| !matches!(byte, 0 | 0xfe | 0xff)).collect())
}

/// `<!` or `${`, NUL bytes between them or not.
fn may_hold_markup_or_lookup(body: &[u8]) -> bool {
    let mut before = 0;
    body.iter().filter(|byte| **byte != 0).any(|&byte| {
        let pair = (before, byte);
        before = byte;
        matches!(pair, (b'<', b'!') | (b'$', b'{'))
    })
}

/// Browsers send a bare name (some old ones a Windows path, which never climbs).
fn inspect_file_name(inspection: &mut Inspection<'_>, name: &[u8]) {
    inspection.decoded(Target::File, name, Reading::Percent);
    let text = inspection.last_text();
    let climbs = find(text, b"../", 0).is_some() || find(text, b"..\\", 0).is_some();
    let absolute = text.starts_with(b"/") || text.starts_with(b"\\");
    let stem = text.split(|byte| matches!(byte, b';' | b':')).next().unwrap_or_default();
    let kept = stem.iter().rposition(|byte| !matches!(byte, b'.' | b' ')).map_or(0, |at| at + 1);
    let runs = PAGES.iter().any(|page| stem.get(..kept).is_some_and(|stem| stem.ends_with(page.as_bytes())));
    if climbs || absolute {
        inspection.message(rules::ZIP_SLIP, Target::File, name);
    }
    if runs {
        inspection.message(rules::UPLOADED_PAGE, Target::File, name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_what_it_says_unless_it_begins_otherwise() {
        let cases: [(&str, &str, Kind); 14] = [
            ("application/x-www-form-urlencoded", "a=b", Kind::Form),
            ("application/x-www-form-urlencoded", "{\"a\":1}", Kind::Json),
            ("application/x-www-form-urlencoded", "<!DOCTYPE x>", Kind::Xml),
            ("application/json; charset=utf-8", "\"x\"", Kind::Json),
            ("application/problem+json", "{}", Kind::Json),
            ("application/json", "<?xml version='1.0'?>", Kind::Xml),
            ("Text/XML; charset=utf-8", "<a/>", Kind::Xml),
            ("application/soap+xml", "<a/>", Kind::Xml),
            ("multipart/form-data; boundary=x", "<!", Kind::Multipart),
            ("text/plain", "hello", Kind::Text),
            ("text/plain", " {\"a\":1}", Kind::Json),
            ("", "a=b", Kind::Form),
            ("", "<a/>", Kind::Xml),
            ("application/octet-stream", "<!DOCTYPE x>", Kind::Opaque),
        ];
        for (content_type, body, want) in cases {
            assert_eq!(kind(content_type.as_bytes(), body.as_bytes()), want, "{content_type}: {body}");
        }
    }

    #[test]
    fn charsets_that_hide_text_are_named() {
        assert!(odd_charset(b"text/xml; charset=UTF-7"));
        assert!(odd_charset(b"text/xml; charset=\"ibm037\""));
        assert!(!odd_charset(b"text/xml; charset=utf-8"));
        assert!(!odd_charset(b"text/xml; charset=utf-16"));
    }

    #[test]
    fn opaque_bodies_are_searched_through_nul_bytes() {
        assert!(may_hold_markup_or_lookup(b"ab<\0!\0D\0"));
        assert!(may_hold_markup_or_lookup(b"x${jndi"));
        assert!(!may_hold_markup_or_lookup(b"MZ\x90\0\x03 < ! $ {"));
    }
}
