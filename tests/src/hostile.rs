//! Origins that misbehave below HTTP.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::wire::{Framing, Wire};

/// An origin whose connections are handed to a function, each on a thread of its own. Ends when dropped.
#[derive(Debug)]
pub struct Hostile {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
    stopping: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

/// A connection to a hostile origin.
#[derive(Debug)]
pub struct Victim {
    stream: TcpStream,
    wire: Wire,
    requests: Arc<AtomicUsize>,
}

impl Hostile {
    /// Gives every connection to `behave` and closes it afterwards.
    ///
    /// # Panics
    /// No port can be had.
    #[must_use]
    pub fn new(behave: impl Fn(&mut Victim) -> io::Result<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (accepted, requests) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (stopping, behave) = (Arc::<AtomicBool>::default(), Arc::new(behave));
        let (count, heads, stop) = (Arc::clone(&accepted), Arc::clone(&requests), Arc::clone(&stopping));
        let acceptor = std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                count.fetch_add(1, Ordering::SeqCst);
                let (behave, requests) = (Arc::clone(&behave), Arc::clone(&heads));
                std::thread::spawn(move || {
                    drop(stream.set_read_timeout(Some(crate::LONG)));
                    let Ok(copy) = stream.try_clone() else { return };
                    // A connection that breaks ends its thread, as with any server.
                    drop(behave(&mut Victim { stream, wire: Wire::new(Box::new(copy)), requests }));
                });
            }
        });
        Self { address, accepted, requests, stopping, acceptor: Some(acceptor) }
    }

    /// `http://` and its address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Connections so far.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Requests read so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
        if let Some(acceptor) = self.acceptor.take() {
            drop(acceptor.join());
        }
    }
}

impl Victim {
    /// Reads a request with its body; answers its first line, `None` at the end.
    ///
    /// # Errors
    /// The connection's.
    pub fn read(&mut self) -> io::Result<Option<String>> {
        let Some(head) = self.wire.head()? else { return Ok(None) };
        self.requests.fetch_add(1, Ordering::SeqCst);
        self.wire.body(head.framing().unwrap_or(Framing::Empty), &mut |_| ())?;
        Ok(Some(head.first_line))
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// The connection's.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.wire.send(bytes.as_ref())
    }

    /// Sends 200 with a text.
    ///
    /// # Errors
    /// The connection's.
    pub fn answer(&mut self, text: &str) -> io::Result<()> {
        self.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len()))
    }

    /// Ends the connection with RST instead of FIN when it is dropped.
    ///
    /// # Errors
    /// The system's.
    pub fn abort(&mut self) -> io::Result<()> {
        Ok(rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO))?)
    }
}

/// An address where connections are neither accepted nor refused: the listener's backlog is full.
#[derive(Debug)]
pub struct BlackHole {
    listener: TcpListener,
    _fillers: Vec<TcpStream>,
}

impl BlackHole {
    /// Somewhere.
    ///
    /// # Panics
    /// No port can be had, or it cannot be filled.
    #[must_use]
    pub fn new() -> Self {
        Self::at("127.0.0.1:0".parse().unwrap())
    }

    /// At this address, which must be free.
    ///
    /// # Panics
    /// It is taken, or cannot be filled.
    #[must_use]
    pub fn at(address: SocketAddr) -> Self {
        const MOST: usize = 64;
        let listener = TcpListener::bind(address).unwrap();
        // A second listen() only changes the backlog.
        rustix::net::listen(&listener, 0).unwrap();
        let address = listener.local_addr().unwrap();
        let patience = Duration::from_millis(200);
        let fillers: Vec<_> = (0..MOST).map_while(|_| TcpStream::connect_timeout(&address, patience).ok()).collect();
        assert!(fillers.len() < MOST, "the backlog of {address} does not fill");
        Self { listener, _fillers: fillers }
    }

    /// `http://` and its address.
    ///
    /// # Panics
    /// The listener is gone.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.listener.local_addr().unwrap())
    }
}

impl Default for BlackHole {
    fn default() -> Self {
        Self::new()
    }
}
