//! The `host[:port]` of a request, held to one strict grammar so that no two readers of it can disagree.

use std::borrow::Cow;
use std::net::Ipv6Addr;

/// Whom a request is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority<'a> {
    /// Lower case, without port and final dot; an IPv6 address keeps its brackets. Empty when an HTTP/1.0 request names no host.
    pub host: Cow<'a, str>,
    /// As the client sent it.
    pub text: &'a str,
    /// As sent, or the default of the scheme.
    pub port: u16,
}

impl<'a> Authority<'a> {
    /// Reads `text` from a Host header or request target. `None` for anything but a DNS name (letters, digits, `-`, `_`), an IPv4
    /// address or a bracketed IPv6 address, with an optional port of 1 to 65535 without leading zeros.
    #[must_use]
    pub fn parse(text: &'a str, tls: bool) -> Option<Self> {
        let (host, port) = split_port(text)?;
        let valid = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').is_some_and(|address| address.parse::<Ipv6Addr>().is_ok()),
            None => is_name(host),
        };
        if !valid {
            return None;
        }
        let host = host.strip_suffix('.').unwrap_or(host);
        let port = match port {
            Some(digits) => parse_port(digits)?,
            None => default_port(tls),
        };
        Some(Self { host: lower_case(host), text, port })
    }

    /// The authority of a request without one.
    #[must_use]
    pub fn none(tls: bool) -> Self {
        Self { host: Cow::Borrowed(""), text: "", port: default_port(tls) }
    }

    /// Whether both name the same host and port, however they spell it.
    #[must_use]
    pub fn agrees(&self, other: &Authority<'_>) -> bool {
        self.host == other.host && self.port == other.port
    }
}

fn default_port(tls: bool) -> u16 {
    if tls { 443 } else { 80 }
}

/// Host and port digits. The colons of an IPv6 address are inside its brackets.
fn split_port(text: &str) -> Option<(&str, Option<&str>)> {
    let after = if text.starts_with('[') { text.rfind(']').map_or(0, |end| end + 1) } else { 0 };
    match text.get(after..)?.split_once(':') {
        Some((name, port)) => Some((text.get(..after + name.len())?, Some(port))),
        None => Some((text, None)),
    }
}

fn parse_port(digits: &str) -> Option<u16> {
    let canonical = !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit());
    canonical.then(|| digits.parse().ok())?
}

/// A DNS name of at most 253 bytes, a final dot aside, in labels of 1 to 63.
fn is_name(host: &str) -> bool {
    let mut label = 0;
    for byte in host.bytes() {
        match byte {
            b'.' if label == 0 => return false,
            b'.' => label = 0,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' if label < 63 => label += 1,
            _ => return false,
        }
    }
    !host.is_empty() && host.len() <= 253 + usize::from(label == 0)
}

fn lower_case(host: &str) -> Cow<'_, str> {
    if host.bytes().any(|b| b.is_ascii_uppercase()) { Cow::Owned(host.to_ascii_lowercase()) } else { Cow::Borrowed(host) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_of_each_host() {
        for (text, host, port) in [
            ("example.com", "example.com", 443),
            ("Example.COM:8443", "example.com", 8443),
            ("example.com.", "example.com", 443),
            ("example.com.:80", "example.com", 80),
            ("my_host-1", "my_host-1", 443),
            ("192.0.2.1:1", "192.0.2.1", 1),
            ("[2001:DB8::1]", "[2001:db8::1]", 443),
            ("[::1]:65535", "[::1]", 65535),
        ] {
            let authority = Authority::parse(text, true).unwrap_or_else(|| panic!("{text} is refused"));
            assert_eq!((authority.host.as_ref(), authority.text, authority.port), (host, text, port));
        }
    }

    #[test]
    fn what_is_no_host() {
        let long = format!("{}.example", vec!["x".repeat(63); 4].join("."));
        for text in [
            "",
            ".",
            ".a",
            "a..b",
            "a/b",
            "a@b",
            "u:p@b",
            "a b",
            "a,b",
            "a, b",
            "a:",
            "a:0",
            "a:080",
            "a:+80",
            "a:99999",
            "a:65536",
            "a:80:80",
            ":80",
            "a%41",
            "é.example",
            "[::1",
            "::1",
            "[::1]a",
            "[::1]:",
            "[]",
            "[1.2.3.4]",
            "a]",
            "a\\b",
            "a?b",
            "a#b",
            "a\u{0}",
            "*",
            "[[::1]]",
            &"x".repeat(64),
            &long,
        ] {
            assert_eq!(Authority::parse(text, false), None, "{text}");
        }
    }

    #[test]
    fn a_lower_case_host_is_not_copied() {
        assert!(matches!(Authority::parse("example.com:80", false).unwrap().host, Cow::Borrowed(_)));
        assert!(matches!(Authority::parse("Example.com:80", false).unwrap().host, Cow::Owned(_)));
    }

    #[test]
    fn a_default_port_need_not_be_written() {
        for (one, other, tls, agree) in [
            ("a.example", "A.example:80", false, true),
            ("a.example:443", "a.example.", true, true),
            ("a.example", "a.example:443", false, false),
            ("a.example", "b.example", false, false),
        ] {
            let (one, other) = (Authority::parse(one, tls).unwrap(), Authority::parse(other, tls).unwrap());
            assert_eq!(one.agrees(&other), agree, "{one:?} {other:?}");
        }
    }
}
