//! HTTP/1 as bytes, read without judging: what a lenient peer would see.

use std::fmt;
use std::io::{self, Read, Write};

/// A connection's two directions.
pub trait Duplex: Read + Write + Send {}
impl<T: Read + Write + Send> Duplex for T {}

/// Bytes read at a time.
const CHUNK: usize = 256 * 1024;
/// Longest head.
const MAX_HEAD: usize = 256 * 1024;

/// The first line and the fields of a message.
#[derive(Clone, Debug, Default)]
pub struct Head {
    /// Without line end.
    pub first_line: String,
    /// Name and value as on the wire.
    pub fields: Vec<(String, String)>,
}

/// How the length of a body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// None.
    Empty,
    /// Content-Length.
    Length(u64),
    /// Transfer-Encoding: chunked.
    Chunked,
    /// The end of the connection.
    ToEnd,
}

/// A buffered connection.
pub struct Wire {
    stream: Box<dyn Duplex>,
    buffer: Vec<u8>,
    start: usize,
}

impl fmt::Debug for Wire {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Wire").field("buffered", &(self.buffer.len() - self.start)).finish_non_exhaustive()
    }
}

impl Head {
    /// The first value of a field.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// Every value of a field.
    #[must_use]
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()).collect()
    }

    /// What the fields say of the body of a request; a response's may also go to the end.
    #[must_use]
    pub fn framing(&self) -> Option<Framing> {
        if self.get("transfer-encoding").is_some_and(|value| value.to_ascii_lowercase().contains("chunked")) {
            return Some(Framing::Chunked);
        }
        self.get("content-length").and_then(|length| length.parse().ok()).map(Framing::Length)
    }
}

impl Wire {
    /// Starts with an empty buffer.
    #[must_use]
    pub fn new(stream: Box<dyn Duplex>) -> Self {
        Self { stream, buffer: Vec::new(), start: 0 }
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// The connection's.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// Reads whatever comes next; empty at the end.
    ///
    /// # Errors
    /// The connection's.
    pub fn some(&mut self) -> io::Result<Vec<u8>> {
        if self.start == self.buffer.len() {
            self.fill()?;
        }
        let bytes = self.buffer[self.start..].to_vec();
        self.start = self.buffer.len();
        Ok(bytes)
    }

    /// Reads exactly so many bytes.
    ///
    /// # Errors
    /// The connection's, or its early end.
    pub fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(length);
        self.take(length as u64, &mut |piece| bytes.extend_from_slice(piece))?;
        Ok(bytes)
    }

    /// Reads a head; `None` when the connection ends before one.
    ///
    /// # Errors
    /// The connection's, or its end inside a head.
    pub fn head(&mut self) -> io::Result<Option<Head>> {
        loop {
            let unread = &self.buffer[self.start..];
            if let Some(end) = unread.windows(4).position(|window| window == b"\r\n\r\n") {
                let text = String::from_utf8_lossy(&unread[..end]).into_owned();
                self.start += end + 4;
                return Ok(Some(parse(&text)));
            }
            let waiting = unread.len();
            if waiting > MAX_HEAD {
                return Err(io::Error::other("head too long"));
            }
            if self.fill()? == 0 {
                return if waiting == 0 { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    /// Reads a body, piece by piece, and answers its length.
    ///
    /// # Errors
    /// The connection's, its early end, or broken chunks.
    pub fn body(&mut self, framing: Framing, sink: &mut dyn FnMut(&[u8])) -> io::Result<u64> {
        match framing {
            Framing::Empty => Ok(0),
            Framing::Length(length) => self.take(length, sink).map(|()| length),
            Framing::Chunked => self.chunks(sink),
            Framing::ToEnd => {
                let mut length = 0;
                loop {
                    let piece = self.some()?;
                    if piece.is_empty() {
                        return Ok(length);
                    }
                    length += piece.len() as u64;
                    sink(&piece);
                }
            }
        }
    }

    fn chunks(&mut self, sink: &mut dyn FnMut(&[u8])) -> io::Result<u64> {
        let mut total = 0;
        loop {
            let line = self.line()?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(size, 16).map_err(|_| io::Error::other(format!("no chunk size: {line:?}")))?;
            if size == 0 {
                while !self.line()?.is_empty() {}
                return Ok(total);
            }
            self.take(size, sink)?;
            total += size;
            if !self.line()?.is_empty() {
                return Err(io::Error::other("a chunk goes on after its end"));
            }
        }
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            let unread = &self.buffer[self.start..];
            if let Some(end) = unread.windows(2).position(|window| window == b"\r\n") {
                let line = String::from_utf8_lossy(&unread[..end]).into_owned();
                self.start += end + 2;
                return Ok(line);
            }
            if self.fill()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn take(&mut self, length: u64, sink: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        let mut left = length;
        while left > 0 {
            let unread = &self.buffer[self.start..];
            if unread.is_empty() {
                if self.fill()? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                continue;
            }
            let piece = unread.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            sink(&unread[..piece]);
            self.start += piece;
            left -= piece as u64;
        }
        Ok(())
    }

    fn fill(&mut self) -> io::Result<usize> {
        self.buffer.drain(..self.start);
        self.start = 0;
        let old = self.buffer.len();
        self.buffer.resize(old + CHUNK, 0);
        let read = loop {
            match self.stream.read(&mut self.buffer[old..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.buffer.truncate(old + read.as_ref().copied().unwrap_or(0));
        read
    }
}

fn parse(text: &str) -> Head {
    let mut lines = text.split("\r\n");
    let first_line = lines.next().unwrap_or_default().to_owned();
    let fields = lines
        .map(|line| {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            (name.to_owned(), value.trim().to_owned())
        })
        .collect();
    Head { first_line, fields }
}
