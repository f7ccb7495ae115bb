//! From a socket to requests: [`accept`] takes connections, [`addresses`] counts them by client, [`conn`] brings one to the point
//! where HTTP starts, [`proxy_protocol`] and [`io`] bound its waiting, [`h2_watch`] counts the frames of HTTP/2, [`serve`] runs it.
//! HTTP/1 is [`crate::http1::server`]'s.

pub mod accept;
pub mod addresses;
pub mod conn;
pub mod h2_watch;
pub mod io;
pub mod proxy_protocol;
pub mod serve;
