//! Header values of a response in which the origin's name becomes the public one. Each function answers `None` when
//! nothing changes, and otherwise the value with every other byte kept.

use crate::config::Site;
use crate::query;
use crate::url::{Form, Mapping, Start};

/// `Location`, `Content-Location`: a URL, and the return addresses in its query.
pub(crate) fn url(text: &[u8], site: &Site, mapping: &Mapping<'_>) -> Option<Vec<u8>> {
    let outer = mapping.replace(text, Form::Plain);
    let inner = query::rewrite(outer.as_deref().unwrap_or(text), &site.query, mapping);
    inner.or(outer)
}

/// `Refresh: 5; url=https://host/path`, with or without quotes.
pub(crate) fn refresh(text: &[u8], site: &Site, mapping: &Mapping<'_>) -> Option<Vec<u8>> {
    let key = text.windows(4).position(|window| window.eq_ignore_ascii_case(b"url="))? + 4;
    let rest = text.get(key..)?;
    let start = key + rest.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b'"' | b'\''))?;
    let rest = text.get(start..)?;
    let end = start + rest.iter().position(|byte| matches!(byte, b'"' | b'\'')).unwrap_or(rest.len());
    splice(text, start, end, &url(text.get(start..end)?, site, mapping)?)
}

/// `Link: <https://host/a>; rel=preload, <https://host/b>`.
pub(crate) fn link(text: &[u8], site: &Site, mapping: &Mapping<'_>) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let (mut at, mut copied) = (0, 0);
    while let Some(open) = find(text, at, b'<') {
        let Some(close) = find(text, open, b'>') else { break };
        if let Some(target) = url(text.get(open + 1..close)?, site, mapping) {
            out.extend_from_slice(text.get(copied..=open)?);
            out.extend_from_slice(&target);
            copied = close;
        }
        at = close;
    }
    finish(text, out, copied)
}

/// `Content-Security-Policy`: host sources that are the origin, with or without scheme, port and path.
pub(crate) fn security_policy(text: &[u8], mapping: &Mapping<'_>) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let (mut at, mut copied) = (0, 0);
    for token in text.split(|byte| matches!(byte, b' ' | b'\t' | b';' | b',')) {
        let start = Start::read(token, Form::Plain).or_else(|| Start::read_authority(token, 0, Form::Plain));
        if let Some(source) = start.and_then(|start| mapping.replace_at(token, &start)) {
            out.extend_from_slice(text.get(copied..at)?);
            out.extend_from_slice(&source);
            copied = at + token.len();
        }
        at += token.len() + 1;
    }
    finish(text, out, copied)
}

/// `X-Frame-Options: ALLOW-FROM https://host/`.
pub(crate) fn frame_options(text: &[u8], mapping: &Mapping<'_>) -> Option<Vec<u8>> {
    const ALLOW_FROM: &[u8] = b"allow-from";
    text.get(..ALLOW_FROM.len()).filter(|word| word.eq_ignore_ascii_case(ALLOW_FROM))?;
    let rest = text.get(ALLOW_FROM.len()..)?;
    let start = ALLOW_FROM.len() + rest.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b':'))?;
    splice(text, start, text.len(), &mapping.replace(text.get(start..)?, Form::Plain)?)
}

/// `Set-Cookie`: drops a `Domain` that a browser would refuse from the public host, which ties the cookie to that host,
/// and adds `Secure` when it is missing and `must_be_secure` says so.
pub(crate) fn cookie(text: &[u8], site: &Site, must_be_secure: impl FnOnce() -> bool) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let (mut at, mut copied, mut is_secure) = (0, 0, false);
    for (number, part) in text.split(|byte| *byte == b';').enumerate() {
        let end = at + part.len();
        let name_length = part.iter().position(|byte| *byte == b'=').unwrap_or(part.len());
        let name = part.get(..name_length).unwrap_or_default().trim_ascii();
        if number == 0 {
        } else if name.eq_ignore_ascii_case(b"secure") {
            is_secure = true;
        } else if name.eq_ignore_ascii_case(b"domain") && is_foreign(part.get(name_length + 1..).unwrap_or_default(), site) {
            out.extend_from_slice(text.get(copied..at.saturating_sub(1))?);
            copied = end;
        }
        at = end + 1;
    }
    let insecure = !is_secure && must_be_secure();
    if copied == 0 && !insecure {
        return None;
    }
    out.extend_from_slice(text.get(copied..)?);
    if insecure {
        out.extend_from_slice(b"; Secure");
    }
    Some(out)
}

/// Whether a cookie's domain is the origin's, or a parent of it that the public host does not have.
fn is_foreign(domain: &[u8], site: &Site) -> bool {
    let domain = domain.trim_ascii();
    let domain = domain.strip_prefix(b".").unwrap_or(domain);
    let covers = |host: &str| {
        let host = host.as_bytes();
        let own = host.len().checked_sub(domain.len()).and_then(|at| Some((host.get(..at)?, host.get(at..)?)));
        own.is_some_and(|(before, own)| own.eq_ignore_ascii_case(domain) && (before.is_empty() || before.ends_with(b".")))
    };
    !domain.is_empty() && covers(&site.origin.host) && (!covers(&site.public.host) || site.origin.is_host(domain))
}

fn find(text: &[u8], from: usize, byte: u8) -> Option<usize> {
    text.get(from..)?.iter().position(|own| *own == byte).map(|at| from + at)
}

fn splice(text: &[u8], start: usize, end: usize, middle: &[u8]) -> Option<Vec<u8>> {
    Some([text.get(..start)?, middle, text.get(end..)?].concat())
}

/// Ends a text that was written up to `copied`.
fn finish(text: &[u8], mut out: Vec<u8>, copied: usize) -> Option<Vec<u8>> {
    if out.is_empty() {
        return None;
    }
    out.extend_from_slice(text.get(copied..)?);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::Scheme;
    use crate::config::Config;

    fn site() -> Site {
        let config = r#"{ "public": "pub.example", "origin": "org.partner.test" }"#;
        serde_json::from_str::<Config>(config).unwrap().resolve().unwrap()
    }

    fn check(rewritten: Option<Vec<u8>>, expected: Option<&str>) {
        assert_eq!(rewritten.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).as_deref(), expected);
    }

    #[test]
    fn locations() {
        let site = site();
        let location = |text: &str, expected| check(url(text.as_bytes(), &site, &site.outward(Scheme::Https, None)), expected);
        location("https://org.partner.test/automate/", Some("https://pub.example/automate/"));
        location("http://ORG.partner.test/automate/", Some("https://pub.example/automate/"));
        location("//org.partner.test/a", Some("//pub.example/a"));
        location(
            "https://idp.example/authorize?redirect_uri=https%3A%2F%2Forg.partner.test%2Fautomate%2Fcb&state=a%2Fb+c",
            Some("https://idp.example/authorize?redirect_uri=https%3A%2F%2Fpub.example%2Fautomate%2Fcb&state=a%2Fb+c"),
        );
        location(
            "https://org.partner.test/login?ReturnUrl=http%3a%2f%2forg.partner.test%2f#top",
            Some("https://pub.example/login?ReturnUrl=https%3a%2f%2fpub.example%2f#top"),
        );
        location("/login?returnurl=https://org.partner.test/", Some("/login?returnurl=https://pub.example/"));
        location("https://idp.example/?SAMLRequest=x&RelayState=https%3A%2F%2Forg.partner.test&SigAlg=a&Signature=b", None);
        location("https://idp.example/org.partner.test?other=https%3A%2F%2Forg.partner.test", None);
        location("https://org.partner.test.evil.example/", None);
        location("https://org.partner.test@evil.example/", None);
        location("https://org.partner.test:8040/relay", None);
        location("/automate/", None);
        location("", None);
    }

    #[test]
    fn location_on_another_port_and_scheme() {
        let site = site();
        let location =
            |text: &str, expected| check(url(text.as_bytes(), &site, &site.outward(Scheme::Http, Some(8080))), expected);
        location("https://org.partner.test/a", Some("http://pub.example:8080/a"));
        location(
            "https://idp.example/?wreply=https%3A%2F%2Forg.partner.test%2F",
            Some("https://idp.example/?wreply=http%3A%2F%2Fpub.example%3A8080%2F"),
        );
    }

    #[test]
    fn refreshes() {
        let site = site();
        let check = |text: &str, expected| check(refresh(text.as_bytes(), &site, &site.outward(Scheme::Https, None)), expected);
        check("5; url=https://org.partner.test/a", Some("5; url=https://pub.example/a"));
        check("0;URL='https://org.partner.test/a?b'", Some("0;URL='https://pub.example/a?b'"));
        check("0; Url= \"https://org.partner.test\"", Some("0; Url= \"https://pub.example\""));
        check("5; url=/a", None);
        check("5; url=", None);
        check("5", None);
    }

    #[test]
    fn links() {
        let site = site();
        let check = |text: &str, expected| check(link(text.as_bytes(), &site, &site.outward(Scheme::Https, None)), expected);
        check(
            "<https://org.partner.test/a>; rel=preload, </b>; rel=next, <https://org.partner.test/c>; title=\"org.partner.test\"",
            Some("<https://pub.example/a>; rel=preload, </b>; rel=next, <https://pub.example/c>; title=\"org.partner.test\""),
        );
        check("<https://cdn.example/org.partner.test>; rel=preload", None);
        check("<https://org.partner.test/a", None);
        check("", None);
    }

    #[test]
    fn security_policies() {
        let site = site();
        let check = |text: &str, expected| check(security_policy(text.as_bytes(), &site.outward(Scheme::Https, None)), expected);
        check(
            "connect-src 'self' https://org.partner.test https://files.connectwise.com",
            Some("connect-src 'self' https://pub.example https://files.connectwise.com"),
        );
        check(
            "default-src org.partner.test; frame-ancestors https://org.partner.test:443 wss://org.partner.test;form-action org.partner.test/login",
            Some("default-src pub.example; frame-ancestors https://pub.example wss://pub.example;form-action pub.example/login"),
        );
        check("org.partner.test", Some("pub.example"));
        check("img-src *.org.partner.test my-org.partner.test org.partner.test.evil.example", None);
        check("script-src 'nonce-org.partner.test' data:", None);
        check("", None);
    }

    #[test]
    fn frame_options_of_one_host() {
        let site = site();
        let check = |text: &str, expected| check(frame_options(text.as_bytes(), &site.outward(Scheme::Https, None)), expected);
        check("ALLOW-FROM https://org.partner.test/", Some("ALLOW-FROM https://pub.example/"));
        check("allow-from: https://org.partner.test", Some("allow-from: https://pub.example"));
        check("ALLOW-FROM https://idp.example/", None);
        check("ALLOW-FROM", None);
        check("SAMEORIGIN", None);
    }

    #[test]
    fn cookies() {
        let site = site();
        let check = |text: &str, secure, expected| check(cookie(text.as_bytes(), &site, || secure), expected);
        check("a=b; Domain=org.partner.test; Path=/", false, Some("a=b; Path=/"));
        check("a=b; path=/; DOMAIN=.Org.Partner.Test", false, Some("a=b; path=/"));
        check("a=b;domain = org.partner.test ;HttpOnly", false, Some("a=b;HttpOnly"));
        check("a=b; Domain=.partner.test", false, Some("a=b"));
        check("a=b; Domain=x; Domain=org.partner.test; Domain=org.partner.test; Path=/", false, Some("a=b; Domain=x; Path=/"));
        check(
            "a=b; Expires=Wed, 21 Oct 2026 07:28:00 GMT; Path=/",
            true,
            Some("a=b; Expires=Wed, 21 Oct 2026 07:28:00 GMT; Path=/; Secure"),
        );
        check("a=b; SameSite=None; secure", true, None);
        check("secure=1; Path=/", true, Some("secure=1; Path=/; Secure"));
        check("Secure; Path=/", true, Some("Secure; Path=/; Secure"));
        check("a=Domain=org.partner.test", false, None);
        check("domain=org.partner.test", false, None);
        check("a=b; Domain=idp.example", false, None);
        check("a=b; Domain=rg.partner.test", false, None);
        check("a=b; Domain=org.partner.test.evil.example", false, None);
        check("a=b; Domain", false, None);
        check("a=b; Domain=", false, None);
        check("", false, None);
    }

    #[test]
    fn a_cookie_domain_both_hosts_have_stays() {
        let config = r#"{ "public": "pub.example.test", "origin": "org.example.test" }"#;
        let site = serde_json::from_str::<Config>(config).unwrap().resolve().unwrap();
        check(cookie(b"a=b; Domain=example.test", &site, || false), None);
        check(cookie(b"a=b; Domain=org.example.test", &site, || false), Some("a=b"));
    }
}
