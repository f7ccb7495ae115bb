//! The head guard: rules of HTTP's framing and addressing that hyper leaves to the application. A request that two servers could
//! read differently goes no further.
//!
//! [`raw`] reads the head of an HTTP/1 request as bytes, [`chunks`] a chunked body. [`check`] judges a head once it is parsed: all of it
//! over HTTP/2, its addressing over HTTP/1.

pub mod chunks;
pub mod raw;
#[cfg(test)]
mod tests;

use std::fmt;

use http::{Method, StatusCode, Version};

use super::authority::Authority;
use super::message::RequestHead;
use crate::fields::Known;

/// Longest method accepted, in bytes. The longest registered one has 17.
pub const MAX_METHOD: usize = 32;

/// Sizes the operator may set.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest head, in bytes.
    pub head_bytes: usize,
    /// Longest path and query, in bytes.
    pub target_bytes: usize,
    /// Most header fields.
    pub fields: usize,
}

/// Why a head was refused. The connection must be closed after the answer: what follows the head cannot be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// No upper-case token, or longer than [`MAX_METHOD`].
    BadMethod,
    /// CONNECT, which a gateway does not serve.
    ConnectRefused,
    /// A target not in a form that goes with the method, or with a fragment, control or non-ASCII byte.
    BadTarget,
    /// Path and query longer than the limit.
    TargetTooLong,
    /// More header fields than the limit.
    TooManyFields,
    /// No Host on HTTP/1.1, no authority on HTTP/2.
    MissingHost,
    /// More than one Host.
    DuplicateHost,
    /// A Host that is no host, or no `host:port`.
    BadHost,
    /// The request target and Host name different hosts.
    AuthorityMismatch,
    /// Transfer-Encoding other than one `chunked`.
    BadTransferEncoding,
    /// Transfer-Encoding with a coding before a final `chunked`.
    UnknownTransferCoding,
    /// Transfer-Encoding in a version that has none.
    UnexpectedTransferEncoding,
    /// Content-Length that is not one canonical decimal number.
    BadContentLength,
    /// Transfer-Encoding and Content-Length.
    AmbiguousLength,
    /// A GET or HEAD of HTTP/1.0 with a body.
    UnexpectedBody,
    /// A field some servers take for a framing field, `Transfer_Encoding` for instance.
    ShadowedField,
    /// Expect other than one `100-continue`.
    BadExpectation,
    /// A line that ends with a line feed alone.
    BareLineFeed,
    /// A field line without a name, with bytes that no name or value has, or folded.
    BadField,
    /// A version other than HTTP/1.0 and HTTP/1.1.
    BadVersion,
    /// A head longer than the limit.
    HeadTooLarge,
}

/// Checks a request head as hyper parsed it, and tells whom the request is for. `tls` says which port an authority without one means.
/// The fields of an HTTP/1 request were judged as bytes, by [`raw::read`]: only their addressing is left.
///
/// # Errors
/// The first rule broken.
pub fn check<'a>(parts: &'a RequestHead, tls: bool, limits: Limits) -> Result<Authority<'a>, Refusal> {
    check_method(&parts.method)?;
    let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
    if target.len() > limits.target_bytes {
        return Err(Refusal::TargetTooLong);
    }
    if parts.version >= Version::HTTP_2 {
        check_target(target.as_bytes())?;
        if parts.headers.len() > limits.fields {
            return Err(Refusal::TooManyFields);
        }
        let mut fields = Seen::default();
        for (name, value) in parts.headers.iter() {
            fields.see(Known::of(name), name, value)?;
        }
        fields.framing(Line { version: parts.version, quiet: false })?;
    }
    check_form(parts)?;
    authority(parts, tls)
}

/// Refuses a raw request target that holds a fragment, a space, a control byte or a byte outside ASCII.
///
/// # Errors
/// [`Refusal::BadTarget`].
pub fn check_target(target: &[u8]) -> Result<(), Refusal> {
    let plain = target.iter().all(|byte| matches!(byte, b'!'..=b'~') && *byte != b'#');
    if plain { Ok(()) } else { Err(Refusal::BadTarget) }
}

impl Refusal {
    /// The status of the answer.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::ConnectRefused => StatusCode::METHOD_NOT_ALLOWED,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::TooManyFields | Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::BadVersion => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::BadExpectation => StatusCode::EXPECTATION_FAILED,
            Self::UnknownTransferCoding => StatusCode::NOT_IMPLEMENTED,
            Self::BadMethod
            | Self::BadTarget
            | Self::MissingHost
            | Self::DuplicateHost
            | Self::BadHost
            | Self::AuthorityMismatch
            | Self::BadTransferEncoding
            | Self::UnexpectedTransferEncoding
            | Self::BadContentLength
            | Self::AmbiguousLength
            | Self::UnexpectedBody
            | Self::ShadowedField
            | Self::BareLineFeed
            | Self::BadField => StatusCode::BAD_REQUEST,
        }
    }

    /// The `reason` of the decision log.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::BadMethod => "bad_method",
            Self::ConnectRefused => "connect_refused",
            Self::BadTarget => "bad_target",
            Self::TargetTooLong => "target_too_long",
            Self::TooManyFields => "too_many_fields",
            Self::MissingHost => "missing_host",
            Self::DuplicateHost => "duplicate_host",
            Self::BadHost => "bad_host",
            Self::AuthorityMismatch => "authority_mismatch",
            Self::BadTransferEncoding => "bad_transfer_encoding",
            Self::UnknownTransferCoding => "unknown_transfer_coding",
            Self::UnexpectedTransferEncoding => "unexpected_transfer_encoding",
            Self::BadContentLength => "bad_content_length",
            Self::AmbiguousLength => "ambiguous_length",
            Self::UnexpectedBody => "unexpected_body",
            Self::ShadowedField => "shadowed_field",
            Self::BadExpectation => "bad_expectation",
            Self::BareLineFeed => "bare_line_feed",
            Self::BadField => "bad_field",
            Self::BadVersion => "bad_version",
            Self::HeadTooLarge => "head_too_large",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for Refusal {}

/// What a request line says of the body.
#[derive(Clone, Copy, Debug)]
struct Line {
    version: Version,
    /// GET or HEAD.
    quiet: bool,
}

/// The fields that decide where a message ends and whom it is for.
#[derive(Default)]
struct Seen<'a> {
    host: Option<&'a [u8]>,
    transfer_encoding: Option<&'a [u8]>,
    content_length: Option<&'a [u8]>,
    upgrade: bool,
    connection_upgrade: bool,
    close: bool,
    keep_alive: bool,
    expects: bool,
}

impl<'a> Seen<'a> {
    /// Notes a field; its name in any case, its value without spaces around.
    fn see(&mut self, known: Option<Known>, name: &[u8], value: &'a [u8]) -> Result<(), Refusal> {
        match known {
            Some(Known::Host) => once(&mut self.host, value, Refusal::DuplicateHost),
            Some(Known::Expect) => {
                let is_continue = value.eq_ignore_ascii_case(b"100-continue") && !self.expects;
                self.expects = true;
                if is_continue { Ok(()) } else { Err(Refusal::BadExpectation) }
            }
            Some(Known::Upgrade) => {
                self.upgrade = true;
                Ok(())
            }
            Some(Known::Connection) => {
                for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    self.connection_upgrade |= option.eq_ignore_ascii_case(b"upgrade");
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
                Ok(())
            }
            // The same length twice is one (RFC 9110, section 8.6); only one of the two travels on.
            Some(Known::ContentLength) if self.content_length == Some(value) => Ok(()),
            Some(Known::ContentLength) => once(&mut self.content_length, value, Refusal::BadContentLength),
            Some(Known::TransferEncoding) => once(&mut self.transfer_encoding, value, Refusal::BadTransferEncoding),
            None if matches!(name.first(), Some(b't' | b'c' | b'T' | b'C')) && shadows_framing(name) => {
                Err(Refusal::ShadowedField)
            }
            _ => Ok(()),
        }
    }

    fn framing(&self, line: Line) -> Result<raw::Framing, Refusal> {
        if let Some(value) = self.transfer_encoding {
            if line.version != Version::HTTP_11 {
                return Err(Refusal::UnexpectedTransferEncoding);
            }
            if self.content_length.is_some() {
                return Err(Refusal::AmbiguousLength);
            }
            check_transfer_encoding(value)?;
            return Ok(raw::Framing::Chunked);
        }
        let Some(length) = self.content_length else { return Ok(raw::Framing::Length(0)) };
        let length = canonical_number(length).ok_or(Refusal::BadContentLength)?;
        // A server of that version may take the body of a GET for the next request.
        if line.version < Version::HTTP_11 && line.quiet && length > 0 {
            return Err(Refusal::UnexpectedBody);
        }
        Ok(raw::Framing::Length(length))
    }

    /// Whether another request may follow on the connection. Behind a POST of HTTP/1.0 without a length none may: an older server takes
    /// everything that follows for its body.
    fn persistent(&self, line: Line) -> bool {
        let kept = line.version == Version::HTTP_11 || (self.keep_alive && (line.quiet || self.content_length.is_some()));
        kept && !self.close
    }

    fn upgrades(&self) -> bool {
        self.upgrade && self.connection_upgrade
    }
}

fn once<'a>(slot: &mut Option<&'a [u8]>, value: &'a [u8], repeated: Refusal) -> Result<(), Refusal> {
    if slot.replace(value).is_some() { Err(repeated) } else { Ok(()) }
}

/// Whether a server that maps `_` to `-`, or decodes `%`, would take this name for a framing field.
fn shadows_framing(name: &[u8]) -> bool {
    let same = |framing: &[u8]| {
        name.len() == framing.len()
            && name.iter().zip(framing).all(|(byte, other)| byte.eq_ignore_ascii_case(other) || (*byte == b'_' && *other == b'-'))
    };
    same(b"transfer-encoding") || same(b"content-length") || name.contains(&b'%')
}

fn check_transfer_encoding(value: &[u8]) -> Result<(), Refusal> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let mut codings = value.rsplit(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    let chunked_last = codings.next().is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked"));
    let compression = |coding: &[u8]| {
        [&b"gzip"[..], b"x-gzip", b"deflate", b"compress", b"x-compress"].iter().any(|known| coding.eq_ignore_ascii_case(known))
    };
    if chunked_last && codings.all(compression) { Err(Refusal::UnknownTransferCoding) } else { Err(Refusal::BadTransferEncoding) }
}

/// A number without sign, zeros before it or anything else, and small enough for readers that count in signed numbers.
fn canonical_number(digits: &[u8]) -> Option<u64> {
    let canonical = digits.iter().all(u8::is_ascii_digit) && (digits.first() != Some(&b'0') || digits.len() == 1);
    let number = if canonical { std::str::from_utf8(digits).ok()?.parse().ok()? } else { return None };
    Some(number).filter(|number| i64::try_from(*number).is_ok())
}

fn check_method(method: &Method) -> Result<(), Refusal> {
    if *method == Method::CONNECT {
        return Err(Refusal::ConnectRefused);
    }
    let text = method.as_str();
    let token = text.len() <= MAX_METHOD
        && text.starts_with(|c: char| c.is_ascii_uppercase())
        && text.bytes().all(|byte| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_'));
    if token { Ok(()) } else { Err(Refusal::BadMethod) }
}

/// Origin form, absolute form with an http scheme, or the asterisk of OPTIONS.
fn check_form(parts: &RequestHead) -> Result<(), Refusal> {
    let scheme = match parts.uri.scheme_str() {
        Some(scheme) => scheme == "http" || scheme == "https",
        // HTTP/1 reads `GET host:80` as an authority.
        None => parts.uri.authority().is_none() || parts.version >= Version::HTTP_2,
    };
    // As it is sent on: of `http://host?query` that would begin with the question mark.
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    let path = parts.uri.path();
    let path = target.starts_with('/') || (path == "*" && parts.method == Method::OPTIONS && parts.uri.query().is_none());
    if scheme && path { Ok(()) } else { Err(Refusal::BadTarget) }
}

fn authority(parts: &RequestHead, tls: bool) -> Result<Authority<'_>, Refusal> {
    let parse = |text| Authority::parse(text, tls).ok_or(Refusal::BadHost);
    let named = match parts.headers.get(Known::Host) {
        Some(value) => Some(parse(std::str::from_utf8(value).map_err(|_| Refusal::BadHost)?)?),
        None if parts.version == Version::HTTP_11 => return Err(Refusal::MissingHost),
        None => None,
    };
    let target = parts.uri.authority().map(|authority| parse(authority.as_str())).transpose()?;
    match (target, named) {
        (Some(target), Some(named)) if !target.agrees(&named) => Err(Refusal::AuthorityMismatch),
        (Some(authority), _) | (None, Some(authority)) => Ok(authority),
        (None, None) if parts.version < Version::HTTP_11 => Ok(Authority::none(tls)),
        (None, None) => Err(Refusal::MissingHost),
    }
}
