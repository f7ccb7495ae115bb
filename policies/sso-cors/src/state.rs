//! What the response phase has to know about the request, kept by the gateway in between.

use crate::authority::parse_port;

/// Nothing of it is set for most exchanges, and then nothing is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct State<'a> {
    /// The port in the Host that the client sent, when the configuration does not fix it.
    pub(crate) port: Option<u16>,
    /// The `Origin` of the request, when it is one of `allowed_origins`.
    pub(crate) origin: Option<&'a [u8]>,
}

impl<'a> State<'a> {
    /// `port\norigin`; empty when neither is set.
    pub(crate) fn write(&self) -> Vec<u8> {
        if self.port.is_none() && self.origin.is_none() {
            return Vec::new();
        }
        let mut bytes = self.port.map_or_else(Vec::new, |port| port.to_string().into_bytes());
        bytes.push(b'\n');
        bytes.extend_from_slice(self.origin.unwrap_or_default());
        bytes
    }

    pub(crate) fn read(bytes: &'a [u8]) -> Self {
        let mut lines = bytes.splitn(2, |byte| *byte == b'\n');
        Self { port: lines.next().and_then(parse_port), origin: lines.next().filter(|origin| !origin.is_empty()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for port in [None, Some(8443)] {
            for origin in [None, Some(b"https://home.connectwise.com".as_slice())] {
                let state = State { port, origin };
                assert_eq!(State::read(&state.write()), state);
            }
        }
        assert!(State::default().write().is_empty());
    }
}
