//! XML: text, CDATA and attribute values as values; a document type is an attack on its own.

use super::{Piece, odd_charset};
use crate::bytes::find;
use crate::decode::Reading;
use crate::rules;

/// The parts of an XML text, which may be cut off anywhere.
pub(super) fn pieces(body: &[u8], take: &mut impl FnMut(Piece<'_>)) {
    let mut rest = body;
    let mut element: &[u8] = b"";
    while !rest.is_empty() {
        let (text, markup) = split_at(rest, rest.iter().position(|byte| *byte == b'<').unwrap_or(rest.len()));
        let text = text.trim_ascii();
        if !text.is_empty() {
            take(Piece::Value(element, text, Reading::Plain));
        }
        rest = if let Some(inner) = markup.strip_prefix(b"<![CDATA[") {
            let (text, behind) = until(inner, b"]]>");
            take(Piece::Value(element, text, Reading::Plain));
            behind
        } else if let Some(inner) = markup.strip_prefix(b"<!--") {
            let (text, behind) = until(inner, b"-->");
            take(Piece::Value(b"", text, Reading::Plain));
            behind
        } else if markup.starts_with(b"<!") {
            take(Piece::Irregular(rules::DTD, markup));
            take(Piece::Declaration(markup));
            b""
        } else if markup.starts_with(b"<?") {
            let (text, behind) = until(markup, b"?>");
            if text.starts_with(b"<?xml ") && odd_charset(text) {
                take(Piece::Irregular(rules::XML_ENCODING, text));
            }
            take(Piece::Declaration(text));
            behind
        } else {
            let (name, behind) = tag(markup.get(1..).unwrap_or_default(), take);
            if !name.starts_with(b"/") {
                element = name;
            }
            behind
        };
    }
}

/// A tag behind its `<`: hands over its attributes; its local name and what stands behind it.
fn tag<'a>(text: &'a [u8], take: &mut impl FnMut(Piece<'_>)) -> (&'a [u8], &'a [u8]) {
    let is_end = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'>' | b'=');
    let (name, mut rest) = split_at(text, text.iter().position(is_end).unwrap_or(text.len()));
    let local = name.rsplit(|byte| *byte == b':').next().unwrap_or(name).trim_ascii_end();
    if local == b"include" {
        let (whole, _) = until(text, b">");
        let mut declaration = b"<".to_vec();
        declaration.extend_from_slice(whole);
        take(Piece::Declaration(&declaration));
    }
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'>' | b'"' | b'\'')) {
        let (before, behind) = split_at(rest, at);
        let Some((&byte, behind)) = behind.split_first() else { break };
        if byte == b'>' {
            return (local.strip_suffix(b"/").unwrap_or(local), behind);
        }
        let (value, behind) = until(behind, &[byte]);
        let attribute = before.trim_ascii_end().strip_suffix(b"=").unwrap_or(before).trim_ascii();
        if !attribute.starts_with(b"xmlns") {
            take(Piece::Value(attribute, value, Reading::Plain));
        }
        rest = behind;
    }
    (local, b"")
}

/// What stands before `end`, and behind it; all and nothing when it is missing.
fn until<'a>(text: &'a [u8], end: &[u8]) -> (&'a [u8], &'a [u8]) {
    find(text, end, 0)
        .map_or((text, &b""[..]), |at| (text.get(..at).unwrap_or_default(), text.get(at + end.len()..).unwrap_or_default()))
}

fn split_at(text: &[u8], at: usize) -> (&[u8], &[u8]) {
    text.split_at_checked(at).unwrap_or((text, b""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, want: &[&str]) {
        let mut got = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        pieces(body.as_bytes(), &mut |piece| {
            got.push(match piece {
                Piece::Value(name, value, _) => format!("{}={}", text(name), text(value)),
                Piece::Irregular(rule, _) => rule.to_owned(),
                Piece::Declaration(declaration) => text(declaration),
                other => format!("{other:?}"),
            });
        });
        assert_eq!(got, want, "{body}");
    }

    #[test]
    fn text_and_attributes_are_values() {
        check("<s:a xmlns:s=\"urn:x\" k=\"v\" l = 'w'><b>t</b> <c/></s:a>", &["k=v", "l=w", "b=t"]);
        check("<a><![CDATA[x <y> z]]></a><!-- n -->", &["a=x <y> z", "= n "]);
        check("<a k=\"1>2\">t", &["k=1>2", "a=t"]);
        check("<?xml version='1.0'?><a>x</a>", &["<?xml version='1.0'", "a=x"]);
    }

    #[test]
    fn document_types_are_irregular_outside_of_cdata() {
        check("<!DOCTYPE r>", &["xxe-2", "<!DOCTYPE r>"]);
        check("<a><![CDATA[<!DOCTYPE html>]]></a>", &["a=<!DOCTYPE html>"]);
        check("<?xml version='1.0' encoding='UTF-7'?>", &["xxe-4", "<?xml version='1.0' encoding='UTF-7'"]);
        check("<xi:include href='x'/>", &["<xi:include href='x'/", "href=x"]);
    }

    #[test]
    fn cut_texts_end() {
        for body in ["<", "<!", "<a", "<a k", "<a k=", "<a k=\"v", "<![CDATA[x", "<!--", "<?xml", "</", ">"] {
            pieces(body.as_bytes(), &mut |_| {});
        }
    }
}
