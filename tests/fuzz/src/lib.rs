//! What reads bytes from the network, given any bytes, beside readers that were written independently.
//!
//! The modules under test are the gateway's own files (links into `gateway/src`), compiled here with coverage counters and without the
//! rest of the gateway, whose WebAssembly compiler would take most of the build and none of the bytes. Everything is done by stable
//! features: the counters are a pass of LLVM that `RUSTFLAGS` asks for (see `make fuzz`).
//!
//! | target | bytes | must hold |
//! |---|---|---|
//! | `head` | a client's HTTP/1 connection | what the guard lets pass is the same in every split, and the same requests to httparse and, through the gateway's stream, to hyper |
//! | `chunks` | a chunked body | the verdict of [`reference::chunked`], in every split |
//! | `http2` | frames behind a preface | no panic; a head that the guard accepts is one it would accept as HTTP/1 |
//! | `proxy_header` | the start of a connection | the same answer in every split, and nothing behind the header is consumed |
//! | `client_hello` | the start of a connection | a hello is a hello only once it is whole, and whatever follows it |

pub mod client_hello;
pub mod guarded;
pub mod http;
pub mod pieces;
pub mod proxy_protocol;
pub mod reference;
pub mod seeds;
#[allow(dead_code, reason = "the scenarios use the verdicts")]
mod table;
pub mod wire;
