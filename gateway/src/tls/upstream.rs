//! TLS towards upstreams: verified, always.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, OnceLock};

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};

use crate::config::{self, Scheme, Url};
use crate::upstream::group::ServerTls;

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
    let roots = match &upstream.tls.ca {
        _ if !needed => None,
        Some(path) => {
            let hint = "give a PEM file with the CA that signed the origin's certificate, or that certificate itself";
            let bytes =
                std::fs::read(path).map_err(|cause| error("ca", format!("cannot read {}: {cause}", path.display()), hint))?;
            bytes.hash(&mut identity);
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(&bytes) {
                let added = certificate
                    .map_err(|cause| cause.to_string())
                    .and_then(|one| roots.add(one).map_err(|cause| cause.to_string()));
                added.map_err(|cause| error("ca", format!("{}: {cause}", path.display()), hint))?;
            }
            if roots.is_empty() {
                return Err(error("ca", format!("{} holds no certificate", path.display()), hint));
            }
            Some(roots)
        }
        None => Some(system_roots().clone()),
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
    let config = match roots {
        Some(roots) => Some(client_config(roots).map_err(|cause| error("ca", cause, "check the certificates"))?),
        None => None,
    };
    let identity = identity.finish();
    Ok(move |url: &Url| {
        let config = config.clone().filter(|_| url.scheme == Scheme::Https)?;
        let name = name.clone().or_else(|| ServerName::try_from(url.host.trim_matches(['[', ']']).to_owned()).ok())?;
        Some(ServerTls { name, config, identity })
    })
}

fn client_config(roots: RootCertStore) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = builder.map_err(|error| error.to_string())?.with_root_certificates(roots).with_no_client_auth();
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
        if roots.is_empty() {
            tracing::warn!("this system has no trusted roots: https upstreams need tls = {{ ca = \"…\" }}");
        }
        roots
    })
}
