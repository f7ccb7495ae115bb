//! The TLS handshake with a client: the ClientHello is read and noted before any TLS library sees it.

use std::io::{self, Cursor};
use std::sync::Arc;

use rustls::server::Acceptor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::StartHandshake;
use tokio_rustls::server::TlsStream;

use super::certificates::TlsServer;
use super::client_hello::{self, ClientHello, MAX_HELLO, Parsed};
use crate::conn::TlsInfo;

/// Why there was no TLS session, and what the ClientHello told.
#[derive(Debug)]
pub struct HandshakeError {
    /// As far as the client got.
    pub info: Option<TlsInfo>,
    /// For the log's closed set.
    pub reason: &'static str,
    /// For the operator.
    pub detail: String,
}

/// Handshakes as a server. `refuse` is asked with the server name before a byte is answered.
///
/// # Errors
/// Why it failed, explained from what the client offered.
pub async fn accept(
    mut stream: TcpStream,
    server: &TlsServer,
    refuse: impl FnOnce(Option<&str>) -> Option<&'static str>,
) -> Result<(TlsStream<TcpStream>, TlsInfo), HandshakeError> {
    let (bytes, hello) = read_hello(&mut stream).await?;
    let mut info = TlsInfo { sni: hello.sni.clone(), ja4: Some(hello.ja4()), ..TlsInfo::default() };
    if let Some(reason) = refuse(hello.sni.as_deref()) {
        return Err(HandshakeError { info: Some(info), reason, detail: String::new() });
    }
    let mut acceptor = Acceptor::default();
    let failed = |error: &dyn std::fmt::Display, info: TlsInfo| {
        let explained = hello.explain(server.offers.rsa, server.offers.ecdsa);
        let detail = explained.map_or_else(|| error.to_string(), |why| format!("{why} ({error})"));
        HandshakeError { info: Some(info), reason: "tls_handshake_failed", detail }
    };
    let mut unread = Cursor::new(bytes);
    while (unread.position() as usize) < unread.get_ref().len() {
        acceptor.read_tls(&mut unread).map_err(|error| failed(&error, info.clone()))?;
    }
    let accepted = match acceptor.accept() {
        Ok(Some(accepted)) => accepted,
        Ok(None) => return Err(failed(&"the ClientHello is not whole", info)),
        Err((error, mut alert)) => {
            let mut bytes = Vec::new();
            if alert.write_all(&mut bytes).is_ok() {
                // The client may have gone already.
                drop(stream.write_all(&bytes).await);
            }
            return Err(failed(&error, info));
        }
    };
    let handshake = StartHandshake::from_parts(accepted, stream).into_stream(Arc::clone(&server.config));
    let stream = handshake.await.map_err(|error| failed(&error, info.clone()))?;
    let session = stream.get_ref().1;
    info.version = match session.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => "1.3",
        _ => "1.2",
    };
    // rustls tells the versions apart in the name, IANA does not.
    let suite = session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or_default();
    info.suite = suite.replacen("TLS13_", "TLS_", 1);
    info.alpn = session.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned());
    Ok((stream, info))
}

async fn read_hello(stream: &mut TcpStream) -> Result<(Vec<u8>, ClientHello), HandshakeError> {
    let error = |reason, detail: String| HandshakeError { info: None, reason, detail };
    let mut bytes = Vec::with_capacity(2048);
    loop {
        match client_hello::parse(&bytes) {
            Parsed::Hello(hello) => return Ok((bytes, hello)),
            Parsed::Incomplete(_) => {}
            Parsed::NotTls if bytes.is_empty() => {}
            Parsed::NotTls => return Err(error("not_tls", explain_other(&bytes))),
            Parsed::Malformed(what) => return Err(error("bad_client_hello", what.to_owned())),
        }
        // Records add at most a little to the hello itself.
        if bytes.len() > 2 * MAX_HELLO {
            return Err(error("bad_client_hello", "too long".to_owned()));
        }
        match stream.read_buf(&mut bytes).await {
            Ok(0) if bytes.is_empty() => return Err(error("closed_before_hello", String::new())),
            Ok(0) => return Err(error("bad_client_hello", "the client closed within its ClientHello".to_owned())),
            Ok(_) => {}
            Err(cause) if cause.kind() == io::ErrorKind::ConnectionReset => {
                return Err(error("closed_before_hello", String::new()));
            }
            Err(cause) => return Err(error("bad_client_hello", cause.to_string())),
        }
    }
}

fn explain_other(bytes: &[u8]) -> String {
    let is_http = bytes.first().is_some_and(u8::is_ascii_uppercase);
    if is_http {
        "plain HTTP on a TLS listener: the client's address needs https://".to_owned()
    } else {
        "no TLS record".to_owned()
    }
}
