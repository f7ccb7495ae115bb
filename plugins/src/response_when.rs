//! Which responses a policy wants to be asked about. Most have nothing in them that it could change, and a call costs more than a look.

use serde::Deserialize;

/// A condition on a response: any part of it is enough.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ResponseWhen {
    /// It has one of these headers. Lower case, in order.
    headers: Vec<String>,
    /// The value of one of its headers holds one of these texts, case of ASCII letters ignored. Lower case.
    containing: Vec<String>,
    /// The policy kept state for the exchange in an earlier phase.
    state: bool,
}

const MAX_HEADERS: usize = 64;
const MAX_TEXTS: usize = 16;
const MAX_TEXT: usize = 256;

impl ResponseWhen {
    /// The condition, ready to be asked.
    ///
    /// # Errors
    /// More than a response is worth looking at, or a text that everything contains.
    pub(crate) fn checked(mut self) -> Result<Self, String> {
        if self.headers.len() > MAX_HEADERS || self.containing.len() > MAX_TEXTS {
            return Err(format!("response_when: at most {MAX_HEADERS} headers and {MAX_TEXTS} texts"));
        }
        if self.containing.iter().any(|text| text.is_empty() || text.len() > MAX_TEXT) {
            return Err(format!("response_when.containing: texts have 1 to {MAX_TEXT} bytes"));
        }
        self.headers.iter_mut().chain(&mut self.containing).for_each(|text| text.make_ascii_lowercase());
        self.headers.sort_unstable();
        Ok(self)
    }

    /// Whether it holds. `headers`: lower-case name and value; `has_state`: whether the policy kept any.
    pub(crate) fn holds<'h>(&self, mut headers: impl Iterator<Item = (&'h str, &'h [u8])>, has_state: bool) -> bool {
        let named = |name: &str| self.headers.binary_search_by(|own| own.as_str().cmp(name)).is_ok();
        (self.state && has_state)
            || headers.any(|(name, value)| named(name) || self.containing.iter().any(|text| holds_text(value, text.as_bytes())))
    }
}

/// Whether a value holds a lower-case text, in whatever case.
fn holds_text(value: &[u8], text: &[u8]) -> bool {
    let Some(first) = text.first() else { return true };
    let last_start = value.len().checked_sub(text.len()).map_or(0, |last| last + 1);
    let starts = value.get(..last_start).unwrap_or_default();
    memchr::memchr2_iter(*first, first.to_ascii_uppercase(), starts)
        .any(|at| value.get(at..at + text.len()).is_some_and(|window| window.eq_ignore_ascii_case(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Headers = &'static [(&'static str, &'static [u8])];

    #[test]
    fn any_part_is_enough() {
        let when: ResponseWhen =
            serde_json::from_str(r#"{"headers":["Set-Cookie","location"],"containing":["Origin.example"],"state":true}"#)
                .unwrap();
        let when = when.checked().unwrap();
        const PLAIN: Headers = &[("content-type", b"text/html"), ("server", b"origin")];
        let table: [(Headers, bool, bool); 7] = [
            (PLAIN, false, false),
            (PLAIN, true, true),
            (&[], false, false),
            (&[("location", b"/")], false, true),
            (&[("x", b"https://ORIGIN.example/")], false, true),
            (&[("x", b"origin.exampl")], false, false),
            (&[("x", b"oorigin.example")], false, true),
        ];
        for (headers, has_state, want) in table {
            assert_eq!(when.holds(headers.iter().copied(), has_state), want, "{headers:?} {has_state}");
        }
        assert!(!ResponseWhen::default().checked().unwrap().holds([("location", b"/".as_slice())].into_iter(), true));
    }

    #[test]
    fn a_text_is_found_wherever_it_is() {
        for at in 0..20 {
            let mut value = vec![b'a'; 20];
            value.splice(at..at, *b"aB.c");
            assert!(holds_text(&value, b"ab.c"), "{at}");
            assert!(!holds_text(&value, b"ab.d"), "{at}");
        }
        assert!(!holds_text(b"", b"a") && !holds_text(b"a", b"ab"));
    }
}
