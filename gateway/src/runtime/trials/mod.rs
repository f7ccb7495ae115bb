//! Candidates on trial: which policies have one, what became of it, and the operator's orders about it.
//!
//! A candidate is never a reason for its policy not to run: one that is missing or refused is told, and the policy runs without it.

mod orders;
mod table;

pub use orders::{Done, Order, Promotion, Refusal};
pub use table::{Row, State, Status, Trials};
