//! Schemes, hosts and ports, and the configured names made of them.

use serde::Deserialize;

/// What a URL or a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub(crate) const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    /// The name in a URL; `socket` asks for the WebSocket one.
    pub(crate) const fn name(self, socket: bool) -> &'static str {
        match (self, socket) {
            (Self::Http, false) => "http",
            (Self::Https, false) => "https",
            (Self::Http, true) => "ws",
            (Self::Https, true) => "wss",
        }
    }
}

/// A host name in lower case and the port when one is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Authority {
    pub(crate) host: String,
    pub(crate) port: Option<u16>,
}

impl Authority {
    /// Reads `host` or `host:port` of the configuration.
    ///
    /// # Errors
    /// A text that names the key and what to write instead.
    pub(crate) fn parse(key: &str, text: &str) -> Result<Self, String> {
        let (host, port) = split_port(text.as_bytes());
        let valid = !host.is_empty() && host.len() <= MAX_HOST && host.iter().copied().all(is_host_byte);
        if !valid || host.starts_with(b".") || host.ends_with(b".") {
            return Err(format!(
                "{key} = {text:?} is no host name: write the name alone, with an optional port, as in \"automate.example.com\""
            ));
        }
        let host = String::from_utf8_lossy(host).to_ascii_lowercase();
        let port = port.map(|digits| parse_port(digits).ok_or_else(|| format!("{key} = {text:?}: the port is not 1 to 65535")));
        Ok(Self { host, port: port.transpose()? })
    }

    /// `host` or `host:port`.
    pub(crate) fn text(&self) -> String {
        self.port.map_or_else(|| self.host.clone(), |port| format!("{}:{port}", self.host))
    }

    /// Whether a host is this one, whatever its case.
    pub(crate) fn is_host(&self, host: &[u8]) -> bool {
        self.host.as_bytes().eq_ignore_ascii_case(host)
    }
}

/// The longest name the DNS can hold.
const MAX_HOST: usize = 253;

/// A byte that can stand in a host name. Everything else ends one.
pub(crate) const fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')
}

/// Splits `host:port` at its colon.
pub(crate) fn split_port(text: &[u8]) -> (&[u8], Option<&[u8]>) {
    let mut parts = text.splitn(2, |byte| *byte == b':');
    (parts.next().unwrap_or_default(), parts.next())
}

/// One to five digits that make a port.
pub(crate) fn parse_port(digits: &[u8]) -> Option<u16> {
    if digits.len() > 5 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok().filter(|port| *port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<(&str, Option<u16>)>) {
        let authority = Authority::parse("public", text).ok();
        let expected = expected.map(|(host, port)| Authority { host: host.to_owned(), port });
        assert_eq!(authority, expected, "{text:?}");
    }

    #[test]
    fn names_of_the_configuration() {
        check("Automate.Example.com", Some(("automate.example.com", None)));
        check("localhost:8443", Some(("localhost", Some(8443))));
        check("192.0.2.7:80", Some(("192.0.2.7", Some(80))));
        check("", None);
        check(":443", None);
        check("host:", None);
        check("host:0", None);
        check("host:65536", None);
        check("host:+80", None);
        check("https://host", None);
        check("host/path", None);
        check("*.example.com", None);
        check("user@host", None);
        check("host.", None);
        check(&"a".repeat(254), None);
    }
}
