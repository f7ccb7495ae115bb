//! The head of an HTTP/1 request as bytes, before any parser repairs it: bare line feeds, two kinds of length, fragments and whatever
//! else hyper would drop or mend without a word. What passes here, hyper reads in exactly one way.

use http::Version;
use http::uri::PathAndQuery;

use super::{Limits, Line, MAX_METHOD, Refusal, Seen};
use crate::fields::{Known, Place, Span};

/// Longest field name, in bytes. The longest registered one has 40.
const MAX_NAME: usize = 256;

/// What the bytes of a head are so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Nothing wrong, and not all of it.
    Partial,
    /// All of it.
    Whole(Head),
    /// Wrong, whatever follows.
    Refused(Refusal),
}

/// A head that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its length in bytes, from an empty line before it to the one at its end.
    pub length: usize,
    /// Where its method is.
    pub method: Span,
    /// Where its target is.
    pub target: Span,
    /// HTTP/1.0 or HTTP/1.1.
    pub version: Version,
    /// Whether the client announces a body that it holds back until it is told to go on.
    pub expects: bool,
    /// How its body is framed.
    pub body: Framing,
    /// Whether it asks to leave HTTP: what follows may be something else.
    pub upgrade: bool,
    /// Whether the client means to send another request behind this one.
    pub persistent: bool,
}

/// How the end of a body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes; 0 when there is none.
    Length(u64),
    /// In chunks.
    Chunked,
}

/// Reads a head from the first bytes of a message.
#[must_use]
pub fn read(bytes: &[u8], limits: Limits) -> Reading {
    read_fields(bytes, limits, &mut Vec::new())
}

/// Reads a head from the first bytes of a message, and where the name and the value of each field are.
#[must_use]
pub fn read_fields(bytes: &[u8], limits: Limits, fields: &mut Vec<Place>) -> Reading {
    fields.clear();
    let mut reader = Reader { rest: bytes, length: bytes.len() };
    let reading = match reader.head(limits, fields) {
        Ok(head) => return Reading::Whole(head),
        Err(Stop::Partial) => Reading::Partial,
        Err(Stop::Refused(refusal)) => Reading::Refused(refusal),
    };
    if reading == Reading::Partial && bytes.len() > limits.head_bytes { Reading::Refused(too_large(bytes)) } else { reading }
}

enum Stop {
    Partial,
    Refused(Refusal),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

struct Reader<'a> {
    rest: &'a [u8],
    /// Of everything there is.
    length: usize,
}

impl<'a> Reader<'a> {
    fn head(&mut self, limits: Limits, places: &mut Vec<Place>) -> Result<Head, Stop> {
        // One empty line before a request is what some clients send after a body (RFC 9112, section 2.2).
        if self.rest.first() == Some(&b'\r') {
            self.line_end()?;
        }
        let (line, method, target) = self.request_line(limits)?;
        let mut fields = Seen::default();
        while self.peek()? != b'\r' {
            let (name, value, place) = self.field()?;
            if places.len() == limits.fields {
                return Err(Refusal::TooManyFields.into());
            }
            fields.see(place.known, name, value)?;
            places.push(place);
        }
        self.line_end()?;
        if self.at() > limits.head_bytes {
            return Err(Refusal::HeadTooLarge.into());
        }
        let body = fields.framing(line)?;
        let upgrade = fields.upgrades() && line.version == Version::HTTP_11;
        Ok(Head {
            length: self.at(),
            method,
            target,
            version: line.version,
            // HTTP/1.0 knows no interim answers: such a client would take one for the answer (RFC 9110, section 10.1.1).
            expects: fields.expects && line.version == Version::HTTP_11,
            body,
            upgrade,
            persistent: fields.persistent(line),
        })
    }

    /// Method, target and version with one space between them.
    fn request_line(&mut self, limits: Limits) -> Result<(Line, Span, Span), Stop> {
        let start = self.at();
        let method = self.take_while(|byte| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_'));
        if !method.first().is_none_or(u8::is_ascii_uppercase) || method.len() > MAX_METHOD {
            return Err(Refusal::BadMethod.into());
        }
        if self.peek()? != b' ' || method.is_empty() {
            return Err(Refusal::BadMethod.into());
        }
        let method_place = Span { start, end: self.at() };
        self.skip(1);
        let start = self.at();
        let whole = self.rest;
        self.take_plain(&TARGET);
        // Bytes that not every parser takes.
        let odd = !self.take_while(|byte| TARGET.get(usize::from(byte)) != Some(&REFUSED)).is_empty();
        let target = whole.get(..whole.len() - self.rest.len()).unwrap_or_default();
        // A target in absolute form has a few bytes more than its path and query.
        if target.len() > limits.target_bytes + ABSOLUTE_FORM {
            return Err(Refusal::TargetTooLong.into());
        }
        if self.peek()? != b' ' {
            return Err(Refusal::BadTarget.into());
        }
        check_form(target, method == b"CONNECT", odd)?;
        let target_place = Span { start, end: self.at() };
        self.skip(1);
        let version = self.version()?;
        self.line_end()?;
        Ok((Line { version, quiet: matches!(method, b"GET" | b"HEAD") }, method_place, target_place))
    }

    fn version(&mut self) -> Result<Version, Stop> {
        let Some(version) = self.rest.get(..8) else {
            // Whatever cannot become a version any more is wrong now.
            let known = self.rest.iter().zip(b"HTTP/1.").all(|(byte, wanted)| byte == wanted);
            return Err(if known { Stop::Partial } else { Refusal::BadVersion.into() });
        };
        self.skip(version.len());
        match version {
            b"HTTP/1.1" => Ok(Version::HTTP_11),
            b"HTTP/1.0" => Ok(Version::HTTP_10),
            _ => Err(Refusal::BadVersion.into()),
        }
    }

    /// Name and value without the white space around it, and where both are.
    fn field(&mut self) -> Result<(&'a [u8], &'a [u8], Place), Stop> {
        let start = self.at();
        let name = self.take_plain(&NAME);
        if name.len() > MAX_NAME {
            return Err(Refusal::BadField.into());
        }
        if self.peek()? != b':' {
            return Err(if self.rest.first() == Some(&b'\n') { Refusal::BareLineFeed } else { Refusal::BadField }.into());
        }
        if name.is_empty() {
            return Err(Refusal::BadField.into());
        }
        let name_place = Span { start, end: self.at() };
        self.skip(1);
        let start = self.at();
        let raw = self.value()?;
        self.line_end()?;
        let behind_space = raw.trim_ascii_start();
        let value = behind_space.trim_ascii_end();
        let start = start + raw.len() - behind_space.len();
        let value_place = Span { start, end: start + value.len() };
        Ok((name, value, Place { known: Known::of(name), name: name_place, value: value_place }))
    }

    /// Everything up to a CR. Sixteen and eight bytes at a time: values are most of a head.
    fn value(&mut self) -> Result<&'a [u8], Stop> {
        let all = self.rest;
        let mut rest = all;
        loop {
            if let Some(([first, second], behind)) =
                rest.split_first_chunk::<16>().map(|(words, behind)| (halves(*words), behind))
                && (controls(first) | controls(second)) == 0
            {
                rest = behind;
                continue;
            }
            if let Some((word, behind)) = rest.split_first_chunk::<8>() {
                let controls = controls(u64::from_le_bytes(*word));
                if controls == 0 {
                    rest = behind;
                    continue;
                }
                rest = rest.get((controls.trailing_zeros() / 8) as usize..).unwrap_or_default();
            }
            match rest.split_first() {
                None => return Err(Stop::Partial),
                Some((b'\r', _)) => {
                    self.rest = rest;
                    return Ok(all.get(..all.len() - rest.len()).unwrap_or_default());
                }
                Some((b'\n', _)) => return Err(Refusal::BareLineFeed.into()),
                Some((0..=8 | 11..=31 | 127, _)) => return Err(Refusal::BadField.into()),
                Some((_, behind)) => rest = behind,
            }
        }
    }

    /// CR and LF, nothing else.
    fn line_end(&mut self) -> Result<(), Stop> {
        match self.rest {
            [b'\r', b'\n', ..] => {
                self.skip(2);
                Ok(())
            }
            [] | [b'\r'] => Err(Stop::Partial),
            [b'\n', ..] => Err(Refusal::BareLineFeed.into()),
            _ => Err(Refusal::BadField.into()),
        }
    }

    /// Takes the bytes that are plain by this table, eight at a time.
    fn take_plain(&mut self, table: &[u8; 256]) -> &'a [u8] {
        let class = |byte: &u8| table.get(usize::from(*byte)).copied().unwrap_or(REFUSED);
        let (words, _) = self.rest.as_chunks::<8>();
        let is_plain = |word: &&[u8; 8]| word.iter().fold(PLAIN, |classes, byte| classes | class(byte)) == PLAIN;
        let plain = 8 * words.iter().take_while(is_plain).count();
        let behind = self.rest.get(plain..).unwrap_or_default();
        let length = plain + behind.iter().position(|byte| class(byte) != PLAIN).unwrap_or(behind.len());
        let (taken, rest) = self.rest.split_at_checked(length).unwrap_or_default();
        self.rest = rest;
        taken
    }

    fn take_while(&mut self, wanted: impl Fn(u8) -> bool) -> &'a [u8] {
        let length = self.rest.iter().position(|byte| !wanted(*byte)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at_checked(length).unwrap_or_default();
        self.rest = rest;
        taken
    }

    fn peek(&self) -> Result<u8, Stop> {
        self.rest.first().copied().ok_or(Stop::Partial)
    }

    fn skip(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or_default();
    }

    /// How many bytes were read.
    const fn at(&self) -> usize {
        self.length - self.rest.len()
    }
}

/// Without a line end there is only a target to blame.
fn too_large(bytes: &[u8]) -> Refusal {
    if bytes.contains(&b'\n') { Refusal::HeadTooLarge } else { Refusal::TargetTooLong }
}

/// Room for `https://` and the longest authority before the path of a target in absolute form.
const ABSOLUTE_FORM: usize = 8 + 255 + 6;

/// Origin form, absolute form, or the asterisk; CONNECT's authority is refused later, with a status of its own.
fn check_form(target: &[u8], connect: bool, odd: bool) -> Result<(), Refusal> {
    let readable = match target.first() {
        Some(b'/') => !odd || PathAndQuery::try_from(target).is_ok(),
        Some(b'*') => target.len() == 1,
        Some(b'h' | b'H') => http::Uri::try_from(target).is_ok_and(|uri| uri.scheme().is_some()),
        _ => connect && http::uri::Authority::try_from(target).is_ok(),
    };
    if readable { Ok(()) } else { Err(Refusal::BadTarget) }
}

const fn halves(words: [u8; 16]) -> [u64; 2] {
    let both = u128::from_le_bytes(words);
    [both as u64, (both >> 64) as u64]
}

/// Marks the bytes of eight that are below 0x20 or 0x7f with their highest bit. The lowest mark is right; one above it may be a byte that
/// only borrowed. A tab is marked: the caller looks closer.
const fn controls(word: u64) -> u64 {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = LOW << 7;
    let delete = word ^ (LOW * 0x7f);
    let below = word.wrapping_sub(LOW * 0x20) & !word;
    let equal = delete.wrapping_sub(LOW) & !delete;
    (below | equal) & HIGH
}

const PLAIN: u8 = 0;
const ODD: u8 = 1;
const REFUSED: u8 = 2;

/// Bytes of a target: plain ones are the same to everybody, odd ones are checked with the parser that comes next, the others are refused: a
/// fragment, spaces, controls, and whatever is not ASCII.
#[expect(clippy::indexing_slicing, reason = "evaluated when compiling")]
static TARGET: [u8; 256] = {
    let mut table = [REFUSED; 256];
    let mut byte = 0x21;
    while byte < 0x7f {
        table[byte] = match byte as u8 {
            b'#' => REFUSED,
            b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | b'[' | b']' => ODD,
            _ => PLAIN,
        };
        byte += 1;
    }
    table
};

/// Bytes of a field name (RFC 9110, section 5.6.2).
#[expect(clippy::indexing_slicing, reason = "evaluated when compiling")]
static NAME: [u8; 256] = {
    let mut table = [REFUSED; 256];
    let mut byte = 0x21;
    while byte < 0x7f {
        let is_token = !matches!(
            byte as u8,
            b'"' | b'(' | b')' | b',' | b'/' | b':' | b';' | b'<' | b'=' | b'>' | b'?' | b'@' | b'[' | b'\\' | b']' | b'{' | b'}'
        );
        table[byte] = if is_token { PLAIN } else { REFUSED };
        byte += 1;
    }
    table
};
