//! The side of the process that goes: starts its successor, waits until it is ready, and lets it serve. Until then nothing changes, and
//! a successor that fails or hangs is killed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sd_notify::NotifyState;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout_at};

use super::message::{self, Manifest, Message, VARIABLE};
use super::program::Program;

/// Why there is no successor. The running process goes on.
#[derive(Debug, Error)]
pub enum Refusal {
    /// One upgrade at a time.
    #[error("an upgrade is already under way")]
    Busy,
    /// A demonstration, for example.
    #[error("this process cannot be replaced while it runs")]
    Unsupported,
    /// The process is ending.
    #[error("the gateway is ending")]
    Ending,
    /// The binary cannot be started.
    #[error("cannot start {0}: {1}")]
    Start(String, io::Error),
    /// It refused what it found: the mistakes, as `weir check --json` shows them.
    #[error("the new process refused to start")]
    Failed(serde_json::Value),
    /// It ended without a word.
    #[error("the new process ended ({0}) before it was ready; what it wrote to standard error says why")]
    Ended(String),
    /// It was not ready in time.
    #[error("the new process was not ready within {0:?} and was killed")]
    Late(Duration),
    /// The hand-over itself failed.
    #[error("the new process could not be handed the sockets: {0}")]
    HandOver(io::Error),
}

/// A process that serves in this one's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Successor {
    /// Its number.
    pub pid: u32,
    /// Its version.
    pub version: String,
}

/// A process that may yet become the successor: killed when it does not.
#[derive(Debug)]
struct Candidate {
    child: Child,
    stream: UnixStream,
    /// Whether the service manager was told that this is the main process.
    announced: bool,
    accepted: bool,
}

impl Successor {
    /// Starts a successor and hands everything over. Returns when it serves.
    ///
    /// # Errors
    /// Why there is none. Dropped before that, the candidate is killed.
    pub async fn start(
        program: &Program,
        manifest: &Manifest,
        descriptors: &[OwnedFd],
        patience: Duration,
    ) -> Result<Self, Refusal> {
        let deadline = Instant::now() + patience;
        let mut candidate = Candidate::spawn(program)?;
        let handed_over = timeout_at(deadline, candidate.hand_over(manifest, descriptors));
        let version = match handed_over.await.map_err(|_| Refusal::Late(patience))? {
            Ok(Message::Ready { version }) => version,
            Ok(Message::Failed { errors }) => return Err(Refusal::Failed(errors)),
            Ok(_) => return Err(Refusal::HandOver(io::ErrorKind::InvalidData.into())),
            Err(error) => return Err(candidate.ended(error)),
        };
        let pid = candidate.child.id();
        // Before it says READY itself: the manager hears only the main process.
        candidate.announced = true;
        notify(&[NotifyState::MainPid(pid)]);
        match timeout_at(deadline, candidate.go()).await.map_err(|_| Refusal::Late(patience))? {
            Ok(Message::Serving) => {}
            Ok(_) => return Err(Refusal::HandOver(io::ErrorKind::InvalidData.into())),
            Err(error) => return Err(candidate.ended(error)),
        }
        candidate.accepted = true;
        Ok(Self { pid, version })
    }
}

impl Candidate {
    fn spawn(program: &Program) -> Result<Self, Refusal> {
        let wrong = |error| Refusal::Start(program.path.display().to_string(), error);
        let (ours, theirs) = StdStream::pair().map_err(wrong)?;
        ours.set_nonblocking(true).map_err(wrong)?;
        let stream = UnixStream::from_std(ours).map_err(wrong)?;
        let mut command = Command::new(&program.path);
        command.args(&program.arguments).stdin(Stdio::from(OwnedFd::from(theirs))).env(VARIABLE, "1");
        // Sockets of the service manager are handed over like all others; its watchdog shall watch whoever is the main process.
        for variable in ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_PID"] {
            command.env_remove(variable);
        }
        let child = command.spawn().map_err(wrong)?;
        Ok(Self { child, stream, announced: false, accepted: false })
    }

    async fn hand_over(&mut self, manifest: &Manifest, descriptors: &[OwnedFd]) -> io::Result<Message> {
        self.stream.write_all(&message::frame(manifest)?).await?;
        let borrowed: Vec<BorrowedFd<'_>> = descriptors.iter().map(OwnedFd::as_fd).collect();
        for batch in message::batches(&borrowed) {
            let stream = &self.stream;
            stream.async_io(Interest::WRITABLE, || message::send(stream, batch)).await?;
        }
        self.hear().await
    }

    async fn go(&mut self) -> io::Result<Message> {
        self.stream.write_all(&message::frame(&Message::Go)?).await?;
        self.hear().await
    }

    async fn hear(&mut self) -> io::Result<Message> {
        let mut head = [0; 4];
        self.stream.read_exact(&mut head).await?;
        let mut json = vec![0; message::length(head)?];
        self.stream.read_exact(&mut json).await?;
        Ok(serde_json::from_slice(&json)?)
    }

    /// Its end of the stream is closed: most likely it has ended.
    fn ended(&mut self, error: io::Error) -> Refusal {
        let closed =
            matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset);
        if !closed {
            return Refusal::HandOver(error);
        }
        // A program that is something else entirely may close its input and live on.
        drop(self.child.kill());
        match self.child.wait() {
            Ok(status) => Refusal::Ended(status.to_string()),
            Err(error) => Refusal::HandOver(error),
        }
    }
}

impl Drop for Candidate {
    fn drop(&mut self) {
        if self.accepted {
            return;
        }
        // Killing one that has ended does nothing; the wait takes its remains away.
        drop(self.child.kill());
        drop(self.child.wait());
        if self.announced {
            notify(&[NotifyState::MainPid(std::process::id())]);
        }
    }
}

/// Tells the service manager, if there is one.
pub fn notify(states: &[NotifyState<'_>]) {
    // A service manager that does not listen is none.
    drop(sd_notify::notify(states));
}
