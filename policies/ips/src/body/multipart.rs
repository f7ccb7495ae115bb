//! Multipart: the values of fields and the names of files.

use super::Piece;
use crate::bytes::find;
use crate::decode::Reading;
use crate::rules;

/// Fields and file names. A body that has no boundary, or never uses it, is irregular and handed over as one value.
pub(super) fn pieces(content_type: &[u8], body: &[u8], take: &mut impl FnMut(Piece<'_>)) {
    let boundary = parameter(content_type, b"boundary");
    let first = boundary.filter(|boundary| !boundary.is_empty()).and_then(|boundary| {
        let delimiter = [b"--", boundary].concat();
        Some((find(body, &delimiter, 0)?, delimiter))
    });
    let Some((start, delimiter)) = first else {
        take(Piece::Irregular(rules::BROKEN_MULTIPART, content_type));
        return take(Piece::Value(b"", body, Reading::Plain));
    };
    let mut rest = body.get(start + delimiter.len()..).unwrap_or_default();
    while !rest.is_empty() && !rest.starts_with(b"--") {
        let end = find(rest, &delimiter, 0);
        part(rest.get(..end.unwrap_or(rest.len())).unwrap_or_default(), take);
        rest = end.and_then(|end| rest.get(end + delimiter.len()..)).unwrap_or_default();
    }
}

fn part(text: &[u8], take: &mut impl FnMut(Piece<'_>)) {
    let text = text.strip_prefix(b"\r\n").or_else(|| text.strip_prefix(b"\n")).unwrap_or(text);
    let blank = find(text, b"\r\n\r\n", 0).map(|at| (at, 4)).or_else(|| find(text, b"\n\n", 0).map(|at| (at, 2)));
    let Some((end, gap)) = blank else {
        return take(Piece::Irregular(rules::BROKEN_MULTIPART, text));
    };
    let headers = text.get(..end).unwrap_or_default();
    let value = text.get(end + gap..).unwrap_or_default();
    let name = parameter(headers, b"name").unwrap_or_default();
    take(Piece::Name(name, Reading::Percent));
    let files = [parameter(headers, b"filename"), parameter(headers, b"filename*")];
    for file in files.into_iter().flatten() {
        take(Piece::File(file));
    }
    if files == [None, None] {
        take(Piece::Value(name, value.trim_ascii_end(), Reading::Plain));
    }
}

/// The value of `name=` in header text, without its quotes.
fn parameter<'a>(text: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let lower = text.to_ascii_lowercase();
    let mut from = 0;
    loop {
        let at = find(&lower, name, from)?;
        from = at + name.len();
        let begins =
            at.checked_sub(1).and_then(|before| lower.get(before)).is_none_or(|byte| matches!(byte, b';' | b' ' | b'\t' | b'\n'));
        let rest = text.get(from..)?.trim_ascii_start();
        let (true, Some(value)) = (begins, rest.strip_prefix(b"=")) else { continue };
        let value = value.trim_ascii_start();
        return Some(match value.split_first() {
            Some((quote @ (b'"' | b'\''), inner)) => inner.split(|byte| byte == quote).next().unwrap_or_default(),
            _ => value.split(|byte| matches!(byte, b';' | b'\r' | b'\n' | b',')).next().unwrap_or_default().trim_ascii(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(content_type: &str, body: &str, want: &[&str]) {
        let mut got = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        pieces(content_type.as_bytes(), body.as_bytes(), &mut |piece| {
            got.push(match piece {
                Piece::Name(name, _) => format!("{}:", text(name)),
                Piece::Value(name, value, _) => format!("{}={}", text(name), text(value)),
                Piece::File(name) => format!("file {}", text(name)),
                Piece::Irregular(rule, _) => rule.to_owned(),
                Piece::Declaration(_) => "declaration".to_owned(),
            });
        });
        assert_eq!(got, want, "{body}");
    }

    const TYPE: &str = "multipart/form-data; boundary=\"b\"";

    #[test]
    fn fields_are_values_and_files_are_names() {
        let field = "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nx\r\n";
        let file = "--b\r\nContent-Disposition: form-data; name=f; filename=\"c.txt\"\r\n\r\n' or 1=1\r\n--b--";
        check(TYPE, &format!("{field}{file}"), &["a:", "a=x", "f:", "file c.txt"]);
        check(TYPE, "--b\nContent-Disposition: form-data; name=a\n\nx", &["a:", "a=x"]);
        check(
            "multipart/form-data; boundary=b",
            "--b\r\nX: y; filename=p; filename*=utf-8''q\r\n\r\n--b--",
            &[":", "file p", "file utf-8''q"],
        );
    }

    #[test]
    fn broken_bodies_are_irregular() {
        check("multipart/form-data", "a=b", &["protocol-12", "=a=b"]);
        check(TYPE, "a=b", &["protocol-12", "=a=b"]);
        check(TYPE, "--b\r\nno blank line", &["protocol-12"]);
        check(TYPE, "--b--", &[]);
    }
}
