//! The start of a URL in place: its scheme, host and port as ranges of the text, so that only those bytes change.

use std::ops::Range;

use crate::authority::{Authority, Scheme, is_host_byte, parse_port};

/// How the text writes a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// As it is.
    Plain,
    /// As the value of a query parameter, where any delimiter may be percent-encoded once.
    Encoded,
}

/// The scheme and authority at the start of an absolute URL (`https://host:port`), or of a scheme-relative one (`//host`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    /// `None` when the URL takes the scheme of the page.
    pub(crate) scheme: Option<Scheme>,
    /// Whether the scheme is `ws` or `wss`.
    pub(crate) socket: bool,
    /// Where the scheme's name ends.
    scheme_end: usize,
    /// The colon after the scheme, as the text writes it.
    colon: Range<usize>,
    pub(crate) host: Range<usize>,
    pub(crate) port: Option<u16>,
    /// Where the authority ends.
    pub(crate) end: usize,
}

impl Start {
    /// Reads the start of `text`. `None` for relative URLs, and for authorities that two readers could understand
    /// differently: userinfo, encoded or unusual bytes in the host, an empty port, a backslash.
    pub(crate) fn read(text: &[u8], form: Form) -> Option<Self> {
        let (scheme, socket, scheme_end) = read_scheme(text, form);
        let colon_end = if scheme.is_some() { skip(text, scheme_end, b':', form)? } else { scheme_end };
        let host_start = skip(text, skip(text, colon_end, b'/', form)?, b'/', form)?;
        let mut start = Self::read_authority(text, host_start, form)?;
        (start.scheme, start.socket, start.scheme_end, start.colon) = (scheme, socket, scheme_end, scheme_end..colon_end);
        Some(start)
    }

    /// Reads a bare authority at `at`: the host source `automate.example.com:443/path` of a content security policy.
    pub(crate) fn read_authority(text: &[u8], at: usize, form: Form) -> Option<Self> {
        let rest = text.get(at..)?;
        let length = rest.iter().position(|byte| !is_host_byte(*byte)).unwrap_or(rest.len());
        let host = at..at + length;
        let (port, end) = match skip(text, host.end, b':', form) {
            Some(digits) => read_port(text, digits)?,
            None => (None, host.end),
        };
        let ended = end == text.len() || b"/?#".iter().any(|delimiter| skip(text, end, *delimiter, form).is_some());
        (ended && length > 0).then_some(Self { scheme: None, socket: false, scheme_end: at, colon: at..at, host, port, end })
    }

    /// The port that is meant; `None` when neither the port nor the scheme says it.
    pub(crate) fn effective_port(&self) -> Option<u16> {
        self.port.or_else(|| self.scheme.map(Scheme::default_port))
    }
}

/// What takes the place of a host, and which hosts it takes the place of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mapping<'a> {
    pub(crate) from: &'a Authority,
    /// A second port that counts as `from` when `from` names none.
    pub(crate) from_port: Option<u16>,
    pub(crate) to: &'a str,
    pub(crate) to_port: Option<u16>,
    /// `None` keeps the scheme of the URL.
    pub(crate) scheme: Option<Scheme>,
}

impl Mapping<'_> {
    /// Whether the host and port are the ones to replace.
    pub(crate) fn applies(&self, text: &[u8], start: &Start) -> bool {
        self.from.is_host(text.get(start.host.clone()).unwrap_or_default())
            && match (self.from.port, start.port) {
                (Some(port), _) => start.effective_port() == Some(port),
                (None, None) => true,
                (None, Some(port)) if Some(port) == self.from_port => true,
                (None, Some(port)) => start.scheme.map_or(matches!(port, 80 | 443), |scheme| scheme.default_port() == port),
            }
    }

    /// The text with scheme, host and port at its start replaced and every other byte kept; `None` when nothing changes.
    pub(crate) fn replace(&self, text: &[u8], form: Form) -> Option<Vec<u8>> {
        self.replace_at(text, &Start::read(text, form)?)
    }

    /// As [`Mapping::replace`] for a start that was read before.
    pub(crate) fn replace_at(&self, text: &[u8], start: &Start) -> Option<Vec<u8>> {
        if !self.applies(text, start) {
            return None;
        }
        let mut out = Vec::with_capacity(text.len() + self.to.len() + 8);
        let scheme = self.scheme.filter(|_| start.scheme.is_some()).or(start.scheme);
        match scheme {
            Some(scheme) if start.scheme != Some(scheme) => out.extend_from_slice(scheme.name(start.socket).as_bytes()),
            _ => out.extend_from_slice(text.get(..start.scheme_end)?),
        }
        out.extend_from_slice(text.get(start.scheme_end..start.host.start)?);
        out.extend_from_slice(self.to.as_bytes());
        let default = scheme.or(self.scheme).map(Scheme::default_port);
        if let Some(port) = self.to_port.filter(|port| Some(*port) != default) {
            let colon = text.get(start.colon.clone()).filter(|colon| !colon.is_empty()).unwrap_or(b":");
            out.extend_from_slice(colon);
            out.extend_from_slice(port.to_string().as_bytes());
        }
        out.extend_from_slice(text.get(start.end..)?);
        (out != text).then_some(out)
    }
}

fn read_scheme(text: &[u8], form: Form) -> (Option<Scheme>, bool, usize) {
    const SCHEMES: [(&[u8], Scheme, bool); 4] = [
        (b"https", Scheme::Https, false),
        (b"http", Scheme::Http, false),
        (b"wss", Scheme::Https, true),
        (b"ws", Scheme::Http, true),
    ];
    SCHEMES
        .iter()
        .find(|(name, ..)| {
            text.get(..name.len()).is_some_and(|own| own.eq_ignore_ascii_case(name))
                && skip(text, name.len(), b':', form).is_some()
        })
        .map_or((None, false, 0), |(name, scheme, socket)| (Some(*scheme), *socket, name.len()))
}

fn read_port(text: &[u8], at: usize) -> Option<(Option<u16>, usize)> {
    let rest = text.get(at..)?;
    let length = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
    let port = parse_port(rest.get(..length)?)?;
    Some((Some(port), at + length))
}

/// The position after `byte` when it stands at `at`, as itself or (where the form allows it) percent-encoded.
fn skip(text: &[u8], at: usize, byte: u8, form: Form) -> Option<usize> {
    match text.get(at..)? {
        [first, ..] if *first == byte => Some(at + 1),
        [b'%', high, low, ..] if form == Form::Encoded && decode(*high, *low) == Some(byte) => Some(at + 3),
        _ => None,
    }
}

/// The byte that two hexadecimal digits stand for.
pub(crate) fn decode(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(form: Form, to_port: Option<u16>, scheme: Option<Scheme>, text: &str, expected: Option<&str>) {
        let from = Authority::parse("origin", "org.example").unwrap();
        let mapping = Mapping { from: &from, from_port: Some(9443), to: "pub.example", to_port, scheme };
        let replaced = mapping.replace(text.as_bytes(), form).map(|bytes| String::from_utf8(bytes).unwrap());
        assert_eq!(replaced.as_deref(), expected, "{text:?}");
    }

    #[test]
    fn a_plain_url() {
        let plain = |text, expected| check(Form::Plain, None, None, text, expected);
        plain("https://org.example/a?b#c", Some("https://pub.example/a?b#c"));
        plain("HTTPS://ORG.Example", Some("HTTPS://pub.example"));
        plain("https://org.example?x", Some("https://pub.example?x"));
        plain("https://org.example:443/", Some("https://pub.example/"));
        plain("https://org.example:9443/", Some("https://pub.example/"));
        plain("http://org.example:80/", Some("http://pub.example/"));
        plain("wss://org.example/hub", Some("wss://pub.example/hub"));
        plain("//org.example/a", Some("//pub.example/a"));
        plain("https://org.example:80/", None);
        plain("https://org.example:8040/", None);
        plain("https://org.example:/", None);
        plain("https://org.example:443x/", None);
        plain("https://org.example.evil.test/", None);
        plain("https://notorg.example/", None);
        plain("https://org.example@evil.test/", None);
        plain("https://org.example:443@evil.test/", None);
        plain("https://org.example\\@evil.test/", None);
        plain("https:/org.example/", None);
        plain("https%3A%2F%2Forg.example/", None);
        plain("ftp://org.example/", None);
        plain("/org.example/", None);
        plain("https://", None);
        plain("", None);
    }

    #[test]
    fn an_encoded_url() {
        let encoded = |text, expected| check(Form::Encoded, None, None, text, expected);
        encoded("https%3A%2F%2Forg.example%2Fcb", Some("https%3A%2F%2Fpub.example%2Fcb"));
        encoded("https%3a%2f%2Forg.example%3A443%3fx", Some("https%3a%2f%2Fpub.example%3fx"));
        encoded("https://org.example/cb", Some("https://pub.example/cb"));
        encoded("https%3A%2F%2Forg.example", Some("https%3A%2F%2Fpub.example"));
        encoded("https%3A%2F%2Forg.example%40evil.test", None);
        encoded("https%3A%2F%2Forg%2Eexample%2F", None);
        encoded("https%3A%2F%2Forg.example%2Eevil.test", None);
        encoded("https%253A%252F%252Forg.example", None);
        encoded("https%3A%2F%2", None);
    }

    #[test]
    fn scheme_and_port_of_the_client() {
        let http = Some(Scheme::Http);
        let https = Some(Scheme::Https);
        check(Form::Plain, Some(8443), https, "http://org.example/a", Some("https://pub.example:8443/a"));
        check(Form::Plain, Some(443), https, "http://org.example/a", Some("https://pub.example/a"));
        check(Form::Plain, Some(8080), http, "wss://org.example/a", Some("ws://pub.example:8080/a"));
        check(Form::Plain, Some(8443), https, "//org.example/a", Some("//pub.example:8443/a"));
        check(Form::Plain, Some(443), https, "//org.example/a", Some("//pub.example/a"));
        check(Form::Encoded, Some(8443), https, "https%3a%2f%2forg.example%2f", Some("https%3a%2f%2fpub.example%3a8443%2f"));
    }
}
