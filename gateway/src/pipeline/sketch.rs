//! What the record tells of a head that no parser has read: as much as can be told from its first bytes, and nothing invented.

use http::header::{ACCEPT, HOST};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Uri};

/// Stands for a method that is none.
const OTHER: &str = "_OTHER";

/// Method, target, Host and Accept, where the bytes have them. Bytes that no target may have are shown percent-encoded.
pub(super) fn parts(bytes: &[u8]) -> Parts {
    let mut lines = bytes.split(|byte| matches!(byte, b'\n' | b'\r')).filter(|line| !line.is_empty());
    let mut words = lines.next().unwrap_or_default().split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty());
    let method = words.next().filter(|method| method.len() <= 32).and_then(|method| Method::from_bytes(method).ok());
    let mut request = Request::new(());
    *request.method_mut() = method.or_else(|| Method::from_bytes(OTHER.as_bytes()).ok()).unwrap_or_default();
    *request.uri_mut() = target(words.next().unwrap_or_default());
    for line in lines {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = line.split_at(colon);
        let Ok(name) = HeaderName::from_bytes(name.trim_ascii()) else { continue };
        if (name == HOST || name == ACCEPT)
            && let Ok(value) = HeaderValue::from_bytes(value.get(1..).unwrap_or_default().trim_ascii())
        {
            request.headers_mut().entry(name).or_insert(value);
        }
    }
    request.into_parts().0
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
        let seen = parts.headers.get(HOST).map(|value| value.to_str().unwrap());
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
