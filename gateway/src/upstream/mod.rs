//! Upstreams: which server to try, over which connection, and what its failure means for the next try.
//!
//! [`health`] decides who is eligible and [`pick`] who is tried, both on plain data and a time; [`connect`] and [`pool`] hold
//! connections; [`attempt`] sends one request to one server; [`failover`] loops over them; [`probe`] asks servers how they are.

pub mod attempt;
pub mod connect;
pub mod failover;
pub mod group;
pub mod health;
pub mod pick;
pub mod pool;
pub mod probe;

pub use attempt::AttemptError;
pub use group::{Group, Groups, Server};
