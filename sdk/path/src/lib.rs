//! The one path normalisation of the policy contract.
//!
//! Servers disagree on what a raw path means. The gateway normalises it once, in the most permissive reading (the one IIS
//! would take), and says in [`Quirks`] everything another server could read differently. A policy that protects a path
//! compares the normalised text and refuses a path whose quirks it cannot rule out.
//!
//! The gateway and the SDK's mock host share this crate, so that a policy's native tests see what production sees.

use std::borrow::Cow;

/// What is ambiguous about a raw path; the bits are those of `path-quirks` in the contract.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quirks(pub u32);

impl Quirks {
    /// `%2f` or `%5c`.
    pub const ENCODED_SLASH: Self = Self(1);
    /// A literal `\`.
    pub const BACKSLASH: Self = Self(2);
    /// A `.` or `..` segment, literal or encoded.
    pub const DOT_SEGMENT: Self = Self(4);
    /// Still percent-encoded after one decoding, e.g. `%252f`.
    pub const DOUBLE_ENCODING: Self = Self(8);
    /// A `;`, which starts a path parameter for some servers.
    pub const PARAMETER: Self = Self(16);
    /// A segment that ends in a dot or a space, which Windows drops.
    pub const TRAILING_DOT: Self = Self(32);
    /// A `:`, which names an alternate stream on Windows (`::$DATA`).
    pub const STREAM: Self = Self(64);
    /// `//` inside the path.
    pub const EMPTY_SEGMENT: Self = Self(128);
    /// A byte below 0x20 or 0x7f after decoding.
    pub const CONTROL: Self = Self(256);
    /// Not UTF-8 after decoding (overlong forms such as `%c0%af` included).
    pub const NOT_UTF8: Self = Self(512);
    /// `..` beyond the root.
    pub const ABOVE_ROOT: Self = Self(1024);
    /// `%` without two hex digits.
    pub const MALFORMED: Self = Self(2048);

    /// Names of all bits, lowest first.
    pub const NAMES: [&'static str; 12] = [
        "encoded_slash",
        "backslash",
        "dot_segment",
        "double_encoding",
        "parameter",
        "trailing_dot",
        "stream",
        "empty_segment",
        "control",
        "not_utf8",
        "above_root",
        "malformed",
    ];

    /// No ambiguity at all.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether any bit of `other` is set.
    #[must_use]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The names of the bits that are set.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        (0..Self::NAMES.len()).filter(move |bit| self.0 & (1 << bit) != 0).map(|bit| Self::NAMES[bit])
    }
}

/// A path after normalisation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Normalised<'a> {
    /// Starts with `/`. Bytes that are not UTF-8 are replaced by U+FFFD.
    pub text: Cow<'a, str>,
    /// What was ambiguous about the raw path.
    pub quirks: Quirks,
}

/// Normalises a raw path: everything before `?`, as it came over the wire.
///
/// Percent-decodes once, reads `\` as `/`, merges slashes, resolves dot segments, and drops trailing dots and spaces of
/// segments. Case is kept. A path that needs none of this is returned without a copy.
#[must_use]
pub fn normalise(raw: &[u8]) -> Normalised<'_> {
    if let Some(text) = plain(raw) {
        return Normalised { text: Cow::Borrowed(text), quirks: Quirks::default() };
    }
    let mut quirks = Quirks::default();
    let decoded = decode(raw, &mut quirks);
    let segments = resolve(&decoded, &mut quirks);
    let mut bytes = Vec::with_capacity(decoded.len() + 1);
    for segment in &segments {
        bytes.push(b'/');
        bytes.extend_from_slice(segment);
    }
    let ends_in_slash = decoded.last().is_some_and(|byte| is_slash(*byte));
    if bytes.is_empty() || (ends_in_slash && segments.last().is_some_and(|last| !last.is_empty())) {
        bytes.push(b'/');
    }
    let text = String::from_utf8(bytes).unwrap_or_else(|error| {
        quirks = quirks.union(Quirks::NOT_UTF8);
        String::from_utf8_lossy(error.as_bytes()).into_owned()
    });
    Normalised { text: Cow::Owned(text), quirks }
}

/// The path itself when nothing in it needs a second look.
fn plain(raw: &[u8]) -> Option<&str> {
    if raw.first() != Some(&b'/') {
        return None;
    }
    let mut previous = 0;
    for &byte in raw {
        let unusual = matches!(byte, b'%' | b'\\' | b';' | b':' | 0..=0x20 | 0x7f..)
            || (matches!(byte, b'/' | b'.') && matches!(previous, b'/' | b'.') && !(byte == b'/' && previous == 0));
        if unusual || (byte == b'/' && previous == b'.') {
            return None;
        }
        previous = byte;
    }
    if previous == b'.' { None } else { std::str::from_utf8(raw).ok() }
}

fn decode(raw: &[u8], quirks: &mut Quirks) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((&byte, tail)) = rest.split_first() {
        let (value, tail) = match (byte, hex_pair(tail)) {
            (b'%', Some(value)) => {
                if is_slash(value) {
                    *quirks = quirks.union(Quirks::ENCODED_SLASH);
                }
                (value, tail.get(2..).unwrap_or_default())
            }
            (b'%', None) => {
                *quirks = quirks.union(Quirks::MALFORMED);
                (byte, tail)
            }
            (b'\\', _) => {
                *quirks = quirks.union(Quirks::BACKSLASH);
                (byte, tail)
            }
            _ => (byte, tail),
        };
        *quirks = quirks.union(match value {
            b';' => Quirks::PARAMETER,
            b':' => Quirks::STREAM,
            0..0x20 | 0x7f => Quirks::CONTROL,
            _ => Quirks::default(),
        });
        decoded.push(value);
        rest = tail;
    }
    let still_encoded =
        decoded.iter().enumerate().any(|(at, byte)| *byte == b'%' && decoded.get(at + 1..).and_then(hex_pair).is_some());
    if still_encoded {
        *quirks = quirks.union(Quirks::DOUBLE_ENCODING);
    }
    decoded
}

fn resolve<'a>(decoded: &'a [u8], quirks: &mut Quirks) -> Vec<&'a [u8]> {
    let body = match decoded.split_first() {
        Some((first, rest)) if is_slash(*first) => rest,
        _ => decoded,
    };
    let mut segments: Vec<&[u8]> = Vec::new();
    let mut parts = body.split(|byte| is_slash(*byte)).peekable();
    while let Some(segment) = parts.next() {
        if segment.is_empty() {
            if parts.peek().is_some() {
                *quirks = quirks.union(Quirks::EMPTY_SEGMENT);
            }
            continue;
        }
        let trimmed = without_windows_tail(segment);
        if segment == b"." || segment == b".." {
            *quirks = quirks.union(Quirks::DOT_SEGMENT);
            if segment == b".." && segments.pop().is_none() {
                *quirks = quirks.union(Quirks::ABOVE_ROOT);
            }
            continue;
        }
        if trimmed.len() != segment.len() {
            *quirks = quirks.union(Quirks::TRAILING_DOT);
        }
        if !trimmed.is_empty() {
            segments.push(trimmed);
        }
    }
    segments
}

/// Without the trailing dots and spaces that Windows drops from a file name.
fn without_windows_tail(segment: &[u8]) -> &[u8] {
    let kept = segment.iter().rposition(|byte| !matches!(byte, b'.' | b' ')).map_or(0, |at| at + 1);
    segment.get(..kept).unwrap_or_default()
}

const fn is_slash(byte: u8) -> bool {
    matches!(byte, b'/' | b'\\')
}

fn hex_pair(bytes: &[u8]) -> Option<u8> {
    let (high, low) = (*bytes.first()? as char, *bytes.get(1)? as char);
    u8::try_from(high.to_digit(16)? * 16 + low.to_digit(16)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(raw: &str, text: &str, quirks: &[&str]) {
        let got = normalise(raw.as_bytes());
        assert_eq!(got.text, text, "text of {raw}");
        assert_eq!(got.quirks.names().collect::<Vec<_>>(), quirks, "quirks of {raw}");
    }

    #[test]
    fn ordinary_paths_are_untouched() {
        for path in ["/", "/LabTech/Agent.aspx", "/a/b/", "/a.b/c.d", "/a-b_c~d"] {
            check(path, path, &[]);
            assert!(matches!(normalise(path.as_bytes()).text, Cow::Borrowed(_)), "{path} is not copied");
        }
        check("/a%20b", "/a b", &[]);
        check("/caf%C3%A9", "/café", &[]);
    }

    #[test]
    fn disguises_are_seen_through_and_named() {
        check("/LabTech/agent.aspx/../ControlCenter.asmx", "/LabTech/ControlCenter.asmx", &["dot_segment"]);
        check("/LabTech/agent.aspx%2f..%2fControlCenter.asmx", "/LabTech/ControlCenter.asmx", &["encoded_slash", "dot_segment"]);
        check("/LabTech/agent.aspx;/x", "/LabTech/agent.aspx;/x", &["parameter"]);
        check("/LabTech\\ControlCenter.asmx", "/LabTech/ControlCenter.asmx", &["backslash"]);
        check("//LabTech//ControlCenter.asmx", "/LabTech/ControlCenter.asmx", &["empty_segment"]);
        check("/LabTech/./controlcenter.asmx.", "/LabTech/controlcenter.asmx", &["dot_segment", "trailing_dot"]);
        check("/a/%2e%2e/b", "/b", &["dot_segment"]);
        check("/a%252fb", "/a%2fb", &["double_encoding"]);
        check("/a::$DATA", "/a::$DATA", &["stream"]);
        check("/a%20", "/a", &["trailing_dot"]);
        check("/a%00b", "/a\0b", &["control"]);
        check("/%zz", "/%zz", &["malformed"]);
        check("/../../etc", "/etc", &["dot_segment", "above_root"]);
        check("/a..", "/a", &["trailing_dot"]);
        check("/...", "/", &["trailing_dot"]);
        check("/a./b", "/a/b", &["trailing_dot"]);
        check("/..;/admin", "/..;/admin", &["parameter"]);
    }

    #[test]
    fn bytes_that_are_not_utf8_are_named() {
        let got = normalise(b"/a%c0%afb");
        assert!(got.quirks.intersects(Quirks::NOT_UTF8));
        assert_eq!(normalise(b"").text, "/");
        assert_eq!(normalise(b"*").text, "/*");
    }
}
