//! JSON: every key and every string, wherever it stands and however the text ends.

use std::borrow::Cow;

use super::Piece;
use crate::decode::Reading;
use crate::rules;

/// Deeper nesting than any API uses, and than some parsers survive.
const DEPTH_MAX: usize = 64;

/// Keys and strings; a string is named after the key it stands under, at any depth.
pub(super) fn pieces(body: &[u8], take: &mut impl FnMut(Piece<'_>)) {
    let mut key: Cow<'_, [u8]> = Cow::Borrowed(b"");
    let mut depth = 0_usize;
    let mut rest = body;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'"' => {
                let (text, behind) = string(tail);
                rest = behind;
                if behind.trim_ascii_start().first() == Some(&b':') {
                    take(Piece::Name(&text, Reading::Plain));
                    key = text;
                } else {
                    take(Piece::Value(&key, &text, Reading::Plain));
                }
            }
            b'{' | b'[' => {
                depth += 1;
                if depth == DEPTH_MAX + 1 {
                    take(Piece::Irregular(rules::DEEP_JSON, b""));
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
}

/// The string that begins here (behind its quote), unescaped, and what stands behind it.
fn string(text: &[u8]) -> (Cow<'_, [u8]>, &[u8]) {
    let plain = text.iter().take_while(|byte| !matches!(byte, b'"' | b'\\')).count();
    let (start, rest) = text.split_at_checked(plain).unwrap_or((text, b""));
    match rest.split_first() {
        Some((b'\\', _)) => unescape(start, rest),
        Some((_, behind)) => (Cow::Borrowed(start), behind),
        None => (Cow::Borrowed(start), b""),
    }
}

fn unescape<'a>(start: &[u8], mut rest: &'a [u8]) -> (Cow<'a, [u8]>, &'a [u8]) {
    let mut text = start.to_vec();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'"' => break,
            b'\\' => {
                let Some((&escape, tail)) = tail.split_first() else { break };
                rest = tail;
                match escape {
                    b'n' => text.push(b'\n'),
                    b't' => text.push(b'\t'),
                    b'r' => text.push(b'\r'),
                    b'b' | b'f' => {}
                    // Left to the decoder, which reads such escapes in every kind of text.
                    b'u' => text.extend_from_slice(b"\\u"),
                    other => text.push(other),
                }
            }
            _ => text.push(byte),
        }
    }
    (Cow::Owned(text), rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, want: &[&str]) {
        let mut got = Vec::new();
        pieces(body.as_bytes(), &mut |piece| {
            got.push(match piece {
                Piece::Name(name, _) => format!("{}:", String::from_utf8_lossy(name)),
                Piece::Value(name, value, _) => format!("{}={}", String::from_utf8_lossy(name), String::from_utf8_lossy(value)),
                other => format!("{other:?}"),
            });
        });
        assert_eq!(got, want, "{body}");
    }

    #[test]
    fn keys_and_strings_are_found_anywhere() {
        check(r#"{"a": "x", "b": {"c": ["y", 1, "z"]}}"#, &["a:", "a=x", "b:", "c:", "c=y", "c=z"]);
        check(r#""bare""#, &["=bare"]);
        check(r#"{"a":"q\"\\\/\nA"}"#, &["a:", "a=q\"\\/\nA"]);
        check(r#"{"a":"\u0027"}"#, &["a:", "a=\\u0027"]);
        check(r#"{"a":"cut"#, &["a:", "a=cut"]);
        check(r#"{"a":"cut\"#, &["a:", "a=cut"]);
        check("1", &[]);
    }

    #[test]
    fn deep_nesting_is_irregular_once() {
        check(&"[".repeat(80), &[r#"Irregular("protocol-14", [])"#]);
        check(&"[]".repeat(80), &[]);
    }
}
