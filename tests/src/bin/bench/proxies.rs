//! The proxies under measurement.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use weir_tests::process::Process;
use weir_tests::tls::{Authority, Kind};
use weir_tests::{Scratch, geo, sockets};

use crate::configs::{self, Weir};
use crate::error::Error;
use crate::load::{HOST, Traffic};
use crate::notes::Notes;
use crate::tools::{Tools, plugin_file};

/// nginx, which ratios are taken to.
pub(crate) const NGINX: &str = "nginx";
/// HAProxy.
pub(crate) const HAPROXY: &str = "haproxy";
/// The gateway without policies.
pub(crate) const WEIR: &str = "weir";
/// The gateway with the four policies that come with it.
pub(crate) const WEIR_FOUR: &str = "weir+4";
/// The gateway with [`NOOPS`] policies that do nothing.
pub(crate) const WEIR_NOOPS: &str = "weir+8 noop";
/// Enough calls that the cost of one stands out of the noise.
pub(crate) const NOOPS: u32 = 8;

/// The four policies' plugins.
const POLICIES: [&str; 4] = ["agent-acl", "geoip", "ips", "sso-cors"];

/// Some countries around the loopback, so that its lookup walks the tree as deep as in a full database, and the documentation's.
const COUNTRIES: [(&str, &str); 8] = [
    ("192.0.2.0/24", "US"),
    ("198.51.100.0/24", "CA"),
    ("203.0.113.0/24", "KP"),
    ("8.8.8.0/24", "US"),
    ("126.0.0.0/8", "JP"),
    ("128.0.0.0/16", "US"),
    ("175.45.176.0/22", "KP"),
    ("2001:db8::/32", "US"),
];

/// The files that all share.
#[derive(Debug)]
pub(crate) struct Ground {
    /// The directory of this run, removed at its end.
    pub(crate) scratch: Scratch,
    /// Who signed the certificate.
    pub(crate) authority: Authority,
    /// The certificate, ECDSA P-256.
    pub(crate) cert: PathBuf,
    /// Its key.
    pub(crate) key: PathBuf,
    /// Both in one file.
    pub(crate) both: PathBuf,
    countries: PathBuf,
}

/// A running proxy.
#[derive(Debug)]
pub(crate) struct Proxy {
    /// Its name in the report.
    pub(crate) name: &'static str,
    /// What is measured.
    pub(crate) process: Process,
    /// Its plain listener.
    pub(crate) plain: SocketAddr,
    tls: Option<SocketAddr>,
}

impl Ground {
    /// Makes a certificate and a country database in a new directory.
    ///
    /// # Errors
    /// `WEIR_GEOIP` names no file.
    pub(crate) fn prepare() -> Result<Self, Error> {
        let (scratch, authority) = (Scratch::new(), Authority::new());
        let pair = authority.issue(Kind::Ecdsa, &[HOST]);
        let cert = scratch.write("cert.pem", &pair.cert);
        let key = scratch.write("key.pem", &pair.key);
        let both = scratch.write("both.pem", format!("{}{}", pair.cert, pair.key));
        let countries = match std::env::var_os("WEIR_GEOIP").map(PathBuf::from) {
            Some(path) => path.canonicalize().map_err(|source| Error::File { path, source })?,
            None => scratch.write("country.mmdb", geo::of(&COUNTRIES)),
        };
        Ok(Self { scratch, authority, cert, key, both, countries })
    }
}

impl Proxy {
    /// Where it takes this traffic, if it is measured with it.
    #[must_use]
    pub(crate) const fn address(&self, traffic: Traffic) -> Option<SocketAddr> {
        if traffic.is_tls() { self.tls } else { Some(self.plain) }
    }
}

/// Starts every proxy that is there. One that does not start is noted and left out.
pub(crate) fn start_all(ground: &Ground, origin: SocketAddr, tools: &Tools, notes: &mut Notes) -> Vec<Proxy> {
    let mut started = Vec::new();
    if let Some(program) = &tools.nginx {
        started.push(nginx(ground, origin, program));
    }
    if let Some(program) = &tools.haproxy {
        started.push(haproxy(ground, origin, program));
    }
    started.extend(gateways(ground, origin, notes));
    started.into_iter().filter_map(|proxy| proxy.map_err(|error| notes.fail(&error.to_string())).ok()).collect()
}

fn gateways(ground: &Ground, origin: SocketAddr, notes: &mut Notes) -> Vec<Result<Proxy, Error>> {
    let binary = weir_tests::setup::binary();
    if !binary.is_file() {
        return vec![Err(Error::Missing { path: binary, hint: "run `make build`" })];
    }
    let mut started = vec![weir(ground, origin), weir_with_four(ground, origin)];
    let noop = plugin_file("WEIR_GUESTS", "guests", "noop");
    if noop.is_file() {
        started.push(weir_with_noops(ground, origin, &noop));
    } else {
        notes.skip(&format!("no P9: {} is not built (make guests)", noop.display()));
    }
    started
}

/// An address of the loopback whose port was free a moment ago.
///
/// # Errors
/// The system has none.
pub(crate) fn free_address() -> Result<SocketAddr, Error> {
    sockets::free_address().map_err(|source| Error::System { what: "no free port", source })
}

/// nginx with one worker.
///
/// # Errors
/// It does not start.
pub(crate) fn nginx(ground: &Ground, origin: SocketAddr, program: &Path) -> Result<Proxy, Error> {
    let (plain, tls) = (free_address()?, free_address()?);
    let config = ground.scratch.write("nginx/nginx.conf", configs::nginx(ground, origin, plain, tls));
    let mut command = Command::new(program);
    command.arg("-c").arg(config);
    start(ground, NGINX, command, plain, Some(tls))
}

/// HAProxy with one thread.
///
/// # Errors
/// It does not start.
pub(crate) fn haproxy(ground: &Ground, origin: SocketAddr, program: &Path) -> Result<Proxy, Error> {
    let (plain, tls) = (free_address()?, free_address()?);
    let config = ground.scratch.write("haproxy/haproxy.cfg", configs::haproxy(ground, origin, plain, tls));
    let mut command = Command::new(program);
    command.args(["-db", "-f"]).arg(config);
    start(ground, HAPROXY, command, plain, Some(tls))
}

/// The gateway with one worker and no policies.
///
/// # Errors
/// It does not start.
pub(crate) fn weir(ground: &Ground, origin: SocketAddr) -> Result<Proxy, Error> {
    start_weir(ground, origin, WEIR, &[], &[], true)
}

/// The gateway with the four policies.
///
/// # Errors
/// It does not start, or a policy is not built.
pub(crate) fn weir_with_four(ground: &Ground, origin: SocketAddr) -> Result<Proxy, Error> {
    let plugins = POLICIES.map(|name| plugin_file("WEIR_POLICIES", "policies", name));
    if let Some(path) = plugins.iter().find(|file| !file.is_file()) {
        return Err(Error::Missing { path: path.clone(), hint: "run `make policies`" });
    }
    start_weir(ground, origin, WEIR_FOUR, &plugins, &configs::four_policies(), false)
}

fn weir_with_noops(ground: &Ground, origin: SocketAddr, noop: &Path) -> Result<Proxy, Error> {
    start_weir(ground, origin, WEIR_NOOPS, &[noop.to_owned()], &configs::noop_policies(NOOPS), false)
}

fn start_weir(
    ground: &Ground,
    origin: SocketAddr,
    name: &'static str,
    plugins: &[PathBuf],
    policies: &[(String, String)],
    with_tls: bool,
) -> Result<Proxy, Error> {
    let directory = directory_of(ground, name);
    copy_into(&directory.join("plugins"), plugins)?;
    let (plain, tls) = (free_address()?, if with_tls { Some(free_address()?) } else { None });
    let countries = policies.iter().any(|(name, _)| name == "geoip").then_some(ground.countries.as_path());
    let text = configs::weir(ground, origin, &Weir { directory: &directory, plain, tls, policies, countries });
    let config = directory.join("weir.toml");
    fs::write(&config, text).map_err(|source| Error::File { path: config.clone(), source })?;
    let mut command = Command::new(weir_tests::setup::binary());
    command.args(["run", "--config"]).arg(config);
    start(ground, name, command, plain, tls)
}

/// Starts a proxy and waits for its listeners.
///
/// # Errors
/// It does not start.
pub(crate) fn start(
    ground: &Ground,
    name: &'static str,
    command: Command,
    plain: SocketAddr,
    tls: Option<SocketAddr>,
) -> Result<Proxy, Error> {
    let addresses: Vec<SocketAddr> = [plain].into_iter().chain(tls).collect();
    let process = Process::start(name, command, directory_of(ground, name).join("log"), &addresses)?;
    Ok(Proxy { name, process, plain, tls })
}

/// Where the files of one proxy are.
#[must_use]
pub(crate) fn directory_of(ground: &Ground, name: &str) -> PathBuf {
    ground.scratch.path().join(name.replace(' ', "-"))
}

fn copy_into(directory: &Path, files: &[PathBuf]) -> Result<(), Error> {
    fs::create_dir_all(directory).map_err(|source| Error::File { path: directory.to_owned(), source })?;
    for file in files {
        let copied = fs::copy(file, directory.join(file.file_name().unwrap_or_default()));
        copied.map_err(|source| Error::File { path: file.clone(), source })?;
    }
    Ok(())
}
