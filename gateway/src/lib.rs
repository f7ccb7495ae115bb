//! Weir: a programmable edge gateway.
//!
//! The path of one request is the reading order: [`listen`] accepts a connection and brings it to HTTP, [`tls`] handshakes,
//! [`http1`] reads requests from it, [`pipeline`] lists the steps of an exchange, [`http`] guards and edits heads, [`route`] finds the site,
//! [`upstream`] picks servers and fails over, [`finish`] ends the exchange with exactly one record, which [`observe`] turns into a log
//! line, metrics and spans. Around it: [`config`] reads `weir.toml`, [`runtime`] builds snapshots and runs the threads, [`admin`] is
//! the operator's API, [`cli`] the command line, [`demo`] a gateway to try.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

pub mod admin;
pub mod cli;
pub mod clock;
pub mod config;
pub mod conn;
pub mod demo;
pub mod failure;
pub mod finish;
pub mod hash;
pub mod http;
pub mod http1;
pub mod listen;
pub mod observe;
pub mod pipeline;
pub mod route;
pub mod runtime;
pub mod tls;
pub mod upstream;

pub use weir_plugins::fields;
