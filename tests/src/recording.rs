//! An origin that keeps every byte of every connection, and takes a request only in the one form that no reader takes for another.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Most bytes of a request that are kept.
const MAX_REQUEST: usize = 4 << 20;
/// Longest wait for the readers of what has arrived.
const CATCH_UP: Duration = Duration::from_secs(10);

/// A request that was read strictly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strict {
    /// The request line, without its end.
    pub line: String,
    /// Lower-case names, and values without spaces around.
    pub fields: Vec<(String, String)>,
    /// How its end was told, and what it is.
    pub body: Body,
}

/// A body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Neither Content-Length nor Transfer-Encoding.
    None,
    /// With a Content-Length.
    Length(Vec<u8>),
    /// In chunks, with the lines of its trailers.
    Chunked(Vec<u8>, Vec<String>),
}

impl Strict {
    /// Method and target.
    #[must_use]
    pub fn asked(&self) -> &str {
        self.line.rsplit_once(' ').map_or("", |(asked, _)| asked)
    }

    /// Every value of a field, by its lower-case name.
    #[must_use]
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(own, _)| own == name).map(|(_, value)| value.as_str()).collect()
    }
}

/// What arrived since the last look.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Whole requests, in the order they became whole.
    pub requests: Vec<Strict>,
    /// Bytes, those of whole requests among them.
    pub bytes: usize,
    /// Bytes that no strict reader takes for a request. The connection was closed there.
    pub faults: Vec<String>,
    /// Connections that ended within a request.
    pub broken: usize,
    /// Connections that are open and within a request.
    pub pending: usize,
}

#[derive(Debug, Default)]
struct Log {
    seen: Seen,
    connections: Vec<Open>,
    /// Own connections that are not accepted yet: once they are, so is whatever was connected before them.
    marks: Vec<SocketAddr>,
}

/// A connection that was accepted.
#[derive(Debug)]
struct Open {
    stream: TcpStream,
    /// Bytes that are no whole request yet.
    pending: usize,
    /// Somebody reads it.
    open: bool,
}

impl Log {
    fn pending(&self) -> usize {
        self.connections.iter().filter(|connection| connection.pending > 0).count()
    }

    /// No byte waits for its reader.
    fn is_read(&self) -> bool {
        let read = |stream| rustix::io::ioctl_fionread(stream).is_ok_and(|bytes| bytes == 0);
        self.connections.iter().all(|connection| !connection.open || read(&connection.stream))
    }
}

type Script = dyn Fn(&Strict) -> Vec<u8> + Send + Sync;

/// The origin. It ends when dropped.
#[derive(Debug)]
pub struct Recording {
    address: SocketAddr,
    log: Arc<Mutex<Log>>,
    stopping: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

impl Recording {
    /// Answers each request with its method and target.
    #[must_use]
    pub fn start() -> Self {
        Self::scripted(|request| answer(request.asked()))
    }

    /// Answers each request with these bytes.
    ///
    /// # Panics
    /// No port can be had.
    #[must_use]
    pub fn scripted(script: impl Fn(&Strict) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (log, stopping) = (Arc::<Mutex<Log>>::default(), Arc::<AtomicBool>::default());
        let (own, stop, script) = (Arc::clone(&log), Arc::clone(&stopping), Arc::<Script>::from(Box::new(script) as Box<Script>));
        let acceptor = std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let Some(number) = enter(&own, &stream) else { continue };
                let (own, script) = (Arc::clone(&own), Arc::clone(&script));
                std::thread::spawn(move || {
                    let ended = converse(&own, number, &stream, script.as_ref());
                    leave(&own, number, &ended);
                    drop(stream.shutdown(Shutdown::Both));
                });
            }
        });
        Self { address, log, stopping, acceptor: Some(acceptor) }
    }

    /// `http://` and its address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What arrived since the last call, bytes that wait to be read among it; what is pending is told again.
    #[must_use]
    pub fn take(&self) -> Seen {
        self.catch_up();
        let mut log = lock(&self.log);
        let pending = log.pending();
        Seen { pending, ..std::mem::take(&mut log.seen) }
    }

    /// Connections that are open and within a request, after what waits to be read was read.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.catch_up();
        lock(&self.log).pending()
    }

    /// Waits until every connection that was made before this call is accepted and every byte that came on one is read, so that what a
    /// busy machine has not let this origin see yet is not taken for nothing.
    fn catch_up(&self) {
        let own = {
            let mut log = lock(&self.log);
            let Ok(own) = TcpStream::connect(self.address) else { return };
            log.marks.extend(own.local_addr());
            own
        };
        let (mark, started) = (own.local_addr().ok(), Instant::now());
        while started.elapsed() < CATCH_UP {
            let log = lock(&self.log);
            let accepted = log.marks.iter().all(|known| Some(*known) != mark);
            if accepted && log.is_read() {
                return;
            }
            drop(log);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Connections accepted so far.
    #[must_use]
    pub fn accepted(&self) -> usize {
        lock(&self.log).connections.len()
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        // Wakes the accept; when that fails nobody is waiting.
        drop(TcpStream::connect(self.address));
        if let Some(acceptor) = self.acceptor.take() {
            drop(acceptor.join());
        }
        for connection in lock(&self.log).connections.drain(..) {
            drop(connection.stream.shutdown(Shutdown::Both));
        }
    }
}

/// 200 with a text.
#[must_use]
pub fn answer(text: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len()).into_bytes()
}

/// The number of the connection; nothing for a mark of this origin's own.
fn enter(log: &Mutex<Log>, stream: &TcpStream) -> Option<usize> {
    let mut log = lock(log);
    let peer = stream.peer_addr().ok()?;
    if let Some(mark) = log.marks.iter().position(|mark| *mark == peer) {
        log.marks.swap_remove(mark);
        return None;
    }
    log.connections.push(Open { stream: stream.try_clone().ok()?, pending: 0, open: true });
    Some(log.connections.len() - 1)
}

fn leave(log: &Mutex<Log>, number: usize, ended: &Result<(), String>) {
    let mut log = lock(log);
    let connection = &mut log.connections[number];
    connection.open = false;
    let inside = std::mem::take(&mut connection.pending) > 0;
    match ended {
        Ok(()) => log.seen.broken += usize::from(inside),
        Err(fault) => log.seen.faults.push(fault.clone()),
    }
}

/// Reads requests and answers them until the other end goes, or sends what is none.
fn converse(log: &Mutex<Log>, number: usize, stream: &TcpStream, script: &Script) -> Result<(), String> {
    drop(stream.set_nodelay(true));
    let mut stream = stream;
    let (mut bytes, mut piece, mut early) = (Vec::new(), vec![0; 64 * 1024], false);
    loop {
        match stream.peek(&mut [0]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Ok(0) | Err(_) => return Ok(()),
            Ok(_) => {}
        }
        {
            // What has left the socket is in the log: both under one lock, which `catch_up` looks from.
            let mut log = lock(log);
            let Ok(read) = stream.read(&mut piece) else { return Ok(()) };
            bytes.extend_from_slice(&piece[..read]);
            log.seen.bytes += read;
            log.connections[number].pending = bytes.len();
        }
        if bytes.len() > MAX_REQUEST {
            return Err("a request that does not end".to_owned());
        }
        if let Some(head) = early_head(&bytes).filter(|_| !early) {
            early = true;
            if stream.write_all(&script(&head)).is_err() {
                return Ok(());
            }
        }
        while let Some((request, length)) = read_request(&bytes)? {
            bytes.drain(..length);
            lock(log).connections[number].pending = bytes.len();
            lock(log).seen.requests.push(request.clone());
            if !std::mem::take(&mut early) && stream.write_all(&script(&request)).is_err() {
                return Ok(());
            }
        }
    }
}

/// A request to `/early…` is answered once its head is there.
fn early_head(bytes: &[u8]) -> Option<Strict> {
    let length = head_length(bytes)?;
    let mut head = head(&bytes[..length]).ok()?;
    head.body = Body::None;
    head.asked().contains(" /early").then_some(head)
}

/// The request at the start of the bytes and its length; nothing while it is not whole.
fn read_request(bytes: &[u8]) -> Result<Option<(Strict, usize)>, String> {
    let Some(length) = head_length(bytes) else {
        let odd = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n' | b'\t' | b' '..=b'~' | 128..));
        return odd.map_or(Ok(None), |at| Err(fault("a control byte in a head", &bytes[at..])));
    };
    let mut request = head(&bytes[..length])?;
    let (lengths, codings) = (request.all("content-length"), request.all("transfer-encoding"));
    let rest = &bytes[length..];
    let body = match (lengths.as_slice(), codings.as_slice()) {
        ([], []) => Some((Body::None, 0)),
        ([digits], []) => {
            let size = digits.parse::<usize>().ok().filter(|size| size.to_string() == **digits);
            let size = size.ok_or_else(|| format!("content-length {digits:?}"))?;
            rest.get(..size).map(|body| (Body::Length(body.to_vec()), size))
        }
        ([], ["chunked"]) => chunked(rest)?,
        _ => return Err(format!("more than one framing: {lengths:?} {codings:?}")),
    };
    Ok(body.map(|(body, size)| {
        request.body = body;
        (request, length + size)
    }))
}

fn head_length(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|end| end + 4)
}

fn head(bytes: &[u8]) -> Result<Strict, String> {
    let mut lines = lines(&bytes[..bytes.len() - 2])?.into_iter();
    let line = lines.next().unwrap_or_default();
    let words: Vec<&str> = line.split(' ').collect();
    let [method, target, "HTTP/1.1"] = words.as_slice() else { return Err(format!("request line {line:?}")) };
    if !method.bytes().all(is_token)
        || method.is_empty()
        || target.is_empty()
        || !target.bytes().all(|byte| byte.is_ascii_graphic())
    {
        return Err(format!("request line {line:?}"));
    }
    let mut fields = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(": ").ok_or_else(|| format!("field {line:?}"))?;
        if name.is_empty() || !name.bytes().all(is_token) || name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(format!("field {line:?}"));
        }
        fields.push((name.to_owned(), value.trim().to_owned()));
    }
    let request = Strict { line, fields, body: Body::None };
    if request.all("host").len() == 1 { Ok(request) } else { Err(format!("not one Host: {request:?}")) }
}

/// Lines that end with CR LF and hold neither.
fn lines(bytes: &[u8]) -> Result<Vec<String>, String> {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let lines: Vec<String> = text.strip_suffix("\r\n").unwrap_or(&text).split("\r\n").map(str::to_owned).collect();
    match lines.iter().find(|line| line.chars().any(|char| char.is_control() && char != '\t')) {
        Some(line) => Err(fault("a control byte in a line", line.as_bytes())),
        None => Ok(lines),
    }
}

fn chunked(bytes: &[u8]) -> Result<Option<(Body, usize)>, String> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let Some(end) = bytes[at..].windows(2).position(|window| window == b"\r\n") else { return Ok(None) };
        let digits = String::from_utf8_lossy(&bytes[at..at + end]).into_owned();
        let hex = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let size = usize::from_str_radix(&digits, 16).ok().filter(|_| hex).ok_or_else(|| format!("chunk size {digits:?}"))?;
        at += end + 2;
        if size == 0 {
            break;
        }
        let Some(data) = bytes.get(at..at + size + 2) else { return Ok(None) };
        if !data.ends_with(b"\r\n") {
            return Err(fault("a chunk goes on after its end", data));
        }
        body.extend_from_slice(&data[..size]);
        at += size + 2;
    }
    if bytes[at..].starts_with(b"\r\n") {
        return Ok(Some((Body::Chunked(body, Vec::new()), at + 2)));
    }
    let Some(end) = head_length(&bytes[at..]) else { return Ok(None) };
    Ok(Some((Body::Chunked(body, lines(&bytes[at..at + end - 2])?), at + end)))
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn fault(what: &str, bytes: &[u8]) -> String {
    format!("{what}: {}", bytes[..bytes.len().min(80)].escape_ascii())
}

fn lock(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
