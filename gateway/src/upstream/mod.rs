//! Upstreams: which server to try, over which connection, and what its failure means for the next try.
//!
//! [`health`] decides how a server stands, [`pick`] who is tried and [`budget`] how much may be sent again, all on plain data and a time;
//! [`group`] and [`server`] hold their state, [`connect`] and [`pool`] connections. [`failover`] sends a request from server to server:
//! [`dial`] gets it a connection, [`attempt`] sends it over one, [`journey`] is the list of what was tried. [`probe`] asks servers how they
//! are, and [`report`] tells the operator.

pub mod attempt;
pub mod budget;
pub mod connect;
pub mod dial;
pub mod failover;
pub mod group;
pub mod health;
pub mod journey;
pub mod pick;
pub mod pool;
pub mod probe;
pub mod report;
pub mod server;

pub use attempt::AttemptError;
pub use group::{Group, Groups};
pub use server::Server;
