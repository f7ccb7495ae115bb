//! The upstreams of a case: they answer as it says.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use http::StatusCode;
use tokio::sync::oneshot;
use weir_cases::{Failure, Reply, Step, Upstreams};
use weir_plugins::capability::http_out::{Answer, Call, CallOutError, Installed, Made, Outbound, install};

use super::stage::headers;

/// What policies of this thread find where a gateway has its upstreams.
pub(super) struct Scripted {
    upstreams: Upstreams,
    asked: RefCell<Asked>,
}

#[derive(Default)]
struct Asked {
    calls: Vec<String>,
    by_upstream: BTreeMap<String, usize>,
}

impl Scripted {
    /// Answers as this step says, until what comes with it is dropped.
    pub(super) fn begin(step: &Step) -> (Rc<Self>, Installed) {
        let scripted = Rc::new(Self { upstreams: step.upstreams.clone(), asked: RefCell::default() });
        (Rc::clone(&scripted), install(scripted))
    }

    /// All calls so far, each as `auth POST /check`.
    pub(super) fn calls(&self) -> Vec<String> {
        self.asked.borrow().calls.clone()
    }
}

impl Outbound for Scripted {
    fn call(&self, call: Call) -> oneshot::Receiver<Made> {
        let mut asked = self.asked.borrow_mut();
        asked.calls.push(format!("{} {} {}", call.upstream, call.method, call.target));
        let count = asked.by_upstream.entry(call.upstream.to_string()).or_default();
        let number = std::mem::replace(count, *count + 1);
        // One that the policy may ask and that says nothing is down.
        let replies = self.upstreams.get(&*call.upstream);
        let result = replies.map_or(Err(CallOutError::NoServer), |replies| answer(replies.of(number), call.most));
        let (sender, receiver) = oneshot::channel();
        drop(sender.send(Made { result, attempts: Vec::new() }));
        receiver
    }
}

fn answer(reply: &Reply, most: usize) -> Result<Answer, CallOutError> {
    Err(match reply.error {
        None if reply.body.0.len() > most => CallOutError::AnswerTooLarge,
        None => {
            let status = StatusCode::from_u16(reply.status).map_err(|_| CallOutError::Broken)?;
            let headers = headers(&reply.headers.0).map_err(|_| CallOutError::Broken)?;
            return Ok(Answer { status, headers, body: reply.body.0.clone().into() });
        }
        Some(Failure::Busy) => CallOutError::Busy,
        Some(Failure::NoServer) => CallOutError::NoServer,
        Some(Failure::Connect) => CallOutError::Connect,
        Some(Failure::Timeout) => CallOutError::Timeout,
        Some(Failure::Broken) => CallOutError::Broken,
        Some(Failure::AnswerTooLarge) => CallOutError::AnswerTooLarge,
    })
}
