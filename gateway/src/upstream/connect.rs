//! A new connection to a server: TCP, TLS, HTTP handshake, under one deadline. Nothing of a request is sent here.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::health::Cause;
use super::server::Server;
use crate::http::body::RequestBody;
use crate::http1::client::Connection;
use crate::http1::wire::Io;

/// A connection ready to send requests.
#[derive(Debug)]
pub enum Sender {
    /// One exchange at a time.
    Http1(Box<Connection>),
    /// Many at a time.
    Http2(http2::SendRequest<RequestBody>),
}

/// Why no connection was made. Nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectError {
    /// The name has no address.
    Unresolved,
    /// Refused, unreachable, reset.
    Refused,
    /// No answer in time.
    Timeout,
    /// The TLS handshake failed.
    Tls,
    /// The certificate is not valid for the configured name.
    Certificate,
    /// The local address cannot be used.
    Bind,
}

impl ConnectError {
    /// The `outcome` of the attempt.
    #[must_use]
    pub const fn outcome(self) -> &'static str {
        match self {
            Self::Unresolved => "unresolved",
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Tls => "tls",
            Self::Certificate => "certificate",
            Self::Bind => "bind",
        }
    }

    /// What it says of the server.
    #[must_use]
    pub const fn cause(self) -> Cause {
        match self {
            Self::Unresolved => Cause::Unresolved,
            Self::Refused => Cause::Refused,
            Self::Timeout => Cause::ConnectTimeout,
            Self::Tls => Cause::Tls,
            Self::Certificate => Cause::Certificate,
            Self::Bind => Cause::Bind,
        }
    }
}

/// Connects within `limit`. The connection's driver runs on the calling worker until the connection ends.
///
/// # Errors
/// The stage that failed.
pub async fn connect(server: &Arc<Server>, limit: Duration) -> Result<Sender, ConnectError> {
    tokio::time::timeout(limit, establish(server)).await.unwrap_or(Err(ConnectError::Timeout))
}

async fn establish(server: &Arc<Server>) -> Result<Sender, ConnectError> {
    let stream = open(server).await?;
    if stream.is_h2() {
        let io = TokioIo::new(stream);
        let mut builder = http2::Builder::new(LocalExecutor);
        builder.timer(TokioTimer::new()).adaptive_window(true);
        let (sender, driver) = builder.handshake(io).await.map_err(|_| ConnectError::Refused)?;
        tokio::task::spawn_local(async move { drop(driver.await) });
        return Ok(Sender::Http2(sender));
    }
    Ok(Sender::Http1(Connection::new(match stream {
        UpstreamStream::Plain(tcp) => Io::Tcp(tcp),
        UpstreamStream::Tls(tls) => Io::Opened(tls),
    })))
}

/// TCP and TLS only.
///
/// # Errors
/// The stage that failed.
pub async fn open(server: &Arc<Server>) -> Result<UpstreamStream, ConnectError> {
    let tcp = tcp(server).await?;
    let Some(tls) = &server.tls else { return Ok(UpstreamStream::Plain(tcp)) };
    let connector = TlsConnector::from(Arc::clone(&tls.config));
    match connector.connect(tls.name.clone(), tcp).await {
        Ok(stream) => Ok(UpstreamStream::Tls(Box::new(stream))),
        Err(error) => {
            let source = error.get_ref().and_then(|source| source.downcast_ref::<rustls::Error>());
            match source {
                Some(rustls::Error::InvalidCertificate(_)) => Err(ConnectError::Certificate),
                _ => Err(ConnectError::Tls),
            }
        }
    }
}

/// Tries the server's addresses in turn, beginning with the one that answered last. Each but the last to be tried has a moment only:
/// one address in a black hole must not use up the time for all.
async fn tcp(server: &Server) -> Result<TcpStream, ConnectError> {
    let addresses = server.addresses();
    let first = server.answering_address();
    let mut last = ConnectError::Unresolved;
    for turn in 0..addresses.len() {
        let index = (first + turn) % addresses.len();
        let Some(address) = addresses.get(index) else { break };
        let is_last = turn + 1 == addresses.len();
        let connected = if is_last {
            tcp_to(*address, server.bind).await
        } else {
            let limited = tokio::time::timeout(ADDRESS_PATIENCE, tcp_to(*address, server.bind)).await;
            limited.unwrap_or(Err(ConnectError::Timeout))
        };
        match connected {
            Ok(stream) => {
                server.address_answered(index);
                return Ok(stream);
            }
            Err(ConnectError::Bind) => return Err(ConnectError::Bind),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// How long one of several addresses is waited for.
const ADDRESS_PATIENCE: Duration = Duration::from_millis(250);

async fn tcp_to(address: SocketAddr, bind: Option<IpAddr>) -> Result<TcpStream, ConnectError> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = socket.map_err(|_| ConnectError::Refused)?;
    if let Some(local) = bind.filter(|local| local.is_ipv4() == address.is_ipv4()) {
        socket.bind(SocketAddr::new(local, 0)).map_err(|_| ConnectError::Bind)?;
    }
    let stream = socket.connect(address).await.map_err(|_| ConnectError::Refused)?;
    // A head and a small body are two writes; waiting for an acknowledgement between them costs 40 ms.
    stream.set_nodelay(true).map_err(|_| ConnectError::Refused)?;
    Ok(stream)
}

/// Runs what hyper's HTTP/2 client needs beside the driver on the calling worker.
#[derive(Clone, Copy, Debug)]
pub struct LocalExecutor;

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move { drop(future.await) });
    }
}

/// A connection's bytes.
#[derive(Debug)]
pub enum UpstreamStream {
    /// TCP.
    Plain(TcpStream),
    /// TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

impl UpstreamStream {
    /// Whether the server chose HTTP/2 in the TLS handshake.
    #[must_use]
    pub fn is_h2(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(stream) => stream.get_ref().1.alpn_protocol() == Some(b"h2"),
        }
    }
}

impl AsyncRead for UpstreamStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for UpstreamStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, buffers),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, buffers),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
