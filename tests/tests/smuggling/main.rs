//! Requests and responses that two servers could read differently: raw bytes in, a verdict, and what the other side saw of it. The
//! rows are those of the catalogue of known attacks; each runs against the real binary, together with a bystander on a connection of its
//! own who must get its own answer after every one of them.
//!
//! | file | what |
//! |---|---|
//! | `table.rs` | reads `fixtures/smuggling/http1.txt` |
//! | `mutations.rs` | rows that are generated: every byte in every place where it matters |
//! | `stage.rs` | plays a case and checks its verdict |
//! | `http1.rs` | the rows of the table, in three deliveries |
//! | `sequences.rs` | rows that need more than bytes: early answers, pauses, upgrades, pipelines |
//! | `http2.rs` | rows of HTTP/2, and names that must agree |
//! | `upstream.rs` | rows in which the origin misbehaves |

mod http1;
mod http2;
mod mutations;
mod sequences;
mod stage;
mod table;
mod upstream;
