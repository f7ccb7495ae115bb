//! Plugins that mean harm: each limit of a policy has two sides, and what is beyond it ends in the stated way and nothing else does.
//!
//! | to read | see |
//! |---|---|
//! | time, memory, stack | `calls` |
//! | what a policy writes | `writes` |
//! | what it is told of a connection | `facts` |
//! | any sequence of host calls | `scripts` |

mod calls;
mod facts;
mod scripts;
mod stage;
mod writes;
