//! What a gateway is started with: a configuration file and the files it names.

use std::fmt::Write as _;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::client::HOST;
use crate::gateway::Gateway;
use crate::scratch::Scratch;
use crate::tls::Pair;
use crate::upstream::Upstream;
use crate::wasm;

/// A configuration in the making. Its listeners are on ports that the system chooses; the plain one comes first.
#[derive(Debug)]
pub struct Setup {
    /// The directory of `weir.toml`.
    pub directory: Scratch,
    server: Vec<String>,
    telemetry: Vec<String>,
    chain: Vec<String>,
    upstream: Option<String>,
    upstream_lines: Vec<String>,
    certificates: usize,
    sections: String,
    trusts_loopback: bool,
    replaced: Vec<(String, String)>,
    launch: Launch,
}

/// How the binary is started.
#[derive(Debug, Default)]
pub(crate) struct Launch {
    binary: Option<PathBuf>,
    variables: Vec<(String, String)>,
    /// Passed the way service managers do.
    socket: Option<OwnedFd>,
    /// The process may have so many files open.
    open_files: Option<u32>,
    /// A shell script that ends by becoming what `"$@"` says.
    through: Option<String>,
}

impl Launch {
    pub(crate) fn command(self, config: &Path) -> Command {
        let binary = self.binary.unwrap_or_else(binary);
        let open_files = self.open_files.map(|most| format!("ulimit -n {most}; exec \"$@\""));
        let mut command = match (self.socket, self.through.or(open_files)) {
            (None, Some(script)) => {
                let mut command = Command::new("sh");
                command.args(["-c", &script, "sh"]).arg(binary).stdin(Stdio::null());
                command
            }
            (None, None) => {
                let mut command = Command::new(binary);
                command.stdin(Stdio::null());
                command
            }
            // The shell puts the socket where it belongs and becomes the gateway, whose process id it knows then.
            (Some(socket), _) => {
                let mut command = Command::new("sh");
                let script = "exec env LISTEN_FDS=1 LISTEN_PID=$$ \"$@\" 3<&0 </dev/null";
                command.args(["-c", script, "sh"]).arg(binary).stdin(Stdio::from(socket));
                command
            }
        };
        command.args(["run", "--config"]).arg(config).envs(self.variables);
        command
    }
}

/// What `weir check` did.
#[derive(Debug)]
pub struct Checked {
    /// Its exit code.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Checked {
    /// Both outputs.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

impl Setup {
    /// A gateway without sites.
    #[must_use]
    pub fn empty() -> Self {
        let directory = Scratch::new();
        std::fs::create_dir_all(directory.path().join("plugins")).expect("a directory in the scratch directory");
        Self {
            directory,
            server: vec!["workers = 2".to_owned()],
            telemetry: Vec::new(),
            chain: Vec::new(),
            upstream: None,
            upstream_lines: Vec::new(),
            certificates: 0,
            sections: String::new(),
            trusts_loopback: false,
            replaced: Vec::new(),
            launch: Launch::default(),
        }
    }

    /// One site `site` with the host `site.test`, answered by `origin`.
    #[must_use]
    pub fn before(origin: &Upstream) -> Self {
        Self::before_servers(&[(&origin.url(), 0)])
    }

    /// One site `site` with the host `site.test`, answered by servers with these URLs and priorities.
    #[must_use]
    pub fn before_servers(servers: &[(&str, u32)]) -> Self {
        let mut setup = Self::empty();
        let servers: Vec<String> =
            servers.iter().map(|(url, priority)| format!("{{ url = \"{url}\", priority = {priority} }}")).collect();
        setup.upstream = Some(servers.join(", "));
        setup
    }

    /// A line of `[server]`.
    #[must_use]
    pub fn server(mut self, line: &str) -> Self {
        self.server.push(line.to_owned());
        self
    }

    /// A line of `[telemetry]`.
    #[must_use]
    pub fn telemetry(mut self, line: &str) -> Self {
        self.telemetry.push(line.to_owned());
        self
    }

    /// A line of the upstream of [`Setup::before`].
    #[must_use]
    pub fn upstream(mut self, line: &str) -> Self {
        self.upstream_lines.push(line.to_owned());
        self
    }

    /// Sections as text.
    #[must_use]
    pub fn section(mut self, text: &str) -> Self {
        let _ = writeln!(self.sections, "{text}");
        self
    }

    /// Replaces text of what the default configuration has.
    #[must_use]
    pub fn replace(mut self, old: &str, new: &str) -> Self {
        self.replaced.push((old.to_owned(), new.to_owned()));
        self
    }

    /// The process may have so many files open, sockets included.
    #[must_use]
    pub fn open_files(mut self, most: u32) -> Self {
        self.launch.open_files = Some(most);
        self
    }

    /// Starts it through a shell script that ends by becoming what `"$@"` says: with other rights, or with mounts of its own.
    #[must_use]
    pub fn through(mut self, script: &str) -> Self {
        self.launch.through = Some(script.to_owned());
        self
    }

    /// A file beside `weir.toml`.
    #[must_use]
    pub fn file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        self.directory.write(name, content);
        self
    }

    /// A site of its own, with an upstream of the same name.
    #[must_use]
    pub fn site(self, name: &str, hosts: &[&str], origin: &Upstream) -> Self {
        let section = site(name, hosts, &origin.url());
        self.section(&section)
    }

    /// A certificate, and a TLS listener with the first one.
    #[must_use]
    pub fn certificate(mut self, pair: &Pair) -> Self {
        let number = self.certificates;
        self.certificates += 1;
        self.directory.write(&format!("tls/{number}.pem"), &pair.cert);
        self.directory.write(&format!("tls/{number}.key"), &pair.key);
        self.section(&format!("[[certificate]]\ncert = \"tls/{number}.pem\"\nkey = \"tls/{number}.key\""))
    }

    /// The loopback is a trusted proxy: [`Request::from`](crate::Request::from) tells the client's address.
    #[must_use]
    pub const fn behind_proxy(mut self) -> Self {
        self.trusts_loopback = true;
        self
    }

    /// A policy at the end of the site's chain, from one of the shipped plugins.
    #[must_use]
    pub fn policy(self, name: &str, plugin: &str, lines: &str) -> Self {
        let file = wasm::policy(plugin);
        self.plugin(name, plugin, &file, lines)
    }

    /// A policy at the end of the site's chain, from a guest of the fixtures.
    #[must_use]
    pub fn guest(self, name: &str, lines: &str) -> Self {
        let file = wasm::guest(name);
        self.plugin(name, name, &file, lines)
    }

    /// A policy at the end of the site's chain, from a file.
    ///
    /// # Panics
    /// The file cannot be copied.
    #[must_use]
    pub fn plugin(mut self, name: &str, plugin: &str, file: &Path, lines: &str) -> Self {
        let target = self.directory.path().join(format!("plugins/{plugin}.wasm"));
        std::fs::copy(file, target).expect("a copy of a plugin");
        self.chain.push(name.to_owned());
        self.section(&format!("[policy.{name}]\nplugin = \"{plugin}\"\n{lines}"))
    }

    /// The country database of [`geo`](crate::geo).
    #[must_use]
    pub fn countries(self) -> Self {
        self.file("country.mmdb", crate::geo::database()).section("[geoip]\ndatabase = \"country.mmdb\"")
    }

    /// Starts a copy of the binary that lies beside `weir.toml`, where a test can replace it.
    ///
    /// # Panics
    /// It cannot be copied.
    #[must_use]
    pub fn own_binary(mut self) -> Self {
        let copy = self.directory.path().join("weir");
        install(&binary(), &copy);
        self.launch.binary = Some(copy);
        self
    }

    /// A variable of the environment.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.launch.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Passes a listening socket the way service managers do (`LISTEN_FDS`), and configures its address instead of the plain listener's.
    ///
    /// # Panics
    /// The system refuses.
    #[must_use]
    pub fn activated(mut self, socket: &TcpListener) -> Self {
        self.launch.socket = Some(socket.try_clone().expect("a second handle").into());
        let address = format!("address = \"{}\"\n", socket.local_addr().expect("its address"));
        self.replace("address = \"127.0.0.1:0\"\n", &address)
    }

    /// The text of `weir.toml`.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("[server]\n{}\n[telemetry]\n{}\n", self.server.join("\n"), self.telemetry.join("\n"));
        text.push_str("[[listener]]\naddress = \"127.0.0.1:0\"\n");
        if self.certificates > 0 {
            text.push_str("[[listener]]\naddress = \"127.0.0.1:0\"\ntls = true\n");
        }
        if self.trusts_loopback {
            text.push_str("[client_address]\ntrusted_proxies = [\"127.0.0.0/8\"]\n");
        }
        if let Some(servers) = &self.upstream {
            let _ = writeln!(text, "[upstream.origin]\nservers = [{servers}]\n{}", self.upstream_lines.join("\n"));
            let chain: Vec<String> = self.chain.iter().map(|name| format!("\"{name}\"")).collect();
            let _ = writeln!(
                text,
                "[[site]]\nname = \"site\"\nhosts = [\"{HOST}\"]\nupstream = \"origin\"\nchain = [{}]",
                chain.join(", ")
            );
        }
        text.push_str(&self.sections);
        self.replaced.iter().fold(text, |text, (old, new)| text.replace(old, new))
    }

    /// Writes `weir.toml` and answers its path.
    #[must_use]
    pub fn write(&self) -> PathBuf {
        self.directory.write("weir.toml", self.text())
    }

    /// Starts the gateway and waits until it is ready.
    #[must_use]
    pub fn start(self) -> Gateway {
        let text = self.text();
        Gateway::start(self.directory, &text, self.launch)
    }

    /// Runs `weir check`.
    ///
    /// # Panics
    /// The binary cannot be run.
    #[must_use]
    pub fn check(&self) -> Checked {
        run(&["check", "--config", &self.write().display().to_string()])
    }
}

/// A site and its upstream as text.
#[must_use]
pub fn site(name: &str, hosts: &[&str], url: &str) -> String {
    let hosts: Vec<String> = hosts.iter().map(|host| format!("\"{host}\"")).collect();
    format!(
        "[upstream.{name}]\nservers = [{{ url = \"{url}\" }}]\n[[site]]\nname = \"{name}\"\nhosts = [{}]\nupstream = \"{name}\"",
        hosts.join(", ")
    )
}

/// Runs the binary to its end.
///
/// # Panics
/// It cannot be run.
#[must_use]
pub fn run(arguments: &[&str]) -> Checked {
    let output = Command::new(binary()).args(arguments).stdin(Stdio::null()).output().expect("the weir binary");
    Checked {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Puts a program somewhere. Another process writes it: a child that this one forks meanwhile would keep the file open for writing, and
/// the system starts no such program.
///
/// # Panics
/// It cannot be copied.
pub(crate) fn install(from: &Path, to: &Path) {
    let script = "cp \"$1\" \"$2.new\" && chmod 755 \"$2.new\" && mv \"$2.new\" \"$2\"";
    let copied = Command::new("sh").args(["-c", script, "sh"]).args([from, to]).status();
    assert!(copied.expect("a shell").success(), "{} cannot be copied to {}", from.display(), to.display());
}

/// The binary under test.
#[must_use]
pub fn binary() -> PathBuf {
    let built = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/weir");
    std::env::var_os("WEIR_BIN").map_or_else(built, PathBuf::from)
}
