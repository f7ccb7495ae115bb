#![no_main]

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;

use bytes::{Buf as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Empty};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use libfuzzer_sys::fuzz_target;
use weir_fuzz::http::guard::raw::{self, Reading};
use weir_fuzz::http::guard::{self, Limits, Refusal};
use weir_fuzz::http::message::RequestHead;
use weir_fuzz::http1::body::{Decoder, Framing, Piece};
use weir_fuzz::http1::head;
use weir_fuzz::http1::wire;
use weir_fuzz::pieces::pieces;
use weir_fuzz::reference::{Request, requests};
use weir_fuzz::seeds;
use weir_fuzz::wire::{Wire, run};

const LIMITS: Limits = Limits { head_bytes: 1024, target_bytes: 256, fields: 24 };

/// A request as the gateway's own reader sees it.
struct Own {
    parts: RequestHead,
    framing: raw::Framing,
    /// Its body, when all of it is there.
    body: Option<Vec<u8>>,
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    /// More may come.
    Open,
    Refused(Refusal),
    /// A chunked body that is none.
    Broken,
    /// The last request said so.
    Last,
}

/// A connection, read as `http1::server` reads one: a piece at a time, head after head.
struct Session {
    input: BytesMut,
    judged: usize,
    body: Decoder,
    own: Vec<Own>,
    data: Vec<u8>,
    persistent: bool,
    end: End,
}

impl Session {
    fn read(pieces: &[&[u8]]) -> Self {
        let mut session = Self {
            input: BytesMut::new(),
            judged: 0,
            body: Decoder::Done,
            own: Vec::new(),
            data: Vec::new(),
            persistent: true,
            end: End::Open,
        };
        for piece in pieces {
            session.input.extend_from_slice(piece);
            while session.end == End::Open && session.step() {}
        }
        session
    }

    /// Answers whether there may be more to do with what is there.
    fn step(&mut self) -> bool {
        if self.body.is_done() { self.head() } else { self.body() }
    }

    fn head(&mut self) -> bool {
        if !self.persistent {
            self.end = End::Last;
            return false;
        }
        let fresh = &self.input[self.judged..];
        let is_due = !fresh.is_empty() && (self.judged == 0 || fresh.contains(&b'\n') || self.input.len() > LIMITS.head_bytes);
        if !is_due {
            return false;
        }
        let mut fields = Vec::new();
        let head = match raw::read_fields(&self.input, LIMITS, &mut fields) {
            Reading::Partial => {
                self.judged = self.input.len();
                assert!(self.judged <= LIMITS.head_bytes, "held without an end");
                return false;
            }
            Reading::Whole(head) => head,
            Reading::Refused(refusal) => {
                self.end = End::Refused(refusal);
                return false;
            }
        };
        self.judged = 0;
        let parts = match head::request(&self.input, &head, &fields) {
            Ok(parts) => parts,
            Err(refusal) => panic!("{refusal} only when it is parsed: {}", self.input.escape_ascii()),
        };
        self.input.advance(head.length);
        self.persistent = head.persistent;
        self.body = Decoder::new(match head.body {
            raw::Framing::Length(length) => Framing::Length(length),
            raw::Framing::Chunked => Framing::Chunked,
        });
        let body = self.body.is_done().then(Vec::new);
        self.own.push(Own { parts, framing: head.body, body });
        true
    }

    fn body(&mut self) -> bool {
        match self.body.take(&mut self.input) {
            Ok(Piece::Data(data)) => self.data.extend_from_slice(&data),
            Ok(Piece::Trailers(_) | Piece::End) => {}
            Ok(Piece::More) => return false,
            Err(_) => {
                self.end = End::Broken;
                return false;
            }
        }
        if self.body.is_done() {
            let data = std::mem::take(&mut self.data);
            self.own.last_mut().expect("a request with this body").body = Some(data);
        }
        true
    }
}

/// What hyper's server makes of the same bytes, and whether it found something wrong.
fn hyper_reads(bytes: &[u8]) -> (Vec<Request>, bool) {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let own = Rc::clone(&seen);
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let seen = Rc::clone(&own);
        async move {
            let (parts, body) = request.into_parts();
            let at = seen.borrow().len();
            seen.borrow_mut().push(Request { asked: parts.method.to_string(), fields: parts.headers.len(), body: None });
            if let Ok(body) = body.collect().await {
                seen.borrow_mut()[at].body = Some(body.to_bytes().to_vec());
            }
            let mut response = hyper::Response::new(Empty::<Bytes>::new());
            // Of no method that changes what follows.
            *response.status_mut() = hyper::StatusCode::NOT_FOUND;
            Ok::<_, Infallible>(response)
        }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    // Everything arrives at once, and so does the end.
    builder.max_buf_size(8192).max_headers(LIMITS.fields).half_close(true);
    let ended = run(builder.serve_connection(TokioIo::new(Wire::new(&[bytes])), service));
    let parse = ended.is_err_and(|error| error.is_parse() || error.is_parse_too_large());
    (seen.take(), parse)
}

/// What was read is one request of the same meaning when it is written out again.
fn is_one_request(own: &Own) {
    let Ok(_) = guard::check(&own.parts, false, LIMITS) else { return };
    let Some(body) = &own.body else { return };
    let framing = match own.framing {
        raw::Framing::Length(0) if body.is_empty() => None,
        raw::Framing::Length(length) => Some(Framing::Length(length)),
        raw::Framing::Chunked => Some(Framing::Chunked),
    };
    let mut out = wire::Wire::default();
    head::write_request(out.output(), &own.parts, framing);
    match framing {
        Some(Framing::Chunked) => {
            if !body.is_empty() {
                head::write_chunk(&mut out, Bytes::copy_from_slice(body));
            }
            head::write_trailers(out.output(), None);
        }
        _ => out.push(Bytes::copy_from_slice(body), b""),
    }
    let text = out.output().clone();
    let again = requests(&text);
    let [again] = again.as_slice() else { panic!("{} requests: {}", again.len(), text.escape_ascii()) };
    let target = own.parts.uri.path_and_query().map_or("/", |target| target.as_str());
    assert_eq!((&again.asked, &again.body), (&format!("{} {target}", own.parts.method), &own.body));
    // The guard of the next gateway takes it as well.
    let limits = Limits { head_bytes: 4096, fields: LIMITS.fields + 2, ..LIMITS };
    assert!(matches!(raw::read(&text, limits), Reading::Whole(_)), "{}", text.escape_ascii());
}

fuzz_target!(init: seeds::write(seeds::heads()), |input: &[u8]| {
    let Some((bytes, pieces)) = pieces(input) else { return };
    let whole = Session::read(&[bytes]);
    let cut = Session::read(&pieces);
    assert_eq!(whole.own.len(), cut.own.len());
    assert!(whole.own.iter().zip(&cut.own).all(|(one, other)| one.body == other.body && one.parts.headers == other.parts.headers));
    match (&whole.end, &cut.end) {
        // A head that is too long may have another fault that shows in one split and not in the other.
        (End::Refused(_), End::Refused(_)) if bytes.len() > LIMITS.head_bytes => {}
        // Bytes are judged with the line feed behind them.
        (End::Refused(_), End::Open) => assert!(!cut.input[cut.judged..].contains(&b'\n')),
        (one, other) => assert_eq!(one, other),
    }
    if whole.end == End::Open {
        assert_eq!(whole.input, cut.input);
    }
    // What is not refused is the same requests to others.
    let read = &bytes[..bytes.len() - whole.input.len()];
    let expected = requests(read);
    assert_eq!(expected.len(), cut.own.len());
    for (own, other) in cut.own.iter().zip(&expected) {
        // The target has parts that the parser may write in another way (a host in capitals).
        assert_eq!(own.parts.method.as_str(), other.asked.split(' ').next().unwrap_or_default());
        assert_eq!((own.parts.headers.len(), &own.body), (other.fields, &other.body), "{}", other.asked);
        is_one_request(own);
    }
    let (seen, is_parse_error) = hyper_reads(read);
    // hyper stops after the last request of a connection that closes.
    assert!(seen.len() <= expected.len(), "{seen:?} {expected:?}");
    for (own, other) in seen.iter().zip(&expected) {
        assert_eq!(own.asked, other.asked.split(' ').next().unwrap_or_default());
        // hyper counts trailers too: a body it finds too much is broken off, and nothing comes behind it.
        let is_last = std::ptr::eq(own, seen.last().expect("one of them"));
        assert!(own.body == other.body || (own.body.is_none() && is_last), "{own:?} {other:?}");
    }
    assert!(!is_parse_error, "{}", read.escape_ascii());
});
