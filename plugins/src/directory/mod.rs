//! The watched plugin directory: tells when a file has settled, changed or gone. It never judges what is in it.

mod settle;
mod watch;

pub use settle::{Settler, Stamp};
pub use watch::{Change, Watcher, list};
