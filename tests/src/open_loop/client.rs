//! One client: a connection it keeps, one request at a time.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use super::{Outcome, Plan};
use crate::chaos::ID;
use crate::wire::Duplex;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// Bytes read at a time.
const PIECE: usize = 4096;
/// The body of a POST.
const BODY: &str = "an order that must be carried out once";

pub(super) struct Client<'a> {
    plan: &'a Plan,
    open: Option<Box<dyn Duplex>>,
}

impl<'a> Client<'a> {
    pub(super) const fn new(plan: &'a Plan) -> Self {
        Self { plan, open: None }
    }

    /// Asks once. Nothing is asked again, not even over a connection that the server closed meanwhile: that would hide what a server
    /// does to its clients.
    pub(super) fn ask(&mut self, is_post: bool, id: u64) -> Outcome {
        let host = &self.plan.host;
        let request = if is_post {
            format!("POST /orders HTTP/1.1\r\nhost: {host}\r\n{ID}: {id}\r\ncontent-length: {}\r\n\r\n{BODY}", BODY.len())
        } else {
            format!("GET /things?id={id} HTTP/1.1\r\nhost: {host}\r\n{ID}: {id}\r\n\r\n")
        };
        let reused = self.open.is_some();
        let mut wire = match self.open.take().map_or_else(|| self.connect(), Ok) {
            Ok(wire) => wire,
            Err(_) => return Outcome::NotConnected,
        };
        match exchange(&mut *wire, &request) {
            Ok(answer) => {
                // An answer to another request would be the worst of all.
                if (200..300).contains(&answer.status) && answer.id != id.to_string() {
                    return Outcome::Mixed;
                }
                if !answer.closes {
                    self.open = Some(wire);
                }
                Outcome::Status(answer.status)
            }
            Err(_) => Outcome::Broken { reused },
        }
    }

    fn connect(&self) -> io::Result<Box<dyn Duplex>> {
        let tcp = TcpStream::connect_timeout(&self.plan.address, CONNECT)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(self.plan.patience))?;
        tcp.set_write_timeout(Some(self.plan.patience))?;
        let Some(config) = &self.plan.tls else { return Ok(Box::new(tcp)) };
        let name = ServerName::try_from(self.plan.host.clone()).map_err(io::Error::other)?;
        let tls = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        Ok(Box::new(StreamOwned::new(tls, tcp)))
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    id: String,
    closes: bool,
}

fn exchange(wire: &mut dyn Duplex, request: &str) -> io::Result<Answer> {
    wire.write_all(request.as_bytes())?;
    wire.flush()?;
    let mut buffer = Vec::with_capacity(PIECE);
    loop {
        if let Some((answer, end)) = parse(&buffer)? {
            while buffer.len() < end {
                more(wire, &mut buffer)?;
            }
            return Ok(answer);
        }
        more(wire, &mut buffer)?;
    }
}

/// The head of an answer and where its body ends; nothing when it is not whole yet.
fn parse(buffer: &[u8]) -> io::Result<Option<(Answer, usize)>> {
    let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let text = String::from_utf8_lossy(buffer.get(..end).unwrap_or_default());
    let field = |wanted: &str| {
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        fields.filter(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim()).next()
    };
    let status = text.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
    let status: u16 = status.ok_or_else(|| io::Error::other("no status"))?;
    let length: usize = match field("content-length") {
        Some(length) => length.parse().map_err(io::Error::other)?,
        None if status == 204 => 0,
        None => return Err(io::Error::other("an answer without a length")),
    };
    let closes = field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    Ok(Some((Answer { status, id: field(ID).unwrap_or_default().to_owned(), closes }, end + 4 + length)))
}

fn more(wire: &mut dyn Duplex, buffer: &mut Vec<u8>) -> io::Result<()> {
    let mut piece = [0; PIECE];
    let count = wire.read(&mut piece)?;
    if count == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    buffer.extend_from_slice(piece.get(..count).unwrap_or_default());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_as_far_as_they_go() {
        let whole = b"HTTP/1.1 503 No\r\nContent-Length: 3\r\nConnection: Close\r\nx-chaos-id: 7\r\n\r\nabc";
        let (answer, end) = parse(whole).unwrap().unwrap();
        assert_eq!((answer, end), (Answer { status: 503, id: "7".to_owned(), closes: true }, whole.len()));
        assert_eq!(parse(&whole[..20]).unwrap(), None);
        for wrong in ["ICY 200\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 OK\r\ncontent-length: 0\r\n\r\n"] {
            assert!(parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
