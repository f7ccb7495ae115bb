//! Replacing the binary without losing a connection: the running process starts its successor, hands it the listening sockets, and
//! drains only when the successor says that it serves. [`successor`] is the side of the process that goes, [`predecessor`] that of the
//! one that comes, [`message`] is what they say to each other.

pub mod heritage;
pub mod message;
pub mod predecessor;
pub mod program;
pub mod successor;

pub use heritage::{Heritage, take_down};
pub use message::{Down, Manifest};
pub use predecessor::Predecessor;
pub use program::Program;
pub use successor::{Refusal, Successor};
