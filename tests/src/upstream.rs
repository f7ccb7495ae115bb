//! Scripted origins on the loopback.

use std::fmt;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

use crate::sockets;
use crate::wait::LONG;
use crate::wire::{Framing, Head, Wire};

/// Longest body that is kept; longer ones are counted only.
const KEPT_BODY: u64 = 1 << 20;
/// What a stream is made of.
const PIECE: usize = 64 * 1024;

/// A request as the origin got it.
#[derive(Clone, Debug, Default)]
pub struct Received {
    /// Request line and fields.
    pub head: Head,
    /// The body, empty when longer than 1 MiB.
    pub body: Vec<u8>,
    /// The body's length.
    pub length: u64,
}

impl Received {
    /// The request target.
    #[must_use]
    pub fn target(&self) -> &str {
        self.head.first_line.split(' ').nth(1).unwrap_or_default()
    }

    /// The first value of a field.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.get(name)
    }
}

/// What the origin does with a request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// An answer with its length.
    Whole {
        /// Status and reason, such as `200 OK`.
        status: String,
        /// Fields besides Content-Length.
        fields: Vec<(String, String)>,
        /// The body; its length is told in answer to HEAD too.
        body: Vec<u8>,
    },
    /// These bytes, and the connection stays open.
    Raw(Vec<u8>),
    /// These bytes, then the connection ends.
    Last(Vec<u8>),
    /// So many bytes of body, in chunks or with a length.
    Stream {
        /// Bytes.
        length: u64,
        /// Transfer-Encoding instead of Content-Length.
        chunked: bool,
    },
    /// 101, then every byte comes back.
    Tunnel,
    /// The reply, but not before the gate opens.
    Behind(Gate, Box<Self>),
}

impl Reply {
    /// 200 with a text.
    #[must_use]
    pub fn text(body: impl Into<Vec<u8>>) -> Self {
        Self::with("200 OK", &[("content-type", "text/plain")], body)
    }

    /// Any answer with a length.
    #[must_use]
    pub fn with(status: &str, fields: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Self {
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self::Whole { status: status.to_owned(), fields, body: body.into() }
    }
}

/// Holds replies back until it is opened.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// Lets everything through from now on.
    pub fn open(&self) {
        *lock(&self.0.0) = true;
        self.0.1.notify_all();
    }

    /// Waits until it is opened, or for a minute.
    pub fn wait(&self) {
        let waited = self.0.1.wait_timeout_while(lock(&self.0.0), LONG * 3, |open| !*open);
        drop(waited);
    }
}

type Script = dyn Fn(&Received) -> Reply + Send + Sync;

struct State {
    script: Box<Script>,
    requests: Mutex<Vec<Arc<Received>>>,
    /// Heads that arrived, their bodies perhaps not yet.
    begun: AtomicUsize,
    connections: Mutex<Vec<TcpStream>>,
    accepted: AtomicUsize,
    stopping: AtomicBool,
}

impl fmt::Debug for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("State").field("begun", &self.begun).finish_non_exhaustive()
    }
}

/// An origin. It ends when dropped.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    state: Arc<State>,
    acceptor: Option<JoinHandle<()>>,
}

impl Upstream {
    /// Answers every request as the script says.
    ///
    /// # Panics
    /// No port can be had.
    #[must_use]
    pub fn scripted(script: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        let state = State {
            script: Box::new(script),
            requests: Mutex::default(),
            begun: AtomicUsize::new(0),
            connections: Mutex::default(),
            accepted: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
        };
        let listener = TcpListener::bind((sockets::own_address(), 0)).or_else(|_| TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let mut upstream = Self { address, state: Arc::new(state), acceptor: None };
        upstream.serve(listener);
        upstream
    }

    /// Answers every request with this text.
    #[must_use]
    pub fn text(text: &'static str) -> Self {
        Self::scripted(move |_| Reply::text(text))
    }

    /// Answers every request with its body.
    #[must_use]
    pub fn echo() -> Self {
        Self::scripted(|request| Reply::text(request.body.clone()))
    }

    /// `http://` and its address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requests read so far, their bodies included.
    #[must_use]
    pub fn requests(&self) -> Vec<Arc<Received>> {
        lock(&self.state.requests).clone()
    }

    /// The request last read.
    ///
    /// # Panics
    /// There was none.
    #[must_use]
    pub fn last(&self) -> Arc<Received> {
        Arc::clone(lock(&self.state.requests).last().expect("the upstream got no request"))
    }

    /// Number of request heads read so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.state.begun.load(Ordering::SeqCst)
    }

    /// Number of connections accepted so far.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.state.accepted.load(Ordering::SeqCst)
    }

    /// Closes the port and every connection, as a dying process does.
    pub fn stop(&mut self) {
        let Some(acceptor) = self.acceptor.take() else { return };
        self.state.stopping.store(true, Ordering::SeqCst);
        // Wakes the accept; when that fails nobody is waiting.
        drop(TcpStream::connect(self.address));
        drop(acceptor.join());
        for connection in lock(&self.state.connections).drain(..) {
            drop(connection.shutdown(Shutdown::Both));
        }
    }

    /// Listens on the same port again.
    ///
    /// # Panics
    /// The port is taken.
    pub fn restart(&mut self) {
        self.state.stopping.store(false, Ordering::SeqCst);
        self.serve(TcpListener::bind(self.address).unwrap());
    }

    fn serve(&mut self, listener: TcpListener) {
        let state = Arc::clone(&self.state);
        self.acceptor = Some(std::thread::spawn(move || {
            for stream in listener.incoming() {
                if state.stopping.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                state.accepted.fetch_add(1, Ordering::SeqCst);
                let own = Arc::clone(&state);
                if let Ok(copy) = stream.try_clone() {
                    lock(&state.connections).push(copy);
                }
                // A connection that breaks ends its thread, as with any server.
                std::thread::spawn(move || drop(own.converse(&stream)));
            }
        }));
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop();
    }
}

impl State {
    fn converse(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut wire = Wire::new(Box::new(stream.try_clone()?));
        let ended = self.exchanges(&mut wire);
        drop(stream.shutdown(Shutdown::Both));
        ended
    }

    fn exchanges(&self, wire: &mut Wire) -> io::Result<()> {
        while let Some(head) = wire.head()? {
            self.begun.fetch_add(1, Ordering::SeqCst);
            let expects = head.get("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue"));
            if expects {
                wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            let received = Arc::new(receive(wire, head)?);
            lock(&self.requests).push(Arc::clone(&received));
            let is_head = received.head.first_line.starts_with("HEAD ");
            if !perform(wire, (self.script)(&received), is_head)? {
                return Ok(());
            }
        }
        Ok(())
    }
}

fn receive(wire: &mut Wire, head: Head) -> io::Result<Received> {
    let mut body = Vec::new();
    let mut keep = |piece: &[u8]| {
        if body.len() + piece.len() <= KEPT_BODY as usize {
            body.extend_from_slice(piece);
        }
    };
    let length = wire.body(head.framing().unwrap_or(Framing::Empty), &mut keep)?;
    if length > KEPT_BODY {
        body.clear();
    }
    Ok(Received { head, body, length })
}

/// Sends a reply; answers whether the connection goes on.
fn perform(wire: &mut Wire, reply: Reply, is_head: bool) -> io::Result<bool> {
    match reply {
        Reply::Whole { status, fields, body } => {
            let mut head = format!("HTTP/1.1 {status}\r\n");
            for (name, value) in fields {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
            if !status.starts_with("204") && !status.starts_with("304") {
                head.push_str(&format!("content-length: {}\r\n", body.len()));
            }
            head.push_str("\r\n");
            let mut bytes = head.into_bytes();
            if !is_head {
                bytes.extend_from_slice(&body);
            }
            wire.send(&bytes)?;
            Ok(true)
        }
        Reply::Raw(bytes) => wire.send(&bytes).map(|()| true),
        Reply::Last(bytes) => wire.send(&bytes).map(|()| false),
        Reply::Stream { length, chunked } => stream(wire, length, chunked).map(|()| true),
        Reply::Tunnel => {
            wire.send(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")?;
            loop {
                let bytes = wire.some()?;
                if bytes.is_empty() {
                    return Ok(false);
                }
                wire.send(&bytes)?;
            }
        }
        Reply::Behind(gate, reply) => {
            gate.wait();
            perform(wire, *reply, is_head)
        }
    }
}

fn stream(wire: &mut Wire, length: u64, chunked: bool) -> io::Result<()> {
    let framing = if chunked { "transfer-encoding: chunked".to_owned() } else { format!("content-length: {length}") };
    wire.send(format!("HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\n{framing}\r\n\r\n").as_bytes())?;
    let piece = vec![b'w'; PIECE];
    let mut framed = format!("{PIECE:x}\r\n").into_bytes();
    framed.extend_from_slice(&piece);
    framed.extend_from_slice(b"\r\n");
    let mut left = length;
    while left > 0 {
        let size = left.min(PIECE as u64);
        if !chunked {
            wire.send(&piece[..size as usize])?;
        } else if size == PIECE as u64 {
            wire.send(&framed)?;
        } else {
            wire.send(format!("{size:x}\r\n{}\r\n", "w".repeat(size as usize)).as_bytes())?;
        }
        left -= size;
    }
    if chunked { wire.send(b"0\r\n\r\n") } else { Ok(()) }
}

/// A panic in another test's thread is reported there.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
