//! The harness of the end-to-end scenarios: the real binary on ports that the system chooses, scripted upstreams, and clients that send
//! exact bytes. Everything belongs to one test; every wait has a deadline; processes end by their own id.
//!
//! | to | see |
//! |---|---|
//! | run the gateway | [`Gateway`], [`Setup`] |
//! | write a policy | [`Author`] |
//! | stand behind it | [`Upstream`], [`recording`], [`Hostile`], [`BlackHole`]; as a process that can be killed, [`chaos`] |
//! | talk to it | [`Request`], [`Connection`], [`h2`], [`tool`]; at a fixed rate, [`open_loop`] |
//! | make its files | [`tls`], [`geo`], [`wasm`], [`signer`], [`Scratch`] |
//! | measure and end a process | [`process`] |
//! | wait | [`eventually`] |

mod author;
pub mod chaos;
pub mod client;
pub mod collector;
pub mod gateway;
mod generations;
pub mod geo;
pub mod h2;
pub mod hostile;
pub mod load;
pub mod open_loop;
pub mod process;
pub mod recording;
mod scratch;
pub mod setup;
#[path = "../../plugins/src/signature/signer.rs"]
pub mod signer;
pub mod slope;
pub mod sockets;
pub mod tls;
pub mod tool;
pub mod upstream;
mod wait;
pub mod wasm;
pub mod wire;

pub use author::Author;
pub use client::{Answer, Connection, Request};
pub use gateway::Gateway;
pub use generations::is_alive;
pub use hostile::{BlackHole, Hostile};
pub use scratch::Scratch;
pub use setup::{Checked, Setup};
pub use upstream::{Gate, Received, Reply, Upstream};
pub use wait::{LONG, eventually};
