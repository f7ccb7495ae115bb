//! The way in: `[[listener]]`, `[[certificate]]`, `[geoip]`, `[client_address]`.

use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use super::error::Location;
use super::reader::Reader;
use super::{address, values};

/// `[[listener]]`: an address that clients connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// What to bind. `:PORT` in the file is `[::]:PORT` here and means IPv4 as well. Port 0 lets the system choose.
    pub address: SocketAddr,
    /// TLS with the configured certificates. Default false: clear text.
    pub tls: bool,
    /// A PROXY protocol header comes first, believed from `trusted_proxies` only. Default false.
    pub proxy_protocol: bool,
    /// Where it is configured.
    pub at: Location,
}

/// `[[certificate]]`: a chain and its key. The names it serves are read from the certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// PEM file: the certificate, then its issuers.
    pub cert: PathBuf,
    /// PEM file: the private key.
    pub key: PathBuf,
    /// Where it is configured.
    pub at: Location,
}

/// `[geoip]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeoIp {
    /// Country database in MaxMind's format; loaded again when the file is replaced.
    pub database: PathBuf,
    /// Where it is configured.
    pub at: Location,
}

/// `[[listener]]`; none when the address is wrong or missing.
pub(super) fn listener(mut reader: Reader<'_, '_>) -> Option<Listener> {
    let address = reader.required("address", "address = \"0.0.0.0:443\"", address::listen_address);
    let tls = reader.or("tls", false, values::boolean);
    let proxy_protocol = reader.or("proxy_protocol", false, values::boolean);
    let at = reader.at();
    reader.finish();
    Some(Listener { address: address?, tls, proxy_protocol, at })
}

/// `[[certificate]]`.
pub(super) fn certificate(mut reader: Reader<'_, '_>) -> Option<Certificate> {
    let cert = reader.required_file("cert", "cert = \"tls/site.pem\"");
    let key = reader.required_file("key", "key = \"tls/site.key\"");
    let at = reader.at();
    reader.finish();
    Some(Certificate { cert: cert?, key: key?, at })
}

/// `[geoip]`.
pub(super) fn geoip(mut reader: Reader<'_, '_>) -> Option<GeoIp> {
    let database = reader.required_file("database", "database = \"country.mmdb\"");
    let at = reader.at();
    reader.finish();
    Some(GeoIp { database: database?, at })
}

/// `[client_address]`: whether any proxy is named, and those that are networks.
pub(super) fn trusted_proxies(mut reader: Reader<'_, '_>) -> (bool, Vec<IpNet>) {
    let networks = reader.list("trusted_proxies", address::network).into_iter().map(|network| network.value).collect();
    let any = reader.length("trusted_proxies").is_some_and(|length| length > 0);
    reader.finish();
    (any, networks)
}
