//! A policy's author: a shell that stays where it was told to go, in a scratch directory, with the gateway's binary in its path and one
//! build directory for all tests.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::scratch::Scratch;
use crate::setup::{Checked, binary};

/// How long the gateway of an author may take to start.
const START: Duration = Duration::from_secs(60);

/// A shell, and what it started.
#[derive(Debug)]
pub struct Author {
    directory: Scratch,
    here: PathBuf,
    /// Text that commands and files have, and what tests say instead: ports must be free, and two tests may not share one.
    replaced: Vec<(String, String)>,
    running: Vec<Child>,
}

impl Default for Author {
    fn default() -> Self {
        Self::new()
    }
}

impl Author {
    /// In an empty directory.
    #[must_use]
    pub fn new() -> Self {
        let directory = Scratch::new();
        let here = directory.path().to_owned();
        Self { directory, here, replaced: Vec::new(), running: Vec::new() }
    }

    /// Says another text in every command and file.
    #[must_use]
    pub fn replace(mut self, old: &str, new: &str) -> Self {
        self.replaced.push((old.to_owned(), new.to_owned()));
        self
    }

    /// Has a free port in the place of this one.
    ///
    /// # Panics
    /// There is none.
    #[must_use]
    pub fn port(self, written: u16) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
        self.replace(&format!("127.0.0.1:{written}"), &format!("127.0.0.1:{}", free.port()))
    }

    /// Where the shell is.
    #[must_use]
    pub fn here(&self) -> &Path {
        &self.here
    }

    /// A text as tests say it.
    #[must_use]
    pub fn say(&self, text: &str) -> String {
        self.replaced.iter().fold(text.to_owned(), |text, (old, new)| text.replace(old, new))
    }

    /// Writes a file, relative to where the shell is.
    ///
    /// # Panics
    /// It cannot be written.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.here.join(path);
        fs::create_dir_all(path.parent().expect("a directory")).unwrap();
        fs::write(path, self.say(text)).unwrap();
    }

    /// Says what is replaced in a file that somebody else wrote.
    ///
    /// # Panics
    /// It cannot be read or written.
    pub fn adapt(&self, path: &str) {
        self.write(path, &fs::read_to_string(self.here.join(path)).unwrap());
    }

    /// Makes the project here build where all tests build: what they depend on is compiled once.
    ///
    /// # Panics
    /// The system refuses.
    pub fn share_build(&self) {
        let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/author");
        fs::create_dir_all(&shared).unwrap();
        symlink(shared.canonicalize().unwrap(), self.here.join("target")).unwrap();
    }

    /// Runs commands to their end, stopping at the first that fails.
    ///
    /// # Panics
    /// There is no shell.
    pub fn run(&mut self, commands: &str) -> Checked {
        let output = self.shell(&format!("{}\npwd > \"$WEIR_HERE\"\n", self.say(commands))).output().expect("a shell");
        if let Ok(here) = fs::read_to_string(self.place()) {
            self.here = PathBuf::from(here.trim_end());
        }
        Checked {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs commands that must succeed; answers what they printed.
    ///
    /// # Panics
    /// One fails.
    pub fn ok(&mut self, commands: &str) -> String {
        let done = self.run(commands);
        assert_eq!(done.code, Some(0), "{commands}\n{}", done.text());
        done.stdout
    }

    /// Starts a gateway and waits until it is ready. It ends with the author.
    ///
    /// # Panics
    /// It does not come up.
    pub fn start(&mut self, command: &str) {
        let said = self.directory.path().join(format!("said-{}", self.running.len()));
        let log = fs::File::create(said.with_extension("log")).unwrap();
        let errors = fs::File::create(&said).unwrap();
        // The shell becomes the gateway, whose process id is known then.
        let mut child = self.shell(&format!("exec {}", self.say(command))).stdout(log).stderr(errors).spawn().expect("a shell");
        let started = Instant::now();
        loop {
            let said = fs::read_to_string(&said).unwrap();
            if said.lines().any(|line| line.trim() == "ready") {
                break;
            }
            let ended = child.try_wait().expect("a child");
            assert!(ended.is_none() && started.elapsed() < START, "{command}: not ready ({ended:?}):\n{said}");
            std::thread::sleep(Duration::from_millis(5));
        }
        self.running.push(child);
    }

    /// The decision log of the gateway that was started last, and what it said.
    ///
    /// # Panics
    /// None was started.
    #[must_use]
    pub fn heard(&self) -> (String, String) {
        let said = self.directory.path().join(format!("said-{}", self.running.len() - 1));
        (fs::read_to_string(said.with_extension("log")).unwrap(), fs::read_to_string(said).unwrap())
    }

    fn place(&self) -> PathBuf {
        self.directory.path().join("here")
    }

    fn shell(&self, script: &str) -> Command {
        let binaries = binary().canonicalize().expect("the weir binary: build it with `make build`");
        let mut path = binaries.parent().expect("a directory").as_os_str().to_owned();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        let mut command = Command::new("bash");
        command.args(["-e", "-o", "pipefail", "-c", script]).current_dir(&self.here).stdin(Stdio::null());
        // What Cargo tells the tests is not meant for the builds of an author, who needs no crate that is not there already.
        let own = std::env::vars_os().filter(|(name, _)| {
            let name = name.to_string_lossy();
            name.starts_with("CARGO") && !["CARGO_HOME", "CARGO_BUILD_JOBS"].contains(&&*name)
        });
        for (name, _) in own {
            command.env_remove(name);
        }
        command
            .env("PATH", path)
            .env("WEIR_HERE", self.place())
            .env("CARGO_NET_OFFLINE", "true")
            .env("CARGO_PROFILE_DEV_DEBUG", "0");
        command
    }
}

impl Drop for Author {
    fn drop(&mut self) {
        for mut child in self.running.drain(..) {
            drop(child.kill());
            drop(child.wait());
        }
    }
}
