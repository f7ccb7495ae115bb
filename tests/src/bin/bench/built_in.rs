//! A load generator of threads, each with one connection and one request under way.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};
use weir_tests::tls::Authority;

use crate::error::Error;
use crate::load::{ANSWER, CONNECTIONS, HEADERS, HOST, Sample, TARGET, Target};

/// Nothing that works is silent for longer.
const SILENCE: Duration = Duration::from_secs(5);
/// After a connection broke, so that a dead proxy does not keep the machine busy.
const PAUSE: Duration = Duration::from_millis(5);
/// Sessions that one client may resume.
const SESSIONS: usize = 8;
/// Room for a head and an answer.
const BUFFER: usize = 4096;

/// The clients, before they start.
#[derive(Debug)]
pub(crate) struct Clients {
    roots: Arc<RootCertStore>,
}

impl Clients {
    /// Clients that believe this authority only.
    ///
    /// # Errors
    /// Its certificate is none.
    pub(crate) fn new(authority: &Authority) -> Result<Self, Error> {
        let failed = |reason: String| Error::Certificate { reason };
        let certificate = CertificateDer::from_pem_slice(authority.pem.as_bytes()).map_err(|error| failed(error.to_string()))?;
        let mut roots = RootCertStore::empty();
        roots.add(certificate).map_err(|error| failed(error.to_string()))?;
        Ok(Self { roots: Arc::new(roots) })
    }

    /// Asks once and checks the answer.
    ///
    /// # Errors
    /// It is not 200 with as many bytes as the origin sends.
    pub(crate) fn probe(&self, target: &Target) -> Result<(), Error> {
        let failed = |reason: String| Error::Load { target: target.name.to_owned(), reason };
        let answer = self.client(target).and_then(|mut client| client.ask()).map_err(|error| failed(error.to_string()))?;
        match answer {
            Answer { status: 200, length: ANSWER } => Ok(()),
            Answer { status, length } => Err(failed(format!("answered {status} with {length} bytes, not 200 with {ANSWER}"))),
        }
    }

    /// Asks for this many seconds over as many connections as there are threads.
    pub(crate) fn drive(&self, target: &Target, seconds: u32) -> Sample {
        let started = Instant::now();
        let deadline = started + Duration::from_secs(u64::from(seconds));
        let seen: Vec<Seen> = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(|| self.ask_until(target, deadline))).collect();
            clients.into_iter().filter_map(|client| client.join().ok()).collect()
        });
        sample(&seen, started.elapsed())
    }

    fn ask_until(&self, target: &Target, deadline: Instant) -> Seen {
        let mut seen = Seen::default();
        let Ok(mut client) = self.client(target) else { return Seen { errors: 1, ..seen } };
        while Instant::now() < deadline {
            let started = Instant::now();
            match client.ask() {
                Ok(answer) => {
                    seen.times_us.push(u32::try_from(started.elapsed().as_micros()).unwrap_or(u32::MAX));
                    seen.refused += u64::from(!(200..300).contains(&answer.status));
                }
                Err(_) => {
                    seen.errors += 1;
                    client.wire = None;
                    std::thread::sleep(PAUSE);
                }
            }
        }
        Seen { resumed: client.resumed, ..seen }
    }

    fn client<'a>(&self, target: &'a Target) -> io::Result<Client<'a>> {
        let tls = if target.traffic.is_tls() { Some(self.tls(target)?) } else { None };
        let mut request = format!("GET {TARGET} HTTP/1.1\r\nHost: {HOST}:{}\r\n", target.address.port());
        for (name, value) in HEADERS {
            request.extend([name, ": ", value, "\r\n"]);
        }
        request.push_str(if target.traffic.keeps_connections() { "\r\n" } else { "Connection: close\r\n\r\n" });
        Ok(Client { target, tls, request, wire: None, buffer: Vec::with_capacity(BUFFER), resumed: 0 })
    }

    /// TLS as most clients speak it: the key exchanges of before the hybrid ones, no ALPN.
    fn tls(&self, target: &Target) -> io::Result<Arc<ClientConfig>> {
        let mut provider = default_provider();
        provider.kx_groups = vec![kx_group::X25519, kx_group::SECP256R1];
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(Arc::clone(&self.roots))
            .with_no_client_auth();
        let resumes = target.traffic == crate::load::Traffic::Resumed;
        config.resumption = if resumes { Resumption::in_memory_sessions(SESSIONS) } else { Resumption::disabled() };
        Ok(Arc::new(config))
    }
}

/// What one client saw.
#[derive(Debug, Default)]
struct Seen {
    times_us: Vec<u32>,
    refused: u64,
    errors: u64,
    resumed: u64,
}

fn sample(seen: &[Seen], elapsed: Duration) -> Sample {
    let mut times: Vec<u32> = seen.iter().flat_map(|one| one.times_us.iter().copied()).collect();
    times.sort_unstable();
    let percentile = |percent: usize| times.get(times.len() * percent / 100).copied().map_or(0.0, f64::from);
    Sample {
        requests: times.len() as u64,
        per_second: times.len() as f64 / elapsed.as_secs_f64(),
        p50_us: percentile(50),
        p99_us: percentile(99),
        refused: seen.iter().map(|one| one.refused).sum(),
        errors: seen.iter().map(|one| one.errors).sum(),
        resumed: Some(seen.iter().map(|one| one.resumed).sum()),
    }
}

/// One connection at a time, and the request that is asked over it.
struct Client<'a> {
    target: &'a Target,
    tls: Option<Arc<ClientConfig>>,
    request: String,
    wire: Option<Wire>,
    buffer: Vec<u8>,
    resumed: u64,
}

/// The status and the body's length in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    length: usize,
}

impl Client<'_> {
    fn ask(&mut self) -> io::Result<Answer> {
        let mut wire = match self.wire.take() {
            Some(open) => open,
            None => Wire::open(self.target, self.tls.as_ref())?,
        };
        wire.write_all(self.request.as_bytes())?;
        wire.flush()?;
        let (answer, closes) = read_answer(&mut wire, &mut self.buffer)?;
        if self.target.traffic.keeps_connections() && !closes {
            self.wire = Some(wire);
        } else {
            self.resumed += u64::from(wire.has_resumed());
            wire.close();
        }
        Ok(answer)
    }
}

/// Reads one answer with a `Content-Length`; also whether the connection ends with it.
fn read_answer(wire: &mut impl Read, buffer: &mut Vec<u8>) -> io::Result<(Answer, bool)> {
    buffer.clear();
    let head = loop {
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        read_more(wire, buffer)?;
    };
    let text = std::str::from_utf8(buffer.get(..head).unwrap_or_default()).map_err(io::Error::other)?;
    let field = |wanted: &str| {
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        fields.filter(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim()).next()
    };
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    let length = field("content-length").and_then(|length| length.parse().ok());
    let closes = field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    let (Some(status), Some(length)) = (status, length) else {
        return Err(io::Error::other("an answer without a status or a content-length"));
    };
    while buffer.len() < head + length {
        read_more(wire, buffer)?;
    }
    Ok((Answer { status, length }, closes))
}

fn read_more(wire: &mut impl Read, buffer: &mut Vec<u8>) -> io::Result<()> {
    let mut piece = [0; BUFFER];
    let count = wire.read(&mut piece)?;
    if count == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    buffer.extend_from_slice(piece.get(..count).unwrap_or_default());
    Ok(())
}

/// A connection, plain or not.
enum Wire {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Wire {
    fn open(target: &Target, tls: Option<&Arc<ClientConfig>>) -> io::Result<Self> {
        let tcp = TcpStream::connect_timeout(&target.address, SILENCE)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(SILENCE))?;
        tcp.set_write_timeout(Some(SILENCE))?;
        let Some(config) = tls else { return Ok(Self::Plain(tcp)) };
        let name = ServerName::try_from(HOST).map_err(io::Error::other)?;
        let connection = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        Ok(Self::Tls(Box::new(StreamOwned::new(connection, tcp))))
    }

    fn has_resumed(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(stream) => stream.conn.handshake_kind() == Some(HandshakeKind::Resumed),
        }
    }

    fn close(mut self) {
        if let Self::Tls(stream) = &mut self {
            stream.conn.send_close_notify();
            // The server may have closed already: it was asked to.
            drop(stream.flush());
        }
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(buffer),
            Self::Tls(stream) => stream.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Traffic;
    use crate::origin;

    #[test]
    fn answers_are_read_to_their_end() {
        let mut wire: &[u8] = b"HTTP/1.1 403 No\r\ncontent-LENGTH: 3\r\nConnection: close\r\n\r\nabc";
        let (answer, closes) = read_answer(&mut wire, &mut Vec::new()).unwrap();
        assert_eq!((answer, closes), (Answer { status: 403, length: 3 }, true));
    }

    #[test]
    fn cut_and_unframed_answers_are_errors() {
        for text in [
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\n",
            "garbage\r\n\r\n",
        ] {
            assert!(read_answer(&mut text.as_bytes(), &mut Vec::new()).is_err(), "{text}");
        }
    }

    #[test]
    fn the_built_in_origin_answers_the_built_in_clients() {
        let clients = Clients::new(&Authority::new()).unwrap();
        let address = origin::serve_threads().unwrap();
        let target = Target { name: "origin", address, traffic: Traffic::Plain };
        clients.probe(&target).unwrap();
        let sample = clients.drive(&target, 1);
        assert!(sample.requests > CONNECTIONS as u64, "{sample:?}");
        assert!(sample.p50_us <= sample.p99_us && sample.p50_us > 0.0, "{sample:?}");
        assert_eq!((sample.refused, sample.errors, sample.resumed), (0, 0, Some(0)));
    }

    #[test]
    fn nobody_listening_is_seen_as_errors() {
        let clients = Clients::new(&Authority::new()).unwrap();
        // No port of the system's choice: one of those may be given to another test in the meantime.
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 9));
        let target = Target { name: "nobody", address, traffic: Traffic::Plain };
        assert!(clients.probe(&target).is_err());
        let sample = clients.drive(&target, 1);
        assert!(sample.requests == 0 && sample.errors > 0, "{sample:?}");
    }
}
