//! A running gateway.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::{Answer, Connection, Request};
use crate::generations::kill;
use crate::scratch::Scratch;
use crate::setup::{Checked, Launch};
use crate::wait::{LONG, eventually};
use crate::wire::{Framing, Wire};

/// How long a start may take: four policies are compiled, perhaps while other tests do the same.
const START: Duration = Duration::from_secs(60);

type Shared<T> = Arc<Mutex<Vec<T>>>;

/// The real binary, ended by its process id when dropped.
#[derive(Debug)]
pub struct Gateway {
    pub(crate) child: Child,
    directory: Scratch,
    listeners: Vec<SocketAddr>,
    admin: Option<PathBuf>,
    log: Shared<Value>,
    errors: Shared<String>,
    readers: Vec<JoinHandle<()>>,
}

impl Gateway {
    pub(crate) fn start(directory: Scratch, text: &str, launch: Launch) -> Self {
        let config = directory.write("weir.toml", text);
        let (log, errors) = (Shared::default(), Shared::default());
        let (child, readers) = spawn(launch.command(&config), &log, &errors);
        let mut gateway = Self { child, directory, listeners: Vec::new(), admin: None, log, errors, readers };
        gateway.wait_until_ready();
        gateway
    }

    /// Kills the process as a crash would, and starts it again on the same files. What it said before is forgotten.
    ///
    /// # Panics
    /// It does not start.
    pub fn restart(&mut self) {
        self.restart_after(|| {});
    }

    /// The same, with something that happens while it does not run.
    ///
    /// # Panics
    /// It does not start.
    pub fn restart_after(&mut self, meanwhile: impl FnOnce()) {
        drop(self.child.kill());
        drop(self.child.wait());
        meanwhile();
        for reader in self.readers.drain(..) {
            drop(reader.join());
        }
        lock(&self.log).clear();
        lock(&self.errors).clear();
        self.listeners.clear();
        self.admin = None;
        (self.child, self.readers) = spawn(Launch::default().command(&self.config()), &self.log, &self.errors);
        self.wait_until_ready();
    }

    fn wait_until_ready(&mut self) {
        let started = Instant::now();
        while !lock(&self.errors).iter().any(|line| line.trim() == "ready") {
            let ended = self.child.try_wait().expect("a child");
            assert!(ended.is_none() && started.elapsed() < START, "not ready ({ended:?}):\n{}", self.stderr());
            std::thread::sleep(Duration::from_millis(5));
        }
        for line in lock(&self.errors).iter() {
            if let Some(url) = line.trim().strip_prefix("listening on ") {
                let address = url.rsplit("//").next().unwrap_or_default();
                self.listeners.push(address.parse().unwrap_or_else(|_| panic!("no address: {line}")));
            } else if let Some(path) = line.trim().strip_prefix("admin on unix:") {
                self.admin = Some(self.directory.path().join(path));
            }
        }
    }

    /// The plain listener.
    ///
    /// # Panics
    /// There is none.
    #[must_use]
    pub fn plain(&self) -> SocketAddr {
        self.listener(0)
    }

    /// The TLS listener.
    ///
    /// # Panics
    /// There is none.
    #[must_use]
    pub fn tls(&self) -> SocketAddr {
        self.listener(1)
    }

    /// A listener by its place in the file.
    ///
    /// # Panics
    /// There is none.
    #[must_use]
    pub fn listener(&self, index: usize) -> SocketAddr {
        *self.listeners.get(index).unwrap_or_else(|| panic!("no listener {index}:\n{}", self.stderr()))
    }

    /// A connection to the plain listener.
    ///
    /// # Panics
    /// It is refused.
    #[must_use]
    pub fn connect(&self) -> Connection {
        Connection::open(self.plain()).expect("a connection to the gateway")
    }

    /// Asks over a new plain connection.
    ///
    /// # Panics
    /// There is no answer.
    #[must_use]
    pub fn ask(&self, request: &Request) -> Answer {
        self.connect().ask(request).unwrap_or_else(|error| panic!("no answer to {request:?}: {error}"))
    }

    /// GET over a new plain connection.
    ///
    /// # Panics
    /// There is no answer.
    #[must_use]
    pub fn get(&self, target: &str) -> Answer {
        self.ask(&Request::get(target))
    }

    /// The decision log so far.
    #[must_use]
    pub fn log(&self) -> Vec<Value> {
        lock(&self.log).clone()
    }

    /// Waits for a line of the decision log.
    ///
    /// # Panics
    /// None comes.
    #[must_use]
    pub fn log_where(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut found = None;
        let started = Instant::now();
        while started.elapsed() < LONG && found.is_none() {
            found = lock(&self.log).iter().find(|line| wanted(line)).cloned();
            std::thread::sleep(Duration::from_millis(5));
        }
        found.unwrap_or_else(|| panic!("no such line in the decision log:\n{:#?}", self.log()))
    }

    /// Waits for the line of an answer.
    #[must_use]
    pub fn log_of(&self, answer: &Answer) -> Value {
        let id = answer.request_id();
        self.log_where(|line| line["request_id"] == id.as_str())
    }

    /// Everything said on standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        lock(&self.errors).join("\n")
    }

    /// The directory of `weir.toml`.
    #[must_use]
    pub fn directory(&self) -> &Scratch {
        &self.directory
    }

    /// The file of a plugin.
    #[must_use]
    pub fn plugin_file(&self, name: &str) -> PathBuf {
        self.directory.path().join(format!("plugins/{name}.wasm"))
    }

    /// Asks the admin API.
    ///
    /// # Panics
    /// There is no answer.
    #[must_use]
    pub fn admin(&self, line: &str) -> Answer {
        let path = self.admin.as_deref().unwrap_or_else(|| panic!("no admin socket:\n{}", self.stderr()));
        ask_admin(path, line).unwrap_or_else(|error| panic!("no answer of the admin API to {line}: {error}"))
    }

    /// `GET /v1/plugins`: the entries of one plugin.
    ///
    /// # Panics
    /// The answer is no JSON.
    #[must_use]
    pub fn plugin(&self, name: &str) -> Vec<Value> {
        let answer = self.admin("GET /v1/plugins");
        let json: Value = serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{error}: {}", answer.text()));
        let all = json["plugins"].as_array().cloned().unwrap_or_default();
        all.into_iter().filter(|plugin| plugin["name"] == name).collect()
    }

    /// Whether a plugin with this digest is live.
    #[must_use]
    pub fn is_live(&self, name: &str, digest: &str) -> bool {
        self.plugin(name).iter().any(|plugin| {
            plugin["state"] == "live"
                && plugin["digest"].as_str().is_some_and(|own| own.ends_with(digest) || digest.starts_with(own))
        })
    }

    /// The digests of a plugin that are in this state, such as `previous` or `rolled_back`.
    #[must_use]
    pub fn builds(&self, name: &str, state: &str) -> Vec<String> {
        let plugins = self.plugin(name);
        let builds = plugins.iter().filter_map(|plugin| plugin["versions"].as_array()).flatten();
        let wanted = builds.filter(|build| build["state"] == state);
        wanted.filter_map(|build| build["digest"].as_str().map(str::to_owned)).collect()
    }

    /// Waits until the last file of a plugin was rejected and answers the reason.
    ///
    /// # Panics
    /// It is not rejected.
    #[must_use]
    pub fn rejection(&self, name: &str) -> String {
        let mut reason = String::new();
        eventually(LONG, &format!("{name} is rejected"), || {
            let entries = self.plugin(name);
            reason = entries.iter().find_map(|plugin| plugin["reason"].as_str()).unwrap_or_default().to_owned();
            !reason.is_empty()
        });
        reason
    }

    /// Replaces `weir.toml` at once, without telling anybody.
    ///
    /// # Panics
    /// The system refuses.
    pub fn rewrite(&self, change: impl Fn(&str) -> String) {
        let path = self.config();
        let text = change(&fs::read_to_string(&path).unwrap());
        let beside = self.directory.write("weir.toml.new", text);
        fs::rename(beside, path).unwrap();
    }

    /// The path of `weir.toml`.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.directory.path().join("weir.toml")
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory in bytes.
    ///
    /// # Panics
    /// The process is gone.
    #[must_use]
    pub fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("a running process");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") * 1024
    }

    /// CPU time used so far, of all threads, in the system's ticks of 10 ms.
    ///
    /// # Panics
    /// The process is gone.
    #[must_use]
    pub fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("a running process");
        // The name may hold spaces; what follows its parenthesis does not.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().expect("a number")).sum();
        Duration::from_millis(10 * ticks)
    }

    /// Its threads: their names, and how nice they are.
    ///
    /// # Panics
    /// The process is gone.
    #[must_use]
    pub fn threads(&self) -> Vec<(String, i32)> {
        let threads = fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("a running process").flatten();
        let thread = |entry: fs::DirEntry| {
            // One may end while they are listed.
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let (name, rest) = stat.split_once('(')?.1.rsplit_once(") ")?;
            // The 19th field of `proc_pid_stat(5)`; `rest` begins with the third.
            Some((name.to_owned(), rest.split_whitespace().nth(16)?.parse().ok()?))
        };
        threads.filter_map(thread).collect()
    }

    /// Whether one of its threads has this name.
    ///
    /// # Panics
    /// The process is gone.
    #[must_use]
    pub fn has_thread(&self, name: &str) -> bool {
        self.threads().iter().any(|(own, _)| own == name)
    }

    /// A sample of the metrics by its name and labels; 0 when there is none.
    ///
    /// # Panics
    /// It is no number.
    #[must_use]
    pub fn metric(&self, sample: &str) -> f64 {
        let text = self.admin("GET /metrics").text();
        let value = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().expect("a number"))
    }

    /// Runs a command of the binary against this gateway, such as `plugin rollback ips`.
    ///
    /// # Panics
    /// It cannot be run.
    #[must_use]
    pub fn command(&self, words: &str) -> Checked {
        let config = self.config().display().to_string();
        let arguments: Vec<&str> = words.split_whitespace().chain(["--config", &config]).collect();
        crate::setup::run(&arguments)
    }

    /// Sends a signal, such as `TERM`.
    ///
    /// # Panics
    /// The system refuses.
    pub fn signal(&self, name: &str) {
        kill(name, self.child.id());
    }

    /// Waits for the end of the process.
    ///
    /// # Panics
    /// It does not end.
    pub fn wait(&mut self) -> ExitStatus {
        let child = &mut self.child;
        let mut ended = None;
        eventually(LONG * 2, "the gateway ends", || {
            ended = child.try_wait().expect("a child");
            ended.is_some()
        });
        ended.expect("waited for")
    }

    /// Whether the process still runs.
    #[must_use]
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|ended| ended.is_none())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Captured by the test runner and shown with the failure.
            #[allow(clippy::print_stderr, reason = "only a failed test says so")]
            {
                eprintln!("--- the gateway said:\n{}\n--- last of its log:", self.stderr());
                for line in self.log().iter().rev().take(5) {
                    eprintln!("{line}");
                }
            }
        }
        drop(self.child.kill());
        drop(self.child.wait());
        // Successors write to the same pipes: a reader ends with the last of them.
        while self.readers.iter().any(|reader| !reader.is_finished()) {
            self.successors().into_iter().for_each(|pid| kill("KILL", pid));
            std::thread::sleep(Duration::from_millis(5));
        }
        for reader in self.readers.drain(..) {
            drop(reader.join());
        }
    }
}

fn spawn(mut command: Command, log: &Shared<Value>, errors: &Shared<String>) -> (Child, Vec<JoinHandle<()>>) {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.expect("the weir binary: build it with `make build`");
    let readers = vec![
        follow(child.stdout.take().expect("piped"), Arc::clone(log), |line| serde_json::from_str(line).ok()),
        follow(child.stderr.take().expect("piped"), Arc::clone(errors), |line| Some(line.to_owned())),
    ];
    (child, readers)
}

/// Asks an admin API on a socket, such as `GET /v1/plugins`.
///
/// # Errors
/// There is none, or its answer does not come.
pub fn ask_admin(path: &Path, line: &str) -> std::io::Result<Answer> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(LONG))?;
    let mut wire = Wire::new(Box::new(stream));
    let length = if line.starts_with("POST") { "content-length: 0\r\n" } else { "" };
    wire.send(format!("{line} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n{length}\r\n").as_bytes())?;
    let head = wire.head()?.ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let status = head.first_line.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    let mut body = Vec::new();
    wire.body(head.framing().unwrap_or(Framing::ToEnd), &mut |piece| body.extend_from_slice(piece))?;
    Ok(Answer { status, head, body })
}

fn follow<T: Send + 'static>(
    stream: impl Read + Send + 'static,
    lines: Shared<T>,
    read: impl Fn(&str) -> Option<T> + Send + 'static,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if let Some(line) = read(&line) {
                lock(&lines).push(line);
            }
        }
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
