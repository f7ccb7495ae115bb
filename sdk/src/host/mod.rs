//! The two hosts a policy can run in: the gateway (wasm) and the mock of [`crate::testing`] (native). Both have the same names.

#[cfg(not(target_family = "wasm"))]
pub(crate) mod mock;
#[cfg(target_family = "wasm")]
mod wasm;

#[cfg(not(target_family = "wasm"))]
pub(crate) use mock::{Connection, Header, IpAddress, Request, Response, geoip, http_out, kv, kv_atomic, log, metrics};
#[cfg(not(target_family = "wasm"))]
pub use mock::{EditError, Finding, Outcome};
#[cfg(target_family = "wasm")]
pub use wasm::bindings;
#[cfg(target_family = "wasm")]
pub(crate) use wasm::{
    Answer, Connection, Header, IpAddress, Request, Response, current, geoip, http_out, kv, kv_atomic, log, metrics,
};
#[cfg(target_family = "wasm")]
pub use wasm::{EditError, Finding, Outcome};
