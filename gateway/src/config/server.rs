//! `[server]` and `[telemetry]`.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use toml::de::DeValue;
use weir_plugins::signature::Key;

use super::address::{self, Url};
use super::error::Invalid;
use super::reader::{Located, Reader};
use super::{defaults, plugin, values};

/// `[server]`: the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Worker threads, 1 to 1024. Default: the CPUs this process may use.
    pub workers: usize,
    /// The watched plugin directory. Default `plugins`.
    pub plugins: PathBuf,
    /// The private directory of compiled code, last good generation and keys. Default `state`.
    pub state: PathBuf,
    /// Where the admin API listens. Default: `admin.sock` in the state directory.
    pub admin: AdminAddress,
    /// Public keys, one of which must have signed every plugin. Default none: signatures are not looked at.
    pub require_signature: Vec<Key>,
}

/// Where the admin API listens. It is outside every policy: whoever reaches it controls the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminAddress {
    /// A unix socket; the file's permissions decide who may use it.
    Unix(PathBuf),
    /// A TCP address, in clear text.
    Tcp {
        /// The address to bind.
        address: SocketAddr,
        /// The file that holds the bearer token every request must carry.
        token: PathBuf,
    },
}

/// `[telemetry]`: what leaves the process about its traffic.
#[derive(Clone, Debug, PartialEq)]
pub struct Telemetry {
    /// OTLP/gRPC collector. Default: none, and no traces.
    pub otlp: Option<Url>,
    /// Share of exchanges traced, 0 to 1, default 1. Denied, failed and slow ones are always kept.
    pub sample: f64,
    /// Where the decision log goes. Default: standard output.
    pub access_log: AccessLog,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self { otlp: None, sample: defaults::SAMPLE, access_log: AccessLog::Stdout }
    }
}

/// Where the decision log goes, one JSON object per line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// Standard output.
    Stdout,
    /// Nowhere.
    Off,
    /// A file, appended to.
    File(PathBuf),
}

/// `[server]`, and the `include` patterns in it, which are gone once the files are read. `plugins` and `state` are the defaults.
pub(super) fn server(reader: Option<Reader<'_, '_>>, plugins: PathBuf, state: PathBuf) -> (Server, Vec<Located<String>>) {
    let workers = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let Some(mut reader) = reader else {
        let admin = AdminAddress::Unix(state.join(defaults::ADMIN_SOCKET));
        return (Server { workers: workers(), plugins, state, admin, require_signature: Vec::new() }, Vec::new());
    };
    let include = reader.list("include", values::path);
    let state = reader.file("state").unwrap_or(state);
    let admin = admin(&mut reader).unwrap_or_else(|| AdminAddress::Unix(state.join(defaults::ADMIN_SOCKET)));
    let workers = reader.optional("workers", values::count(1..=1024)).unwrap_or_else(workers);
    let plugins = reader.file("plugins").unwrap_or(plugins);
    let require_signature = plugin::keys(&mut reader);
    if let AdminAddress::Unix(path) = &admin {
        check_socket_path(&reader, path);
    }
    reader.finish();
    (Server { workers, plugins, state, admin, require_signature }, include)
}

enum Admin {
    Unix(String),
    Tcp(SocketAddr),
}

fn admin(reader: &mut Reader<'_, '_>) -> Option<AdminAddress> {
    let token = reader.file("admin_token");
    match reader.optional("admin", admin_address) {
        Some(Admin::Tcp(address)) => {
            if token.is_none() {
                let message = format!("an admin API on TCP needs a token ({address})");
                reader.conflict("admin", Invalid::new(message).hint("add admin_token = \"FILE\", or use \"unix:PATH\""));
            }
            token.map(|token| AdminAddress::Tcp { address, token })
        }
        unix => {
            if token.is_some() {
                let message = "only an admin API on TCP takes a token; a unix socket has file permissions";
                reader.conflict("admin_token", Invalid::new(message).hint("remove it, or set admin = \"127.0.0.1:9901\""));
            }
            unix.and_then(|admin| match admin {
                Admin::Unix(path) => Some(AdminAddress::Unix(reader.resolve(&path))),
                Admin::Tcp(_) => None,
            })
        }
    }
}

fn admin_address(value: &DeValue<'_>) -> Result<Admin, Invalid> {
    let text = values::string(value)?;
    let admin = match text.strip_prefix("unix:") {
        Some("") => None,
        Some(path) => Some(Admin::Unix(path.to_owned())),
        None => text.parse().ok().map(Admin::Tcp),
    };
    admin.ok_or_else(|| {
        let message = format!("not an admin address ({})", values::shown(value));
        Invalid::new(message).hint("write \"unix:PATH\" or \"127.0.0.1:9901\"")
    })
}

/// Linux takes socket paths of up to 107 bytes.
fn check_socket_path(reader: &Reader<'_, '_>, path: &std::path::Path) {
    const LONGEST: usize = 107;
    let length = path.as_os_str().len();
    if length > LONGEST {
        let message = format!("the socket's path is {length} bytes long ({}), {LONGEST} is the most", path.display());
        reader.conflict("admin", Invalid::new(message).hint("set admin = \"unix:/run/weir/admin.sock\" or another short path"));
    }
}

/// `[telemetry]`.
pub(super) fn telemetry(reader: Option<Reader<'_, '_>>) -> Telemetry {
    let Some(mut reader) = reader else { return Telemetry::default() };
    let access_log = reader.optional("access_log", values::path).map(|to| match to.as_str() {
        "stdout" => AccessLog::Stdout,
        "off" => AccessLog::Off,
        path => AccessLog::File(reader.resolve(path)),
    });
    let telemetry = Telemetry {
        otlp: reader.optional("otlp", address::url),
        sample: reader.or("sample", defaults::SAMPLE, values::ratio),
        access_log: access_log.unwrap_or(AccessLog::Stdout),
    };
    reader.finish();
    telemetry
}
