//! Whether a header names a host, at the price of one look per host name's length of it.

use crate::authority::is_host_byte;
use crate::url::decode;

/// A host name to look for, ready to skip through text (Horspool).
#[derive(Debug)]
pub(crate) struct Finder {
    /// Lower case.
    needle: Vec<u8>,
    last: u8,
    /// How far a window moves when it ends in a byte.
    skip: [u8; 256],
}

impl Finder {
    pub(crate) fn new(host: &str) -> Self {
        let needle = host.to_ascii_lowercase().into_bytes();
        let length = u8::try_from(needle.len()).unwrap_or(u8::MAX);
        let mut skip = [length.max(1); 256];
        let last = needle.last().copied().unwrap_or_default();
        for (byte, distance) in needle.iter().zip((1..length).rev()) {
            for case in [byte.to_ascii_lowercase(), byte.to_ascii_uppercase()] {
                if let Some(slot) = skip.get_mut(usize::from(case)) {
                    *slot = distance;
                }
            }
        }
        Self { needle, last, skip }
    }

    /// Whether the text holds the name, be it as part of a longer one.
    pub(crate) fn occurs(&self, text: &[u8]) -> bool {
        self.find(text, 0).is_some()
    }

    /// Whether the text names the host itself: not a longer name that merely holds it. Delimiters count when they are
    /// percent-encoded, once or twice.
    pub(crate) fn names_host(&self, text: &[u8]) -> bool {
        let mut from = 0;
        while let Some(at) = self.find(text, from) {
            let (before, after) = (text.get(..at).unwrap_or_default(), text.get(at + self.needle.len()..).unwrap_or_default());
            if !ends_in_host(before) && !continues_host(after) {
                return true;
            }
            from = at + 1;
        }
        false
    }

    fn find(&self, text: &[u8], from: usize) -> Option<usize> {
        let reach = self.needle.len().checked_sub(1)?;
        let mut at = from;
        while let Some(end) = text.get(at + reach) {
            if end.to_ascii_lowercase() == self.last
                && text.get(at..=at + reach).is_some_and(|window| window.eq_ignore_ascii_case(&self.needle))
            {
                return Some(at);
            }
            at += usize::from(self.skip.get(usize::from(*end)).copied().unwrap_or(1));
        }
        None
    }
}

fn ends_in_host(before: &[u8]) -> bool {
    let byte = match before {
        [.., b'%', b'2', b'5', high, low] | [.., b'%', high, low] => decode(*high, *low),
        [.., byte] => Some(*byte),
        [] => None,
    };
    byte.is_some_and(is_host_byte)
}

fn continues_host(after: &[u8]) -> bool {
    let (byte, rest) = match after {
        [b'%', b'2', b'5', high, low, rest @ ..] | [b'%', high, low, rest @ ..] => (decode(*high, *low), rest),
        [byte, rest @ ..] => (Some(*byte), rest),
        [] => (None, after),
    };
    match byte {
        // A full stop at the end of a sentence or of an absolute name still names the host.
        Some(b'.') => rest.first().copied().is_some_and(is_host_byte),
        Some(byte) => is_host_byte(byte),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, occurs: bool, names_host: bool) {
        let finder = Finder::new("Org.Example");
        assert_eq!((finder.occurs(text.as_bytes()), finder.names_host(text.as_bytes())), (occurs, names_host), "{text:?}");
    }

    #[test]
    fn whole_hosts_only() {
        check("org.example", true, true);
        check("https://ORG.example/", true, true);
        check("x=https%3A%2F%2Forg.example%2F", true, true);
        check("x=https%253A%252F%252Forg.example", true, true);
        check("at org.example.", true, true);
        check("my.org.example", true, false);
        check("xorg.example", true, false);
        check("https%3A%2F%2Fmy%2Eorg.example", true, false);
        check("org.example.evil.test", true, false);
        check("org.example%2Eevil.test", true, false);
        check("org.example-evil.test", true, false);
        check("org.example.evil.test org.example", true, true);
        check("org.exampl", false, false);
        check("org.xample org,example", false, false);
        check("", false, false);
    }

    #[test]
    fn skipping_misses_nothing() {
        for needle in ["a", "aab", "abcabd", "localhost"] {
            let finder = Finder::new(needle);
            for before in 0..20 {
                let text = format!("{}{needle}aabcab", "ab ".repeat(before));
                let expected = text.find(needle).is_some();
                assert_eq!(finder.occurs(text.as_bytes()), expected, "{needle} in {text}");
                assert_eq!(finder.find(text.as_bytes(), 0), text.find(needle), "{needle} in {text}");
            }
        }
    }
}
