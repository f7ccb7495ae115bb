//! Heads: the request of a client as the pipeline works with it, and both kinds of head as text.

use std::cell::RefCell;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Uri, Version};

use super::body::Framing;
use super::wire::Wire;
use crate::fields::{Fields, Known, KnownSet, Place};
use crate::http::guard::Refusal;
use crate::http::guard::raw::Head;
use crate::http::message::{RequestHead, ResponseHead};

/// A head that the guard has read, as the pipeline works with it.
///
/// # Errors
/// What the guard let pass and the `http` crate does not take.
pub fn request(text: &[u8], head: &Head, fields: &[Place]) -> Result<RequestHead, Refusal> {
    let target = Bytes::copy_from_slice(head.target.of(text));
    Ok(RequestHead {
        method: Method::from_bytes(head.method.of(text)).map_err(|_| Refusal::BadMethod)?,
        uri: Uri::from_maybe_shared(target).map_err(|_| Refusal::BadTarget)?,
        version: head.version,
        headers: Fields::read(text.get(..head.length).unwrap_or(text), fields.iter().copied(), ADDED, ADDED_BYTES),
    })
}

/// Fields that the gateway adds to a request, and room for them.
const ADDED: usize = 8;
const ADDED_BYTES: usize = 384;

/// What a head that was written says of its body and its connection.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// The body waits until it is asked for.
    pub expects: bool,
    /// The names of the trailers that may follow the body.
    pub trailers: Option<Box<[u8]>>,
    /// Another message may follow.
    pub keep: bool,
}

/// Writes the head of a request. What the fields say of framing is replaced by what is true of this connection; of Connection only an
/// upgrade has come this far.
pub fn write_request(out: &mut Vec<u8>, parts: &RequestHead, framing: Option<Framing>) -> Said {
    const REPLACED: KnownSet = KnownSet::of(&[Known::Host, Known::ContentLength, Known::TransferEncoding]);
    let headers = &parts.headers;
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    out.reserve(headers.text_len() + target.len() + LINES);
    out.extend_from_slice(parts.method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    // Servers like to know first whom a request is for (RFC 9110, section 7.2).
    if let Some(host) = headers.get(Known::Host) {
        write_field(out, "host", host);
    }
    headers.write(out, REPLACED);
    if let Some(framing) = framing {
        write_framing(out, framing);
    }
    out.extend_from_slice(b"\r\n");
    Said { expects: headers.contains(Known::Expect), trailers: headers.get(Known::Trailer).map(Box::from), keep: true }
}

/// Room for a first line without its target, for what is said of the body and the connection, and for the line at the end.
const LINES: usize = 160;

/// What a response's head has to say of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The client's version: it decides how a connection stays open.
    pub version: Version,
    /// How the body's end is told; none where the fields say what there would be (HEAD, 304) or there can be none.
    pub framing: Option<Framing>,
    /// Whether another request may follow.
    pub keep: bool,
}

/// Writes the head of a response. The connection stays open when `delivery` allows it and the fields do not say otherwise.
pub fn write_response(out: &mut Vec<u8>, head: &ResponseHead, delivery: Delivery) -> Said {
    const REPLACED: KnownSet = KnownSet::of(&[Known::ContentLength, Known::TransferEncoding, Known::Connection]);
    const DECLARED: KnownSet = KnownSet::of(&[Known::TransferEncoding, Known::Connection]);
    const SWITCHING: KnownSet = KnownSet::of(&[Known::ContentLength, Known::TransferEncoding]);
    let Delivery { version, framing, keep } = delivery;
    let ResponseHead { status, headers } = head;
    let switching = *status == StatusCode::SWITCHING_PROTOCOLS;
    let closes = |value: &[u8]| value.eq_ignore_ascii_case(b"close");
    let keep = keep && (switching || !headers.get_all(Known::Connection).any(closes));
    out.reserve(headers.text_len() + LINES);
    out.extend_from_slice(if version == Version::HTTP_10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    let without = match framing {
        _ if switching => SWITCHING,
        // What the fields say is what there would be.
        None if *status != StatusCode::NO_CONTENT => DECLARED,
        _ => REPLACED,
    };
    headers.write(out, without);
    if !headers.contains(Known::Date) && !switching {
        with_date(|date| write_field(out, "date", date));
    }
    if let Some(framing) = framing {
        write_framing(out, framing);
    }
    match (switching, keep, version) {
        (true, ..) | (false, true, Version::HTTP_11) => {}
        (false, true, _) => out.extend_from_slice(b"connection: keep-alive\r\n"),
        (false, false, _) => out.extend_from_slice(b"connection: close\r\n"),
    }
    out.extend_from_slice(b"\r\n");
    Said { expects: false, trailers: headers.get(Known::Trailer).map(Box::from), keep }
}

/// Writes trailers and the end of a chunked body.
pub fn write_trailers(out: &mut Vec<u8>, trailers: Option<&HeaderMap>) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers.into_iter().flatten() {
        write_field(out, name.as_str(), value.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// Adds a chunk.
pub fn write_chunk(wire: &mut Wire, data: Bytes) {
    write_chunk_size(wire.output(), data.len());
    wire.push(data, b"\r\n");
}

/// Writes the line before a chunk.
fn write_chunk_size(out: &mut Vec<u8>, size: usize) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = (usize::BITS - size.leading_zeros()).div_ceil(4).max(1);
    for place in (0..digits).rev() {
        let digit = size >> (4 * place) & 0xf;
        out.push(DIGITS.get(digit).copied().unwrap_or(b'0'));
    }
    out.extend_from_slice(b"\r\n");
}

fn write_framing(out: &mut Vec<u8>, framing: Framing) {
    match framing {
        Framing::Length(length) => write_field(out, "content-length", itoa::Buffer::new().format(length).as_bytes()),
        Framing::Chunked => write_field(out, "transfer-encoding", b"chunked"),
        Framing::ToEnd => {}
    }
}

fn write_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// The date of now, written once a second.
fn with_date(write: impl FnOnce(&[u8])) {
    thread_local!(static DATE: RefCell<Option<(Instant, String)>> = const { RefCell::new(None) });
    DATE.with_borrow_mut(|date| {
        let now = Instant::now();
        if date.as_ref().is_none_or(|(at, _)| now.duration_since(*at) >= Duration::from_secs(1)) {
            *date = Some((now, httpdate::fmt_http_date(SystemTime::now())));
        }
        if let Some((_, text)) = date {
            write(text.as_bytes());
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::guard::Limits;
    use crate::http::guard::raw::{Reading, read_fields};

    fn parse(text: &str) -> RequestHead {
        let (bytes, mut fields) = (text.as_bytes(), Vec::new());
        let limits = Limits { head_bytes: 8192, target_bytes: 1024, fields: 100 };
        let Reading::Whole(head) = read_fields(bytes, limits, &mut fields) else { panic!("{text}") };
        assert_eq!(head.length, text.len());
        request(bytes, &head, &fields).unwrap()
    }

    #[test]
    fn a_head_is_written_as_it_was_read() {
        let parts = parse("POST /a?b=c HTTP/1.1\r\nX-One:  1 \r\nHost: a\r\nContent-Length: 5\r\nX-One:\t2\r\nX-Empty:\r\n\r\n");
        assert_eq!((parts.method.as_str(), parts.uri.to_string().as_str()), ("POST", "/a?b=c"));
        let mut out = Vec::new();
        write_request(&mut out, &parts, Some(Framing::Length(5)));
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "POST /a?b=c HTTP/1.1\r\nhost: a\r\nx-one: 1\r\nx-one: 2\r\nx-empty: \r\ncontent-length: 5\r\n\r\n");
    }

    #[track_caller]
    fn response(status: u16, fields: &[(&'static str, &'static str)], delivery: Delivery, want: &str) {
        let headers = [("date", "now")].iter().chain(fields).copied().collect();
        let mut out = Vec::new();
        let head = ResponseHead { status: StatusCode::from_u16(status).unwrap(), headers };
        write_response(&mut out, &head, delivery);
        assert_eq!(String::from_utf8(out).unwrap(), want.replace('\n', "\r\n"));
    }

    #[test]
    fn a_response_says_how_it_ends() {
        let to = |version, framing, keep| Delivery { version, framing, keep };
        let length = [("content-length", "7"), ("transfer-encoding", "chunked"), ("connection", "x")];
        let (one, ten) = (Version::HTTP_11, Version::HTTP_10);
        response(200, &length, to(one, Some(Framing::Length(3)), true), "HTTP/1.1 200 OK\ndate: now\ncontent-length: 3\n\n");
        response(200, &length, to(one, None, true), "HTTP/1.1 200 OK\ndate: now\ncontent-length: 7\n\n");
        response(304, &length, to(one, None, true), "HTTP/1.1 304 Not Modified\ndate: now\ncontent-length: 7\n\n");
        response(204, &length, to(one, None, true), "HTTP/1.1 204 No Content\ndate: now\n\n");
        let closing = "HTTP/1.1 200 OK\ndate: now\ncontent-length: 0\nconnection: close\n\n";
        response(200, &[("connection", "Close")], to(one, Some(Framing::Length(0)), true), closing);
        let chunked = "HTTP/1.1 200 OK\ndate: now\ntransfer-encoding: chunked\nconnection: close\n\n";
        response(200, &[], to(one, Some(Framing::Chunked), false), chunked);
        response(200, &[], to(ten, Some(Framing::ToEnd), false), "HTTP/1.0 200 OK\ndate: now\nconnection: close\n\n");
        let kept = "HTTP/1.0 200 OK\ndate: now\ncontent-length: 0\nconnection: keep-alive\n\n";
        response(200, &[], to(ten, Some(Framing::Length(0)), true), kept);
        let upgrade = [("connection", "upgrade"), ("upgrade", "websocket")];
        let switch = "HTTP/1.1 101 Switching Protocols\ndate: now\nconnection: upgrade\nupgrade: websocket\n\n";
        response(101, &upgrade, to(one, None, true), switch);
    }

    #[test]
    fn chunks_are_counted_in_hex() {
        for (size, want) in [(0, "0\r\n"), (1, "1\r\n"), (16, "10\r\n"), (0xabc, "abc\r\n"), (65_536, "10000\r\n")] {
            let mut out = Vec::new();
            write_chunk_size(&mut out, size);
            assert_eq!(out, want.as_bytes());
        }
    }
}
