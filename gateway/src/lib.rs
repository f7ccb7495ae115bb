//! scratch
pub mod conn;
pub use weir_plugins as plugins;
