//! TLS: what clients offer ([`client_hello`]), which certificate they get ([`certificates`]), the handshake with them
//! ([`handshake`]), and TLS towards upstreams ([`upstream`]).

pub mod certificates;
pub mod client_hello;
pub mod handshake;
mod pinned;
pub mod tickets;
pub mod upstream;
