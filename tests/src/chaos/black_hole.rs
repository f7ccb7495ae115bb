//! A port whose connections are neither made nor refused.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::sockets;

/// Connections that fill the backlog: Linux takes one more than it is told.
const FILL: usize = 8;
/// After so long a connection on the loopback is not going to be made.
const LOST: Duration = Duration::from_millis(200);

/// A listener that never accepts and whose backlog is full: the system drops further SYNs, as a dead host's network does.
#[derive(Debug)]
pub struct BlackHole {
    _listener: TcpListener,
    _fill: Vec<TcpStream>,
    address: SocketAddr,
}

impl BlackHole {
    /// Opens it at an address where nobody listens.
    ///
    /// # Errors
    /// The address is taken, or connections are still made.
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        let listener = sockets::listen_with(address, 0)?;
        let address = listener.local_addr()?;
        let dialled: Vec<JoinHandle<io::Result<TcpStream>>> =
            (0..FILL).map(|_| std::thread::spawn(move || TcpStream::connect_timeout(&address, LOST))).collect();
        let fill: Vec<TcpStream> = dialled.into_iter().filter_map(|one| one.join().ok()?.ok()).collect();
        if fill.len() == FILL {
            return Err(io::Error::other("the backlog takes everything"));
        }
        Ok(Self { _listener: listener, _fill: fill, address })
    }

    /// Where nobody answers.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_gets_in_and_nobody_is_refused() {
        let hole = BlackHole::open("127.0.0.1:0".parse().unwrap()).unwrap();
        let error = TcpStream::connect_timeout(&hole.address(), LOST).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
