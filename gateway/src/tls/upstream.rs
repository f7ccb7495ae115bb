//! TLS towards upstreams: verified, always.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};

use super::pinned::Verifier;
use crate::config::{self, Scheme, Url};
use crate::upstream::server::ServerTls;

/// Makes the TLS side of an upstream's servers; `None` for plain ones.
///
/// # Errors
/// The CA file cannot be used, or the server name is no name.
pub fn client(upstream: &config::Upstream) -> Result<impl Fn(&Url) -> Option<ServerTls> + use<>, config::Error> {
    let error = |key: &str, message: String, hint: &str| config::Error {
        location: Some(upstream.at.clone()),
        key: format!("upstream.{}.tls.{key}", upstream.name),
        message,
        hint: Some(hint.to_owned()),
    };
    let needed = upstream.servers.iter().any(|server| server.url.scheme == Scheme::Https);
    let mut identity = DefaultHasher::new();
    let trust = match &upstream.tls.ca {
        _ if !needed => None,
        Some(path) => {
            let hint = "give a PEM file with the CA that signed the origin's certificate, or that certificate itself";
            let trusted = read_trusted(path).map_err(|cause| error("ca", cause, hint))?;
            trusted.hash(&mut identity);
            Some(trusted)
        }
        None => Some(Vec::new()),
    };
    let name = match &upstream.tls.server_name {
        Some(name) => {
            let parsed = ServerName::try_from(name.clone());
            Some(parsed.map_err(|_| {
                error("server_name", format!("not a host name ({name:?})"), "give the name in the origin's certificate")
            })?)
        }
        None => None,
    };
    name.hash(&mut identity);
    let config = match trust {
        Some(trusted) => {
            let hint = "name the CA file of the origin: tls = { ca = \"origin-ca.pem\" }";
            Some(client_config(trusted).map_err(|cause| error("ca", cause, hint))?)
        }
        None => None,
    };
    let identity = identity.finish();
    Ok(move |url: &Url| {
        let config = config.clone().filter(|_| url.scheme == Scheme::Https)?;
        let name = name.clone().or_else(|| ServerName::try_from(url.host.trim_matches(['[', ']']).to_owned()).ok())?;
        Some(ServerTls { name, config, identity })
    })
}

fn read_trusted(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |cause: rustls_pki_types::pem::Error| format!("cannot read {}: {cause}", path.display());
    let trusted: Vec<_> = CertificateDer::pem_file_iter(path).map_err(wrong)?.collect::<Result<_, _>>().map_err(wrong)?;
    if trusted.is_empty() {
        return Err(format!("{} holds no certificate", path.display()));
    }
    Ok(trusted)
}

/// Trusts these certificates as roots and as they are; without any, the operating system's roots.
fn client_config(trusted: Vec<CertificateDer<'static>>) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in &trusted {
        roots.add(certificate.clone()).map_err(|cause| cause.to_string())?;
    }
    if trusted.is_empty() {
        roots = system_roots().clone();
    }
    if roots.is_empty() {
        return Err("this system has no trusted roots".to_owned());
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = Verifier::new(roots, trusted, &provider)?;
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?.dangerous().with_custom_certificate_verifier(verifier);
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The operating system's trusted roots, read once.
fn system_roots() -> &'static RootCertStore {
    static ROOTS: OnceLock<RootCertStore> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        roots
    })
}
