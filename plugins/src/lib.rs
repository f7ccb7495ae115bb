//! The plugin host of Weir: the only crate that knows wasmtime.
//!
//! A *plugin* is a compiled `.wasm` component that speaks `weir:policy` (`sdk/wit`). A *policy* is a configured use of a plugin.
//! A [`Generation`] is one loaded policy: module digest, configuration, grants and limits. A [`Chain`] is a site's ordered policies.
//!
//! In reading order: a file settles in the watched [`directory`], is inspected and compiled ([`load`]), configured and proven
//! ([`generation`]), and published by the gateway as part of a [`Chain`]; a request's phases run through [`chain`] and [`call`] on
//! instances of the worker's [`pool`], which see the exchange through [`contract`] and the [`capability`] modules.
//!
//! [`rehearsal`] does the same for authors, outside a gateway, and measures it.
//!
//! What a plugin may do: read the exchange it is called for, answer with a verdict, edit what the contract lets it edit, and use the
//! capabilities it was granted. It sees no file, no socket, no environment and no other exchange; whom it may ask over HTTP, the operator
//! names.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

mod call;
pub mod candidate;
pub mod capability;
mod chain;
mod clock;
pub mod compiler;
mod configure;
mod contract;
mod decision;
pub mod directory;
mod engine;
mod error;
mod exchange;
pub mod fields;
mod gate;
mod generation;
mod guest;
mod image;
mod inspect;
mod isolated;
mod limits;
mod load;
mod manifest;
mod per_worker;
mod pieces;
mod pool;
pub mod priority;
mod reaper;
pub mod rehearsal;
mod response_when;
pub mod signature;
mod slice;
mod stack;
mod stats;
mod stderr;
mod turns;
mod wasi;

pub use candidate::{Candidate, Trial, TrialMode};
pub use chain::{Chain, Refusal, Reply, Verdict};
pub use contract::{NEWEST, SUPPORTED};
pub use decision::{Decision, Finding, Mode, OnError, OnOverflow, Phase, PolicyVersion, VerdictKind};
pub use engine::{Host, HostOptions, Hurry};
pub use error::{CallError, LoadError};
pub use exchange::{ConnectionFacts, Exchange, Outcome, ResponseHead, TraceContext};
pub use gate::{Admission, Alarm};
pub use generation::{Generation, Isolation, PolicySpec, check_schema};
pub use limits::PolicyLimits;
pub use load::{LOAD_WALL, MAX_PLUGIN_BYTES, Plugin, digest};
pub use per_worker::become_worker;
pub use pool::sweep;
pub use stats::StatsSnapshot;
