//! Patterns in which `*` stands for any run of characters.

/// A pattern for names and paths; letters match in either case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(String);

impl Glob {
    /// Keeps a pattern.
    #[must_use]
    pub fn new(pattern: &str) -> Self {
        Self(pattern.to_owned())
    }

    /// Whether the whole of `text` is what the pattern describes.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let (mut pattern, mut text) = (self.0.as_bytes(), text.as_bytes());
        // Where to go on when the text does not fit: behind the last `*`, one byte of text later than the time before.
        let mut retry: Option<(&[u8], &[u8])> = None;
        loop {
            match (pattern.split_first(), text.split_first()) {
                (Some((b'*', rest)), _) => {
                    retry = Some((rest, text));
                    pattern = rest;
                    continue;
                }
                (None, None) => return true,
                (Some((own, own_rest)), Some((byte, rest))) if own.eq_ignore_ascii_case(byte) => {
                    (pattern, text) = (own_rest, rest);
                    continue;
                }
                _ => {}
            }
            let Some((behind_star, from)) = retry else { return false };
            let Some((_, later)) = from.split_first() else { return false };
            retry = Some((behind_star, later));
            (pattern, text) = (behind_star, later);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_run() {
        let cases = [
            ("sqli-*", "sqli-12", true),
            ("sqli-1", "sqli-12", false),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("/cwa/*/computers/*/services", "/CWA/api/v1/Computers/12/services", true),
            ("/cwa/*/computers/*/services", "/cwa/api/v1/computers/12/services/x", false),
            ("body*", "body:Password", true),
            ("*a*b", "xaxb-ab", true),
            ("*a*b", "xaxb-a", false),
            ("a*", "ba", false),
        ];
        for (pattern, text, want) in cases {
            assert_eq!(Glob::new(pattern).matches(text), want, "{pattern} on {text}");
        }
    }
}
