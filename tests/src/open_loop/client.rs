//! One client: a connection it keeps, one request at a time.

use std::io;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use super::{Outcome, Plan};
use crate::chaos::ID;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// Bytes read at a time.
const PIECE: usize = 4096;
/// The body of a POST.
const BODY: &str = "an order that must be carried out once";

pub(super) struct Client<'a> {
    plan: &'a Plan,
    open: Option<Wire>,
}

/// A connection, plain or not.
enum Wire {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl<'a> Client<'a> {
    /// With a connection, if one can be had; otherwise the first request tries again.
    pub(super) fn connected(plan: &'a Plan) -> Self {
        let mut client = Self { plan, open: None };
        client.open = client.connect().ok();
        client
    }

    /// Asks once. A connection that the server has closed is not used again, as with every client; but nothing is asked a second time,
    /// not even when the server closes just as the request is sent: that would hide what it does to its clients.
    pub(super) fn ask(&mut self, is_post: bool, id: u64) -> Outcome {
        let (host, fields) = (&self.plan.host, &self.plan.fields);
        let request = if is_post {
            format!("POST /orders HTTP/1.1\r\nhost: {host}\r\n{ID}: {id}\r\n{fields}content-length: {}\r\n\r\n{BODY}", BODY.len())
        } else {
            format!("GET /things?id={id} HTTP/1.1\r\nhost: {host}\r\n{ID}: {id}\r\n{fields}\r\n")
        };
        let kept = self.open.take().and_then(Wire::still_open);
        let reused = kept.is_some();
        let Ok(mut wire) = kept.map_or_else(|| self.connect(), Ok) else { return Outcome::NotConnected };
        match exchange(&mut wire, &request) {
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

    fn connect(&self) -> io::Result<Wire> {
        let tcp = TcpStream::connect_timeout(&self.plan.address, CONNECT)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(self.plan.patience))?;
        tcp.set_write_timeout(Some(self.plan.patience))?;
        let Some(config) = &self.plan.tls else { return Ok(Wire::Plain(tcp)) };
        let name = ServerName::try_from(self.plan.host.clone()).map_err(io::Error::other)?;
        let tls = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        Ok(Wire::Tls(Box::new(StreamOwned::new(tls, tcp))))
    }
}

impl Wire {
    /// Itself, unless the server has ended it or said something nobody asked for.
    fn still_open(mut self) -> Option<Self> {
        self.tcp().set_nonblocking(true).ok()?;
        let open = match &mut self {
            Self::Plain(tcp) => tcp.peek(&mut [0; 1]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock),
            Self::Tls(stream) => match stream.conn.read_tls(&mut stream.sock) {
                // A session ticket, perhaps, or the end.
                Ok(1..) => stream.conn.process_new_packets().is_ok_and(|state| !state.peer_has_closed()),
                Ok(0) => false,
                Err(error) => error.kind() == io::ErrorKind::WouldBlock,
            },
        };
        self.tcp().set_nonblocking(false).ok()?;
        open.then_some(self)
    }

    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(stream) => &stream.sock,
        }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.write_all(bytes),
            Self::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }

    fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.read(piece),
            Self::Tls(stream) => stream.read(piece),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    id: String,
    closes: bool,
}

fn exchange(wire: &mut Wire, request: &str) -> io::Result<Answer> {
    wire.send(request.as_bytes())?;
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

fn more(wire: &mut Wire, buffer: &mut Vec<u8>) -> io::Result<()> {
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
