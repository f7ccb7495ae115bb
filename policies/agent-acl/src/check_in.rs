//! Check-ins that pass but do not look like an agent's.

use std::net::{Ipv4Addr, Ipv6Addr};

use weir_sdk::{Finding, Head};

/// Reports what is odd about a request for `agent.aspx`. Reads the headers once.
pub(crate) fn inspect(is_post: bool, head: &Head, mut report: impl FnMut(Finding)) {
    let fields = Fields::of(head);
    if fields.host.is_some_and(is_address) {
        report(finding("agent-host-address", "header:host", 1, fields.host));
    }
    if !is_post {
        return;
    }
    if !fields.user_agent.is_some_and(is_agent) {
        report(finding("agent-user-agent", "header:user-agent", 2, fields.user_agent));
    }
    match (fields.content_length, fields.declared_again) {
        (None, _) => report(finding("agent-length-undeclared", "header:content-length", 1, None)),
        (Some(length), Some(again)) if length.trim_ascii() != again.trim_ascii() => {
            report(finding("agent-contentlength", "header:contentlength", 3, Some(again)));
        }
        _ => {}
    }
}

#[derive(Default)]
struct Fields<'a> {
    host: Option<&'a [u8]>,
    user_agent: Option<&'a [u8]>,
    content_length: Option<&'a [u8]>,
    /// Agents repeat the length in a field without the hyphen.
    declared_again: Option<&'a [u8]>,
}

impl<'a> Fields<'a> {
    fn of(head: &'a Head) -> Self {
        let mut fields = Self::default();
        for (name, value) in head.headers() {
            let field = match name {
                "host" => &mut fields.host,
                "user-agent" => &mut fields.user_agent,
                "content-length" => &mut fields.content_length,
                "contentlength" => &mut fields.declared_again,
                _ => continue,
            };
            *field = Some(value);
        }
        fields
    }
}

fn finding(rule: &str, target: &str, score: u32, evidence: Option<&[u8]>) -> Finding {
    Finding::new(rule, "check-in", target, score).evidence(evidence.unwrap_or_default())
}

/// `LabTech Agent v250.204`
fn is_agent(user_agent: &[u8]) -> bool {
    let Some(version) = user_agent.strip_prefix(b"LabTech Agent v") else { return false };
    let mut parts = version.split(|byte| *byte == b'.');
    let mut number = |lengths: std::ops::RangeInclusive<usize>| {
        parts.next().is_some_and(|part| lengths.contains(&part.len()) && part.iter().all(u8::is_ascii_digit))
    };
    number(2..=3) && number(1..=3) && parts.next().is_none()
}

/// An IP address in place of a name, with or without a port.
fn is_address(host: &[u8]) -> bool {
    let Ok(host) = std::str::from_utf8(host) else { return false };
    match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().is_some_and(|address| address.parse::<Ipv6Addr>().is_ok()),
        None if !host.starts_with(|first: char| first.is_ascii_digit()) => false,
        None => host.split(':').next().is_some_and(|address| address.parse::<Ipv4Addr>().is_ok()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_and_addresses_are_recognised() {
        for (user_agent, expected) in [
            ("LabTech Agent v250.204", true),
            ("LabTech Agent v22.1", true),
            ("LabTech Agent v1.204", false),
            ("LabTech Agent v250.2044", false),
            ("LabTech Agent v250.204.1", false),
            ("LabTech Agent v250", false),
            ("LabTech Agent", false),
            ("curl/8.0", false),
        ] {
            assert_eq!(is_agent(user_agent.as_bytes()), expected, "{user_agent}");
        }
        for (host, expected) in [
            ("203.0.113.10", true),
            ("203.0.113.10:8443", true),
            ("[2001:db8::1]:443", true),
            ("[2001:db8::1]", true),
            ("052d3c3287c38201.example.com", false),
            ("example.com:443", false),
            ("[x]", false),
        ] {
            assert_eq!(is_address(host.as_bytes()), expected, "{host}");
        }
    }
}
