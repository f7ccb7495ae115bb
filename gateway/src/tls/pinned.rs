//! Trust in upstreams: the usual verification, and the certificate an operator named itself.
//!
//! On-premise servers often have a self-signed certificate that is a CA and a server certificate in one, which the usual rules refuse.
//! When exactly that certificate is in the file the operator trusts, its name is all that is left to check.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// Verifies by the roots, or by equality with a pinned certificate.
#[derive(Debug)]
pub(super) struct Verifier {
    roots: Arc<WebPkiServerVerifier>,
    pinned: Vec<CertificateDer<'static>>,
}

impl Verifier {
    /// `pinned` are certificates that are trusted as they are, under the names they carry.
    ///
    /// # Errors
    /// There are no roots.
    pub(super) fn new(
        roots: RootCertStore,
        pinned: Vec<CertificateDer<'static>>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<Self>, String> {
        let roots = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build();
        Ok(Arc::new(Self { roots: roots.map_err(|error| error.to_string())?, pinned }))
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.pinned.iter().any(|pinned| pinned == leaf) {
            let parsed =
                webpki::EndEntityCert::try_from(leaf).map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
            return match parsed.verify_is_valid_for_subject_name(name) {
                Ok(()) => Ok(ServerCertVerified::assertion()),
                Err(_) => Err(Error::InvalidCertificate(CertificateError::NotValidForName)),
            };
        }
        self.roots.verify_server_cert(leaf, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.roots.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.roots.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.roots.supported_verify_schemes()
    }
}
