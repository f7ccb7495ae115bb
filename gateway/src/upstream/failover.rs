//! Attempt after attempt until one answers: whatever the request, while nothing of it was sent; else only when it may be repeated.

use std::sync::Arc;
use std::time::Instant;

use super::attempt::{Answered, AttemptError, Copy, Failed, Fate, Limits, attempt, is_repeatable};
use super::connect::Sender;
use super::dial::{Dialled, dial, dial_new};
use super::group::Group;
use super::journey::Journey;
use super::pool::Pool;
use super::server::{Counts, Server};
use crate::failure::Failure;
use crate::fields::Known;
use crate::http::body::RequestBody;
use crate::http::message::Request;
use crate::observe::record::{Attempt, TraceIds};
use crate::observe::trace;

/// Sends a request to the group's servers, best first, and notes every attempt. `now` is when it begins.
///
/// # Errors
/// [`Failure::NoHealthyServer`] at once when all are known to be down; else the last attempt's failure.
pub async fn send(
    pool: &Pool,
    group: &Group,
    mut request: Box<Request<RequestBody>>,
    ids: &TraceIds,
    attempts: &mut Vec<Attempt>,
    now: Instant,
) -> Result<Answered, Failure> {
    group.count_request();
    let may_repeat = group.retry.safe && group.retry.attempts > 0 && is_repeatable(&request);
    let mut journey = Journey::new(attempts, now);
    let Some(server) = journey.turn(group, now) else {
        group.servers.iter().for_each(|server| server.want());
        return Err(Failure::NoHealthyServer);
    };
    let mut dialled = dial(pool, group, server, &mut journey, now).await.map_err(failure)?;
    loop {
        let span_id = trace::random_u64();
        request.head.headers.insert(Known::Traceparent, &trace::format(ids.trace_id, span_id, ids.sampled));
        // Over HTTP/1 the request comes back by itself; over HTTP/2 the server may tell that it did not look at it.
        let needs_copy = group.retry.attempts > 0 && matches!(dialled.sender, Sender::Http2(_));
        let copy = if needs_copy { Copy::of(&mut request) } else { None };
        let take_back = Some(group).filter(|_| may_repeat);
        let Dialled { server, sender, reused, started } = dialled;
        // A kept connection was there at once.
        let begun = if reused { started } else { Instant::now() };
        let deadline = journey.deadline(group);
        let limits = Limits { begun, first_byte: group.timeouts.first_byte, deadline, take_back };
        let Failed { error, fate } = match attempt(server, sender, request, limits, group.timeouts.idle).await {
            Ok(answered) => {
                server.on_answered();
                journey.note(server, started, span_id, ("head", "ok"), Some(answered.response.head.status.as_u16()));
                return Ok(answered);
            }
            Err(failed) => failed,
        };
        let unsent = matches!(fate, Fate::Unsent(_));
        note(&mut journey, server, started, span_id, reused, unsent, error);
        let stale = reused && error == AttemptError::Reset;
        let proven = Proven { fate, may_repeat, stale };
        request = again(group, &journey, proven, copy).await.ok_or_else(|| failure(error))?;
        let now = Instant::now();
        dialled = match (stale, unsent) {
            (true, true) => dial(pool, group, server, &mut journey, now).await,
            (true, false) => Box::pin(dial_new(pool, group, server, &mut journey)).await,
            (false, _) => match journey.turn(group, now) {
                Some(server) => dial(pool, group, server, &mut journey, now).await,
                None => Err(error),
            },
        }
        .map_err(failure)?;
    }
}

/// What is known of a request that was not answered.
struct Proven {
    fate: Fate,
    /// Repeating it changes nothing.
    may_repeat: bool,
    /// Its connection had carried another exchange, and ended.
    stale: bool,
}

/// The request once more, if it may be sent again.
async fn again(group: &Group, journey: &Journey<'_>, proven: Proven, copy: Option<Copy>) -> Option<Box<Request<RequestBody>>> {
    let whole = match proven.fate {
        Fate::Unsent(request) => return Some(request),
        Fate::Refused => None,
        Fate::Unanswered(request) if proven.may_repeat => request,
        Fate::Unanswered(_) | Fate::Final => return None,
    };
    if whole.is_none() && copy.is_none() {
        return None;
    }
    let now = Instant::now();
    // A client that has waited this long does not wait for another try.
    let is_late = now.saturating_duration_since(journey.started) >= group.timeouts.first_byte
        || journey.deadline(group).is_some_and(|deadline| now >= deadline);
    // A kept connection that ends as it is used again is no sign of load; a new one that ends without an answer may be.
    let allowed = !is_late && (proven.stale || group.take_retry(now));
    match (allowed, whole, copy) {
        (true, Some(request), _) => Some(request),
        (true, None, Some(copy)) => copy.again().await.map(Box::new),
        _ => None,
    }
}

fn note(
    journey: &mut Journey<'_>,
    server: &Arc<Server>,
    started: Instant,
    span_id: u64,
    reused: bool,
    unsent: bool,
    error: AttemptError,
) {
    let (mut stage, mut outcome) = error.stage();
    if error == AttemptError::Reset {
        if reused {
            Counts::note(&server.counts.stale);
            (stage, outcome) = ("head", "stale");
        } else {
            server.on_reset();
        }
    }
    // A kept connection that its server closed before anything was sent is no attempt.
    if !(reused && unsent && error == AttemptError::Reset) {
        journey.note(server, started, span_id, (stage, outcome), None);
    }
}

const fn failure(error: AttemptError) -> Failure {
    match error {
        AttemptError::ClientBody(fault) => Failure::ClientBody(fault),
        error => Failure::Attempt(error),
    }
}
