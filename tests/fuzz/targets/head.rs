#![no_main]

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;

use http::header::{CONNECTION, HeaderValue};
use http_body_util::{BodyExt as _, Empty};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use libfuzzer_sys::fuzz_target;
use weir_fuzz::guarded::{Fork, Guarded};
use weir_fuzz::http::guard::stream::{Stream, Then};
use weir_fuzz::http::guard::{Limits, Refusal};
use weir_fuzz::pieces::pieces;
use weir_fuzz::reference::{Request, requests};
use weir_fuzz::seeds;
use weir_fuzz::wire::{Wire, run};

const LIMITS: Limits = Limits { head_bytes: 1024, target_bytes: 256, fields: 24 };

/// What came through, and how it ended.
struct Passed {
    bytes: Vec<u8>,
    heads: u64,
    end: Option<Then>,
    /// Bytes before a tunnel opened.
    tunnel: Option<usize>,
}

/// As the gateway feeds it: what did not pass is shown again with more behind it.
fn through(pieces: &[&[u8]], opens: bool) -> Passed {
    let mut stream = Stream::new(LIMITS);
    let (mut held, mut passed) = (Vec::new(), Passed { bytes: Vec::new(), heads: 0, end: None, tunnel: None });
    for piece in pieces {
        held.extend_from_slice(piece);
        loop {
            let fed = stream.feed(&held);
            assert!(fed.pass <= held.len());
            passed.bytes.extend(held.drain(..fed.pass));
            passed.heads = stream.heads();
            match fed.then {
                Then::More => break,
                Then::Fork => {
                    stream.resolve(opens);
                    if opens {
                        passed.tunnel = Some(passed.bytes.len());
                    }
                }
                end @ (Then::Refused(_) | Then::Broken(_)) => {
                    passed.end = Some(end);
                    return passed;
                }
            }
        }
        assert!(held.len() <= LIMITS.head_bytes, "held without an end");
    }
    passed
}

/// What hyper's server makes of a connection behind the gateway's stream, set up as the gateway's is: the requests, whether the last of
/// them stands for a refused head, and whether hyper itself found something wrong.
fn hyper_reads(pieces: &[&[u8]]) -> (Vec<Request>, Option<Refusal>, bool) {
    let (seen, fork) = (Rc::new(RefCell::new(Vec::new())), Arc::<Fork>::default());
    let refused = Rc::new(Cell::new(None));
    let (own, told, ends) = (Rc::clone(&seen), Arc::clone(&fork), Rc::clone(&refused));
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let (seen, fork, refused) = (Rc::clone(&own), Arc::clone(&told), Rc::clone(&ends));
        async move {
            let at = seen.borrow().len();
            let mut response = hyper::Response::new(Empty::<bytes::Bytes>::new());
            // Of no method that changes what follows.
            *response.status_mut() = hyper::StatusCode::NOT_FOUND;
            assert!(refused.get().is_none(), "a request behind a refused one");
            if let Some(refusal) = fork.refused(at as u64 + 1) {
                refused.set(Some(refusal.refusal));
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                return Ok(response);
            }
            let (parts, body) = request.into_parts();
            let asked = format!("{} {}", parts.method, parts.uri);
            seen.borrow_mut().push(Request { asked, body: None });
            if let Ok(body) = body.collect().await {
                seen.borrow_mut()[at].body = Some(body.to_bytes().to_vec());
            }
            fork.answered(at as u64 + 1, false);
            Ok::<_, Infallible>(response)
        }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    // Everything arrives at once, and so does the end.
    builder.max_buf_size(8192).max_headers(LIMITS.fields).half_close(true);
    let stream = Guarded::new(Wire::new(pieces), LIMITS, fork);
    let ended = run(builder.serve_connection(TokioIo::new(stream), service));
    let parse = ended.is_err_and(|error| error.is_parse() || error.is_parse_too_large());
    (seen.take(), refused.get(), parse)
}

fuzz_target!(init: seeds::write(seeds::heads()), |input: &[u8]| {
    let Some((bytes, pieces)) = pieces(input) else { return };
    let opens = input[0] & 0x80 != 0;
    let whole = through(&[bytes], opens);
    let cut = through(&pieces, opens);
    assert_eq!(whole.heads, cut.heads);
    match (&whole.end, &cut.end) {
        // Bytes before the break have passed or not, as they came.
        (Some(Then::Broken(_)), Some(Then::Broken(_))) => assert!(cut.bytes.starts_with(&whole.bytes)),
        (whole_end, cut_end) => {
            assert_eq!(whole.bytes, cut.bytes);
            assert_eq!(whole_end.is_some(), cut_end.is_some());
            if bytes.len() <= LIMITS.head_bytes {
                assert_eq!(whole_end, cut_end);
            }
        }
    }
    let http = &cut.bytes[..cut.tunnel.unwrap_or(cut.bytes.len())];
    let expected = requests(http);
    assert_eq!(expected.len() as u64, cut.heads);
    if opens {
        return;
    }
    let (seen, refusal, is_parse_error) = hyper_reads(&pieces);
    // hyper stops after the last request of a connection that closes.
    assert!(seen.len() <= expected.len(), "{seen:?} {expected:?}");
    for (own, other) in seen.iter().zip(&expected) {
        let method = |request: &Request| request.asked.split(' ').next().unwrap_or_default().to_owned();
        assert_eq!(method(own), method(other));
        // hyper counts trailers too: a body it finds too much is broken off, and nothing comes behind it.
        let is_last = std::ptr::eq(own, seen.last().expect("one of them"));
        assert!(own.body == other.body || (own.body.is_none() && is_last), "{own:?} {other:?}");
    }
    if let Some(refusal) = refusal {
        assert_eq!(seen.len(), expected.len());
        assert!(matches!(cut.end, Some(Then::Refused(_))), "{refusal}");
    }
    assert!(!is_parse_error, "{}", http.escape_ascii());
});
