//! Return addresses in query parameters: `redirect_uri=https%3A%2F%2Fhost%2Fpath`.

use crate::url::{Form, Mapping};

/// The names of the parameters to rewrite.
#[derive(Debug)]
pub(crate) struct Names {
    names: Vec<Vec<u8>>,
    /// One bit per length that a name has: most parameters are ruled out by it.
    lengths: u64,
}

impl Names {
    /// # Errors
    /// A name that cannot be one.
    pub(crate) fn new(names: &[String]) -> Result<Self, String> {
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte);
        if let Some(wrong) = names.iter().find(|name| name.is_empty() || name.len() >= 64 || !name.bytes().all(valid)) {
            return Err(format!(
                "rewrite_query: {wrong:?} is no parameter name: write letters, digits, '.', '_', '~' and '-', at most 63"
            ));
        }
        let names: Vec<_> = names.iter().map(|name| name.as_bytes().to_vec()).collect();
        let lengths = names.iter().fold(0, |bits, name| bits | length_bit(name));
        Ok(Self { names, lengths })
    }

    fn contains(&self, name: &[u8]) -> bool {
        self.lengths & length_bit(name) != 0 && self.names.iter().any(|own| own.eq_ignore_ascii_case(name))
    }
}

/// The text with the known parameters of its query rewritten, everything else byte-equal; `None` when nothing changes.
/// `text` is a URL or a request target; what follows `#` is left alone.
///
/// A signed query (SAML's redirect binding signs the raw bytes) is left alone as a whole.
pub(crate) fn rewrite(text: &[u8], names: &Names, mapping: &Mapping<'_>) -> Option<Vec<u8>> {
    let end = text.iter().position(|byte| *byte == b'#').unwrap_or(text.len());
    let start = text.get(..end)?.iter().position(|byte| *byte == b'?')? + 1;
    let query = text.get(start..end)?;
    let mut out = Vec::new();
    let (mut at, mut copied) = (start, 0);
    for parameter in query.split(|byte| *byte == b'&') {
        let name_length = parameter.iter().position(|byte| *byte == b'=').unwrap_or(parameter.len());
        let name = parameter.get(..name_length).unwrap_or_default();
        if is_signature(name) {
            return None;
        }
        if names.contains(name)
            && let Some(value) = parameter.get(name_length + 1..)
            && let Some(value) = mapping.replace(value, Form::Encoded)
        {
            out.extend_from_slice(text.get(copied..=at + name_length)?);
            out.extend_from_slice(&value);
            copied = at + parameter.len();
        }
        at += parameter.len() + 1;
    }
    if copied == 0 {
        return None;
    }
    out.extend_from_slice(text.get(copied..)?);
    Some(out)
}

fn length_bit(name: &[u8]) -> u64 {
    1_u64 << name.len().min(63)
}

fn is_signature(name: &[u8]) -> bool {
    matches!(name.len(), 6 | 9) && (name.eq_ignore_ascii_case(b"SigAlg") || name.eq_ignore_ascii_case(b"Signature"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::Authority;

    fn check(text: &str, expected: Option<&str>) {
        let from = Authority::parse("public", "pub.example").unwrap();
        let mapping = Mapping { from: &from, from_port: None, to: "org.example", to_port: None, scheme: None };
        let names = Names::new(&["redirect_uri".to_owned(), "ReturnUrl".to_owned()]).unwrap();
        let rewritten = rewrite(text.as_bytes(), &names, &mapping).map(|bytes| String::from_utf8(bytes).unwrap());
        assert_eq!(rewritten.as_deref(), expected, "{text}");
    }

    #[test]
    fn known_parameters_only() {
        check(
            "/cb?redirect_uri=https%3A%2F%2Fpub.example%2Fa%2Bb&state=x%20y",
            Some("/cb?redirect_uri=https%3A%2F%2Forg.example%2Fa%2Bb&state=x%20y"),
        );
        check(
            "/?a=1&returnURL=https://pub.example/x#https://pub.example",
            Some("/?a=1&returnURL=https://org.example/x#https://pub.example"),
        );
        check(
            "/?redirect_uri=https%3a%2f%2fpub.example&&ReturnUrl=https%3A%2F%2FPUB.example",
            Some("/?redirect_uri=https%3a%2f%2forg.example&&ReturnUrl=https%3A%2F%2Forg.example"),
        );
        check("/?next=https%3A%2F%2Fpub.example%2F", None);
        check("/?redirect_uri=https%3A%2F%2Fpub.example.evil.test%2F", None);
        check("/?redirect_uri=https%3A%2F%2Fpub.example%40evil.test%2F", None);
        check("/?redirect_uri=https%3A%2F%2Fevil.test%2F%3Fu%3Dhttps%3A%2F%2Fpub.example", None);
        check("/?redirect_uri=/relative", None);
        check("/?redirect_uri", None);
        check("/?redirect_uri=", None);
        check("/redirect_uri=https://pub.example/", None);
        check("/#?redirect_uri=https://pub.example/", None);
        check("/?", None);
        check("", None);
    }

    #[test]
    fn a_signed_query_stays() {
        check("/?redirect_uri=https://pub.example/&SigAlg=x&Signature=y", None);
        check("/?signature=y&redirect_uri=https://pub.example/", None);
        check("/?sig=y&redirect_uri=https://pub.example/", Some("/?sig=y&redirect_uri=https://org.example/"));
    }
}
