//! Attempt after attempt until one answers: another server only when the request is proven unsent.

use std::time::Instant;

use http::{HeaderValue, Request};

use super::attempt::{Answered, AttemptError, Failed, attempt};
use super::group::Group;
use super::pool::Pool;
use crate::failure::Failure;
use crate::http::body::RequestBody;
use crate::observe::record::{Attempt, TraceIds};
use crate::observe::trace;

const TRACEPARENT: http::HeaderName = http::HeaderName::from_static("traceparent");

/// Sends a request to the group's servers, best first, and notes every attempt.
///
/// # Errors
/// [`Failure::NoHealthyServer`] at once when all are known to be down; else the last attempt's failure.
pub async fn send(
    pool: &Pool,
    group: &Group,
    request: Request<RequestBody>,
    ids: &TraceIds,
    attempts: &mut Vec<Attempt>,
) -> Result<Answered, Failure> {
    let mut request = request;
    let mut tried = Vec::new();
    let mut last = None;
    // An exchange tries every server once at most, and as many as `retry.attempts` allows after the first.
    while tried.len() <= group.attempts as usize {
        let started = Instant::now();
        let Some(server) = group.pick(&tried, started) else { break };
        tried.push(server.id);
        let span_id = trace::random_u64();
        if let Ok(value) = HeaderValue::from_bytes(&trace::format(ids.trace_id, span_id, ids.sampled)) {
            request.headers_mut().insert(TRACEPARENT, value);
        }
        let done = attempt(pool, group, server, request).await;
        let (stage, outcome) = done.as_ref().map_or_else(|failed| failed.error.stage(), |_| ("head", "ok"));
        attempts.push(Attempt {
            server: std::sync::Arc::clone(&server.label),
            stage,
            outcome,
            status: done.as_ref().ok().map(|answered| answered.response.status().as_u16()),
            started,
            elapsed: started.elapsed(),
            span_id,
        });
        match done {
            Ok(answered) => return Ok(answered),
            Err(Failed { error, unsent: Some(unsent) }) => {
                last = Some(error);
                request = *unsent;
            }
            Err(Failed { error, unsent: None }) => return Err(after(error)),
        }
    }
    Err(last.map_or(Failure::NoHealthyServer, after))
}

fn after(error: AttemptError) -> Failure {
    match error {
        AttemptError::ClientBody => Failure::ClientBody,
        AttemptError::ClientBodyStalled => Failure::ClientBodyStalled,
        error => Failure::Attempt(error),
    }
}
