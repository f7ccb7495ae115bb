//! The bytes of one connection: read and not yet used, to be written and not yet taken.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Read at a time from a connection that has little to say, and the least room for a read.
const MIN_READ: usize = 8 * 1024;
/// Read at a time from one that fills every buffer.
const MAX_READ: usize = 64 * 1024;
/// Data up to this size is copied behind what waits to be written: one buffer costs the system less than two.
const COPIED: usize = 4 * 1024;
/// Room for a head and a small body.
const OUTPUT: usize = 2 * 1024;

/// A socket, with TLS or without.
#[derive(Debug)]
pub enum Io {
    /// Plain.
    Tcp(TcpStream),
    /// A client's TLS session.
    Accepted(Box<tokio_rustls::server::TlsStream<TcpStream>>),
    /// A TLS session with a server.
    Opened(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

impl Io {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Tcp(tcp) => tcp,
            Self::Accepted(tls) => tls.get_ref().0,
            Self::Opened(tls) => tls.get_ref().0,
        }
    }
}

macro_rules! each {
    ($io:expr, $stream:ident => $call:expr) => {
        match $io.get_mut() {
            Io::Tcp(tcp) => {
                let $stream = Pin::new(tcp);
                $call
            }
            Io::Accepted(tls) => {
                let $stream = Pin::new(&mut **tls);
                $call
            }
            Io::Opened(tls) => {
                let $stream = Pin::new(&mut **tls);
                $call
            }
        }
    };
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_read(context, buffer))
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, stream => stream.poll_write(context, bytes))
    }

    fn poll_write_vectored(self: Pin<&mut Self>, context: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        each!(self, stream => stream.poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_shutdown(context))
    }
}

/// A connection with its buffers. Both are given up while there is nothing in them.
#[derive(Debug)]
pub struct Wire {
    io: Io,
    /// Read and not used.
    pub input: BytesMut,
    /// To be written; the first `written` bytes of it are.
    output: Vec<u8>,
    written: usize,
    /// Behind `output`: data that is too large to copy, and what closes it.
    behind: Bytes,
    closing: &'static [u8],
    /// How much to read at a time.
    reading: usize,
    /// Bytes handed to the socket since [`Wire::begin`].
    sent: u64,
    /// Whether TLS may keep records that the socket has not taken.
    kept: bool,
}

impl Wire {
    /// A connection on which nothing has happened.
    #[must_use]
    pub fn new(io: Io) -> Self {
        Self {
            io,
            input: BytesMut::new(),
            output: Vec::new(),
            written: 0,
            behind: Bytes::new(),
            closing: b"",
            reading: MIN_READ,
            sent: 0,
            kept: false,
        }
    }

    /// Reads more into `input`. Answers the number of bytes, 0 at the end.
    pub fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // A plain socket that is not readable needs no buffer to find that out.
        if let Io::Tcp(tcp) = &self.io {
            ready!(tcp.poll_read_ready(context))?;
        }
        self.input.reserve(self.reading);
        let room = self.input.capacity() - self.input.len();
        let polled = pin!(self.io.read_buf(&mut self.input)).poll(context);
        match &polled {
            Poll::Ready(Ok(read)) if *read == room => self.reading = (self.reading * 2).min(MAX_READ),
            Poll::Ready(Ok(read)) if *read < self.reading / 4 => self.reading = (self.reading / 2).max(MIN_READ),
            Poll::Ready(_) => {}
            Poll::Pending => self.rest(),
        }
        polled
    }

    /// Whether the other side has said or ended something that nobody asked for. Takes no system call while nothing came.
    pub fn is_disturbed(&mut self, context: &mut Context<'_>) -> bool {
        if !self.input.is_empty() {
            return true;
        }
        // Records of TLS that carry no data are taken in passing.
        self.io.tcp().poll_read_ready(context).is_ready() && self.poll_fill(context).is_ready()
    }

    /// Starts counting what is handed to the socket.
    pub const fn begin(&mut self) {
        self.sent = 0;
    }

    /// Bytes handed to the socket since [`Wire::begin`].
    #[must_use]
    pub const fn sent(&self) -> u64 {
        self.sent
    }

    /// Where text for the other side goes. Nothing may be added while [`Wire::is_full`].
    pub fn output(&mut self) -> &mut Vec<u8> {
        if self.output.capacity() == 0 {
            self.output.reserve(OUTPUT);
        }
        &mut self.output
    }

    /// Adds data, with `closing` behind it.
    pub fn push(&mut self, data: Bytes, closing: &'static [u8]) {
        if data.len() <= COPIED {
            let output = self.output();
            output.extend_from_slice(&data);
            output.extend_from_slice(closing);
        } else {
            self.behind = data;
            self.closing = closing;
        }
    }

    /// Whether what waits must be written before more is added.
    #[must_use]
    pub fn is_full(&self) -> bool {
        !self.behind.is_empty() || self.output.len() > COPIED
    }

    /// Whether all that was added has been handed over, to the socket or to TLS.
    fn is_taken(&self) -> bool {
        self.written == self.output.len() && self.behind.is_empty()
    }

    /// Writes everything that waits.
    ///
    /// # Errors
    /// The connection's.
    pub fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.is_taken() {
            let front = self.output.get(self.written..).unwrap_or_default();
            let io = Pin::new(&mut self.io);
            let wrote = if self.behind.is_empty() {
                ready!(io.poll_write(context, front))?
            } else {
                let slices = [IoSlice::new(front), IoSlice::new(&self.behind), IoSlice::new(self.closing)];
                ready!(io.poll_write_vectored(context, &slices))?
            };
            if wrote == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.took(wrote);
        }
        self.output.clear();
        self.written = 0;
        // TLS keeps records that the socket did not take: nobody else sends them, and the other side may be waiting for them.
        if self.kept {
            ready!(Pin::new(&mut self.io).poll_flush(context))?;
            self.kept = false;
        }
        Poll::Ready(Ok(()))
    }

    /// The socket has taken so many bytes.
    fn took(&mut self, wrote: usize) {
        self.sent += wrote as u64;
        self.kept = !matches!(self.io, Io::Tcp(_));
        let of_front = wrote.min(self.output.len() - self.written);
        self.written += of_front;
        let of_behind = (wrote - of_front).min(self.behind.len());
        self.behind.advance(of_behind);
        if self.behind.is_empty() && !self.closing.is_empty() {
            self.output.clear();
            self.written = 0;
            self.output.extend_from_slice(self.closing.get(wrote - of_front - of_behind..).unwrap_or_default());
            self.closing = b"";
        }
    }

    /// Gives up buffers with nothing in them.
    pub fn rest(&mut self) {
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
        if self.output.is_empty() {
            self.output = Vec::new();
        }
    }

    /// Ends our direction.
    ///
    /// # Errors
    /// The connection's.
    pub fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    /// The socket, and what was read from it and not used.
    #[must_use]
    pub fn into_parts(self) -> (Io, Bytes) {
        (self.io, self.input.freeze())
    }

    /// The next close resets the connection: whoever reads must not take what it has for all there is.
    pub fn reset(&self) {
        // A socket that is gone already needs no reset.
        drop(self.io.tcp().set_zero_linger());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::Waker;
    use std::time::Duration;

    use rustls::pki_types::{PrivateKeyDer, ServerName};
    use tokio::net::TcpListener;
    use tokio::task::unconstrained;

    use super::*;

    type Client = tokio_rustls::client::TlsStream<TcpStream>;

    /// Both ends of a TLS session over the loopback.
    async fn session() -> (Wire, Client) {
        let own = rcgen::generate_simple_self_signed(["site.test".to_owned()]).unwrap();
        let (certificate, key) = (own.cert.der().clone(), PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
        let server = server.unwrap().with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
        let client = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let client = client.unwrap().with_root_certificates(roots).with_no_client_auth();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let accepted = listener.accept().await.unwrap().0;
        let name = ServerName::try_from("site.test").unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
        let (client, server) = tokio::join!(connector.connect(name, tcp), acceptor.accept(accepted));
        (Wire::new(Io::Accepted(Box::new(server.unwrap()))), client.unwrap())
    }

    #[test]
    fn what_tls_keeps_is_sent_when_the_socket_takes_it() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(unconstrained(async {
            let (mut wire, mut client) = session().await;
            let mut context = Context::from_waker(Waker::noop());
            let mut added = 0;
            // Pieces that TLS takes whole, until it cannot pass one on.
            while wire.poll_send(&mut context).is_ready() {
                wire.push(Bytes::from(vec![b'w'; 20_000]), b"");
                added += 20_000;
            }
            assert!(wire.is_taken());
            assert!(wire.poll_send(&mut context).is_pending(), "the client has read nothing yet");
            let mut got = vec![0; added];
            let both =
                async { tokio::join!(std::future::poll_fn(|context| wire.poll_send(context)), client.read_exact(&mut got)) };
            let (sent, read) = tokio::time::timeout(Duration::from_secs(10), both).await.expect("all of it arrives");
            assert_eq!((sent.unwrap(), read.unwrap()), ((), added));
        }));
    }
}
