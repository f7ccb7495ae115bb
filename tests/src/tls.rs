//! Throw-away certificates and a TLS client.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};

use crate::client::{Connection, dial};
use crate::wire::Wire;

/// An authority of one test.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    /// Its certificate in PEM.
    pub pem: String,
}

/// A certificate and its key in PEM.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The certificate.
    pub cert: String,
    /// The private key.
    pub key: String,
    /// The certificate as sent in a handshake.
    pub der: CertificateDer<'static>,
}

/// The kind of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// P-256.
    Ecdsa,
    /// 2048 bits.
    Rsa,
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Authority {
    /// Makes an authority.
    ///
    /// # Panics
    /// No key can be made.
    #[must_use]
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "Weir test authority");
        let certificate = params.self_signed(&key).unwrap();
        let (pem, der) = (certificate.pem(), certificate.der().clone());
        Self { issuer: Issuer::new(params, key), certificate: der, pem }
    }

    /// A certificate for these names.
    ///
    /// # Panics
    /// A name is none.
    #[must_use]
    pub fn issue(&self, kind: Kind, names: &[&str]) -> Pair {
        let key = match kind {
            Kind::Ecdsa => KeyPair::generate().unwrap(),
            Kind::Rsa => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap(),
        };
        let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, names.first().copied().unwrap_or_default());
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Pair { cert: certificate.pem(), key: key.serialize_pem(), der: certificate.der().clone() }
    }

    /// A client that believes certificates of this authority only.
    ///
    /// # Errors
    /// The TLS library's.
    pub fn client_config(&self) -> io::Result<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).map_err(io::Error::other)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        Ok(ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth())
    }

    /// A connection with this server name; certificates of this authority only are believed.
    ///
    /// # Errors
    /// The connection's or the handshake's.
    pub fn connect(&self, address: SocketAddr, name: &str) -> io::Result<Connection> {
        Ok(self.client(&[])?.connect(address, name)?.0)
    }

    /// A connection on which HTTP/2 was agreed; nothing is sent yet.
    ///
    /// # Errors
    /// The connection's or the handshake's, or another protocol was agreed.
    pub fn connect_http2(&self, address: SocketAddr, name: &str) -> io::Result<Wire> {
        let (tls, _) = self.client(&[b"h2"])?.handshake(address, name)?;
        if tls.conn.alpn_protocol() == Some(b"h2") { Ok(Wire::new(Box::new(tls))) } else { Err(io::Error::other("no h2")) }
    }

    /// A client that believes certificates of this authority only, offers these protocols, and remembers its sessions.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn client(&self, alpn: &[&[u8]]) -> io::Result<Client> {
        let mut config = self.client_config()?;
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Client(Arc::new(config)))
    }
}

/// A TLS client.
#[derive(Clone, Debug)]
pub struct Client(Arc<ClientConfig>);

impl Client {
    /// A connection with this server name, and whether its handshake resumed a session.
    ///
    /// # Errors
    /// The connection's or the handshake's.
    pub fn connect(&self, address: SocketAddr, name: &str) -> io::Result<(Connection, bool)> {
        let (tls, tcp) = self.handshake(address, name)?;
        let resumed = tls.conn.handshake_kind() == Some(HandshakeKind::Resumed);
        let certificate = tls.conn.peer_certificates().and_then(|chain| chain.first()).map(|first| first.clone().into_owned());
        Ok((Connection::of(Wire::new(Box::new(tls)), tcp, certificate), resumed))
    }

    fn handshake(&self, address: SocketAddr, name: &str) -> io::Result<(Tls, TcpStream)> {
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let mut tls = ClientConnection::new(Arc::clone(&self.0), name).map_err(io::Error::other)?;
        let mut tcp = dial(address)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut tcp)?;
        }
        Ok((StreamOwned::new(tls, tcp.try_clone()?), tcp))
    }
}

type Tls = StreamOwned<ClientConnection, TcpStream>;
