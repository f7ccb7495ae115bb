//! Clients as they are: programs that people run, browsers, and clients of HTTP/1.0 that break off. What they send and get passes through
//! byte for byte, over HTTP/1 and HTTP/2.

mod aborts;
mod browser;
mod bytes;
mod curl;
mod events;
mod http2;
mod origin;
mod programs;
mod stage;
