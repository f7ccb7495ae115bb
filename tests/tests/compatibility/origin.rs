//! Origins: one with a page of every kind, one that gives bodies back, one that speaks when it is told to.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use weir_tests::wire::{Framing, Wire};
use weir_tests::{Received, Reply, Upstream};

/// "compressed, and left alone", as gzip makes it.
pub(crate) const GZIP: &[u8] = &[
    0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x03, 0x4b, 0xce, 0xcf, 0x2d, 0x28, 0x4a, 0x2d, 0x2e, 0x4e, 0x4d, 0xd1,
    0x51, 0x48, 0xcc, 0x4b, 0x51, 0xc8, 0x49, 0x4d, 0x2b, 0x51, 0x48, 0xcc, 0xc9, 0xcf, 0x4b, 0x05, 0x00, 0xe5, 0x9c, 0xbe, 0x7c,
    0x1a, 0x00, 0x00, 0x00,
];
/// What it says.
pub(crate) const GZIPPED: &str = "compressed, and left alone";
/// The length of `/file`.
pub(crate) const FILE: usize = 5000;

/// The content of `/file`, of which parts can be had.
pub(crate) fn file() -> Vec<u8> {
    crate::stage::noise(FILE)
}

/// An origin with a page of every kind; anything else is answered with the request's body.
pub(crate) fn site() -> Upstream {
    Upstream::scripted(page)
}

fn page(request: &Received) -> Reply {
    match request.target() {
        "/text" => Reply::text("a page of text"),
        "/204" => Reply::with("204 No Content", &[("etag", "\"none\"")], ""),
        "/304" => Reply::Raw(b"HTTP/1.1 304 Not Modified\r\netag: \"v1\"\r\ncontent-length: 1234\r\n\r\n".to_vec()),
        "/gzip" => Reply::with("200 OK", &[("content-encoding", "gzip"), ("vary", "accept-encoding")], GZIP),
        "/file" => part(request.header("range")),
        "/early" => Reply::Raw(
            [
                b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n".as_slice(),
                b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfinal",
            ]
            .concat(),
        ),
        "/trailers" => Reply::Raw(
            [
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum, x-count\r\n\r\n".as_slice(),
                b"4\r\nbody\r\n0\r\nX-Sum: abc=\r\nx-count: 1\r\nx-unannounced: 1\r\n\r\n",
            ]
            .concat(),
        ),
        "/stream" => Reply::Stream { length: 8 << 20, chunked: true },
        "/large" => Reply::Stream { length: 8 << 20, chunked: false },
        "/whose/a" => Reply::text("the answer of a"),
        "/whose/b" => Reply::text("the answer of b"),
        _ => Reply::text(request.body.clone()),
    }
}

fn part(range: Option<&str>) -> Reply {
    let whole = file();
    let fields = [("accept-ranges", "bytes"), ("etag", "\"f1\"")];
    let Some((from, to)) = range.and_then(|range| range.strip_prefix("bytes=")).and_then(|range| range.split_once('-')) else {
        return Reply::with("200 OK", &fields, whole);
    };
    let from: usize = from.parse().unwrap();
    if from >= FILE {
        return Reply::with("416 Range Not Satisfiable", &[("content-range", &format!("bytes */{FILE}"))], "");
    }
    let to: usize = to.parse().unwrap_or(FILE - 1);
    let span = format!("bytes {from}-{to}/{FILE}");
    Reply::with("206 Partial Content", &[fields[0], fields[1], ("content-range", &span)], &whole[from..=to])
}

/// A server on a port of its own, one thread for each connection. It lasts as long as the test's process.
pub(crate) fn serve(converse: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let converse = Arc::new(converse);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let converse = Arc::clone(&converse);
            // A connection that breaks ends its thread, as with any server.
            std::thread::spawn(move || drop(converse(stream)));
        }
    });
    url
}

/// Gives every body back, whatever its length; in chunks to whoever asks for `/chunked`.
pub(crate) fn mirror() -> String {
    serve(|stream| {
        stream.set_nodelay(true)?;
        let mut wire = Wire::new(Box::new(stream));
        while let Some(head) = wire.head()? {
            if head.get("expect").is_some() {
                wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            let mut body = Vec::new();
            wire.body(head.framing().unwrap_or(Framing::Empty), &mut |piece| body.extend_from_slice(piece))?;
            if head.first_line.contains(" /chunked ") {
                wire.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
                for piece in body.chunks(100_001) {
                    wire.send(&[format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat())?;
                }
                wire.send(b"0\r\n\r\n")?;
            } else {
                wire.send(&[format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat())?;
            }
        }
        Ok(())
    })
}

/// Answers one request with a head, and then with each text when it is told to; the end of the texts ends the connection.
pub(crate) fn told(head: &'static str) -> (String, Sender<Vec<u8>>) {
    let (sender, receiver) = channel::<Vec<u8>>();
    let receiver: Arc<Mutex<Option<Receiver<Vec<u8>>>>> = Arc::new(Mutex::new(Some(receiver)));
    let url = serve(move |stream| {
        let mut wire = Wire::new(Box::new(stream));
        wire.head()?;
        let Some(texts) = receiver.lock().unwrap().take() else { return Ok(()) };
        wire.send(head.as_bytes())?;
        texts.iter().try_for_each(|text| wire.send(&text))
    });
    (url, sender)
}
