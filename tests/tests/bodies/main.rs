//! Policies and bodies: windows of requests, transforms of responses, and what passes through a long chain untouched.
//!
//! | to read | see |
//! |---|---|
//! | the first bytes of a request body, and the rest | `windows` |
//! | pieces of a response body | `transforms` |
//! | event streams, WebSockets and odd headers through five policies | `chain` |

mod chain;
mod transforms;
mod windows;
