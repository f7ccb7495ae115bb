//! Cross-origin requests: which origins are known, and the answer to a preflight.

use weir_sdk::{Reply, Verdict};

use crate::authority::Scheme;
use crate::config::Site;
use crate::url::{Form, Mapping, Start};

/// Seconds a browser may keep the answer to a preflight: the shortest upper limit of current browsers is 600.
const MAX_AGE: &str = "600";

/// With credentials no wildcard is allowed, so every method is named.
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// Requested header names beyond this length are not allowed: no client needs them.
const MAX_REQUESTED_HEADERS: usize = 1024;

/// The value of an `Origin` header as this site knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// The public name itself.
    Public,
    /// One of `allowed_origins`.
    Listed,
    /// `null`: a sandboxed page, a redirect across origins, a file.
    Null,
    /// Any other origin, or a value that is none.
    Foreign,
}

/// Sorts an origin. The public name counts over `http` only if the client itself spoke it: a page anybody on the way could
/// have written must not act as the secure one.
pub(crate) fn classify(origin: &[u8], site: &Site, inward: &Mapping<'_>, spoke_https: impl FnOnce() -> bool) -> Known {
    if origin == b"null" {
        return Known::Null;
    }
    let Some(start) = Start::read(origin, Form::Plain).filter(|start| start.end == origin.len()) else { return Known::Foreign };
    if is_public(origin, &start, inward, spoke_https) {
        Known::Public
    } else if site.allowed.iter().any(|allowed| !start.socket && allowed.is(origin, &start)) {
        Known::Listed
    } else {
        Known::Foreign
    }
}

/// Whether a URL starts with the public name, in a scheme that can be trusted.
pub(crate) fn is_public(text: &[u8], start: &Start, inward: &Mapping<'_>, spoke_https: impl FnOnce() -> bool) -> bool {
    let secure = start.scheme == Some(Scheme::Https);
    start.scheme.is_some() && !start.socket && inward.applies(text, start) && (secure || !spoke_https())
}

/// The answer to a preflight. An origin that is not known gets no permission at all, and never its own name back.
pub(crate) fn answer(origin: &[u8], known: Known, requested_headers: Option<&[u8]>) -> Reply {
    if !matches!(known, Known::Public | Known::Listed) {
        return Verdict::reply(204, "preflight_unknown_origin").header("vary", "Origin");
    }
    let reply = Verdict::reply(204, "preflight_answered")
        .header("access-control-allow-origin", origin)
        .header("vary", "Origin")
        .header("access-control-allow-methods", METHODS)
        .header("access-control-allow-credentials", "true")
        .header("access-control-max-age", MAX_AGE);
    match requested_headers.map(tokens) {
        Some(names) if !names.is_empty() => reply.header("access-control-allow-headers", names),
        _ => reply,
    }
}

/// The names of a comma-separated list that can be header names, joined with commas.
fn tokens(list: &[u8]) -> Vec<u8> {
    let mut names = Vec::with_capacity(list.len().min(MAX_REQUESTED_HEADERS));
    for name in list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
        let is_token =
            !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte));
        if is_token && names.len() + name.len() + 2 <= MAX_REQUESTED_HEADERS {
            if !names.is_empty() {
                names.extend_from_slice(b", ");
            }
            names.extend_from_slice(name);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn check(origin: &str, https: bool, expected: Known) {
        let config = r#"{ "public": "pub.example", "origin": "org.example",
            "allowed_origins": ["https://home.connectwise.com", "https://dev.example:8443"] }"#;
        let site = serde_json::from_str::<Config>(config).unwrap().resolve().unwrap();
        assert_eq!(classify(origin.as_bytes(), &site, &site.inward(Some(9443)), || https), expected, "{origin}");
    }

    #[test]
    fn origins() {
        check("https://pub.example", true, Known::Public);
        check("https://PUB.example:443", true, Known::Public);
        check("https://pub.example:9443", true, Known::Public);
        check("http://pub.example", false, Known::Public);
        check("http://pub.example", true, Known::Foreign);
        check("https://pub.example:8443", true, Known::Foreign);
        check("https://home.connectwise.com", true, Known::Listed);
        check("https://home.connectwise.com:443", true, Known::Listed);
        check("http://home.connectwise.com", false, Known::Foreign);
        check("https://home.connectwise.com:8443", true, Known::Foreign);
        check("https://dev.example:8443", true, Known::Listed);
        check("https://dev.example", true, Known::Foreign);
        check("null", true, Known::Null);
        check("Null", true, Known::Foreign);
        check("https://org.example", true, Known::Foreign);
        check("https://pub.example/", true, Known::Foreign);
        check("https://pub.example.evil.test", true, Known::Foreign);
        check("https://evil.test/https://pub.example", true, Known::Foreign);
        check("https://xpub.example", true, Known::Foreign);
        check("wss://home.connectwise.com", true, Known::Foreign);
        check("//pub.example", true, Known::Foreign);
        check("pub.example", true, Known::Foreign);
        check("", true, Known::Foreign);
    }

    #[test]
    fn requested_header_names() {
        for (list, expected) in [
            ("content-type,x-anti-forgery-token", "content-type, x-anti-forgery-token"),
            (" Authorization , ClientId ", "Authorization, ClientId"),
            ("a b,c\u{e9},ok,x:y,<script>", "ok"),
            (",,", ""),
        ] {
            assert_eq!(String::from_utf8(tokens(list.as_bytes())).unwrap(), expected, "{list}");
        }
        assert!(tokens(vec!["abcdefgh"; 1000].join(",").as_bytes()).len() <= MAX_REQUESTED_HEADERS);
    }
}
