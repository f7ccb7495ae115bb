//! From a socket to requests: [`accept`] takes connections, [`conn`] brings one to the point where HTTP starts, [`proxy_protocol`]
//! and [`io`] bound its waiting, [`serve`] runs HTTP/2 on it. HTTP/1 is [`crate::http1::server`]'s.

pub mod accept;
pub mod conn;
pub mod io;
pub mod proxy_protocol;
pub mod serve;
