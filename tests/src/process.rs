//! Processes under measurement: their start, their CPU time, memory and descriptors, their end.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long a start may take: four policies are compiled.
const START: Duration = Duration::from_secs(60);
/// How long a process may take to end before it is killed.
const END: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(20);
/// How much of a log is worth showing.
const LOG_TAIL: usize = 2000;
/// The unit of `/proc/PID/stat`: `USER_HZ`, which Linux fixes at 100 per second on every architecture that Rust builds for.
const TICK: Duration = Duration::from_millis(10);

/// Why a process does not run.
#[derive(Debug)]
pub enum ProcessError {
    /// The file for its standard error cannot be made.
    Log { path: PathBuf, source: io::Error },
    /// The program cannot be started.
    Start { program: String, source: io::Error },
    /// It ended, or never listened; the end of what it wrote.
    NotReady { program: String, said: String },
    /// It is gone.
    Gone { program: String },
}

impl fmt::Display for ProcessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log { path, source } => write!(f, "{}: {source}", path.display()),
            Self::Start { program, source } => write!(f, "{program} cannot be started: {source}"),
            Self::NotReady { program, said } => write!(f, "{program} ended or does not listen; it said:\n{said}"),
            Self::Gone { program } => write!(f, "{program} is gone"),
        }
    }
}

impl std::error::Error for ProcessError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Log { source, .. } | Self::Start { source, .. } => Some(source),
            Self::NotReady { .. } | Self::Gone { .. } => None,
        }
    }
}

/// A running program, ended with its children by their ids when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

/// What a process and its children have used.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// User and system time since the start.
    pub cpu: Duration,
    /// Resident memory now, in bytes; pages that processes share count for each.
    pub memory: u64,
    /// Open file descriptors.
    pub descriptors: usize,
}

impl Process {
    /// Starts the command, with its standard error in the file `log`, and waits until it listens on all addresses.
    ///
    /// # Errors
    /// It cannot be started, ends, or does not listen within a minute.
    pub fn start(name: &str, mut command: Command, log: PathBuf, addresses: &[SocketAddr]) -> Result<Self, ProcessError> {
        let file = File::create(&log).map_err(|source| ProcessError::Log { path: log.clone(), source })?;
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).spawn();
        let child = child.map_err(|source| ProcessError::Start { program: name.to_owned(), source })?;
        let mut process = Self { name: name.to_owned(), child, log };
        for address in addresses {
            process.wait_for(*address)?;
        }
        Ok(process)
    }

    fn wait_for(&mut self, address: SocketAddr) -> Result<(), ProcessError> {
        let started = Instant::now();
        while TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_err() {
            let ended = self.child.try_wait().is_ok_and(|status| status.is_some());
            if ended || started.elapsed() > START {
                return Err(ProcessError::NotReady { program: self.name.clone(), said: self.said() });
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// What it and its children have used so far.
    ///
    /// # Errors
    /// It is gone.
    pub fn usage(&self) -> Result<Usage, ProcessError> {
        usage_of(self.child.id()).ok_or_else(|| ProcessError::Gone { program: self.name.clone() })
    }

    /// The end of what it wrote to standard error.
    #[must_use]
    pub fn said(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let from = log.ceil_char_boundary(log.len().saturating_sub(LOG_TAIL));
        log.get(from..).unwrap_or_default().to_owned()
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends it a signal, not its children.
    pub fn signal(&self, signal: Signal) {
        send(signal, self.child.id());
    }

    /// Ends it at once, as a crash does, and waits until it is gone.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        // The only error is that somebody waited already.
        drop(self.child.wait());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let ids: Vec<u32> = tree(self.child.id()).iter().map(|process| process.id).collect();
        if self.ended().is_some() {
            return;
        }
        // Asked first: nginx's workers outlive a master that was killed.
        self.signal(Signal::TERM);
        let started = Instant::now();
        while self.ended().is_none() {
            if started.elapsed() > END {
                ids.iter().for_each(|id| send(Signal::KILL, *id));
                drop(self.child.wait());
                return;
            }
            std::thread::sleep(POLL);
        }
    }
}

/// Sends a signal to one process. One that is gone needs none.
pub fn send(signal: Signal, id: u32) {
    if let Some(id) = i32::try_from(id).ok().and_then(Pid::from_raw) {
        let _ = kill_process(id, signal);
    }
}

/// Whether a process, which need not be a child, is there and not dead. One that nobody has waited for is dead.
#[must_use]
pub fn runs(id: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// What a process, which need not be a child, and its children use; nothing when it is gone.
#[must_use]
pub fn usage_of(id: u32) -> Option<Usage> {
    let tree = tree(id);
    if tree.is_empty() {
        return None;
    }
    let ticks: u32 = tree.iter().map(|process| process.ticks).sum();
    Some(Usage {
        cpu: TICK * ticks,
        memory: tree.iter().map(|process| resident(process.id)).sum(),
        descriptors: tree.iter().map(|process| descriptors(process.id)).sum(),
    })
}

/// One process as `/proc/PID/stat` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    id: u32,
    parent: u32,
    ticks: u32,
}

/// The process and everything below it; nothing when it is gone.
fn tree(root: u32) -> Vec<Stat> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let all: Vec<Stat> = ids.filter_map(|id| stat(id, &fs::read_to_string(format!("/proc/{id}/stat")).ok()?)).collect();
    descendants(root, &all)
}

fn descendants(root: u32, all: &[Stat]) -> Vec<Stat> {
    let mut found: Vec<Stat> = all.iter().filter(|process| process.id == root).copied().collect();
    let mut level = found.clone();
    while !level.is_empty() {
        level = all.iter().filter(|process| level.iter().any(|parent| parent.id == process.parent)).copied().collect();
        found.extend(&level);
    }
    found
}

/// The fields follow the program's name, which is in parentheses and may hold anything.
fn stat(id: u32, text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u32>().ok();
    Some(Stat { id, parent: number(1)?, ticks: number(11)? + number(12)? })
}

fn resident(id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

fn descriptors(id: u32) -> usize {
    fs::read_dir(format!("/proc/{id}/fd")).map_or(0, Iterator::count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_user_and_system_time_whatever_the_name() {
        let text = "42 (a) b (c) S 7 42 42 0 -1 4194560 100 0 0 0 250 30 9 9 20 0 1 0 5 1 1";
        assert_eq!(stat(42, text), Some(Stat { id: 42, parent: 7, ticks: 280 }));
        assert_eq!(stat(42, "42 (cut) S 7 42"), None);
        assert_eq!(stat(42, ""), None);
    }

    #[test]
    fn children_of_children_count_and_strangers_do_not() {
        let stat = |id, parent| Stat { id, parent, ticks: 1 };
        let all = [stat(1, 0), stat(10, 1), stat(11, 10), stat(12, 11), stat(20, 1)];
        let ids = |root| descendants(root, &all).iter().map(|process| process.id).collect::<Vec<_>>();
        assert_eq!(ids(10), [10, 11, 12]);
        assert_eq!(ids(20), [20]);
        assert!(ids(99).is_empty());
    }

    #[test]
    fn a_process_is_measured_and_ends_with_its_children() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 60 & echo started >&2; wait"]);
        let scratch = crate::Scratch::new();
        let process = Process::start("sleeper", command, scratch.path().join("log"), &[]).unwrap();
        crate::eventually(crate::LONG, "two processes", || tree(process.child.id()).len() == 2);
        assert!(process.usage().unwrap().memory > 0);
        let id = process.child.id();
        drop(process);
        assert!(tree(id).is_empty());
    }

    #[test]
    fn a_program_that_ends_says_why() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such file >&2; exit 3"]);
        let scratch = crate::Scratch::new();
        // No port of the system's choice: one of those may be given to another test in the meantime.
        let closed = SocketAddr::from(([127, 0, 0, 1], 9));
        let error = Process::start("broken", command, scratch.path().join("log"), &[closed]).unwrap_err();
        assert!(error.to_string().contains("no such file"), "{error}");
    }
}
