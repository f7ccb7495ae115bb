//! The upstreams as processes, and the proxy before them.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use weir_tests::chaos::{Executed, HEALTH, STATISTICS, executed};
use weir_tests::process::{self, Process, ProcessError};
use weir_tests::{Connection, Request, Scratch, gateway, setup, sockets, tool};

use crate::configs::{self, Addresses, HOST};
use crate::error::Error;

/// How long the first answer may take.
const READY: Duration = Duration::from_secs(20);
/// How long an order to a proxy may take.
const ORDER: Duration = Duration::from_secs(10);
/// After so long it is given again.
const REPEAT: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(5);

/// A proxy that can be put on the stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Weir,
    Nginx,
    Haproxy,
}

impl Kind {
    /// In the order of the report's columns.
    pub(crate) const ALL: [Self; 3] = [Self::Weir, Self::Nginx, Self::Haproxy];

    /// Its name.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Weir => "weir",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
        }
    }

    /// The program, if it is there.
    #[must_use]
    pub(crate) fn program(self) -> Option<PathBuf> {
        match self {
            Self::Weir => Some(setup::binary()).filter(|binary| binary.is_file()),
            Self::Nginx | Self::Haproxy => tool::find(self.name()),
        }
    }
}

/// An upstream that can be killed and comes back at the same address.
#[derive(Debug)]
pub(crate) struct Server {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    journal: PathBuf,
    delay: Duration,
    process: Option<Process>,
}

impl Server {
    /// Starts it at an address of its own; it takes so long for an answer.
    ///
    /// # Errors
    /// It does not start.
    pub(crate) fn start(scratch: &Scratch, name: &str, delay: Duration) -> Result<Self, Error> {
        let port = sockets::free_address().map_err(Error::system("no free port"))?.port();
        let address = SocketAddr::from((sockets::own_address(), port));
        let mut server = Self { address, journal: scratch.path().join(name), delay, process: None };
        server.begin()?;
        Ok(server)
    }

    /// Starts it, again or for the first time.
    ///
    /// # Errors
    /// It does not listen.
    pub(crate) fn begin(&mut self) -> Result<(), Error> {
        let program = std::env::current_exe().map_err(Error::system("this program is gone"))?;
        let mut command = Command::new(program);
        command.args(["upstream", "--listen", &self.address.to_string(), "--delay-ms", &self.delay.as_millis().to_string()]);
        command.arg("--journal").arg(&self.journal);
        self.process = Some(Process::start("the chaos upstream", command, self.journal.with_extension("log"), &[self.address])?);
        Ok(())
    }

    /// Starts it again if it is dead.
    ///
    /// # Errors
    /// It does not listen.
    pub(crate) fn revive(&mut self) -> Result<(), Error> {
        if self.process.is_some() { Ok(()) } else { self.begin() }
    }

    /// Its process; none while it is dead.
    pub(crate) fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// What it wrote down so far, all its lives together.
    #[must_use]
    pub(crate) fn journal(&self) -> String {
        fs::read_to_string(&self.journal).unwrap_or_default()
    }

    /// Requests it took so far, since its last start; nothing while it is dead.
    #[must_use]
    pub(crate) fn requests(&self) -> Option<u64> {
        let mut connection = Connection::open(self.address).ok()?;
        let answer = connection.ask(&Request::get(STATISTICS)).ok()?;
        answer.text().split(' ').next()?.parse().ok()
    }
}

/// A proxy before two upstreams.
#[derive(Debug)]
pub(crate) struct Stage {
    /// Which proxy.
    pub(crate) kind: Kind,
    /// The server to use.
    pub(crate) primary: Server,
    /// The server to use when it is down.
    pub(crate) secondary: Server,
    /// Where the proxy listens.
    pub(crate) proxy: SocketAddr,
    process: Process,
    /// Processes that took over from it, the present one last.
    successors: Vec<u32>,
    directory: PathBuf,
    orders: u64,
    _scratch: Scratch,
}

impl Stage {
    /// Starts the upstreams, which take so long for an answer, and the proxy, and waits until it answers. An origin of one's own stands in
    /// the place of the primary; it is not asked for its health.
    ///
    /// # Errors
    /// Something does not start.
    pub(crate) fn set(kind: Kind, program: &Path, delay: Duration, origin: Option<SocketAddr>) -> Result<Self, Error> {
        let scratch = Scratch::new();
        let primary = Server::start(&scratch, "primary", delay)?;
        let secondary = Server::start(&scratch, "secondary", delay)?;
        let proxy = sockets::free_address().map_err(Error::system("no free port"))?;
        let checks = origin.is_none();
        let at = Addresses { proxy, primary: origin.unwrap_or(primary.address), secondary: secondary.address, checks };
        let directory = scratch.path().join(kind.name());
        fs::create_dir_all(directory.join("plugins")).map_err(Error::system("no directory"))?;
        let text = match kind {
            Kind::Weir => configs::weir(&directory, &at, 0),
            Kind::Nginx => configs::nginx(&directory, &at),
            Kind::Haproxy => configs::haproxy(&at),
        };
        let config = scratch.write(&format!("{}/config", kind.name()), text);
        let process = Process::start(kind.name(), command(kind, program, &config), directory.join("log"), &[proxy])?;
        let mut stage =
            Self { kind, primary, secondary, proxy, process, successors: Vec::new(), directory, orders: 0, _scratch: scratch };
        if kind == Kind::Nginx {
            stage.successors.push(wait_for(|| stage.nginx_id())?);
        }
        stage.wait_until_ready()?;
        Ok(stage)
    }

    fn wait_until_ready(&self) -> Result<(), Error> {
        let started = Instant::now();
        let health = Request::get(HEALTH).host(HOST);
        while started.elapsed() < READY {
            if Connection::open(self.proxy)
                .and_then(|mut connection| connection.ask(&health))
                .is_ok_and(|answer| answer.status == 200)
            {
                return Ok(());
            }
            std::thread::sleep(POLL);
        }
        Err(ProcessError::NotReady { program: self.kind.name().to_owned(), said: self.process.said() }.into())
    }

    /// What both upstreams executed, all their lives together.
    #[must_use]
    pub(crate) fn executed(&self) -> Executed {
        executed(&[self.primary.journal(), self.secondary.journal()])
    }

    /// The process that serves now.
    #[must_use]
    pub(crate) fn id(&self) -> u32 {
        self.successors.last().copied().unwrap_or_else(|| self.process.id())
    }

    /// The processes of the proxy, its own children and those that took over.
    #[must_use]
    pub(crate) fn processes(&self) -> usize {
        let all = std::iter::once(self.process.id()).chain(self.successors.iter().copied());
        let tree = all.flat_map(|id| std::iter::once(id).chain(children(id)));
        tree.collect::<BTreeSet<u32>>().into_iter().filter(|id| process::runs(*id)).count()
    }

    /// Makes the proxy read its configuration again, and waits until it has.
    ///
    /// # Errors
    /// It refuses, or nothing happens.
    pub(crate) fn reload(&mut self) -> Result<(), Error> {
        self.orders += 1;
        match self.kind {
            Kind::Weir => {
                let at = Addresses {
                    proxy: self.proxy,
                    primary: self.primary.address,
                    secondary: self.secondary.address,
                    checks: true,
                };
                let text = configs::weir(&self.directory, &at, self.orders);
                fs::write(self.directory.join("config.new"), text)
                    .and_then(|()| fs::rename(self.directory.join("config.new"), self.directory.join("config")))
                    .map_err(Error::system("weir.toml cannot be written"))?;
                self.order("POST /v1/reload").map(drop)
            }
            Kind::Nginx => self.signal_and_wait(Signal::HUP),
            Kind::Haproxy => self.signal_and_wait(Signal::USR2),
        }
    }

    /// Replaces the running binary by the one on disk, and waits until that serves.
    ///
    /// # Errors
    /// It refuses, cannot do it, or nothing happens.
    pub(crate) fn upgrade(&mut self) -> Result<(), Error> {
        match self.kind {
            Kind::Weir => {
                let text = self.order("POST /v1/upgrade")?;
                let answer: serde_json::Value = serde_json::from_str(&text).map_err(|_| Error::Refused { said: text.clone() })?;
                let id = answer["pid"].as_u64().and_then(|id| u32::try_from(id).ok());
                self.successors.push(id.ok_or(Error::Refused { said: text })?);
                Ok(())
            }
            Kind::Nginx => self.upgrade_nginx(),
            // Its reload starts the binary on disk.
            Kind::Haproxy => self.reload(),
        }
    }

    /// A second master, then the end of the first.
    fn upgrade_nginx(&mut self) -> Result<(), Error> {
        let old = self.id();
        process::send(Signal::USR2, old);
        let new = wait_for(|| self.nginx_id().filter(|id| *id != old && !children(*id).is_empty()))?;
        self.successors.push(new);
        process::send(Signal::QUIT, old);
        Ok(())
    }

    fn nginx_id(&self) -> Option<u32> {
        fs::read_to_string(self.directory.join("pid")).ok()?.trim().parse().ok()
    }

    fn order(&self, line: &str) -> Result<String, Error> {
        let socket = self.directory.join("state/admin.sock");
        let answer = gateway::ask_admin(&socket, line).map_err(Error::system("the admin API does not answer"))?;
        if answer.status == 200 {
            Ok(answer.text())
        } else {
            Err(Error::Refused { said: format!("{} {}", answer.status, answer.text()) })
        }
    }

    /// A reload shows as new workers.
    fn signal_and_wait(&self, signal: Signal) -> Result<(), Error> {
        let id = self.id();
        let before = children(id);
        let mut sent: Option<Instant> = None;
        let renewed = wait_for(|| {
            // A master that is still busy with the last order may miss this one.
            if sent.is_none_or(|at| at.elapsed() > REPEAT) {
                process::send(signal, id);
                sent = Some(Instant::now());
            }
            children(id).iter().any(|child| !before.contains(child)).then_some(())
        });
        renewed.map_err(|error| Error::Void { why: format!("{error}; it said:\n{}", self.process.said()) })
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // What took over is nobody's child here.
        let mut ids: Vec<u32> = self.successors.iter().flat_map(|id| std::iter::once(*id).chain(children(*id))).collect();
        ids.extend(children(self.process.id()));
        for id in &self.successors {
            process::send(Signal::TERM, *id);
        }
        process::send(Signal::TERM, self.process.id());
        let alive = || ids.iter().copied().filter(|id| process::runs(*id)).collect::<Vec<_>>();
        let started = Instant::now();
        while !alive().is_empty() && started.elapsed() < Duration::from_secs(2) {
            std::thread::sleep(POLL);
        }
        for id in alive() {
            process::send(Signal::KILL, id);
        }
    }
}

fn command(kind: Kind, program: &Path, config: &Path) -> Command {
    let mut command = Command::new(program);
    match kind {
        Kind::Weir => command.args(["run", "--config"]).arg(config),
        // With a master, which reloads and survives.
        Kind::Haproxy => command.args(["-W", "-f"]).arg(config),
        Kind::Nginx => {
            // The shell stays in the place of the daemon's first process, which ends at once.
            command = Command::new("sh");
            command.args(["-c", "\"$0\" -c \"$1\" && exec sleep 3600"]).arg(program).arg(config)
        }
    };
    command
}

fn wait_for<T>(mut condition: impl FnMut() -> Option<T>) -> Result<T, Error> {
    let started = Instant::now();
    while started.elapsed() < ORDER {
        if let Some(value) = condition() {
            return Ok(value);
        }
        std::thread::sleep(POLL);
    }
    Err(Error::Refused { said: format!("nothing happened within {ORDER:?}") })
}

/// The children of a process, however many threads started them.
fn children(id: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
    let texts = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    texts.flat_map(|text| text.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<u32>>()).collect()
}
