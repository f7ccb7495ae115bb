//! Write policies for the Weir gateway.
//!
//! A policy is a type that implements [`Policy`]; the [`policy`] attribute exports it as a WebAssembly component that speaks
//! `weir:policy` (`wit/` in this crate: one directory for each released version, the newest is what it builds for). Every phase has a default, and a phase that is not written is never called.
//!
//! ```
//! use weir_sdk::prelude::*;
//!
//! struct NoCurl;
//!
//! #[policy]
//! impl Policy for NoCurl {
//!     type Config = NoConfig;
//!     fn configure(_: NoConfig) -> Result<Self, String> {
//!         Ok(Self)
//!     }
//!     fn request(&self, request: Request<'_>) -> Verdict {
//!         match request.header_text("user-agent") {
//!             Some(agent) if agent.starts_with("curl/") => Verdict::deny("no-curl", "tool_blocked"),
//!             _ => Verdict::Next,
//!         }
//!     }
//! }
//! # fn main() {}
//! ```
//!
//! Build it with `cargo build --release --target wasm32-wasip2` and drop the `.wasm` into the gateway's plugin directory.
//! On the native target the same policy runs against the mock host of [`testing`], so `cargo test` needs no gateway.
//!
//! | to | see |
//! |---|---|
//! | decide | [`Policy`], [`Verdict`] |
//! | read a request | [`Request`], [`Head`], [`Connection`], [`Response`] |
//! | use the gateway | [`log`], [`geoip`], [`kv`], [`metrics`], [`http`] |
//! | test | [`testing`] |

mod capability;
mod exchange;
mod export;
mod host;
pub mod http;
mod policy;
mod verdict;

#[cfg(not(target_family = "wasm"))]
pub mod testing;

pub use capability::{geoip, kv, log, metrics};
pub use exchange::{Connection, Head, Request, Response};
pub use host::{EditError, Finding, Outcome};
pub use policy::{Needs, NoConfig, Phase, Policy, ResponseWhen};
pub use verdict::{Denial, Reply, Verdict};
pub use weir_path::Quirks;
pub use weir_sdk_macros::policy;

/// Everything a policy usually needs.
pub mod prelude {
    pub use crate::{
        Connection, EditError, Finding, Head, Needs, NoConfig, Outcome, Phase, Policy, Quirks, Request, Response, ResponseWhen,
        Verdict, geoip, http, kv, log, metrics, policy,
    };
}

#[doc(hidden)]
pub mod __private {
    pub use crate::export::{About, Described, describe, handle};
    #[cfg(target_family = "wasm")]
    pub use crate::host::bindings;
    #[cfg(target_family = "wasm")]
    pub use crate::host::bindings::export_policy;
}
