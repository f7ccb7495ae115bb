//! Cases for policies as TOML: what a policy is asked, what it should answer, and how the two differ.
//!
//! The same files run in two hosts: the gateway's (`weir plugin test`) and the mock of `weir_sdk::testing` (`cargo test`). Both fill a
//! [`Seen`]; [`differences`] compares it with what the case expects. `docs/reference/cases.md` describes the format.
//!
//! | to | see |
//! |---|---|
//! | read files | [`read`], [`parse`] |
//! | know what to ask | [`Case`], [`Step`], [`Ask`], [`Answer`] |
//! | compare | [`Seen`], [`differences`] |

mod compare;
mod data;
mod expect;
mod file;
mod seen;
mod upstreams;

pub use compare::{Difference, differences};
pub use data::{Data, Headers};
pub use expect::{Expect, Verdict};
pub use file::{Answer, Ask, Case, CaseFile, HttpOut, Limits, Policy, Setting, Step, Tls, parse, read};
pub use seen::{Message, Seen, SeenFinding};
pub use upstreams::{Failure, Replies, Reply, Upstreams};
