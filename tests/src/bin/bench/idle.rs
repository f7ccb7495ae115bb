//! P6: memory per idle TLS connection, and with four policies loaded.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use weir_tests::process::Process;
use weir_tests::sockets;

use crate::error::Error;
use crate::load::{Generator, HOST, Traffic};
use crate::measure;
use crate::notes::{self, Notes};
use crate::options::Options;
use crate::proxies::{self, Ground, HAPROXY, NGINX, Proxy, WEIR};
use crate::sheet::{Outcome, Sheet};
use crate::tools::Tools;

/// Idle connections of the figure.
const CONNECTIONS: usize = 10_000;
/// For a first look.
const QUICK: usize = 2_000;
/// Connections that come and go first, so that what the first ones need once is not counted.
const WARM_UP: usize = 200;
/// Descriptors of this program and of a proxy beside the connections.
const SPARE: u64 = 256;
/// Threads that connect.
const THREADS: usize = 4;
/// Nothing that works is silent for longer.
const SILENCE: Duration = Duration::from_secs(10);
/// How long memory may take to settle.
const SETTLE: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(200);
/// Goal: KiB per idle connection.
const PER_CONNECTION: f64 = 12.0;
/// Goal: MB with four policies.
const FOUR_POLICIES: f64 = 60.0;
const COLUMNS: [&str; 5] = ["proxy", "base MB", "connections", "with them MB", "KiB each"];

type Client = StreamOwned<ClientConnection, TcpStream>;
type Start = fn(&Ground, SocketAddr, &Tools) -> Option<Result<Proxy, Error>>;

/// Each starts alone and anew: memory that was used before would hide what a connection needs.
const STARTS: [Start; 3] = [
    |ground, origin, tools| tools.nginx.as_deref().map(|program| proxies::nginx(ground, origin, program)),
    |ground, origin, tools| tools.haproxy.as_deref().map(|program| proxies::haproxy(ground, origin, program)),
    |ground, origin, _| Some(proxies::weir(ground, origin)),
];

/// What one proxy needs.
#[derive(Clone, Copy, Debug)]
struct Idle {
    proxy: &'static str,
    base: u64,
    connections: usize,
    full: u64,
}

impl Idle {
    fn kib_each(&self) -> f64 {
        self.full.saturating_sub(self.base) as f64 / 1024.0 / self.connections.max(1) as f64
    }
}

/// Measures all that are there.
pub(crate) fn measure(
    ground: &Ground,
    origin: SocketAddr,
    tools: &Tools,
    generator: &Generator,
    options: &Options,
    notes: &mut Notes,
) -> Sheet {
    let wanted = if options.quick { QUICK } else { CONNECTIONS };
    let count = wanted.min(room());
    if count < wanted {
        notes.skip(&format!("P6 at {count} connections instead of {wanted}: the limit of open files allows no more"));
    }
    notes::say(&format!("memory of {count} idle TLS connections"));
    let mut all = Vec::new();
    for start in STARTS {
        let Some(started) = start(ground, origin, tools) else { continue };
        match started.and_then(|proxy| idle(ground, &proxy, count)) {
            Ok(one) => all.push(one),
            Err(error) => notes.fail(&format!("P6: {error}")),
        }
    }
    let four = four_policies(ground, origin, generator).map_err(|error| notes.fail(&format!("P6: {error}"))).ok();
    sheet(&all, four)
}

fn sheet(all: &[Idle], four: Option<u64>) -> Sheet {
    let mb = |bytes: u64| format!("{:.1}", bytes as f64 / 1e6);
    let mut rows: Vec<Vec<String>> = all
        .iter()
        .map(|one| {
            let each = format!("{:.1}", one.kib_each());
            vec![one.proxy.to_owned(), mb(one.base), one.connections.to_string(), mb(one.full), each]
        })
        .collect();
    if let Some(four) = four {
        rows.push(["weir+4".to_owned(), mb(four)].into_iter().chain(std::iter::repeat_n("-".to_owned(), 3)).collect());
    }
    let each = |name| all.iter().find(|one| one.proxy == name).map(Idle::kib_each);
    let unit = |value, unit, goal| Outcome { id: "P6", value, unit, goal };
    let mut outcomes = vec![
        unit(each(WEIR), "KiB per idle TLS connection", Some(PER_CONNECTION)),
        unit(four.map(|bytes| bytes as f64 / 1e6), "MB with four policies", Some(FOUR_POLICIES)),
    ];
    for (name, text) in [(NGINX, "KiB per idle TLS connection of nginx"), (HAPROXY, "KiB per idle TLS connection of haproxy")] {
        outcomes.extend(each(name).map(|value| unit(Some(value), text, None)));
    }
    Sheet {
        id: "P6",
        title: "memory: idle TLS 1.3 connections after one request each".to_owned(),
        columns: &COLUMNS,
        rows,
        outcomes,
    }
}

/// How many connections this program can hold; raises its limit, which what it starts inherits.
fn room() -> usize {
    let limit = getrlimit(Resource::Nofile);
    // Refused only when there is nothing to raise.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    limit.maximum.map_or(usize::MAX, |files| usize::try_from(files.saturating_sub(SPARE)).unwrap_or(usize::MAX))
}

fn idle(ground: &Ground, proxy: &Proxy, count: usize) -> Result<Idle, Error> {
    let target = measure::target(proxy, Traffic::Tls)?;
    let config = ground.authority.client_config().map_err(|error| Error::Certificate { reason: error.to_string() })?;
    let config = Arc::new(config);
    drop(open(target.address, &config, WARM_UP)?);
    let base = settled(&proxy.process)?;
    let clients = open(target.address, &config, count)?;
    let full = settled(&proxy.process)?;
    let connections = clients.iter().filter(|client| is_open(&client.sock)).count();
    if connections < count {
        let reason = format!("{} of {count} idle connections were closed", count - connections);
        return Err(Error::Load { target: proxy.name.to_owned(), reason });
    }
    Ok(Idle { proxy: proxy.name, base, connections, full })
}

/// Resident memory once it no longer changes.
fn settled(process: &Process) -> Result<u64, Error> {
    let started = Instant::now();
    let mut last = process.usage()?.memory;
    loop {
        std::thread::sleep(LOOK);
        let now = process.usage()?.memory;
        if now.abs_diff(last) * 1000 <= last || started.elapsed() > SETTLE {
            return Ok(now);
        }
        last = now;
    }
}

fn open(address: SocketAddr, config: &Arc<ClientConfig>, count: usize) -> Result<Vec<Client>, Error> {
    let numbers = |thread: usize| (thread..count).step_by(THREADS);
    let opened: Vec<io::Result<Vec<Client>>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| scope.spawn(move || numbers(thread).map(|number| client(address, config, number)).collect()))
            .collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    let failed = |error: io::Error| Error::Load { target: address.to_string(), reason: format!("an idle connection: {error}") };
    let opened: io::Result<Vec<Vec<Client>>> = opened.into_iter().collect();
    Ok(opened.map_err(failed)?.into_iter().flatten().collect())
}

/// A connection that has asked once.
fn client(address: SocketAddr, config: &Arc<ClientConfig>, number: usize) -> io::Result<Client> {
    let tcp = sockets::connect_from(sockets::source(number), address)?;
    tcp.set_nodelay(true)?;
    tcp.set_read_timeout(Some(SILENCE))?;
    let name = ServerName::try_from(HOST).map_err(io::Error::other)?;
    let tls = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
    let mut client = StreamOwned::new(tls, tcp);
    client.write_all(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes())?;
    client.flush()?;
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    // The origin's answer is one kilobyte of `x`.
    while !answer.ends_with(b"xxxx") {
        let count = client.read(&mut piece)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(piece.get(..count).unwrap_or_default());
    }
    Ok(client)
}

fn is_open(tcp: &TcpStream) -> bool {
    let silent = tcp.set_nonblocking(true).and_then(|()| tcp.peek(&mut [0; 1]));
    matches!(silent, Ok(1..)) || silent.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

fn four_policies(ground: &Ground, origin: SocketAddr, generator: &Generator) -> Result<u64, Error> {
    let proxy = proxies::weir_with_four(ground, origin)?;
    generator.drive(&measure::target(&proxy, Traffic::Plain)?, 1)?;
    settled(&proxy.process)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_costs_what_it_adds() {
        let idle = Idle { proxy: WEIR, base: 20 << 20, connections: 1024, full: 30 << 20 };
        assert_eq!(idle.kib_each(), 10.0);
        let sheet = sheet(&[idle], Some(50_000_000));
        assert_eq!(sheet.rows[0], ["weir", "21.0", "1024", "31.5", "10.0"]);
        assert_eq!(sheet.rows[1][..2], ["weir+4", "50.0"]);
        assert_eq!(sheet.outcomes[0].value, Some(10.0));
        assert_eq!(sheet.outcomes[1].value, Some(50.0));
        assert_eq!(sheet.outcomes.len(), 2);
    }

    #[test]
    fn what_was_not_measured_has_no_value() {
        let sheet = sheet(&[], None);
        assert!(sheet.rows.is_empty());
        assert!(sheet.outcomes.iter().all(|outcome| outcome.value.is_none()));
    }
}
