//! The watched plugin directory: tells when a file has settled, changed or gone. It never judges what is in it.
//!
//! [`list`] and [`read`] look at it once, [`Settler`] decides when a file is whole, [`Watcher`] does both for as long as it lives.

mod look;
mod settle;
mod watch;

pub use look::{MAX_FILES, ReadError, list, read, signature, signature_path};
pub use settle::{Settler, Stamp};
pub use watch::{Change, Watcher};
