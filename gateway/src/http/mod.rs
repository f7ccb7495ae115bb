//! HTTP between two connections: what is refused, what is stripped and added, how bodies flow.
//!
//! [`guard`] refuses ambiguous heads, [`abuse`] counts frames of HTTP/2, [`authority`] reads hosts, [`hop`] and [`forwarded`] edit
//! headers, [`message`] is what heads are here, [`body`] carries bodies both ways and notices their end, [`pace`] says what a client's may cost, [`replay`] keeps what may be
//! sent again, [`unread`] is what becomes of the rest, [`upgrade`] joins two connections, [`respond`] is the only place that makes responses.

pub mod abuse;
pub mod authority;
pub mod body;
pub mod forwarded;
pub mod guard;
pub mod hop;
pub mod message;
pub mod pace;
pub mod replay;
pub mod respond;
pub mod unread;
pub mod upgrade;
