//! What the record tells of a head that no parser has read: as much as can be told from its first bytes, and nothing invented.

use http::{HeaderValue, Method, Uri, Version};

use crate::fields::{Fields, Known};
use crate::http::message::RequestHead;

/// Stands for a method that is none.
const OTHER: &str = "_OTHER";

/// Method, target, Host and Accept, where the bytes have them. Bytes that no target may have are shown percent-encoded.
pub(super) fn parts(bytes: &[u8]) -> RequestHead {
    let mut lines = bytes.split(|byte| matches!(byte, b'\n' | b'\r')).filter(|line| !line.is_empty());
    let mut words = lines.next().unwrap_or_default().split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty());
    let method = words.next().filter(|method| method.len() <= 32).and_then(|method| Method::from_bytes(method).ok());
    let method = method.or_else(|| Method::from_bytes(OTHER.as_bytes()).ok()).unwrap_or_default();
    let uri = target(words.next().unwrap_or_default());
    let mut headers = Fields::new();
    for line in lines {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = line.split_at(colon);
        let Some(known @ (Known::Host | Known::Accept)) = Known::of(name.trim_ascii()) else { continue };
        let value = HeaderValue::from_bytes(value.get(1..).unwrap_or_default().trim_ascii());
        if let (Ok(value), false) = (value, headers.contains(known)) {
            headers.append(known, value.as_bytes());
        }
    }
    RequestHead { method, uri, version: Version::HTTP_11, headers }
}

fn target(bytes: &[u8]) -> Uri {
    let mut text = String::with_capacity(bytes.len() + 1);
    if bytes.first() != Some(&b'/') {
        text.push('/');
    }
    for byte in bytes {
        match byte {
            b'!'..=b'~' if !matches!(byte, b'#' | b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}') => {
                text.push(char::from(*byte));
            }
            byte => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text.parse().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes: &[u8], method: &str, path: &str, host: Option<&str>) {
        let parts = parts(bytes);
        let seen = parts.headers.text(Known::Host);
        assert_eq!((parts.method.as_str(), parts.uri.path(), seen), (method, path, host), "{}", bytes.escape_ascii());
    }

    #[test]
    fn what_can_be_told_is_told() {
        check(b"POST /a#b?c HTTP/1.1\nhOST: a.example\nHost: b\n\n", "POST", "/a%23b", Some("a.example"));
        check(b"GET /caf\xc3\xa9", "GET", "/caf%C3%A9", None);
        check(b"\x16\x03\x01 \x00", "_OTHER", "/%00", None);
        check(b"", "_OTHER", "/", None);
        check(b"GET http://a/b HTTP/1.1\r\n", "GET", "/http://a/b", None);
        check(b"\r\n\r\nGET / HTTP/1.1\r\nHost : x\r\n", "GET", "/", Some("x"));
    }
}
