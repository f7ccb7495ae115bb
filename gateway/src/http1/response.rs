//! The head of a server's response, and where its body ends. What could be read in two ways is no response.

use std::mem::MaybeUninit;

use bytes::{Buf as _, BytesMut};
use http::{Method, StatusCode};

use super::body::Framing;
use crate::fields::{Fields, Known, Place, Span};
use crate::http::message::ResponseHead;

/// Longest head of a response, in bytes.
const MAX_HEAD: usize = 64 * 1024;
/// Most fields of a response.
const MAX_FIELDS: usize = 128;

/// A response head that was read.
#[derive(Debug)]
pub struct Head {
    /// Status and fields.
    pub head: ResponseHead,
    /// Where the body ends.
    pub framing: Framing,
    /// Whether the connection can carry another exchange.
    pub keep: bool,
}

/// Bytes that are no response, or one that two readers could take for two different ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadResponse;

/// Takes a response head off the front of `input`; `None` while it is not whole. `method` is the request's.
///
/// # Errors
/// [`BadResponse`].
pub fn take(input: &mut BytesMut, method: &Method) -> Result<Option<Head>, BadResponse> {
    let mut list = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut response, input, &mut list);
    let length = match parsed {
        Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD => length,
        Ok(httparse::Status::Partial) if input.len() <= MAX_HEAD => return Ok(None),
        Ok(_) | Err(_) => return Err(BadResponse),
    };
    let status = response.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(BadResponse)?;
    let old = response.version == Some(0);
    let places = response.headers.iter().map(|field| Place {
        known: Known::of(field.name.as_bytes()),
        name: place(input, field.name.as_bytes()),
        value: place(input, field.value),
    });
    let mut headers = Fields::read(input.get(..length).unwrap_or_default(), places, ADDED, ADDED_BYTES);
    input.advance(length);
    let persistent = is_persistent(&headers, old);
    let (framing, unambiguous) = framing(&mut headers, status, method, old)?;
    let keep = persistent && unambiguous && framing != Framing::ToEnd;
    Ok(Some(Head { head: ResponseHead { status, headers }, framing, keep }))
}

/// Fields that the gateway adds to a response, and room for them.
const ADDED: usize = 4;
const ADDED_BYTES: usize = 128;

/// Where a part of `whole` is in it.
fn place(whole: &[u8], part: &[u8]) -> Span {
    let start = (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize);
    Span { start, end: start + part.len() }
}

fn is_persistent(headers: &Fields, old: bool) -> bool {
    let mut keep = !old;
    for value in headers.get_all(Known::Connection) {
        if value == b"keep-alive" {
            keep = true;
            continue;
        }
        for token in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            if token.eq_ignore_ascii_case(b"close") {
                return false;
            }
            keep |= token.eq_ignore_ascii_case(b"keep-alive");
        }
    }
    keep
}

/// Where the body ends (RFC 9112, section 6.3), and whether there was only one way to tell.
fn framing(headers: &mut Fields, status: StatusCode, method: &Method, old: bool) -> Result<(Framing, bool), BadResponse> {
    let length = content_length(headers)?;
    let mut codings = headers.get_all(Known::TransferEncoding);
    let coding = codings.next().map(<[u8]>::trim_ascii);
    let chunked = match coding {
        None => false,
        Some(coding) if coding.eq_ignore_ascii_case(b"chunked") && codings.next().is_none() && !old => true,
        Some(_) => return Err(BadResponse),
    };
    let bodiless = *method == Method::HEAD
        || status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED;
    drop(codings);
    if chunked && length.is_some() {
        headers.remove(Known::ContentLength);
    }
    let unambiguous = !(chunked && length.is_some());
    let framing = match length {
        _ if bodiless => Framing::Length(0),
        _ if chunked => Framing::Chunked,
        Some(length) => Framing::Length(length),
        None => Framing::ToEnd,
    };
    Ok((framing, unambiguous))
}

/// The length that all Content-Length fields agree on. Several are made one.
fn content_length(headers: &mut Fields) -> Result<Option<u64>, BadResponse> {
    let mut values = headers.get_all(Known::ContentLength);
    let Some(first) = values.next() else { return Ok(None) };
    let more_by = |length: u64, digit: &u8| match digit {
        b'0'..=b'9' => length.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    };
    let length = first.iter().try_fold(0, more_by).filter(|_| !first.is_empty()).ok_or(BadResponse)?;
    let mut more = false;
    for other in values {
        if other != first {
            return Err(BadResponse);
        }
        more = true;
    }
    if more {
        let first = first.to_vec();
        headers.insert(Known::ContentLength, &first);
    }
    Ok(Some(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, method: &Method) -> Result<Option<Head>, BadResponse> {
        take(&mut BytesMut::from(text.replace('\n', "\r\n").as_str()), method)
    }

    #[track_caller]
    fn check(text: &str, method: &Method, framing: Framing, keep: bool) {
        let head = read(text, method).unwrap().unwrap();
        assert_eq!((head.framing, head.keep), (framing, keep), "{text}");
    }

    #[test]
    fn bodies_end_as_the_head_says() {
        let get = Method::GET;
        check("HTTP/1.1 200 OK\nContent-Length: 5\n\n", &get, Framing::Length(5), true);
        check("HTTP/1.1 200 OK\nContent-Length: 5\nContent-Length: 5\n\n", &get, Framing::Length(5), true);
        check("HTTP/1.1 200 OK\nContent-Length: 5\n\n", &Method::HEAD, Framing::Length(0), true);
        check("HTTP/1.1 304 Not Modified\nContent-Length: 5\n\n", &get, Framing::Length(0), true);
        check("HTTP/1.1 204 No Content\nTransfer-Encoding: chunked\n\n", &get, Framing::Length(0), true);
        check("HTTP/1.1 200 OK\nTransfer-Encoding: Chunked\n\n", &get, Framing::Chunked, true);
        check("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nContent-Length: 5\n\n", &get, Framing::Chunked, false);
        check("HTTP/1.1 200 OK\n\n", &get, Framing::ToEnd, false);
        check("HTTP/1.1 200\nContent-Length: 0\nConnection: x, Close\n\n", &get, Framing::Length(0), false);
        check("HTTP/1.0 200 OK\nContent-Length: 0\n\n", &get, Framing::Length(0), false);
        check("HTTP/1.0 200 OK\nContent-Length: 0\nConnection: keep-alive\n\n", &get, Framing::Length(0), true);
    }

    #[test]
    fn what_is_no_response() {
        for text in [
            "HTTP/1.1 200 OK\nContent-Length: 5\nContent-Length: 6\n\n",
            "HTTP/1.1 200 OK\nContent-Length: +5\n\n",
            "HTTP/1.1 200 OK\nContent-Length:\n\n",
            "HTTP/1.1 200 OK\nContent-Length: 99999999999999999999\n\n",
            "HTTP/1.1 200 OK\nTransfer-Encoding: gzip, chunked\n\n",
            "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nTransfer-Encoding: chunked\n\n",
            "HTTP/1.0 200 OK\nTransfer-Encoding: chunked\n\n",
            "HTTP/1.1 200 OK\nX: a\n b\n\n",
            "HTTP/1.1 99 OK\n\n",
            "HTTP/2 200 OK\n\n",
            "<html>hello</html>\n\n",
            &format!("HTTP/1.1 200 OK\nX: {}\n\n", "a".repeat(MAX_HEAD)),
            &format!("HTTP/1.1 200 OK\n{}\n", "X: a\n".repeat(MAX_FIELDS + 1)),
        ] {
            assert_eq!(read(text, &Method::GET).map(|head| head.is_some()), Err(BadResponse), "{text:.60}");
        }
        for part in ["", "HTTP", "HTTP/1.1 200 OK\n", "HTTP/1.1 200 OK\nX: a\n"] {
            assert!(read(part, &Method::GET).unwrap().is_none(), "{part}");
        }
    }
}
