//! The only place that makes responses.

use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use weir_plugins::Reply;

use crate::failure::Failure;
use crate::finish::Finish;
use crate::http::body::ResponseBody;

/// Every answer and every upstream request carries it.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A request id as a header value: 32 hex digits.
#[must_use]
pub fn request_id(id: u128) -> HeaderValue {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0u8; 32];
    for (index, byte) in text.iter_mut().enumerate() {
        let nibble = (id >> (124 - 4 * index)) & 0xf;
        *byte = DIGITS.get(nibble as usize).copied().unwrap_or(b'0');
    }
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("0"))
}

/// A refusal or a failure: status, reference id, and nothing of which rule it was. JSON when the client prefers it.
#[must_use]
pub fn failure(failure: &Failure, request_headers: &HeaderMap, finish: Box<Finish>) -> Response<ResponseBody> {
    let status = failure.status();
    let id = finish.id_text.clone();
    let reference = String::from_utf8_lossy(id.as_bytes()).into_owned();
    let title = status.canonical_reason().unwrap_or("Refused");
    let (content_type, body) = if prefers_json(request_headers) {
        let json = format!("{{\"status\":{},\"error\":\"{title}\",\"reference\":\"{reference}\"}}\n", status.as_u16());
        ("application/json", json)
    } else {
        ("text/plain; charset=utf-8", format!("{} {title}\nreference: {reference}\n", status.as_u16()))
    };
    let mut response = Response::new(ResponseBody::full(Bytes::from(body), finish));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_REQUEST_ID, id);
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
    }
    response
}

/// A policy's own answer.
#[must_use]
pub fn reply(reply: Reply, finish: Box<Finish>) -> Response<ResponseBody> {
    let id = finish.id_text.clone();
    let mut response = Response::new(ResponseBody::full(reply.body, finish));
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    *response.headers_mut() = reply.headers;
    response.headers_mut().insert(X_REQUEST_ID, id);
    response
}

/// Tells an HTTP/1 client that this was the last answer on its connection.
pub fn close_after(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
}

fn prefers_json(headers: &HeaderMap) -> bool {
    let Some(accept) = headers.get(ACCEPT).and_then(|value| value.to_str().ok()) else { return false };
    let position = |wanted: &str| accept.find(wanted);
    match (position("application/json"), position("text/")) {
        (Some(json), Some(text)) => json < text,
        (Some(_), None) => true,
        (None, _) => false,
    }
}
