//! Secrets that open a class to a source that is not allowed.

use weir_sdk::Head;

use crate::class::Class;

/// The configured secrets. None of these types can be printed.
#[derive(Default)]
pub(crate) struct Secrets {
    /// At most 256, so that a position fits a byte.
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) headers: Vec<Secret>,
}

/// A name whose value opens a class.
pub(crate) struct Secret {
    pub(crate) class: Class,
    pub(crate) name: String,
    pub(crate) value: String,
}

/// A secret in the query, and the cookie that repeats it.
pub(crate) struct Parameter {
    pub(crate) secret: Secret,
    /// What follows `set-cookie:`; absent when the secret is asked for each time.
    pub(crate) cookie: Option<String>,
}

/// How a request proved that it knows a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// The parameter at this position, to be remembered with a cookie.
    Fresh(u8),
    /// A header, a cookie, or a parameter that is not remembered.
    Plain,
}

impl Secrets {
    /// Whether any secret opens a class.
    pub(crate) fn guard(&self, class: Class) -> bool {
        self.parameters.iter().map(|parameter| &parameter.secret).chain(&self.headers).any(|secret| secret.class == class)
    }

    /// Whether any parameter sets a cookie.
    pub(crate) fn remembers(&self) -> bool {
        self.parameters.iter().any(|parameter| parameter.cookie.is_some())
    }

    /// The cookie of the parameter at a position.
    pub(crate) fn cookie(&self, position: u8) -> Option<&str> {
        self.parameters.get(usize::from(position))?.cookie.as_deref()
    }

    /// Looks for a secret of a class in header, cookie and query.
    pub(crate) fn prove(&self, class: Class, query: &[u8], head: &Head) -> Option<Proof> {
        let headers = self.headers.iter().filter(|secret| secret.class == class);
        for secret in headers {
            if head.headers().any(|(name, value)| name == secret.name && secret.is(value)) {
                return Some(Proof::Plain);
            }
        }
        for (position, parameter) in (0..=u8::MAX).zip(&self.parameters).filter(|(_, parameter)| parameter.secret.class == class)
        {
            if parameter.is_in_cookie(head) {
                return Some(Proof::Plain);
            }
            if parameter.secret.is_in(query, b'&') {
                return Some(if parameter.cookie.is_some() { Proof::Fresh(position) } else { Proof::Plain });
            }
        }
        None
    }
}

impl Parameter {
    /// `remember` gives the browser a session cookie, so that the pages behind the first one open too.
    pub(crate) fn new(secret: Secret, remember: bool) -> Self {
        let cookie = format!("{}={}; Path=/; Secure; HttpOnly; SameSite=Lax", cookie_name(secret.class), secret.value);
        Self { secret, cookie: remember.then_some(cookie) }
    }

    fn is_in_cookie(&self, head: &Head) -> bool {
        let expected = cookie_name(self.secret.class).as_bytes();
        self.cookie.is_some()
            && head
                .headers()
                .filter(|(name, _)| *name == "cookie")
                .any(|(_, cookies)| pairs(cookies, b';').any(|(name, value)| name == expected && self.secret.is(value)))
    }
}

impl Secret {
    fn is_in(&self, text: &[u8], separator: u8) -> bool {
        pairs(text, separator).any(|(name, value)| name == self.name.as_bytes() && self.is(value))
    }

    /// Compares in a time that depends on the lengths only.
    fn is(&self, value: &[u8]) -> bool {
        let own = self.value.as_bytes();
        let difference = own.iter().zip(value).fold(0, |difference, (left, right)| difference | (left ^ right));
        own.len() == value.len() && std::hint::black_box(difference) == 0
    }
}

const fn cookie_name(class: Class) -> &'static str {
    match class {
        Class::Agent => "weir-acl-agent",
        Class::Transfer => "weir-acl-transfer",
        Class::Deployment => "weir-acl-deployment",
        Class::Technician => "weir-acl-technician",
        Class::Api => "weir-acl-api",
        Class::Other => "weir-acl-other",
    }
}

/// Names and values of `a=b&c=d`; spaces around a pair are dropped.
fn pairs(text: &[u8], separator: u8) -> impl Iterator<Item = (&[u8], &[u8])> {
    text.split(move |byte| *byte == separator).filter_map(|pair| {
        let pair = pair.trim_ascii();
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        Some((pair.get(..equals)?, pair.get(equals + 1..)?))
    })
}
