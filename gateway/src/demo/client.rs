//! The client of `weir demo --check`: one connection per request, as agents do it.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, HeaderMap, USER_AGENT};
use http::{HeaderValue, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::cases::{Call, public_origin};
use super::files::PUBLIC_HOST;

/// From connecting to the answer's last byte.
const LIMIT: Duration = Duration::from_secs(10);

/// Longest body that is read.
const MAX_BODY: usize = 1 << 20;

/// Why there is no answer.
#[derive(Debug, Error)]
pub(super) enum ClientError {
    /// The demo's certificate cannot be used.
    #[error("the demo's certificate cannot be used: {0}")]
    Certificate(String),
    /// No connection, or no TLS on it.
    #[error("no connection: {0}")]
    Connect(#[from] io::Error),
    /// A call that is no request.
    #[error("not a request: {0}")]
    Request(#[from] http::Error),
    /// The exchange broke off.
    #[error("no answer: {0}")]
    Exchange(#[from] hyper::Error),
    /// The body broke off or is too long.
    #[error("no whole body: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    /// Nothing whole within ten seconds.
    #[error("no answer within 10 s")]
    Slow,
}

/// A whole answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    /// A header's value; empty when there is none or it is not text.
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// Calls the demo's TLS listener and believes its certificate only.
pub(super) struct Client {
    tls: TlsConnector,
    name: ServerName<'static>,
    address: SocketAddr,
}

impl Client {
    /// A client of the listener at `address`.
    ///
    /// # Errors
    /// [`ClientError::Certificate`] when the PEM file holds no usable certificate.
    pub(super) fn new(address: SocketAddr, certificate: &Path) -> Result<Self, ClientError> {
        let unusable = |error: &dyn std::fmt::Display| ClientError::Certificate(error.to_string());
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_file(certificate).map_err(|error| unusable(&error))?;
        roots.add(certificate).map_err(|error| unusable(&error))?;
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(&error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(PUBLIC_HOST).map_err(|error| unusable(&error))?;
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), name, address })
    }

    /// Sends a call on a new connection.
    ///
    /// # Errors
    /// When there is no whole answer within ten seconds.
    pub(super) async fn send(&self, call: &Call) -> Result<Answer, ClientError> {
        let url = public_origin(self.address.port());
        let host = url.trim_start_matches("https://");
        let mut request = Request::builder().method(&call.method).uri(call.target).header(HOST, host).header(CONNECTION, "close");
        for (name, value) in call.all_headers() {
            request = request.header(name, value);
        }
        let mut request = request.body(Full::new(Bytes::from_static(call.body.as_bytes())))?;
        request.headers_mut().entry(USER_AGENT).or_insert(HeaderValue::from_static("weir-demo"));
        let answer = async {
            let stream = TcpStream::connect(self.address).await?;
            exchange(self.tls.connect(self.name.clone(), stream).await?, request).await
        };
        tokio::time::timeout(LIMIT, answer).await.unwrap_or(Err(ClientError::Slow))
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<Answer, ClientError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answer = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, MAX_BODY).collect().await.map_err(ClientError::Body)?.to_bytes();
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
    };
    // How the connection ends is of no interest once the answer is whole; before that, the answer itself fails.
    let driver = tokio::spawn(connection);
    let answer = answer.await;
    driver.abort();
    answer
}
