//! Steady traffic while something else happens.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::client::{Connection, Request};

/// Clients that ask again and again over connections they keep.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Report>>,
}

/// What the clients saw.
#[derive(Debug, Default)]
pub struct Report {
    /// Requests answered with 200.
    pub ok: usize,
    /// Everything else: the status, or what broke.
    pub failures: Vec<String>,
    times: Vec<Duration>,
}

impl Load {
    /// Starts `clients` threads that send this request over plain connections.
    #[must_use]
    pub fn start(address: SocketAddr, clients: usize, request: &Request) -> Self {
        Self::over(clients, request, move || Connection::open(address))
    }

    /// Starts `clients` threads that send this request over connections made like this.
    #[must_use]
    pub fn over(clients: usize, request: &Request, connect: impl Fn() -> io::Result<Connection> + Send + Sync + 'static) -> Self {
        let connect: Arc<Connect> = Arc::new(connect);
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let clients = (0..clients)
            .map(|_| {
                let (stop, done, request) = (Arc::clone(&stop), Arc::clone(&done), request.clone());
                let connect = Arc::clone(&connect);
                std::thread::spawn(move || ask(&*connect, &request, &stop, &done))
            })
            .collect();
        Self { stop, done, clients }
    }

    /// Requests that ended so far.
    #[must_use]
    pub fn done(&self) -> usize {
        self.done.load(Ordering::SeqCst)
    }

    /// Stops the clients and adds their reports up.
    ///
    /// # Panics
    /// A client panicked.
    #[must_use]
    pub fn finish(self) -> Report {
        self.stop.store(true, Ordering::SeqCst);
        let mut all = Report::default();
        for client in self.clients {
            let one = client.join().expect("a client");
            all.ok += one.ok;
            all.failures.extend(one.failures);
            all.times.extend(one.times);
        }
        all.times.sort();
        all
    }
}

impl Report {
    /// The time within which 99 of 100 requests were answered.
    ///
    /// # Panics
    /// There were none.
    #[must_use]
    pub fn p99(&self) -> Duration {
        *self.times.get(self.times.len() * 99 / 100).expect("requests")
    }
}

/// Between an answer and the next request: steady traffic is not a flood, whose log would fill the memory of a test that takes long.
const PAUSE: Duration = Duration::from_millis(1);

type Connect = dyn Fn() -> io::Result<Connection> + Send + Sync;

fn ask(connect: &Connect, request: &Request, stop: &AtomicBool, done: &AtomicUsize) -> Report {
    let mut report = Report::default();
    let mut connection = None;
    while !stop.load(Ordering::SeqCst) {
        let started = Instant::now();
        match once(&mut connection, connect, request) {
            Ok(200) => report.ok += 1,
            Ok(status) => report.failures.push(status.to_string()),
            Err(error) => {
                report.failures.push(error.to_string());
                connection = None;
            }
        }
        report.times.push(started.elapsed());
        done.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(PAUSE);
    }
    report
}

fn once(connection: &mut Option<Connection>, connect: &Connect, request: &Request) -> io::Result<u16> {
    let open = match connection.take() {
        Some(open) => open,
        None => connect()?,
    };
    let open = connection.insert(open);
    let answer = open.ask(request)?;
    if answer.header("connection") == Some("close") {
        *connection = None;
    }
    Ok(answer.status)
}
