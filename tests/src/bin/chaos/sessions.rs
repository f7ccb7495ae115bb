//! What stays open while other things happen: tunnels that are used, and downloads that take their time.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use weir_tests::{Connection, Request};

use crate::configs::HOST;

/// Open at the same time.
const TUNNELS: usize = 8;
const DOWNLOADS: usize = 2;
/// Bytes of a download: six seconds, so that many reloads and few upgrades happen to each.
const DOWNLOAD: usize = 2 << 20;
/// From one message through a tunnel to the next.
const PAUSE: Duration = Duration::from_millis(100);
const MESSAGE: &[u8] = b"are you there";

/// What became of the sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// Tunnels opened.
    pub(crate) tunnels: usize,
    /// Those that ended by themselves, or swallowed a message.
    pub(crate) tunnels_cut: usize,
    /// Downloads begun.
    pub(crate) downloads: usize,
    /// Those that came to an early end.
    pub(crate) downloads_cut: usize,
}

/// Open sessions.
#[derive(Debug)]
pub(crate) struct Sessions {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Held>>,
}

impl Sessions {
    /// Opens them, and opens another for each that ends.
    #[must_use]
    pub(crate) fn start(proxy: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for _ in 0..TUNNELS {
            let stop = Arc::clone(&stop);
            threads.push(std::thread::spawn(move || tunnels(proxy, &stop)));
        }
        for _ in 0..DOWNLOADS {
            let stop = Arc::clone(&stop);
            threads.push(std::thread::spawn(move || downloads(proxy, &stop)));
        }
        Self { stop, threads }
    }

    /// Ends them and answers what became of them.
    #[must_use]
    pub(crate) fn finish(self) -> Held {
        self.stop.store(true, Ordering::SeqCst);
        let ended = self.threads.into_iter().filter_map(|thread| thread.join().ok());
        ended.fold(Held::default(), |all, one| Held {
            tunnels: all.tunnels + one.tunnels,
            tunnels_cut: all.tunnels_cut + one.tunnels_cut,
            downloads: all.downloads + one.downloads,
            downloads_cut: all.downloads_cut + one.downloads_cut,
        })
    }
}

fn tunnels(proxy: SocketAddr, stop: &AtomicBool) -> Held {
    let mut held = Held::default();
    while !stop.load(Ordering::SeqCst) {
        let Ok(mut connection) = tunnel(proxy) else {
            std::thread::sleep(PAUSE);
            continue;
        };
        held.tunnels += 1;
        while !stop.load(Ordering::SeqCst) {
            let echoed = connection.send(MESSAGE).and_then(|()| connection.exactly(MESSAGE.len()));
            if !echoed.is_ok_and(|bytes| bytes == MESSAGE) {
                held.tunnels_cut += 1;
                break;
            }
            std::thread::sleep(PAUSE);
        }
    }
    held
}

/// Opens a tunnel.
///
/// # Errors
/// The connection's, or another answer than 101.
pub(crate) fn tunnel(proxy: SocketAddr) -> io::Result<Connection> {
    let mut connection = Connection::open(proxy)?;
    let request = Request::get("/tunnel")
        .host(HOST)
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    connection.send(request.bytes())?;
    let head = connection.head()?;
    if head.first_line.contains(" 101 ") { Ok(connection) } else { Err(io::Error::other(head.first_line)) }
}

fn downloads(proxy: SocketAddr, stop: &AtomicBool) -> Held {
    let mut held = Held::default();
    let request = Request::get(&format!("/download/{DOWNLOAD}")).host(HOST).header("connection", "close");
    while !stop.load(Ordering::SeqCst) {
        // A connection that is not made is the load's to count.
        let Ok(mut connection) = Connection::open(proxy) else { continue };
        held.downloads += 1;
        let answer = connection.ask(&request);
        if !answer.is_ok_and(|answer| answer.status == 200 && answer.body.len() == DOWNLOAD) {
            held.downloads_cut += 1;
        }
    }
    held
}
