//! The demo's directory: configuration, certificate, country database and plugins.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use thiserror::Error;

use super::mmdb;
use crate::cli::bundled;

/// The name the sample application believes in.
pub(super) const ORIGIN_HOST: &str = "automate.internal.example";

/// The name the demo is called by.
pub(super) const PUBLIC_HOST: &str = "localhost";

/// The networks reserved for documentation, as if they were somewhere. ZZ is no country.
const COUNTRIES: [(IpNet, &str); 4] = [
    (IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 2, 0), 24)), "CA"),
    (IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(198, 51, 100, 0), 24)), "US"),
    (IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(203, 0, 113, 0), 24)), "ZZ"),
    (IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32)), "CA"),
];

/// Directories tried beside the first: earlier demos that were killed may have left theirs behind.
const ATTEMPTS: u32 = 100;

/// Why the directory could not be made.
#[derive(Debug, Error)]
pub(super) enum FilesError {
    /// A file or directory could not be written.
    #[error("{}: {source}", path.display())]
    Write {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No certificate could be made.
    #[error("no certificate could be made: {0}")]
    Certificate(#[from] rcgen::Error),
}

/// What the configuration depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    /// Port of the TLS listener on 127.0.0.1; 0 lets the system choose.
    pub(super) tls: u16,
    /// Port of the plain listener on 127.0.0.1; 0 lets the system choose.
    pub(super) plain: u16,
    /// Where the sample application listens.
    pub(super) origin: SocketAddr,
    /// Whether the decision log goes to [`Directory::decisions`] instead of standard output.
    pub(super) log_to_file: bool,
}

/// The demo's directory. Dropped, it is removed unless the user named it.
#[derive(Debug)]
pub(super) struct Directory {
    root: PathBuf,
    is_kept: bool,
}

impl Directory {
    /// Makes the directory: `keep`, which may exist, or a new private one among the system's temporary files.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(super) fn create(keep: Option<PathBuf>) -> Result<Self, FilesError> {
        let is_kept = keep.is_some();
        let root = match keep {
            Some(root) => private_directory(true, &root).map(|()| root.clone()).map_err(|source| failed(&root, source))?,
            None => temporary_directory()?,
        };
        // The lines to try are pasted in other directories.
        let root = root.canonicalize().map_err(|source| failed(&root, source))?;
        Ok(Self { root, is_kept })
    }

    /// Writes everything the gateway needs.
    ///
    /// # Errors
    /// The first file that could not be written.
    pub(super) fn fill(&self, settings: Settings) -> Result<(), FilesError> {
        self.write("weir.toml", configuration(settings).as_bytes())?;
        self.write("country.mmdb", &mmdb::country_database(&COUNTRIES))?;
        let certified = rcgen::generate_simple_self_signed([PUBLIC_HOST.to_owned(), "127.0.0.1".to_owned()])?;
        self.write("tls/demo.pem", certified.cert.pem().as_bytes())?;
        self.write("tls/demo.key", certified.signing_key.serialize_pem().as_bytes())?;
        let plugins = self.root.join("plugins");
        private_directory(true, &plugins).map_err(|source| failed(&plugins, source))?;
        bundled::unpack(&plugins).map_err(|source| failed(&plugins, source))?;
        let built = fs::read(self.plugin()).map_err(|source| failed(&self.plugin(), source))?;
        self.write("spare/geoip.wasm", &another_build(built))
    }

    /// `weir.toml`.
    pub(super) fn configuration(&self) -> PathBuf {
        self.root.join("weir.toml")
    }

    /// The watched directory.
    pub(super) fn plugins(&self) -> PathBuf {
        self.root.join("plugins")
    }

    /// The certificate, which is its own authority.
    pub(super) fn certificate(&self) -> PathBuf {
        self.root.join("tls/demo.pem")
    }

    /// The plugin that the demo swaps, as it is loaded.
    pub(super) fn plugin(&self) -> PathBuf {
        self.root.join("plugins/geoip.wasm")
    }

    /// Another build of [`Self::plugin`].
    pub(super) fn spare(&self) -> PathBuf {
        self.root.join("spare/geoip.wasm")
    }

    /// The admin API's socket.
    pub(super) fn admin_socket(&self) -> PathBuf {
        self.root.join("state/admin.sock")
    }

    /// The decision log, when it goes to a file.
    pub(super) fn decisions(&self) -> PathBuf {
        self.root.join("decisions.jsonl")
    }

    fn write(&self, name: &str, contents: &[u8]) -> Result<(), FilesError> {
        let path = self.root.join(name);
        let write = || {
            if let Some(parent) = path.parent() {
                private_directory(true, parent)?;
            }
            let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
            file.and_then(|mut file| file.write_all(contents))
        };
        write().map_err(|source| failed(&path, source))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if !self.is_kept {
            // Nobody is left to tell, and the system clears its temporary files.
            let _ = fs::remove_dir_all(&self.root);
        }
    }
}

/// Puts a file in the place of another in one step: a reader sees the old one or the new one. Both are on one file system.
///
/// # Errors
/// When `from` cannot be read, or the directory of `to` cannot be written.
pub(super) fn replace(from: &Path, to: &Path) -> io::Result<()> {
    let mut name = std::ffi::OsString::from(".");
    name.push(to.file_name().unwrap_or_default());
    name.push(".part");
    let part = to.with_file_name(name);
    fs::copy(from, &part)?;
    fs::rename(&part, to)
}

fn failed(path: &Path, source: io::Error) -> FilesError {
    FilesError::Write { path: path.to_owned(), source }
}

/// The key and the admin socket are in there: nobody else may look.
fn private_directory(may_exist: bool, path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(may_exist).mode(0o700).create(path)
}

fn temporary_directory() -> Result<PathBuf, FilesError> {
    let first = std::env::temp_dir().join(format!("weir-demo-{}", std::process::id()));
    let mut path = first.clone();
    for attempt in 1..=ATTEMPTS {
        match private_directory(false, &path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                path = first.with_extension(attempt.to_string());
            }
            made => return made.map(|()| path.clone()).map_err(|source| failed(&path, source)),
        }
    }
    Err(failed(&path, io::ErrorKind::AlreadyExists.into()))
}

fn configuration(settings: Settings) -> String {
    let Settings { tls, plain, origin, log_to_file } = settings;
    let access_log = if log_to_file { "decisions.jsonl" } else { "stdout" };
    format!(
        r#"# Written by `weir demo`. Paths are relative to this file; edit it while the demo runs, it is loaded again.

[server]
workers = 2
plugins = "plugins"
state = "state"
admin = "unix:state/admin.sock"

[telemetry]
access_log = "{access_log}"

[geoip]
database = "country.mmdb"

# The demo's client plays a proxy: its X-Forwarded-For says who is asking.
[client_address]
trusted_proxies = ["127.0.0.1/32"]

[[listener]]
address = "127.0.0.1:{tls}"
tls = true

[[listener]]
address = "127.0.0.1:{plain}"

[[certificate]]
cert = "tls/demo.pem"
key = "tls/demo.key"

# Agents from anywhere, consoles and interfaces from the office only.
[policy.acl]
plugin = "agent-acl"
config = {{ model = "agent-only", trusted = ["198.51.100.0/24"] }}

[policy.geoip]
plugin = "geoip"
config = {{ allow = ["US", "CA"], phase = "request" }}

[policy.ips]
plugin = "ips"
config = {{ mode = "block", threshold = 5 }}

[policy.sso]
plugin = "sso-cors"
config = {{ public = "{PUBLIC_HOST}", origin = "{ORIGIN_HOST}" }}

[upstream.automate]
servers = [{{ url = "http://{origin}" }}]
health = {{ path = "/LabTech/Agent.aspx", every = "2s", expect = "||||||" }}

[[site]]
name = "demo"
hosts = ["*"]
upstream = "automate"
chain = ["acl", "geoip", "ips", "sso"]
"#
    )
}

/// A component with a section of its own appended, which runtimes skip: other bytes, the same policy.
fn another_build(mut component: Vec<u8>) -> Vec<u8> {
    const CUSTOM: u8 = 0;
    const NAME: &[u8] = b"weir-demo";
    let built = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos()).to_le_bytes();
    // Both lengths are below 128, where the format's variable-length numbers are one byte.
    component.extend_from_slice(&[CUSTOM, (1 + NAME.len() + built.len()) as u8, NAME.len() as u8]);
    component.extend_from_slice(NAME);
    component.extend_from_slice(&built);
    component
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const ORIGIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 4321);
    const SETTINGS: Settings = Settings { tls: 8443, plain: 0, origin: ORIGIN, log_to_file: true };

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_directory_nobody_named_is_private_and_removed() {
        let (one, two) = (Directory::create(None).unwrap(), Directory::create(None).unwrap());
        assert_ne!(one.root, two.root);
        assert_eq!(mode(&one.root), 0o700);
        let root = one.root.clone();
        drop(one);
        assert!(!root.exists() && two.root.exists());
    }

    #[test]
    fn a_named_directory_is_filled_again_and_kept() {
        let parent = Directory::create(None).unwrap();
        let named = parent.root.join("a/b");
        for _ in 0..2 {
            let directory = Directory::create(Some(named.clone())).unwrap();
            directory.fill(SETTINGS).unwrap();
            assert_eq!(mode(&directory.root.join("tls/demo.key")), 0o600);
        }
        for name in ["weir.toml", "country.mmdb", "tls/demo.pem", "tls/demo.key", "plugins/geoip.wasm", "spare/geoip.wasm"] {
            assert!(fs::metadata(named.join(name)).unwrap().len() > 0, "{name}");
        }
    }

    #[test]
    fn the_configuration_names_ports_origin_and_log() {
        let text = configuration(SETTINGS);
        let parsed: toml::Table = text.parse().unwrap();
        assert_eq!(parsed["listener"][0]["address"].as_str(), Some("127.0.0.1:8443"));
        assert_eq!(parsed["listener"][1]["address"].as_str(), Some("127.0.0.1:0"));
        assert_eq!(parsed["upstream"]["automate"]["servers"][0]["url"].as_str(), Some("http://127.0.0.1:4321"));
        assert_eq!(parsed["telemetry"]["access_log"].as_str(), Some("decisions.jsonl"));
        assert!(configuration(Settings { log_to_file: false, ..SETTINGS }).contains("access_log = \"stdout\""));
    }

    #[test]
    fn another_build_is_the_same_component_and_a_custom_section() {
        let component = b"\0asm\x0d\0\x01\0".to_vec();
        let other = another_build(component.clone());
        let (head, section) = other.split_at(component.len());
        assert_eq!(head, component);
        assert_eq!(section[0], 0);
        assert_eq!(usize::from(section[1]), section.len() - 2);
        assert_eq!(&section[3..3 + usize::from(section[2])], b"weir-demo");
        assert_ne!(other, another_build(component));
    }

    #[test]
    fn a_file_is_replaced_whole() {
        let directory = Directory::create(None).unwrap();
        let (from, to) = (directory.root.join("from"), directory.root.join("to.wasm"));
        fs::write(&from, "new").unwrap();
        fs::write(&to, "old").unwrap();
        replace(&from, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"new");
        assert_eq!(fs::read_dir(&directory.root).unwrap().count(), 2);
        assert!(replace(&directory.root.join("missing"), &to).is_err());
        assert_eq!(fs::read(&to).unwrap(), b"new");
    }
}
