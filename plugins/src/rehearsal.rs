//! A policy outside a gateway, for its author: what a file imports and exports, what starting it costs, and exchanges through one
//! instance of one generation, with the calls, limits and checks of the real host.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Method, Version};
use wasmtime::component::Component;

use crate::call::{self, Budget, Slot};
use crate::chain::{Answer, Refusal, Reply, headers, reason};
use crate::contract::cut;
use crate::decision::Phase;
use crate::engine::Host;
use crate::error::{CallError, LoadError};
use crate::exchange::{ConnectionFacts, Exchange, Outcome, ResponseHead};
use crate::fields::Fields;
use crate::generation::{Generation, PolicySpec};
use crate::inspect;
use crate::load::{LOAD_TICKS, LOAD_WALL, Plugin, trap, wall};
use crate::pool::{Instance, store};
use crate::wasi;

/// The interfaces of a component by their full names, `weir:policy/handler@0.1.0`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// What it needs.
    pub imports: Vec<String>,
    /// What it offers.
    pub exports: Vec<String>,
}

/// What starting one instance costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// From nothing to an instance.
    pub instantiate: Duration,
    /// The call of `configure`.
    pub configure: Duration,
    /// Bytes of memory it holds then.
    pub memory: usize,
}

/// An exchange to try a policy on.
#[derive(Clone, Debug)]
pub struct RehearsalRequest {
    /// The connection.
    pub connection: ConnectionFacts,
    /// Method, protocol, path and query, host.
    pub head: (Method, Version, String, String),
    /// Header fields.
    pub headers: HeaderMap,
    /// Tags that earlier policies set.
    pub tags: Vec<(String, String)>,
    /// The request body.
    pub body: Bytes,
    /// The upstream's status, header fields and body; the response phases run only if it answers.
    pub response: Option<(u16, HeaderMap, Bytes)>,
}

/// What a policy did with an exchange.
#[derive(Debug)]
pub struct Rehearsed {
    /// Its verdict.
    pub verdict: RehearsalVerdict,
    /// The phase that gave it; none for no opinion.
    pub phase: Option<Phase>,
    /// The exchange after edits; its response head too, if it came that far.
    pub exchange: Box<Exchange>,
    /// The response body after the policy.
    pub response_body: Bytes,
    /// Each call in order.
    pub calls: Vec<RehearsalCall>,
    /// Bytes of memory the instance holds; it never gives any back.
    pub memory: usize,
}

/// What a policy said in all phases: the first refusal, answer or failure; else that it trusts, if it ever did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RehearsalVerdict {
    /// No opinion.
    Next,
    /// Trusted.
    Accept,
    /// Refused.
    Deny(Refusal),
    /// Answered.
    Reply(Reply),
    /// A call failed.
    Failed(CallError),
}

/// One call of a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RehearsalCall {
    /// Which.
    pub phase: Phase,
    /// How long it took.
    pub elapsed: Duration,
    /// Calls into the contract's interfaces meanwhile.
    pub host_calls: u64,
}

impl Host {
    /// The interfaces of a component. Compiles it: never call it on a worker.
    ///
    /// # Errors
    /// It is no component, or does not compile.
    pub fn interface(&self, bytes: &[u8]) -> Result<Interface, LoadError> {
        inspect::check_header(bytes)?;
        let failed = |error: wasmtime::Error| LoadError::Compile(format!("{error:#}"));
        let ty = Component::new(&self.engine, bytes).map_err(failed)?.component_type();
        let imports = ty.imports(&self.engine).map(|(name, _)| name.to_owned()).collect();
        let exports = ty.exports(&self.engine).map(|(name, _)| name.to_owned()).collect();
        Ok(Interface { imports, exports })
    }

    /// Starts one instance of a plugin in a policy's configuration and takes the time.
    ///
    /// # Errors
    /// As [`Host::prepare`], whose checks come first.
    pub async fn measure_start(&self, spec: &PolicySpec, plugin: &Plugin) -> Result<Start, LoadError> {
        let shared = self.shared(&plugin.name).scratch();
        let mut store = store(&self.engine, &spec.name, spec.mode, spec.limits, shared, wasi::serving());
        store.data_mut().cpu_left = Duration::from_millis(LOAD_TICKS);
        store.data_mut().wall_until = Instant::now() + LOAD_WALL;
        store.set_epoch_deadline(1);
        let _running = self.clock.begin();
        let config = spec.config.to_string();
        let pre = self.whole(plugin)?;
        let call = async {
            let begun = Instant::now();
            let guest = pre.instantiate(&mut store).await?;
            let instantiate = begun.elapsed();
            let answer = guest.handler.call_configure(&mut store, &config).await?;
            Ok::<_, wasmtime::Error>((answer, instantiate, begun.elapsed().saturating_sub(instantiate)))
        };
        let failed = |error: CallError| LoadError::Call { phase: "configure", error };
        match tokio::time::timeout(LOAD_WALL, call).await {
            Ok(Ok((Ok(_), instantiate, configure))) => Ok(Start { instantiate, configure, memory: store.data().memory() }),
            Ok(Ok((Err(message), ..))) => Err(LoadError::Configure(message)),
            Ok(Err(error)) => Err(failed(trap(&error, store.data()))),
            Err(_) => Err(failed(wall(LOAD_WALL))),
        }
    }
}

/// A generation in rehearsal, and its one instance.
pub struct Rehearsal {
    generation: Arc<Generation>,
    instance: Option<Box<Instance>>,
}

impl std::fmt::Debug for Rehearsal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Rehearsal").field("generation", &self.generation).finish_non_exhaustive()
    }
}

impl Rehearsal {
    /// Begins with an instance as traffic would get one, and empty state of the plugin (`kv`, `metrics`).
    #[must_use]
    pub fn new(generation: Arc<Generation>) -> Self {
        let rehearsal = Self { generation, instance: None };
        rehearsal.forget();
        rehearsal
    }

    /// Empties the plugin's state.
    pub fn forget(&self) {
        self.generation.shared.kv.clear();
        self.generation.shared.counters.clear();
    }

    /// Name, label and value of every counter that the plugin made.
    #[must_use]
    pub fn counters(&self) -> Vec<(String, String, u64)> {
        self.generation.shared.counters.snapshot()
    }

    /// A fresh instance, and the time it took.
    ///
    /// # Errors
    /// There can be no instance.
    pub async fn fresh(&mut self) -> Result<Duration, LoadError> {
        let begun = Instant::now();
        self.instance = Some(self.instantiate().await?);
        Ok(begun.elapsed())
    }

    async fn instantiate(&self) -> Result<Box<Instance>, LoadError> {
        Ok(Box::new(self.generation.instantiate().await?))
    }

    /// One exchange, from the connection phase to its end, as a chain of this policy alone would have it.
    ///
    /// # Errors
    /// There can be no instance.
    pub async fn run(&mut self, request: &RehearsalRequest) -> Result<Rehearsed, LoadError> {
        let instance = match self.instance.take() {
            Some(instance) => instance,
            None => self.instantiate().await?,
        };
        let (connection, head) = (request.connection.clone(), request.head.clone());
        let mut exchange = Exchange::new(connection, "test".into(), 1, head, Fields::from(&request.headers));
        exchange.tags.clone_from(&request.tags);
        let mut run = Run {
            generation: &self.generation,
            instance,
            slot: Some(Box::new(exchange)),
            verdict: RehearsalVerdict::Next,
            phase: None,
            response_body: Bytes::new(),
            calls: Vec::new(),
        };
        {
            let _running = self.generation.clock.begin();
            run.exchange(request).await;
        }
        let Run { instance, slot, verdict, phase, response_body, calls, .. } = run;
        let memory = instance.store.data().memory();
        // A guest that failed is in no defined state.
        self.instance = Some(instance).filter(|_| !matches!(verdict, RehearsalVerdict::Failed(_)));
        // It always comes back.
        let exchange = slot.unwrap_or_else(|| Box::new(Exchange::connection(request.connection.clone(), "test".into())));
        Ok(Rehearsed { verdict, phase, exchange, response_body, calls, memory })
    }
}

struct Run<'a> {
    generation: &'a Generation,
    instance: Box<Instance>,
    slot: Slot,
    verdict: RehearsalVerdict,
    phase: Option<Phase>,
    response_body: Bytes,
    calls: Vec<RehearsalCall>,
}

impl Run<'_> {
    async fn exchange(&mut self, request: &RehearsalRequest) {
        let stopped = self.ask(Phase::Connection).await
            || self.ask(Phase::Request).await
            || (!request.body.is_empty() && self.request_body(&request.body).await);
        if !stopped && let Some((status, headers, body)) = &request.response {
            if let Some(exchange) = &mut self.slot {
                exchange.response = Some(ResponseHead { status: *status, headers: Fields::from(headers) });
            }
            self.response_body = body.clone();
            if !self.ask(Phase::Response).await {
                self.response_pieces(body).await;
            }
        }
        // The gateway tells a policy how the exchange ended however it ended; an instance that failed is told nothing.
        if self.generation.wants(Phase::Complete) && !matches!(self.verdict, RehearsalVerdict::Failed(_)) {
            let outcome = self.outcome(request);
            let (budget, before) = self.begin();
            let called = call::complete(&mut self.instance, &mut self.slot, &outcome, &budget).await;
            self.end(Phase::Complete, budget, before);
            if let Err(error) = called {
                self.failed(Phase::Complete, error);
            }
        }
    }

    fn outcome(&self, request: &RehearsalRequest) -> Outcome {
        let answered = self.slot.as_ref().and_then(|exchange| exchange.response.as_ref()).map_or(200, |head| head.status);
        let (status, decided_by) = match &self.verdict {
            RehearsalVerdict::Deny(refusal) => (refusal.status, self.generation.spec.name.to_string()),
            RehearsalVerdict::Reply(reply) => (reply.status, self.generation.spec.name.to_string()),
            _ => (answered, "upstream".to_owned()),
        };
        let length = |bytes: &Bytes| bytes.len() as u64;
        let (bytes_in, bytes_out) = (length(&request.body), length(&self.response_body));
        Outcome { status, decided_by, bytes_in, bytes_out, duration_us: 0 }
    }

    /// Asks a phase without further arguments; whether its verdict ends the exchange.
    async fn ask(&mut self, phase: Phase) -> bool {
        if !self.generation.wants_now(phase, self.slot.as_deref(), 0) {
            return false;
        }
        let (budget, before) = self.begin();
        let called = call::verdict(&mut self.instance, &mut self.slot, phase, &budget).await;
        self.end(phase, budget, before);
        self.decided(phase, called)
    }

    async fn request_body(&mut self, body: &Bytes) -> bool {
        if !self.generation.wants(Phase::RequestBody) {
            return false;
        }
        let window = body.get(..self.generation.request_window()).unwrap_or(body);
        let complete = window.len() == body.len();
        let (budget, before) = self.begin();
        let called = call::request_body(&mut self.instance, &mut self.slot, window, complete, &budget).await;
        self.end(Phase::RequestBody, budget, before);
        self.decided(Phase::RequestBody, called)
    }

    /// The body as one piece, and its end.
    async fn response_pieces(&mut self, body: &Bytes) {
        if !self.generation.wants(Phase::ResponseBody) {
            return;
        }
        let mut whole = Vec::new();
        for (piece, last) in [(body.as_ref(), false), (&[][..], true)] {
            let (budget, before) = self.begin();
            let called = call::response_body(&mut self.instance, &mut self.slot, piece, last, &budget).await;
            self.end(Phase::ResponseBody, budget, before);
            match called {
                Ok(piece) => whole.extend(piece),
                Err(error) => return self.failed(Phase::ResponseBody, error),
            }
        }
        self.response_body = whole.into();
    }

    fn begin(&self) -> (Budget, u64) {
        (Budget::of(self.generation, Instant::now()), self.instance.store.data().host_calls)
    }

    fn end(&mut self, phase: Phase, budget: Budget, before: u64) {
        let host_calls = self.instance.store.data().host_calls.wrapping_sub(before);
        self.calls.push(RehearsalCall { phase, elapsed: budget.started.elapsed(), host_calls });
    }

    fn failed(&mut self, phase: Phase, error: CallError) {
        (self.verdict, self.phase) = (RehearsalVerdict::Failed(error), Some(phase));
    }

    fn decided(&mut self, phase: Phase, called: Result<Answer, CallError>) -> bool {
        let policy = Arc::clone(&self.generation.spec.name);
        let (verdict, stops) = match called {
            Ok(Answer::Next) => return false,
            Ok(Answer::Accept) => (RehearsalVerdict::Accept, false),
            Ok(Answer::Deny(denial)) => {
                let (rule, reason) = (cut(denial.rule, 64), reason(&denial.reason));
                (RehearsalVerdict::Deny(Refusal { policy, status: denial.status, rule, reason }), true)
            }
            Ok(Answer::Reply(reply)) => {
                let (headers, reason) = (headers(&reply.headers), reason(&reply.reason));
                (RehearsalVerdict::Reply(Reply { policy, status: reply.status, headers, body: reply.body.into(), reason }), true)
            }
            Err(error) => (RehearsalVerdict::Failed(error), true),
        };
        (self.verdict, self.phase) = (verdict, Some(phase));
        stops
    }
}
