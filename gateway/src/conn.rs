//! What is known of a connection, frozen after its handshake.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::HeaderValue;

/// The other end of the socket. Never used for decisions: see [`ClientIp`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddr(pub SocketAddr);

/// The client after the trust rules: what policies, logs and limits see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientIp(pub IpAddr);

/// A connection, shared by all its exchanges.
#[derive(Debug)]
pub struct ConnInfo {
    /// The listener's address as configured.
    pub listener: Arc<str>,
    /// The socket's peer.
    pub peer: PeerAddr,
    /// The client as far as the connection knows it (PROXY protocol applied, forwarding headers not).
    pub client: ClientIp,
    /// `client` as text, for the forwarding headers of every request.
    pub client_text: HeaderValue,
    /// Absent on plain connections.
    pub tls: Option<TlsInfo>,
    /// ISO code of `client`, when a country database is configured and knows it.
    pub country: Option<Arc<str>>,
}

/// What a TLS handshake agreed on.
#[derive(Clone, Debug, Default)]
pub struct TlsInfo {
    /// `1.2` or `1.3`.
    pub version: &'static str,
    /// IANA name of the cipher suite.
    pub suite: String,
    /// Server name the client asked for, lower case.
    pub sni: Option<String>,
    /// `h2`, `http/1.1`, `http/1.0`, or none offered.
    pub alpn: Option<String>,
    /// JA4 fingerprint of the ClientHello.
    pub ja4: Option<String>,
    /// Accepted by the legacy acceptor.
    pub legacy: bool,
}
