//! HTTP/1 on a connection: bytes to heads and bodies and back, on either side of the gateway.
//!
//! A gateway that passes most messages through has two needs that hyper's HTTP/1 does not meet: it must know which bytes of a request
//! were handed to a server before it decides to repeat it, and it must not read every head twice, once to judge its bytes and once to
//! parse them. Both sides share [`wire`] (the bytes of a connection), [`body`] (where a body ends) and [`head`] (fields as text); the
//! client's side is [`server`], the upstream's is [`client`]. HTTP/2 is hyper's.

pub mod body;
pub mod client;
pub mod deadline;
pub mod downstream;
pub mod head;
pub mod response;
pub mod server;
pub mod turn;
pub mod wire;
