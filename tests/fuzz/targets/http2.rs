#![no_main]

use std::convert::Infallible;
use std::future::Future;

use http_body_util::{BodyExt as _, Empty};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use libfuzzer_sys::fuzz_target;
use weir_fuzz::http::guard::raw::{self, Reading};
use weir_fuzz::http::guard::{self, Limits};
use weir_fuzz::http::message::{Request, RequestHead};
use weir_fuzz::pieces::pieces;
use weir_fuzz::seeds;
use weir_fuzz::wire::{Wire, run};

const LIMITS: Limits = Limits { head_bytes: 32 * 1024, target_bytes: 8192, fields: 100 };
/// Preface and empty SETTINGS.
const START: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

#[derive(Clone)]
struct Local;

impl<F: Future + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

/// A head that is accepted is one of HTTP/1 that would be accepted, for the same host.
fn judge(parts: &RequestHead) {
    let Ok(authority) = guard::check(parts, true, LIMITS) else { return };
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    let mut head = format!("{} {target} HTTP/1.1\r\nhost: {}\r\n", parts.method, authority.text).into_bytes();
    for (name, value) in parts.headers.iter().filter(|(name, _)| *name != b"host") {
        head.extend_from_slice(name);
        head.extend_from_slice(b": ");
        head.extend_from_slice(value);
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    let limits = Limits { head_bytes: usize::MAX, fields: LIMITS.fields + 1, ..LIMITS };
    match raw::read(&head, limits) {
        Reading::Whole(read) => assert_eq!(read.length, head.len()),
        other => panic!("{other:?}: {}", head.escape_ascii()),
    }
}

fuzz_target!(init: seeds::write(seeds::frames()), |input: &[u8]| {
    let Some((_, pieces)) = pieces(input) else { return };
    let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| async move {
        let Request { head, body } = Request::from(request);
        judge(&head);
        drop(body.collect().await);
        Ok::<_, Infallible>(hyper::Response::new(Empty::<bytes::Bytes>::new()))
    });
    let mut builder = hyper::server::conn::http2::Builder::new(Local);
    builder.max_concurrent_streams(100).max_header_list_size(LIMITS.head_bytes as u32);
    let wire = Wire::new(&[&[START], pieces.as_slice()].concat());
    drop(run(builder.serve_connection(TokioIo::new(wire), service)));
});
