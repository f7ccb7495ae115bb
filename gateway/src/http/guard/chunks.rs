//! A chunked body as bytes: one size line, that many bytes, one line end, and so on to the last chunk and its trailers. What is not
//! exactly that is not mended.

use bytes::{Buf as _, Bytes, BytesMut};
use thiserror::Error;

/// Longest extensions of a chunk, in bytes. Nobody uses any.
const MAX_EXTENSION: u32 = 256;
/// Longest extensions of a body together, in bytes.
const MAX_EXTENSIONS: u32 = 16 * 1024;
/// Longest trailers together, in bytes.
const MAX_TRAILERS: u32 = 16 * 1024;
/// Hex digits of the largest size.
const MAX_DIGITS: u8 = 16;

/// A chunk that is none.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("malformed chunked body: {0}")]
pub struct BadChunk(&'static str);

/// How far a body was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Size {
        digits: u8,
        size: u64,
    },
    Extension {
        size: u64,
        length: u32,
    },
    SizeEnd {
        size: u64,
    },
    Data {
        left: u64,
    },
    DataEnd,
    DataLineFeed,
    /// At the start of a trailer line.
    Trailer,
    Name,
    Value,
    ValueEnd,
    LastLineFeed,
    Done,
}

/// A body in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunks {
    at: At,
    extensions: u32,
    trailers: u32,
}

impl Default for Chunks {
    fn default() -> Self {
        Self { at: At::Size { digits: 0, size: 0 }, extensions: 0, trailers: 0 }
    }
}

impl Chunks {
    /// Takes the next piece of data off the front of `input`, and everything before it. `None` at the end, or when more must be read;
    /// the lines of trailers go to `trailers`.
    ///
    /// # Errors
    /// The body is not chunked as it must be; what follows cannot be told apart any more.
    pub fn next(&mut self, input: &mut BytesMut, trailers: &mut Vec<u8>) -> Result<Option<Bytes>, BadChunk> {
        let mut read = 0;
        while self.at != At::Done {
            if let At::Data { left } = &mut self.at {
                input.advance(read);
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                if here == 0 {
                    return Ok(None);
                }
                *left -= here as u64;
                if *left == 0 {
                    self.at = At::DataEnd;
                }
                return Ok(Some(input.split_to(here).freeze()));
            }
            let Some(byte) = input.get(read).copied() else { break };
            let before = self.at;
            self.at = self.step(byte)?;
            read += 1;
            if matches!(before, At::Trailer | At::Name | At::Value | At::ValueEnd) && self.at != At::LastLineFeed {
                trailers.push(byte);
            }
        }
        input.advance(read);
        Ok(None)
    }

    /// Whether the last chunk and the trailers have been read.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.at == At::Done
    }

    fn step(&mut self, byte: u8) -> Result<At, BadChunk> {
        match (self.at, byte) {
            (At::Size { digits: MAX_DIGITS, .. }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => Err(BadChunk("size too large")),
            (At::Size { digits, size }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = char::from(byte).to_digit(16).map_or(0, u64::from);
                Ok(At::Size { digits: digits + 1, size: size << 4 | digit })
            }
            (At::Size { digits: 1.., size }, b'\r') => Ok(At::SizeEnd { size }),
            (At::Size { digits: 1.., size }, b';') => self.extension(size, 1),
            (At::Size { .. }, _) => Err(BadChunk("no size")),
            (At::Extension { size, .. }, b'\r') => Ok(At::SizeEnd { size }),
            (At::Extension { .. }, 0..=8 | 10..=31 | 127) => Err(BadChunk("control byte in an extension")),
            (At::Extension { size, length }, _) => self.extension(size, length + 1),
            (At::SizeEnd { size: 0 }, b'\n') => Ok(At::Trailer),
            (At::SizeEnd { size }, b'\n') => Ok(At::Data { left: size }),
            (At::DataEnd, b'\r') => Ok(At::DataLineFeed),
            (At::DataLineFeed, b'\n') => Ok(At::Size { digits: 0, size: 0 }),
            (At::Trailer, b'\r') => Ok(At::LastLineFeed),
            (At::Trailer, byte) if is_name(byte) => self.trailer(At::Name),
            (At::Name, b':') => self.trailer(At::Value),
            (At::Name, byte) if is_name(byte) => self.trailer(At::Name),
            (At::Trailer | At::Name, _) => Err(BadChunk("no trailer field")),
            (At::Value, b'\r') => Ok(At::ValueEnd),
            (At::Value, 0..=8 | 10..=31 | 127) => Err(BadChunk("control byte in a trailer")),
            (At::Value, _) => self.trailer(At::Value),
            (At::ValueEnd, b'\n') => Ok(At::Trailer),
            (At::LastLineFeed, b'\n') => Ok(At::Done),
            (At::SizeEnd { .. } | At::DataEnd | At::DataLineFeed | At::ValueEnd | At::LastLineFeed, _) => {
                Err(BadChunk("no line end"))
            }
            // Neither is asked for a byte.
            (At::Data { .. } | At::Done, _) => Ok(self.at),
        }
    }

    fn extension(&mut self, size: u64, length: u32) -> Result<At, BadChunk> {
        self.extensions += 1;
        if length > MAX_EXTENSION || self.extensions > MAX_EXTENSIONS {
            return Err(BadChunk("extensions too long"));
        }
        Ok(At::Extension { size, length })
    }

    fn trailer(&mut self, at: At) -> Result<At, BadChunk> {
        self.trailers += 1;
        if self.trailers > MAX_TRAILERS { Err(BadChunk("trailers too long")) } else { Ok(at) }
    }
}

const fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How much belongs to the body, and whether it is over: the same in one piece and byte by byte.
    #[track_caller]
    fn read(body: &[u8]) -> Result<(usize, bool), BadChunk> {
        let all = read_in(body, body.len().max(1));
        assert_eq!(read_in(body, 1), all, "{body:?}");
        all
    }

    fn read_in(body: &[u8], step: usize) -> Result<(usize, bool), BadChunk> {
        let (mut chunks, mut input, mut trailers) = (Chunks::default(), BytesMut::new(), Vec::new());
        let mut came = 0;
        for piece in body.chunks(step) {
            input.extend_from_slice(piece);
            came += piece.len();
            while chunks.next(&mut input, &mut trailers)?.is_some() {}
            if chunks.is_done() {
                break;
            }
        }
        Ok((came - input.len(), chunks.is_done()))
    }

    #[test]
    fn bodies_end_where_they_say() {
        for (body, after) in [
            (&b"0\r\n\r\n"[..], 0),
            (b"5\r\nhello\r\n0\r\n\r\nGET ", 4),
            (b"00A\r\n0123456789\r\n0\r\n\r\n", 0),
            (b"5;a=b\r\nhello\r\n0;x\r\n\r\n", 0),
            (b"0\r\nX: y\r\nZ:\r\n\r\n", 0),
            (b"0\r\nX:POST / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n", 16),
            (b"2\r\n\r\n\r\n0\r\n\r\n", 0),
        ] {
            assert_eq!(read(body), Ok((body.len() - after, true)), "{}", body.escape_ascii());
        }
        for open in [&b""[..], b"5", b"5\r", b"5\r\n", b"5\r\nhel", b"0\r\n", b"0\r\nX", b"0\r\n\r"] {
            assert_eq!(read(open), Ok((open.len(), false)), "{}", open.escape_ascii());
        }
    }

    #[test]
    fn what_another_reader_could_mend_is_refused() {
        for body in [
            &b"0x5\r\n"[..],
            b"+5\r\n",
            b"-0\r\n",
            b" 5\r\n",
            b"5 \r\n",
            b"5_\r\n",
            b"Z\r\n",
            b"\r\n",
            b";a\r\n",
            b"12345678901234567\r\n",
            b"5\nhello",
            b"0\n\r\n",
            b"5;a\nb\r\n",
            b"5;\r\rX",
            b"5\r\r;a",
            b"5;\x00\r\n",
            b"5\r\nhelloXX",
            b"5\r\nhello\n",
            b"5\r\nhello\rX",
            b"5\r\nhello0\r\n",
            b"5\r\nhello\r\n\r\n0\r\n\r\n",
            b"0\r\nXX\r\n\r\n",
            b"0\r\n X: y\r\n\r\n",
            b"0\r\n: y\r\n\r\n",
            b"0\r\nX: a\nY: b\r\n\r\n",
            b"0\r\nX: a\x00\r\n\r\n",
            b"0\r\n\rX",
        ] {
            assert!(read(body).is_err(), "{}", body.escape_ascii());
        }
    }

    #[test]
    fn extensions_and_trailers_are_bounded() {
        let long = |count: usize| [b"5;".as_slice(), &vec![b'a'; count - 1], b"\r\n"].concat();
        assert!(read(&long(256)).is_ok());
        assert!(read(&long(257)).is_err());
        let many: Vec<u8> = std::iter::repeat_n(b"1;aaaaaaaaaaaaaaa\r\nx\r\n".as_slice(), 1025).flatten().copied().collect();
        assert!(read(&many).is_err());
        let trailers = [b"0\r\nX:".as_slice(), &vec![b'a'; 17_000], b"\r\n\r\n"].concat();
        assert!(read(&trailers).is_err());
    }
}
