//! Certificates by server name, several for one name: ECDSA for whoever can, RSA for the rest.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ProducesTickets, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, SignatureAlgorithm};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config;

/// The order in which this gateway prefers TLS 1.2 and 1.3 suites.
///
/// AES-128 first, whatever the client prefers: Schannel of Windows 7 to 8.1 enables `ECDHE_ECDSA_WITH_AES_128_GCM` together with
/// P-256, but the AES-256 suite only together with P-384.
fn provider() -> CryptoProvider {
    use rustls::crypto::aws_lc_rs::cipher_suite as suite;
    CryptoProvider {
        cipher_suites: vec![
            suite::TLS13_AES_128_GCM_SHA256,
            suite::TLS13_AES_256_GCM_SHA384,
            suite::TLS13_CHACHA20_POLY1305_SHA256,
            suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
            suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
            suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        ],
        ..rustls::crypto::aws_lc_rs::default_provider()
    }
}

/// A TLS server for these certificates.
///
/// # Errors
/// Every certificate that cannot be used, each with its place in the configuration.
pub fn server_config(
    certificates: &[config::Certificate],
    ticketer: &Arc<dyn ProducesTickets>,
) -> Result<Arc<TlsServer>, Vec<config::Error>> {
    let provider = Arc::new(provider());
    let mut table = Certificates::default();
    let mut errors = Vec::new();
    for certificate in certificates {
        match load(certificate, &provider) {
            Ok(key) => table.add(key),
            Err(error) => errors.push(error),
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let offers = table.offers();
    let builder =
        ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12]);
    let builder = builder.map_err(|error| vec![unplaced(format!("TLS cannot be set up: {error}"))])?;
    let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::new(table));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec(), b"http/1.0".to_vec()];
    config.ignore_client_order = true;
    config.ticketer = Arc::clone(ticketer);
    config.send_tls13_tickets = 1;
    Ok(Arc::new(TlsServer { config: Arc::new(config), offers }))
}

/// A TLS server and what it can offer.
#[derive(Debug)]
pub struct TlsServer {
    /// For the handshake.
    pub config: Arc<ServerConfig>,
    /// For explaining failed handshakes.
    pub offers: Offers,
}

/// Kinds of certificates there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offers {
    /// At least one RSA certificate.
    pub rsa: bool,
    /// At least one ECDSA certificate.
    pub ecdsa: bool,
}

#[derive(Default)]
struct Certificates {
    exact: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// By what follows `*.`.
    wildcard: HashMap<String, Vec<Arc<CertifiedKey>>>,
    all: Vec<Arc<CertifiedKey>>,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Certificates").field("names", &self.exact.keys()).finish_non_exhaustive()
    }
}

impl Certificates {
    fn add(&mut self, key: CertifiedKey) {
        let key = Arc::new(key);
        for name in names(&key) {
            let table = match name.strip_prefix("*.") {
                Some(suffix) => self.wildcard.entry(suffix.to_owned()),
                None => self.exact.entry(name),
            };
            table.or_default().push(Arc::clone(&key));
        }
        self.all.push(key);
    }

    fn offers(&self) -> Offers {
        let has = |algorithm| self.all.iter().any(|key| key.key.algorithm() == algorithm);
        Offers { rsa: has(SignatureAlgorithm::RSA), ecdsa: has(SignatureAlgorithm::ECDSA) }
    }

    /// The certificates of a name; a name nobody has gets the first one, as a client without SNI does.
    fn find(&self, name: Option<&str>) -> &[Arc<CertifiedKey>] {
        let Some(name) = name else { return &self.all };
        let wildcard = || self.wildcard.get(name.split_once('.')?.1);
        self.exact.get(name).or_else(wildcard).map_or(self.all.as_slice(), Vec::as_slice)
    }
}

impl ResolvesServerCert for Certificates {
    /// rustls has narrowed the client's schemes to those its suites allow, so the first key that fits is one that works; ECDSA first,
    /// because it is a tenth of the work and all that Windows before 10 accepts.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_ascii_lowercase);
        let candidates = self.find(name.as_deref());
        let fits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        let is_ecdsa = |key: &&Arc<CertifiedKey>| key.key.algorithm() == SignatureAlgorithm::ECDSA;
        candidates.iter().filter(is_ecdsa).find(fits).or_else(|| candidates.iter().find(fits)).cloned()
    }
}

fn names(key: &CertifiedKey) -> Vec<String> {
    let Some(leaf) = key.cert.first() else { return Vec::new() };
    let Ok(parsed) = webpki::EndEntityCert::try_from(leaf) else { return Vec::new() };
    parsed.valid_dns_names().map(str::to_ascii_lowercase).collect()
}

fn load(certificate: &config::Certificate, provider: &CryptoProvider) -> Result<CertifiedKey, config::Error> {
    let error = |key: &str, message: String, hint: &str| config::Error {
        location: Some(certificate.at.clone()),
        key: format!("certificate.{key}"),
        message,
        hint: Some(hint.to_owned()),
    };
    let chain = read_chain(&certificate.cert)
        .map_err(|message| error("cert", message, "give a PEM file with the certificate first, then its intermediates"))?;
    let key = PrivateKeyDer::from_pem_file(&certificate.key).map_err(|cause| {
        error("key", format!("cannot read {}: {cause}", certificate.key.display()), "give a PEM file with one private key")
    })?;
    let signer = provider.key_provider.load_private_key(key).map_err(|cause| {
        error("key", format!("{}: {cause}", certificate.key.display()), "use an ECDSA P-256/P-384, RSA or Ed25519 key")
    })?;
    let certified = CertifiedKey::new(chain, signer);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(certified),
        Err(_) => {
            let message = format!("{} is not the key of {}", certificate.key.display(), certificate.cert.display());
            Err(error("key", message, "name the key that belongs to this certificate"))
        }
    }
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |error: rustls_pki_types::pem::Error| format!("cannot read {}: {error}", path.display());
    let chain: Vec<_> = CertificateDer::pem_file_iter(path).map_err(wrong)?.collect::<Result<_, _>>().map_err(wrong)?;
    let Some(leaf) = chain.first() else { return Err(format!("{} holds no certificate", path.display())) };
    webpki::EndEntityCert::try_from(leaf).map_err(|error| format!("{}: not a usable certificate ({error})", path.display()))?;
    Ok(chain)
}

fn unplaced(message: String) -> config::Error {
    config::Error { location: None, key: "certificate".to_owned(), message, hint: None }
}
