//! Addresses: URLs of servers, host names of sites, socket addresses, networks.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use toml::de::DeValue;

use super::error::Invalid;
use super::values::{quoted, shown, string};

type Parsed<T> = Result<T, Invalid>;

/// Whether a server is spoken to in clear text or over TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Clear text; port 80 unless given.
    Http,
    /// TLS, always verified; port 443 unless given.
    Https,
}

impl Scheme {
    /// `http` or `https`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// 80 or 443.
    #[must_use]
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// A server's address: scheme, host and port, never a path, a query or credentials. Shown without its scheme's default port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Url {
    /// Clear text or TLS.
    pub scheme: Scheme,
    /// Host name in lower case, or an IP address; IPv6 without brackets.
    pub host: String,
    /// The port given, or the scheme's.
    pub port: u16,
}

impl Url {
    /// The address, when the host is one rather than a name.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.scheme.as_str();
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]", self.host)?;
        } else {
            write!(f, "{scheme}://{}", self.host)?;
        }
        if self.port == self.scheme.default_port() { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

/// Which host names a site answers to. Names are lower case, without port and final dot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostPattern {
    /// This name only. An IPv6 address stands in brackets, as in a `Host` header.
    Exact(String),
    /// `*.SUFFIX`: names below the suffix held here (`example.com`), not the suffix itself.
    Wildcard(String),
    /// `*`: every name no other site has.
    Any,
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Wildcard(suffix) => write!(f, "*.{suffix}"),
            Self::Any => f.write_str("*"),
        }
    }
}

/// `https://HOST[:PORT]`.
pub(super) fn url(value: &DeValue<'_>) -> Parsed<Url> {
    let text = string(value)?;
    let (scheme, rest) = text.split_once("://").ok_or_else(|| not_a_url(text))?;
    let scheme = match scheme.to_ascii_lowercase().as_str() {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        _ => return Err(not_a_url(text)),
    };
    let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(end).unwrap_or((rest, ""));
    if authority.contains('@') {
        // The value is left out on purpose: what stands before the `@` may be a password.
        return Err(Invalid::new("user name and password in a URL are refused").hint("remove everything up to the `@`"));
    }
    if !matches!(path, "" | "/") {
        let hint = format!("write {:?}", format!("{}://{authority}", scheme.as_str()));
        return Err(Invalid::new(format!("a server's URL has no path or query ({})", quoted(text))).hint(hint));
    }
    let (host, port) = host_and_port(authority).ok_or_else(|| not_a_url(text))?;
    let port = match port {
        None => scheme.default_port(),
        Some(digits) => {
            port_number(digits).ok_or_else(|| Invalid::new(format!("port must be from 1 to 65535 ({})", quoted(text))))?
        }
    };
    let host = match host {
        Host::V6(address) => address.to_string(),
        Host::Other(name) => host_name(name).ok_or_else(|| not_a_url(text))?,
    };
    Ok(Url { scheme, host, port })
}

fn not_a_url(text: &str) -> Invalid {
    // Without a scheme there may still be credentials in front of an `@`.
    let shown = text.rsplit_once('@').map_or(text, |(_, rest)| rest);
    Invalid::new(format!("not a URL ({})", quoted(shown)))
        .hint("write \"https://HOST\", \"http://HOST:PORT\" or \"https://[IPV6]\"")
}

enum Host<'t> {
    V6(Ipv6Addr),
    Other(&'t str),
}

fn host_and_port(authority: &str) -> Option<(Host<'_>, Option<&str>)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let port = if port.is_empty() { None } else { Some(port.strip_prefix(':')?) };
        return Some((Host::V6(address.parse().ok()?), port));
    }
    let (host, port) = authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
    Some((Host::Other(host), port))
}

fn port_number(digits: &str) -> Option<u16> {
    // `parse` alone would take a sign.
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|port| plain && *port > 0)
}

/// The name in lower case without its final dot, when it is a host name or an IPv4 address.
pub(super) fn host_name(name: &str) -> Option<String> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let label = |label: &str| {
        let letters = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        letters && (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
    };
    // A name that ends in a number is an address or nothing (RFC 3986, WHATWG URL).
    let numeric = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    let valid = name.len() <= 253 && name.split('.').all(label) && (!numeric || name.parse::<Ipv4Addr>().is_ok());
    valid.then(|| name.to_ascii_lowercase())
}

/// A site's host: a name, `*.SUFFIX` or `*`.
pub(super) fn host_pattern(value: &DeValue<'_>) -> Parsed<HostPattern> {
    let text = string(value)?;
    if text == "*" {
        return Ok(HostPattern::Any);
    }
    if let Some(address) =
        text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).and_then(|inner| inner.parse::<Ipv6Addr>().ok())
    {
        return Ok(HostPattern::Exact(format!("[{address}]")));
    }
    let (wildcard, name) = text.strip_prefix("*.").map_or((false, text), |suffix| (true, suffix));
    let name = host_name(name).ok_or_else(|| Invalid::new(format!("not a host ({})", shown(value))).hint(host_hint(name)))?;
    if !wildcard {
        return Ok(HostPattern::Exact(name));
    }
    if name.parse::<Ipv4Addr>().is_ok() {
        return Err(
            Invalid::new(format!("an address has no names below it ({})", shown(value))).hint("write a host name after `*.`")
        );
    }
    Ok(HostPattern::Wildcard(name))
}

fn host_hint(name: &str) -> &'static str {
    if name.contains("://") {
        "write the host only, without scheme"
    } else if name.contains('/') {
        "write the host only, without path"
    } else if name.parse::<Ipv6Addr>().is_ok() {
        "write an IPv6 address in brackets"
    } else if name.contains(':') {
        "write the host only, without port"
    } else if name.contains('*') {
        "`*` stands alone or for the whole first label: \"*.example.com\""
    } else if !name.is_ascii() {
        "write an international name in its xn-- form"
    } else {
        "write \"www.example.com\", \"*.example.com\" or \"*\""
    }
}

/// `ADDRESS:PORT`, or `:PORT` for every address of the machine, IPv4 and IPv6. Port 0 lets the system choose.
pub(super) fn listen_address(value: &DeValue<'_>) -> Parsed<SocketAddr> {
    let text = string(value)?;
    let everywhere = text.strip_prefix(':').and_then(|port| port.parse::<u16>().ok());
    let address = everywhere.map(|port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).or_else(|| text.parse().ok());
    address.ok_or_else(|| {
        Invalid::new(format!("not an address and port ({})", shown(value)))
            .hint("write \"0.0.0.0:443\", \"[::]:443\" or \":443\", with a port up to 65535")
    })
}

/// `10.0.0.0/8`; a single address stands for itself.
pub(super) fn network(value: &DeValue<'_>) -> Parsed<IpNet> {
    let text = string(value)?;
    let network = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    let network = network.ok_or_else(|| {
        Invalid::new(format!("not a network ({})", shown(value))).hint("write \"10.0.0.0/8\" or \"2001:db8::/32\"")
    })?;
    if network.trunc() != network {
        let hint = format!("write {:?}, or the one address as \"{}\"", network.trunc().to_string(), network.addr());
        return Err(Invalid::new(format!("the address lies inside the network ({})", shown(value))).hint(hint));
    }
    Ok(network)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> DeValue<'_> {
        DeValue::String(text.into())
    }

    #[test]
    fn urls_are_scheme_host_and_port() {
        let cases = [
            ("https://10.0.0.5", Some("https://10.0.0.5")),
            ("HTTPS://Origin.Example.:8443/", Some("https://origin.example:8443")),
            ("http://localhost:80", Some("http://localhost")),
            ("http://[2001:DB8::1]:8080", Some("http://[2001:db8::1]:8080")),
            ("https://[::1]", Some("https://[::1]")),
            ("https://host/path", None),
            ("https://host?x", None),
            ("https://user:secret@host", None),
            ("ftp://host", None),
            ("host:80", None),
            ("https://", None),
            ("https://:80", None),
            ("https://host:0", None),
            ("https://host:65536", None),
            ("https://host:+80", None),
            ("https://host:", None),
            ("https://[::1]80", None),
            ("https://::1", None),
            ("https://10.0.0.256", None),
            ("https://a b", None),
            ("https://-a", None),
        ];
        for (text, expected) in cases {
            assert_eq!(url(&value(text)).ok().map(|url| url.to_string()).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_refused_url_does_not_show_a_password() {
        for text in ["https://user:secret@host", "ftp://user:secret@host", "user:secret@host"] {
            let error = url(&value(text)).unwrap_err();
            assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        }
    }

    #[test]
    fn hosts_are_names_wildcards_or_anything() {
        let exact = |name: &str| Some(HostPattern::Exact(name.to_owned()));
        let cases = [
            ("*", Some(HostPattern::Any)),
            ("*.Example.com", Some(HostPattern::Wildcard("example.com".to_owned()))),
            ("WWW.example.com.", exact("www.example.com")),
            ("127.0.0.1", exact("127.0.0.1")),
            ("[::0001]", exact("[::1]")),
            ("_dmarc.example.com", exact("_dmarc.example.com")),
            ("", None),
            ("*.", None),
            ("**", None),
            ("a.*.com", None),
            ("*a.com", None),
            ("a..b", None),
            ("a.com:443", None),
            ("https://a.com", None),
            ("*.10.0.0.1", None),
            ("é.com", None),
        ];
        for (text, expected) in cases {
            assert_eq!(host_pattern(&value(text)).ok(), expected, "{text}");
        }
    }

    #[test]
    fn listen_addresses_may_leave_out_the_host() {
        let cases = [
            ("0.0.0.0:443", Some("0.0.0.0:443")),
            ("[::]:443", Some("[::]:443")),
            (":443", Some("[::]:443")),
            ("127.0.0.1:0", Some("127.0.0.1:0")),
            ("localhost:443", None),
            ("443", None),
            (":70000", None),
            ("0.0.0.0", None),
        ];
        for (text, expected) in cases {
            assert_eq!(listen_address(&value(text)).ok().map(|at| at.to_string()).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn networks_have_no_host_bits() {
        let cases = [
            ("10.0.0.0/8", Some("10.0.0.0/8")),
            ("10.0.0.1", Some("10.0.0.1/32")),
            ("::1", Some("::1/128")),
            ("10.0.0.1/8", None),
            ("10.0.0.0/33", None),
            ("ten", None),
        ];
        for (text, expected) in cases {
            assert_eq!(network(&value(text)).ok().map(|net| net.to_string()).as_deref(), expected, "{text}");
        }
    }
}
