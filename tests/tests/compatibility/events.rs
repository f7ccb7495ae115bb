//! Server-sent events pass through all four policies one by one: each arrives before the next one exists.

use weir_tests::h2::{Frame, Http2, flag, kind};
use weir_tests::{Connection, LONG, Request};

use crate::origin;
use crate::stage::Stage;

const CHUNKED: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n";
const TO_THE_END: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
const EVENTS: usize = 25;

fn event(number: usize) -> String {
    format!("id: {number}\ndata: event {number}\n\n")
}

fn framed(head: &str, event: &str) -> Vec<u8> {
    if head == CHUNKED { format!("{:x}\r\n{event}\r\n", event.len()).into_bytes() } else { event.into() }
}

/// Lets the origin speak event by event; `next` answers what the client has got since.
fn relay(head: &'static str, open: impl FnOnce(&Stage) -> Box<dyn FnMut() -> Vec<u8>>) {
    let (url, tell) = origin::told(head);
    let stage = Stage::guarded(&url);
    let mut next = open(&stage);
    for number in 0..EVENTS {
        let event = event(number);
        tell.send(framed(head, &event)).unwrap();
        let mut got = Vec::new();
        while !got.windows(event.len()).any(|window| window == event.as_bytes()) {
            let piece = next();
            assert!(!piece.is_empty(), "event {number} does not arrive: {}", String::from_utf8_lossy(&got));
            got.extend_from_slice(&piece);
        }
    }
}

fn over_http1(mut client: Connection) -> Box<dyn FnMut() -> Vec<u8>> {
    client.send(Request::get("/events").header("accept", "text/event-stream").bytes()).unwrap();
    Box::new(move || client.next_within(LONG).unwrap_or_default())
}

fn over_http2(stage: &Stage) -> Box<dyn FnMut() -> Vec<u8>> {
    let mut client = Http2::open(&stage.authority, stage.gateway.tls(), "site.test").unwrap();
    let fields: [(&[u8], &[u8]); 5] = [
        (b":method", b"GET"),
        (b":scheme", b"https"),
        (b":authority", b"site.test"),
        (b":path", b"/events"),
        (b"accept", b"text/event-stream"),
    ];
    client.send(&Frame::headers(1, &fields, true)).unwrap();
    Box::new(move || {
        loop {
            match client.receive() {
                Ok(Some(frame)) if frame.kind == kind::DATA => return frame.payload,
                Ok(Some(frame)) if frame.stream != 1 || frame.kind == kind::HEADERS && frame.flags & flag::END_STREAM == 0 => {}
                other => panic!("{other:?}"),
            }
        }
    })
}

#[test]
fn over_http_1() {
    relay(CHUNKED, |stage| over_http1(stage.gateway.connect()));
}

#[test]
fn over_http_1_and_tls_from_an_origin_that_ends_them_by_closing() {
    relay(TO_THE_END, |stage| over_http1(stage.secure()));
}

#[test]
fn over_http_2() {
    relay(CHUNKED, over_http2);
}
