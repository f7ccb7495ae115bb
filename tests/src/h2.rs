//! HTTP/2 frame by frame, right and wrong: whatever a client could put on the wire. Fields are written as literals, without Huffman
//! codes and without a table, so that every byte of a name or value is the test's own.

use std::io;
use std::net::SocketAddr;

use crate::tls::Authority;
use crate::wire::Wire;

/// Frame types (RFC 9113, section 6).
pub mod kind {
    /// DATA.
    pub const DATA: u8 = 0;
    /// HEADERS.
    pub const HEADERS: u8 = 1;
    /// PRIORITY.
    pub const PRIORITY: u8 = 2;
    /// RST_STREAM.
    pub const RST_STREAM: u8 = 3;
    /// SETTINGS.
    pub const SETTINGS: u8 = 4;
    /// PING.
    pub const PING: u8 = 6;
    /// GOAWAY.
    pub const GOAWAY: u8 = 7;
    /// WINDOW_UPDATE.
    pub const WINDOW_UPDATE: u8 = 8;
    /// CONTINUATION.
    pub const CONTINUATION: u8 = 9;
}

/// Frame flags. [`ACK`](flag::ACK) and [`END_STREAM`](flag::END_STREAM) are the same bit of different frames.
pub mod flag {
    /// Of SETTINGS and PING.
    pub const ACK: u8 = 1;
    /// Of DATA and HEADERS.
    pub const END_STREAM: u8 = 1;
    /// Of HEADERS and CONTINUATION.
    pub const END_HEADERS: u8 = 4;
}

/// What a client says first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The error of a malformed request.
pub const PROTOCOL_ERROR: u32 = 1;

/// Name and value of a field.
pub type Field<'a> = (&'a [u8], &'a [u8]);

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The type, see [`kind`].
    pub kind: u8,
    /// See [`flag`].
    pub flags: u8,
    /// 0 is the connection.
    pub stream: u32,
    /// The rest.
    pub payload: Vec<u8>,
}

/// How a stream ended for a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A whole response: status and body.
    Answered(u16, Vec<u8>),
    /// RST_STREAM with this code.
    Reset(u32),
    /// GOAWAY with this code, before anything else of the stream.
    GoneAway(u32),
    /// The connection ended.
    Closed,
}

impl Frame {
    /// Any frame.
    #[must_use]
    pub fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Self {
        Self { kind, flags, stream, payload: payload.into() }
    }

    /// HEADERS in one frame; `end` when there is no body.
    #[must_use]
    pub fn headers(stream: u32, fields: &[Field<'_>], end: bool) -> Self {
        let flags = flag::END_HEADERS | if end { flag::END_STREAM } else { 0 };
        Self::new(kind::HEADERS, flags, stream, block(fields))
    }

    /// DATA.
    #[must_use]
    pub fn data(stream: u32, bytes: &[u8], end: bool) -> Self {
        Self::new(kind::DATA, if end { flag::END_STREAM } else { 0 }, stream, bytes)
    }

    /// RST_STREAM.
    #[must_use]
    pub fn reset(stream: u32, code: u32) -> Self {
        Self::new(kind::RST_STREAM, 0, stream, code.to_be_bytes())
    }

    /// WINDOW_UPDATE.
    #[must_use]
    pub fn window_update(stream: u32, increment: u32) -> Self {
        Self::new(kind::WINDOW_UPDATE, 0, stream, increment.to_be_bytes())
    }

    /// SETTINGS with these identifiers and values.
    #[must_use]
    pub fn settings(settings: &[(u16, u32)]) -> Self {
        let pairs = settings.iter().flat_map(|(id, value)| [id.to_be_bytes().as_slice(), &value.to_be_bytes()].concat());
        Self::new(kind::SETTINGS, 0, 0, pairs.collect::<Vec<_>>())
    }

    /// As on the wire.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).unwrap_or(u32::MAX).to_be_bytes();
        let head = [&length[1..], &[self.kind, self.flags], &self.stream.to_be_bytes()].concat();
        [head.as_slice(), &self.payload].concat()
    }

    fn code(&self, at: usize) -> u32 {
        self.payload.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(u32::MAX, u32::from_be_bytes)
    }
}

/// A header block of literals that enter no table.
#[must_use]
pub fn block(fields: &[Field<'_>]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        string(&mut block, name);
        string(&mut block, value);
    }
    block
}

fn string(block: &mut Vec<u8>, bytes: &[u8]) {
    integer(block, 7, bytes.len());
    block.extend_from_slice(bytes);
}

/// An integer with so many bits in the first byte (RFC 7541, section 5.1).
fn integer(block: &mut Vec<u8>, bits: u32, value: usize) {
    let most = (1 << bits) - 1;
    let Some(mut rest) = value.checked_sub(most) else {
        block.push(value as u8);
        return;
    };
    block.push(most as u8);
    while rest >= 128 {
        block.push(rest as u8 | 128);
        rest >>= 7;
    }
    block.push(rest as u8);
}

/// A client's connection.
#[derive(Debug)]
pub struct Http2 {
    wire: Wire,
    blocks: Vec<(u32, u16)>,
}

impl Http2 {
    /// Connects over TLS and begins: preface, and settings that keep response heads readable (no table).
    ///
    /// # Errors
    /// The connection's or the handshake's.
    pub fn open(authority: &Authority, address: SocketAddr, name: &str) -> io::Result<Self> {
        let mut connection = Self { wire: authority.connect_http2(address, name)?, blocks: Vec::new() };
        connection.raw(&[PREFACE, &Frame::settings(&[(1, 0)]).bytes()].concat())?;
        Ok(connection)
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// The connection's.
    pub fn send(&mut self, frame: &Frame) -> io::Result<()> {
        self.raw(&frame.bytes())
    }

    /// Sends bytes, frames or not.
    ///
    /// # Errors
    /// The connection's.
    pub fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.wire.send(bytes)
    }

    /// The next frame; `None` at the end of the connection. SETTINGS and PING are acknowledged.
    ///
    /// # Errors
    /// The connection's.
    pub fn receive(&mut self) -> io::Result<Option<Frame>> {
        let head = match self.wire.exactly(9) {
            Ok(head) => head,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
            Err(_) => return Ok(None),
        };
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let frame = Frame { kind: head[3], flags: head[4], stream, payload: self.wire.exactly(length)? };
        if matches!(frame.kind, kind::SETTINGS | kind::PING) && frame.flags & flag::ACK == 0 {
            let echo = if frame.kind == kind::PING { frame.payload.clone() } else { Vec::new() };
            // Whoever has closed already needs no acknowledgement.
            drop(self.send(&Frame::new(frame.kind, flag::ACK, 0, echo)));
        }
        Ok(Some(frame))
    }

    /// Reads until a stream has ended. Frames of other streams are dropped, except that their statuses are kept.
    ///
    /// # Errors
    /// Nothing comes for [`LONG`](crate::LONG).
    pub fn outcome(&mut self, stream: u32) -> io::Result<Outcome> {
        let mut body = Vec::new();
        loop {
            let Some(frame) = self.receive()? else { return Ok(Outcome::Closed) };
            match frame.kind {
                kind::GOAWAY if frame.code(4) != 0 => return Ok(Outcome::GoneAway(frame.code(4))),
                kind::RST_STREAM if frame.stream == stream => return Ok(Outcome::Reset(frame.code(0))),
                // Trailers have no status.
                kind::HEADERS => {
                    if let Some(status) = status(&frame.payload).filter(|status| *status >= 200) {
                        self.blocks.push((frame.stream, status));
                    }
                }
                kind::DATA if frame.stream == stream => body.extend_from_slice(&frame.payload),
                _ => {}
            }
            let ended = matches!(frame.kind, kind::DATA | kind::HEADERS) && frame.flags & flag::END_STREAM != 0;
            if ended && frame.stream == stream {
                let status = self.blocks.iter().find(|(own, _)| *own == stream).map_or(0, |(_, status)| *status);
                return Ok(Outcome::Answered(status, body));
            }
        }
    }

    /// Sends a request without a body and waits for its outcome.
    ///
    /// # Errors
    /// The connection's.
    pub fn ask(&mut self, stream: u32, fields: &[Field<'_>]) -> io::Result<Outcome> {
        self.send(&Frame::headers(stream, fields, true))?;
        self.outcome(stream)
    }
}

/// The status of a response head, which is its first field.
fn status(block: &[u8]) -> Option<u16> {
    // Sizes of a table that stays empty.
    let block = &block[block.iter().position(|byte| byte & 0xe0 != 0x20)?..];
    let (first, rest) = block.split_first()?;
    match first {
        0x88..=0x8e => [200, 204, 206, 304, 400, 404, 500].get(usize::from(first - 0x88)).copied(),
        // A literal under the name of one of these.
        0x08..=0x0e | 0x18..=0x1e | 0x48..=0x4e => {
            let (length, text) = rest.split_first()?;
            let text = text.get(..usize::from(length & 0x7f))?;
            let digits = if length & 0x80 == 0 { text.to_vec() } else { huffman_digits(text) };
            String::from_utf8(digits).ok()?.parse().ok()
        }
        _ => None,
    }
}

/// Digits in the code of RFC 7541, appendix B: 0 to 2 have five bits, the others six.
fn huffman_digits(bytes: &[u8]) -> Vec<u8> {
    let bits: Vec<u8> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    let value = |bits: &[u8]| bits.iter().fold(0, |value, bit| value << 1 | bit);
    let (mut digits, mut at) = (Vec::new(), 0);
    while let Some(five) = bits.get(at..at + 5) {
        let five = value(five);
        if five <= 2 {
            digits.push(b'0' + five);
            at += 5;
            continue;
        }
        match bits.get(at..at + 6).map(value) {
            Some(six @ 0x19..=0x1f) => digits.push(b'3' + (six - 0x19)),
            _ => break,
        }
        at += 6;
    }
    digits
}
