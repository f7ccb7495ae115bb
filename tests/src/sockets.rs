//! What the standard library does not offer of sockets.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, bind, connect, socket, sockopt};

/// Connections from one address of the loopback: few enough for any cap per client.
const PER_SOURCE: usize = 64;

/// The address that the connection with this number comes from, when many clients are played: 127.1.0.1 and up.
#[must_use]
pub fn source(number: usize) -> Ipv4Addr {
    let host = u32::try_from(number / PER_SOURCE + 1).unwrap_or(1) & 0xffff;
    Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 0)) + host)
}

/// Connects from this address to a server of the loopback, where a connection is made or refused at once.
///
/// # Errors
/// The system's.
pub fn connect_from(source: Ipv4Addr, server: SocketAddr) -> io::Result<TcpStream> {
    let open = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&open, &SocketAddrV4::new(source, 0))?;
    connect(&open, &server)?;
    Ok(TcpStream::from(open))
}

/// Ends the connection with a reset instead of an orderly end.
///
/// # Errors
/// The system's.
pub fn reset(stream: TcpStream) -> io::Result<()> {
    sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
    drop(stream);
    Ok(())
}

/// A loopback address that no other upstream has, of this process or another: the port of one that is stopped stays free for it.
#[must_use]
pub fn own_address() -> Ipv4Addr {
    static COUNT: AtomicU8 = AtomicU8::new(0);
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 64 | high >> 2, low, COUNT.fetch_add(1, Ordering::Relaxed).clamp(1, 254))
}

/// An address of the loopback whose port was free a moment ago.
///
/// # Errors
/// The system has none.
pub fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_change_with_the_number() {
        assert_eq!(source(0), Ipv4Addr::new(127, 1, 0, 1));
        assert_eq!(source(63), Ipv4Addr::new(127, 1, 0, 1));
        assert_eq!(source(64), Ipv4Addr::new(127, 1, 0, 2));
        assert_eq!(source(64 * 300), Ipv4Addr::new(127, 1, 1, 45));
    }

    #[test]
    fn a_connection_comes_from_its_source() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = connect_from(source(70), listener.local_addr().unwrap()).unwrap();
        assert_eq!(client.local_addr().unwrap().ip(), Ipv4Addr::new(127, 1, 0, 2));
        assert_eq!(listener.accept().unwrap().1.ip(), Ipv4Addr::new(127, 1, 0, 2));
    }

    #[test]
    fn a_reset_is_seen_as_one() {
        use std::io::Read as _;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        reset(listener.accept().unwrap().0).unwrap();
        assert_eq!(client.read(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
}
