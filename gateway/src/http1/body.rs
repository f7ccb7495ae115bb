//! Where a body ends, for bodies of requests and of responses.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::http::guard::chunks::{BadChunk, Chunks};

/// How the end of a body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes; 0 when there is none.
    Length(u64),
    /// In chunks.
    Chunked,
    /// By the end of the connection. Responses only.
    ToEnd,
}

/// A body in progress.
#[derive(Debug)]
pub enum Decoder {
    /// So many bytes are left.
    Length(u64),
    /// In chunks; the text of its trailers so far.
    Chunked(Chunks, Vec<u8>),
    /// Whatever comes.
    ToEnd,
    /// Nothing is left.
    Done,
}

/// What is at the front of a connection's input.
#[derive(Debug)]
pub enum Piece {
    /// Data.
    Data(Bytes),
    /// The trailers; nothing comes behind them.
    Trailers(HeaderMap),
    /// The body is over.
    End,
    /// More must be read first.
    More,
}

impl Decoder {
    /// A body that begins.
    #[must_use]
    pub fn new(framing: Framing) -> Self {
        match framing {
            Framing::Length(0) => Self::Done,
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Chunks::default(), Vec::new()),
            Framing::ToEnd => Self::ToEnd,
        }
    }

    /// Takes the next piece off the front of `input`.
    ///
    /// # Errors
    /// A chunked body that is not one.
    pub fn take(&mut self, input: &mut BytesMut) -> Result<Piece, BadChunk> {
        match self {
            Self::Length(left) => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                if here == 0 {
                    return Ok(Piece::More);
                }
                *left -= here as u64;
                if *left == 0 {
                    *self = Self::Done;
                }
                Ok(Piece::Data(input.split_to(here).freeze()))
            }
            Self::Chunked(chunks, trailers) => {
                if let Some(data) = chunks.next(input, trailers)? {
                    return Ok(Piece::Data(data));
                }
                if !chunks.is_done() {
                    return Ok(Piece::More);
                }
                let text = std::mem::take(trailers);
                *self = Self::Done;
                Ok(if text.is_empty() { Piece::End } else { Piece::Trailers(fields(&text)) })
            }
            Self::ToEnd if input.is_empty() => Ok(Piece::More),
            Self::ToEnd => Ok(Piece::Data(input.split().freeze())),
            Self::Done => Ok(Piece::End),
        }
    }

    /// The connection has ended. Answers whether the body ends there as it should.
    pub fn end(&mut self) -> bool {
        if matches!(self, Self::ToEnd) {
            *self = Self::Done;
        }
        self.is_done()
    }

    /// Whether nothing is left.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// How many bytes are left, when that is known.
    #[must_use]
    pub const fn left(&self) -> Option<u64> {
        match self {
            Self::Done => Some(0),
            Self::Length(left) => Some(*left),
            Self::Chunked(..) | Self::ToEnd => None,
        }
    }
}

/// Trailer lines as fields; [`Chunks`] has checked their form.
fn fields(text: &[u8]) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for line in text.split(|byte| *byte == b'\n') {
        let mut halves = line.splitn(2, |byte| *byte == b':');
        let name = halves.next().and_then(|name| HeaderName::from_bytes(name).ok());
        let value = halves.next().and_then(|value| HeaderValue::from_bytes(value.trim_ascii()).ok());
        if let (Some(name), Some(value)) = (name, value) {
            fields.append(name, value);
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All of a body, as data and trailers, in pieces of `step` bytes; `None` while it is not over.
    fn read(framing: Framing, bytes: &[u8], step: usize) -> Result<Option<(Vec<u8>, HeaderMap)>, BadChunk> {
        let (mut decoder, mut input, mut data) = (Decoder::new(framing), BytesMut::new(), Vec::new());
        let mut pieces = bytes.chunks(step);
        loop {
            match decoder.take(&mut input)? {
                Piece::Data(piece) => data.extend_from_slice(&piece),
                Piece::Trailers(trailers) => return Ok(Some((data, trailers))),
                Piece::End => return Ok(Some((data, HeaderMap::new()))),
                Piece::More => match pieces.next() {
                    Some(piece) => input.extend_from_slice(piece),
                    None => return Ok(decoder.end().then(|| (data, HeaderMap::new()))),
                },
            }
        }
    }

    #[track_caller]
    fn check(framing: Framing, bytes: &[u8], want: Option<&[u8]>, trailers: usize) {
        for step in [1, 2, 3, bytes.len().max(1)] {
            let got = read(framing, bytes, step).unwrap();
            assert_eq!(got.as_ref().map(|(data, fields)| (data.as_slice(), fields.len())), want.map(|data| (data, trailers)));
        }
    }

    #[test]
    fn bodies_end_where_their_framing_says() {
        check(Framing::Length(0), b"GET", Some(b""), 0);
        check(Framing::Length(5), b"helloGET", Some(b"hello"), 0);
        check(Framing::Length(6), b"hello", None, 0);
        check(Framing::Chunked, b"5\r\nhello\r\n1;x=y\r\n!\r\n0\r\n\r\nGET", Some(b"hello!"), 0);
        check(Framing::Chunked, b"0\r\nX-A: 1\r\nX-B:2\r\n\r\n", Some(b""), 2);
        check(Framing::Chunked, b"5\r\nhello\r\n", None, 0);
        check(Framing::ToEnd, b"anything", Some(b"anything"), 0);
        assert!(read(Framing::Chunked, b"5\r\nhello0\r\n", 3).is_err());
    }

    #[test]
    fn what_follows_a_body_stays() {
        let mut input = BytesMut::from(&b"2\r\nhi\r\n0\r\n\r\nGET /"[..]);
        let mut decoder = Decoder::new(Framing::Chunked);
        assert!(matches!(decoder.take(&mut input), Ok(Piece::Data(data)) if data == "hi"));
        assert!(matches!(decoder.take(&mut input), Ok(Piece::End)));
        assert!(matches!(decoder.take(&mut input), Ok(Piece::End)));
        assert_eq!(input, "GET /");
    }
}
