//! What reads bytes from the network, given any bytes, beside readers that were written independently.
//!
//! The modules under test are the gateway's own files (links into `gateway/src`), compiled here with coverage counters and without the
//! rest of the gateway, whose WebAssembly compiler would take most of the build and none of the bytes. Everything is done by stable
//! features: the counters are a pass of LLVM that `RUSTFLAGS` asks for (see `make fuzz`).
//!
//! | target | bytes | must hold |
//! |---|---|---|
//! | `head` | a client's HTTP/1 connection | the same requests in every split, to httparse and to hyper; written out, each is one request again |
//! | `response` | a server's answer | the same in every split; where hyper reads an answer too, it is the same |
//! | `chunks` | a chunked body | the verdict of [`reference::chunked`], in every split |
//! | `http2` | frames behind a preface | no panic; a head that the guard accepts is one it would accept as HTTP/1 |
//! | `frames` | frames of both directions | the same account of them in every split |
//! | `proxy_header` | the start of a connection | the same answer in every split, and nothing behind the header is consumed |
//! | `client_hello` | the start of a connection | a hello is a hello only once it is whole, and whatever follows it |

pub mod client_hello;
pub mod fields;
pub mod http;
pub mod http1;
pub mod pieces;
pub mod proxy_protocol;
pub mod reference;
pub mod seeds;
#[allow(dead_code, reason = "the scenarios use the verdicts")]
mod table;
pub mod wire;
