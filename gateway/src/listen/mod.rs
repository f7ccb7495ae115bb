//! From a socket to requests: [`accept`] takes connections, [`conn`] brings one to the point where HTTP starts, [`proxy_protocol`] and [`io`] bound its
//! waiting, [`guarded`] judges the heads of HTTP/1 as bytes, [`serve`] runs HTTP on it.

pub mod accept;
pub mod conn;
pub mod guarded;
pub mod io;
pub mod proxy_protocol;
pub mod serve;
