//! An upstream that misbehaves on purpose: this machine has no way to disturb its network, so the other end does it.
//!
//! | to | see |
//! |---|---|
//! | say what goes wrong, and how often | [`Fault`], [`Behaviour`] |
//! | run one within this process | [`ChaosUpstream`] |
//! | know what was executed, after a `kill -9` too | [`Journal`], [`executed`] |
//!
//! As a process of its own, which can be killed: `chaos upstream --listen ADDRESS --journal FILE --fault reset-after-head/10`.

mod exchange;
mod fault;
mod journal;
mod server;

pub use fault::{Behaviour, Fault};
pub use journal::{Entry, Executed, Journal, executed};
pub use server::{ChaosUpstream, HEALTH, STATISTICS};

/// The header with the id of a request, which its answer repeats.
pub const ID: &str = "x-chaos-id";
