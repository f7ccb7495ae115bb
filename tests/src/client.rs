//! A client that sends exactly what it is told.

use std::fmt::Write as _;
use std::io;
use std::net::{SocketAddr, TcpStream};

use rustls::pki_types::CertificateDer;

use crate::wait::LONG;
use crate::wire::{Framing, Head, Wire};

/// The host that [`Setup`](crate::Setup)'s default site has.
pub const HOST: &str = "site.test";

/// A request as text. Nothing is added besides Host and, with a body, Content-Length.
#[derive(Clone, Debug)]
pub struct Request {
    line: String,
    host: Option<String>,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    /// `METHOD target`.
    ///
    /// ```
    /// let request = weir_tests::Request::new("GET /path?query");
    /// ```
    #[must_use]
    pub fn new(line: &str) -> Self {
        Self { line: format!("{line} HTTP/1.1"), host: Some(HOST.to_owned()), fields: Vec::new(), body: Vec::new() }
    }

    /// A GET.
    #[must_use]
    pub fn get(target: &str) -> Self {
        Self::new(&format!("GET {target}"))
    }

    /// A POST with a body.
    #[must_use]
    pub fn post(target: &str, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self::new(&format!("POST {target}")).header("content-type", content_type).body(body)
    }

    /// Another host.
    #[must_use]
    pub fn host(mut self, host: &str) -> Self {
        self.host = Some(host.to_owned());
        self
    }

    /// Another version, such as `HTTP/1.0`.
    #[must_use]
    pub fn version(mut self, version: &str) -> Self {
        let end = self.line.rfind(' ').unwrap_or(self.line.len());
        self.line.truncate(end);
        self.line = format!("{} {version}", self.line);
        self
    }

    /// Adds a field.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The client's address, as a trusted proxy tells it.
    #[must_use]
    pub fn from(self, address: &str) -> Self {
        self.header("x-forwarded-for", address)
    }

    /// The body, with its length.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        let length = self.body.len().to_string();
        self.header("content-length", &length)
    }

    /// The bytes to send.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut text = format!("{}\r\n", self.line);
        if let Some(host) = &self.host {
            let _ = write!(text, "host: {host}\r\n");
        }
        for (name, value) in &self.fields {
            let _ = write!(text, "{name}: {value}\r\n");
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }

    fn is_head(&self) -> bool {
        self.line.starts_with("HEAD ")
    }
}

/// A response.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Status line and fields.
    pub head: Head,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The first value of a field.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.get(name)
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The request id.
    ///
    /// # Panics
    /// The answer has none.
    #[must_use]
    pub fn request_id(&self) -> String {
        self.header("x-request-id").unwrap_or_else(|| panic!("no x-request-id: {self:?}")).to_owned()
    }
}

/// A client's connection.
#[derive(Debug)]
pub struct Connection {
    pub(crate) wire: Wire,
    tcp: TcpStream,
    /// The server's certificate, over TLS.
    pub certificate: Option<CertificateDer<'static>>,
}

impl Connection {
    /// A plain connection.
    ///
    /// # Errors
    /// The system's.
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        let tcp = dial(address)?;
        Ok(Self { wire: Wire::new(Box::new(tcp.try_clone()?)), tcp, certificate: None })
    }

    pub(crate) const fn of(wire: Wire, tcp: TcpStream, certificate: Option<CertificateDer<'static>>) -> Self {
        Self { wire, tcp, certificate }
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// The connection's.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.wire.send(bytes.as_ref())
    }

    /// Sends a request and reads its answer.
    ///
    /// # Errors
    /// The connection's, or its early end.
    pub fn ask(&mut self, request: &Request) -> io::Result<Answer> {
        self.send(request.bytes())?;
        if request.is_head() { self.answer_to_head() } else { self.answer() }
    }

    /// Reads an answer, interim ones skipped.
    ///
    /// # Errors
    /// The connection's, or its early end.
    pub fn answer(&mut self) -> io::Result<Answer> {
        self.read(false)
    }

    /// Reads the answer to HEAD.
    ///
    /// # Errors
    /// The connection's, or its early end.
    pub fn answer_to_head(&mut self) -> io::Result<Answer> {
        self.read(true)
    }

    /// Reads a status line and its fields only.
    ///
    /// # Errors
    /// The connection's, or its early end.
    pub fn head(&mut self) -> io::Result<Head> {
        self.wire.head()?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// Reads exactly so many bytes.
    ///
    /// # Errors
    /// The connection's, or its early end.
    pub fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        self.wire.exactly(length)
    }

    /// Whether the other end closes the connection without sending anything more.
    #[must_use]
    pub fn is_closed(&mut self) -> bool {
        self.wire.some().map_or_else(|error| error.kind() != io::ErrorKind::WouldBlock, |bytes| bytes.is_empty())
    }

    /// Reads whatever comes within this time; empty at the end.
    ///
    /// # Errors
    /// The connection's, or nothing came.
    pub fn next_within(&mut self, time: std::time::Duration) -> io::Result<Vec<u8>> {
        self.tcp.set_read_timeout(Some(time))?;
        let read = self.wire.some();
        self.tcp.set_read_timeout(Some(LONG))?;
        read
    }

    /// Ends this end's half.
    ///
    /// # Errors
    /// The system's.
    pub fn finish(&self) -> io::Result<()> {
        self.tcp.shutdown(std::net::Shutdown::Write)
    }

    fn read(&mut self, to_head: bool) -> io::Result<Answer> {
        loop {
            let head = self.head()?;
            let status = head.first_line.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
            if (100..200).contains(&status) && status != 101 {
                continue;
            }
            let bodiless = to_head || matches!(status, 101 | 204 | 304);
            let framing = if bodiless { Framing::Empty } else { head.framing().unwrap_or(Framing::ToEnd) };
            let mut body = Vec::new();
            self.wire.body(framing, &mut |piece| body.extend_from_slice(piece))?;
            return Ok(Answer { status, head, body });
        }
    }
}

/// A TCP connection on which nothing waits longer than [`LONG`].
pub(crate) fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let tcp = TcpStream::connect_timeout(&address, LONG)?;
    tcp.set_read_timeout(Some(LONG))?;
    tcp.set_write_timeout(Some(LONG))?;
    tcp.set_nodelay(true)?;
    Ok(tcp)
}
