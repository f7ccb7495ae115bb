//! A real OpenTelemetry collector: the `rotel` package of PyPI carries one.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crate::scratch::Scratch;
use crate::tool;
use crate::wait::{LONG, eventually};

const PACKAGE: &str = "rotel==0.0.1a15";

/// A running collector that prints every span it gets.
#[derive(Debug)]
pub struct Collector {
    child: Child,
    /// Where it takes OTLP over gRPC.
    pub url: String,
    lines: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
    _scratch: Scratch,
}

/// A span as the collector printed it: its attributes are among the lines.
#[derive(Clone, Debug)]
pub struct Span {
    lines: Vec<String>,
}

impl Span {
    /// The value of a line `Name : value`.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.lines.iter().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key.trim() == name).then_some(value.trim())
        })
    }

    /// Whether a line holds all of these texts.
    #[must_use]
    pub fn says(&self, texts: &[&str]) -> bool {
        self.lines.iter().any(|line| texts.iter().all(|text| line.contains(text)))
    }
}

impl Collector {
    /// Starts one; `None`, said loudly, when it is not here and cannot be fetched.
    ///
    /// # Panics
    /// It does not listen.
    #[must_use]
    pub fn start() -> Option<Self> {
        let agent = agent()?;
        let scratch = Scratch::new();
        let (grpc, http) = (free_port(), free_port());
        let mut child = Command::new(agent)
            .args(["start", "--exporter", "blackhole", "--debug-log", "traces", "--debug-log-verbosity", "detailed"])
            .args(["--otlp-grpc-endpoint", &format!("127.0.0.1:{grpc}"), "--otlp-http-endpoint", &format!("127.0.0.1:{http}")])
            .arg("--pid-file")
            .arg(scratch.path().join("rotel.pid"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the collector");
        let lines = Arc::default();
        let readers =
            vec![follow(child.stdout.take().expect("piped"), &lines), follow(child.stderr.take().expect("piped"), &lines)];
        let collector = Self { child, url: format!("http://127.0.0.1:{grpc}"), lines, readers, _scratch: scratch };
        eventually(LONG, "the collector listens", || std::net::TcpStream::connect(("127.0.0.1", grpc)).is_ok());
        Some(collector)
    }

    /// Everything printed so far.
    #[must_use]
    pub fn text(&self) -> String {
        self.lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner).join("\n")
    }

    /// The spans of a trace so far.
    #[must_use]
    pub fn spans(&self, trace_id: &str) -> Vec<Span> {
        let text = self.text();
        let mut spans: Vec<Span> = Vec::new();
        for line in text.lines() {
            if line.starts_with("Span #") {
                spans.push(Span { lines: Vec::new() });
            } else if let Some(span) = spans.last_mut() {
                span.lines.push(line.to_owned());
            }
        }
        spans.retain(|span| span.says(&[trace_id]));
        spans
    }

    /// Ends the process at once.
    pub fn kill(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        for reader in self.readers.drain(..) {
            drop(reader.join());
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.kill();
    }
}

fn agent() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("WEIR_ROTEL") {
        return Some(path.into());
    }
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/rotel");
    let find = || {
        let libraries = fs::read_dir(home.join("lib")).ok()?;
        let agents = libraries.flatten().map(|entry| entry.path().join("site-packages/rotel/rotel-agent"));
        agents.into_iter().find(|path| path.is_file())
    };
    if let Some(found) = find() {
        return Some(found);
    }
    let home_text = home.display().to_string();
    let pip = home.join("bin/pip").display().to_string();
    let steps: [(&str, &[&str]); 2] = [("python3", &["-m", "venv", &home_text]), (&pip, &["install", "--quiet", PACKAGE])];
    for (program, arguments) in steps {
        let done = Command::new(program).args(arguments).stdin(Stdio::null()).output();
        if !done.is_ok_and(|output| output.status.success()) {
            tool::skipped(&format!("no collector: `{program} {}` failed", arguments.join(" ")));
            return None;
        }
    }
    find()
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

fn follow(stream: impl std::io::Read + Send + 'static, lines: &Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    let lines = Arc::clone(lines);
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(line);
        }
    })
}
