//! The only place that makes responses.

use bytes::Bytes;
use http::StatusCode;
use weir_plugins::Reply;

use crate::failure::Failure;
use crate::fields::{Fields, Known};
use crate::finish::Finish;
use crate::http::body::ResponseBody;
use crate::http::message::{Response, ResponseHead};
use crate::observe::trace;

/// A request id as every answer and every upstream request carries it: 32 hex digits.
pub type IdText = [u8; 32];

/// A request id as text.
#[must_use]
pub fn request_id(id: u128) -> IdText {
    let mut text = [0; 32];
    trace::write_bytes(&mut text, &id.to_be_bytes());
    text
}

/// A refusal or a failure: status, reference id, and nothing of which rule it was. JSON when the client prefers it.
#[must_use]
pub fn failure(failure: &Failure, wants_json: bool, finish: Box<Finish>) -> Response<ResponseBody> {
    let status = failure.status();
    let id = finish.id_text;
    let reference = String::from_utf8_lossy(&id);
    let title = status.canonical_reason().unwrap_or("Refused");
    let (content_type, body) = if wants_json {
        let json = format!("{{\"status\":{},\"error\":\"{title}\",\"reference\":\"{reference}\"}}\n", status.as_u16());
        ("application/json", json)
    } else {
        ("text/plain; charset=utf-8", format!("{} {title}\nreference: {reference}\n", status.as_u16()))
    };
    let mut headers = Fields::new();
    headers.append(Known::ContentType, content_type.as_bytes());
    headers.append(Known::CacheControl, b"no-store");
    headers.append(Known::XRequestId, &id);
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.append(Known::Allow, b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.append(Known::RetryAfter, b"5");
    }
    Response { head: ResponseHead { status, headers }, body: ResponseBody::full(Bytes::from(body), finish) }
}

/// A policy's own answer.
#[must_use]
pub fn reply(reply: Reply, finish: Box<Finish>) -> Response<ResponseBody> {
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut headers = Fields::from(&reply.headers);
    headers.insert(Known::XRequestId, &finish.id_text);
    Response { head: ResponseHead { status, headers }, body: ResponseBody::full(reply.body, finish) }
}

/// Tells an HTTP/1 client that this was the last answer on its connection.
pub fn close_after(headers: &mut Fields) {
    headers.insert(Known::Connection, b"close");
}

/// Whether a client would rather have JSON than text, should the gateway have to answer itself.
#[must_use]
pub fn prefers_json(headers: &Fields) -> bool {
    let Some(accept) = headers.text(Known::Accept) else { return false };
    let position = |wanted: &str| accept.find(wanted);
    match (position("application/json"), position("text/")) {
        (Some(json), Some(text)) => json < text,
        (Some(_), None) => true,
        (None, _) => false,
    }
}
