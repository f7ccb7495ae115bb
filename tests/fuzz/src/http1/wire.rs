//! Stands for a connection that is written to: everything stays here.

use bytes::Bytes;

/// What was written.
#[derive(Debug, Default)]
pub struct Wire(Vec<u8>);

impl Wire {
    /// Where text goes.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }

    /// Adds data, with `closing` behind it.
    pub fn push(&mut self, data: Bytes, closing: &'static [u8]) {
        self.0.extend_from_slice(&data);
        self.0.extend_from_slice(closing);
    }
}
