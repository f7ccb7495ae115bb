//! JA4, the fingerprint of a ClientHello: version, counts and first application protocol in clear, then hashes of the suites and of
//! the extensions that do not depend on the order a client shuffles them into.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use super::{ALPN, ClientHello, SERVER_NAME};

/// Counts above this are shown as this: the field has two digits.
const MAX_COUNT: usize = 99;

/// The fingerprint of a hello that came over TCP.
pub(super) fn fingerprint(hello: &ClientHello) -> String {
    let mut text = String::with_capacity(36);
    let name = if hello.has(SERVER_NAME) { 'd' } else { 'i' };
    let [first, last] = protocol(hello.alpn.first().map_or(&[], Vec::as_slice));
    let (suites, extensions) = (hello.suites.len().min(MAX_COUNT), hello.extensions.len().min(MAX_COUNT));
    // Writing to a String cannot fail.
    let _ = write!(text, "t{}{name}{suites:02}{extensions:02}{first}{last}_", version(hello.highest_version()));
    push_hash(&mut text, &list(sorted(&hello.suites)));
    text.push('_');
    push_hash(&mut text, &extensions_and_signatures(hello));
    text
}

fn version(value: u16) -> &'static str {
    match value {
        0x0304 => "13",
        0x0303 => "12",
        0x0302 => "11",
        0x0301 => "10",
        0x0300 => "s3",
        0x0002 => "s2",
        _ => "00",
    }
}

/// The first and last character of the first protocol, or of its hexadecimal form when either is neither letter nor digit.
fn protocol(name: &[u8]) -> [char; 2] {
    let (Some(first), Some(last)) = (name.first(), name.last()) else { return ['0', '0'] };
    if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() {
        return [char::from(*first), char::from(*last)];
    }
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    [digit(first >> 4), digit(last & 0x0f)]
}

/// Sorted extensions but those that differ from one server to the next, then the signature schemes in the client's order.
fn extensions_and_signatures(hello: &ClientHello) -> String {
    let mut extensions = sorted(&hello.extensions);
    extensions.retain(|kind| !matches!(*kind, SERVER_NAME | ALPN));
    let mut text = list(extensions);
    if !hello.signature_algorithms.is_empty() {
        text.push('_');
        text.push_str(&list(hello.signature_algorithms.iter().copied()));
    }
    text
}

fn sorted(values: &[u16]) -> Vec<u16> {
    let mut values = values.to_vec();
    values.sort_unstable();
    values
}

fn list(values: impl IntoIterator<Item = u16>) -> String {
    let values = values.into_iter();
    let mut text = String::with_capacity(5 * values.size_hint().0);
    for value in values {
        let separator = if text.is_empty() { "" } else { "," };
        let _ = write!(text, "{separator}{value:04x}");
    }
    text
}

/// Appends the first 12 hexadecimal digits of the SHA-256 of `input`, or zeros for an empty one.
fn push_hash(text: &mut String, input: &str) {
    if input.is_empty() {
        text.push_str("000000000000");
        return;
    }
    for byte in Sha256::digest(input).iter().take(6) {
        let _ = write!(text, "{byte:02x}");
    }
}
