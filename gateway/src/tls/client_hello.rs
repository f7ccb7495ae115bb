//! A TLS ClientHello read from the raw bytes of a connection, before any TLS library sees them: the offer is known even when the
//! handshake that follows fails, and it decides which acceptor may try.

mod explain;
mod ja4;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::net::IpAddr;

/// Largest handshake message accepted, in bytes. Post-quantum hellos stay under 3 KiB.
pub const MAX_HELLO: usize = 16 * 1024;

/// Most records one hello may be spread over. A peer that sends a byte per record costs five bytes of header for each.
pub const MAX_RECORDS: usize = 64;

/// Most extensions in one hello. Browsers send under 20.
pub const MAX_EXTENSIONS: usize = 128;

const RECORD_HEADER: usize = 5;
const MESSAGE_HEADER: usize = 4;
const MAX_RECORD: usize = 16 * 1024;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;

const SERVER_NAME: u16 = 0x0000;
const SUPPORTED_GROUPS: u16 = 0x000a;
const EC_POINT_FORMATS: u16 = 0x000b;
const SIGNATURE_ALGORITHMS: u16 = 0x000d;
const ALPN: u16 = 0x0010;
const SUPPORTED_VERSIONS: u16 = 0x002b;
const KEY_SHARE: u16 = 0x0033;

/// What the first bytes of a connection turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// So far consistent with a hello; parse again once at least this many bytes, counted from the first, are there.
    Incomplete(usize),
    /// Not TLS at all, plain HTTP for instance.
    NotTls,
    /// TLS, but not a hello any server would accept; why.
    Malformed(&'static str),
    /// A whole hello.
    Hello(ClientHello),
}

/// What a client offered. Lists keep the client's order, and have no GREASE values (RFC 8701) in them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The version field of the message; at most 0x0303, TLS 1.3 is offered in [`ClientHello::versions`].
    pub legacy_version: u16,
    /// `supported_versions`; empty before TLS 1.3.
    pub versions: Vec<u16>,
    /// Cipher suites by IANA number.
    pub suites: Vec<u16>,
    /// Named groups by IANA number; empty when the extension is absent.
    pub groups: Vec<u16>,
    /// Signature schemes by IANA number; empty when the extension is absent.
    pub signature_algorithms: Vec<u16>,
    /// Application protocols as sent.
    pub alpn: Vec<Vec<u8>>,
    /// The server name in lower case, without a final dot. `None` when absent, an address literal, or no valid DNS name.
    pub sni: Option<String>,
    /// Extension types.
    pub extensions: Vec<u16>,
    /// Whether uncompressed curve points are accepted, which holds when the client does not say.
    pub uncompressed_points: bool,
    /// Whether uncompressed records are accepted. Every correct client says so.
    pub null_compression: bool,
}

/// Reads the records at the start of `bytes` up to the end of one ClientHello, at most [`MAX_HELLO`] bytes of it. Never panics, whatever
/// the bytes; what follows the hello is not looked at.
#[must_use]
pub fn parse(bytes: &[u8]) -> Parsed {
    let message = match message(bytes) {
        Ok(message) => message,
        Err(Unread::Incomplete(needed)) => return Parsed::Incomplete(needed),
        Err(Unread::NotTls) => return Parsed::NotTls,
        Err(Unread::Malformed(reason)) => return Parsed::Malformed(reason),
    };
    match ClientHello::read(&message) {
        Ok(hello) => Parsed::Hello(hello),
        Err(reason) => Parsed::Malformed(reason),
    }
}

impl ClientHello {
    /// The newest version offered, as on the wire: 0x0301 is TLS 1.0, 0x0304 is TLS 1.3.
    #[must_use]
    pub fn highest_version(&self) -> u16 {
        self.versions.iter().copied().max().unwrap_or(self.legacy_version)
    }

    /// The JA4 fingerprint, as in `t13d1516h2_8daaf6152771_e5627efa2ab1`.
    #[must_use]
    pub fn ja4(&self) -> String {
        ja4::fingerprint(self)
    }

    /// Why rustls would refuse this client when the site has an RSA certificate, an ECDSA certificate, or both; what to do about it is
    /// part of the text. `None` means nothing in the offer stands in the way.
    #[must_use]
    pub fn explain(&self, have_rsa: bool, have_ecdsa: bool) -> Option<&'static str> {
        explain::refusal(self, have_rsa, have_ecdsa)
    }

    fn read(body: &[u8]) -> Result<Self, &'static str> {
        let mut input = Input(body);
        let mut hello = Self { uncompressed_points: true, ..Self::default() };
        hello.legacy_version = input.u16().ok_or("hello too short")?;
        input.take(32).ok_or("hello too short")?;
        input.short_vec().filter(|id| id.len() <= 32).ok_or("bad session id")?;
        hello.suites = input.long_vec().and_then(values).ok_or("bad cipher suites")?;
        hello.null_compression = input.short_vec().ok_or("bad compression methods")?.contains(&0);
        if input.is_empty() {
            return Ok(hello);
        }
        let mut extensions = Input(input.long_vec().ok_or("bad extensions")?);
        if !input.is_empty() {
            return Err("bytes after the extensions");
        }
        while !extensions.is_empty() {
            let kind = extensions.u16().ok_or("bad extensions")?;
            let data = extensions.long_vec().ok_or("bad extensions")?;
            hello.read_extension(kind, data)?;
        }
        Ok(hello)
    }

    fn read_extension(&mut self, kind: u16, data: &[u8]) -> Result<(), &'static str> {
        if is_grease(kind) {
            return Ok(());
        }
        if self.extensions.contains(&kind) {
            return Err("duplicate extension");
        }
        if self.extensions.len() == MAX_EXTENSIONS {
            return Err("too many extensions");
        }
        self.extensions.push(kind);
        let mut input = Input(data);
        match kind {
            SERVER_NAME => self.sni = server_name(data)?,
            SUPPORTED_GROUPS => self.groups = input.whole_long_vec().and_then(values).ok_or("bad supported_groups")?,
            EC_POINT_FORMATS => self.uncompressed_points = input.short_vec().ok_or("bad ec_point_formats")?.contains(&0),
            SIGNATURE_ALGORITHMS => {
                self.signature_algorithms = input.whole_long_vec().and_then(values).ok_or("bad signature_algorithms")?;
            }
            ALPN => self.alpn = protocols(data).ok_or("bad alpn")?,
            SUPPORTED_VERSIONS => self.versions = input.short_vec().and_then(values).ok_or("bad supported_versions")?,
            _ => {}
        }
        Ok(())
    }

    fn has(&self, extension: u16) -> bool {
        self.extensions.contains(&extension)
    }
}

/// Why there is no whole message to read; as in [`Parsed`].
enum Unread {
    Incomplete(usize),
    NotTls,
    Malformed(&'static str),
}

/// The body of the first handshake message, joined when it spans several records.
fn message(bytes: &[u8]) -> Result<Cow<'_, [u8]>, Unread> {
    let mut rest = bytes;
    let mut joined: Vec<u8> = Vec::new();
    for _ in 0..MAX_RECORDS {
        let consumed = bytes.len() - rest.len();
        let length = record_length(rest, consumed)?;
        let payload = rest.get(RECORD_HEADER..).unwrap_or_default();
        let (present, after) = payload.split_at_checked(length).unwrap_or((payload, &[]));
        if joined.is_empty()
            && let Some(whole) = body(present)?
        {
            return Ok(Cow::Borrowed(whole));
        }
        joined.extend_from_slice(present);
        if let Some(whole) = body(&joined)? {
            return Ok(Cow::Owned(whole.to_vec()));
        }
        if present.len() < length {
            return Err(Unread::Incomplete(consumed + RECORD_HEADER + length));
        }
        rest = after;
    }
    Err(Unread::Malformed("hello spread over too many records"))
}

/// The payload length of the record that begins at `record`, `consumed` bytes into the connection.
fn record_length(record: &[u8], consumed: usize) -> Result<usize, Unread> {
    let incomplete = Unread::Incomplete(consumed + RECORD_HEADER);
    let first = consumed == 0;
    match record {
        [HANDSHAKE, 3, _, high, low, ..] => match usize::from(u16::from_be_bytes([*high, *low])) {
            0 => Err(Unread::Malformed("empty record")),
            length if length > MAX_RECORD => Err(Unread::Malformed("record too large")),
            length => Ok(length),
        },
        [] | [HANDSHAKE] | [HANDSHAKE, 3, ..] => Err(incomplete),
        _ if !first => Err(Unread::Malformed("hello interrupted by another record")),
        [20..=24, 3, ..] => Err(Unread::Malformed("the first record is no handshake")),
        [128..=255, _, CLIENT_HELLO, ..] => Err(Unread::Malformed("SSL 2.0 hello")),
        [20..=24] | [128..=255] | [128..=255, _] => Err(incomplete),
        _ => Err(Unread::NotTls),
    }
}

/// The body of the message that `bytes` begin with, or `None` while part of it is missing.
fn body(bytes: &[u8]) -> Result<Option<&[u8]>, Unread> {
    if bytes.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
        return Err(Unread::Malformed("the first message is no ClientHello"));
    }
    let Some((header, rest)) = bytes.split_first_chunk::<MESSAGE_HEADER>() else { return Ok(None) };
    let [_, high, middle, low] = *header;
    let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
    if length > MAX_HELLO {
        return Err(Unread::Malformed("hello too large"));
    }
    Ok(rest.get(..length))
}

/// The `server_name` extension. An empty list or unusable name is no error: there is just no name to route by.
fn server_name(data: &[u8]) -> Result<Option<String>, &'static str> {
    let mut names = Input(Input(data).whole_long_vec().ok_or("bad server_name")?);
    while !names.is_empty() {
        let kind = names.u8().ok_or("bad server_name")?;
        let name = names.long_vec().ok_or("bad server_name")?;
        if kind == 0 {
            return Ok(dns_name(name));
        }
    }
    Ok(None)
}

fn dns_name(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    let text = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let valid = text.len() <= 253 && text.split('.').all(label) && text.parse::<IpAddr>().is_err();
    valid.then(|| text.to_ascii_lowercase())
}

fn protocols(data: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut input = Input(Input(data).whole_long_vec()?);
    let mut names = Vec::new();
    while !input.is_empty() {
        names.push(input.short_vec()?.to_vec());
    }
    Some(names)
}

/// Big-endian 16-bit values without GREASE; `None` when a byte is left over.
fn values(bytes: &[u8]) -> Option<Vec<u16>> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|pair| u16::from_be_bytes(*pair)).filter(|value| !is_grease(*value)).collect())
}

fn is_grease(value: u16) -> bool {
    let [high, low] = value.to_be_bytes();
    high == low && low & 0x0f == 0x0a
}

/// Bytes not read yet. Every read yields `None` when too few are left.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count)?;
        self.0 = tail;
        Some(head)
    }

    fn u8(&mut self) -> Option<u8> {
        let (first, tail) = self.0.split_first()?;
        self.0 = tail;
        Some(*first)
    }

    fn u16(&mut self) -> Option<u16> {
        let (head, tail) = self.0.split_first_chunk::<2>()?;
        self.0 = tail;
        Some(u16::from_be_bytes(*head))
    }

    /// A vector with a one-byte length.
    fn short_vec(&mut self) -> Option<&'a [u8]> {
        let length = self.u8()?;
        self.take(usize::from(length))
    }

    /// A vector with a two-byte length.
    fn long_vec(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    /// A vector with a two-byte length that is all there is.
    fn whole_long_vec(&mut self) -> Option<&'a [u8]> {
        self.long_vec().filter(|_| self.0.is_empty())
    }
}
