//! Listening sockets: bound here, left by a predecessor, or given by the service manager; and how one is closed without resetting a
//! client.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use listenfd::ListenFd;
use socket2::{SockFilter, SockRef};
use tokio::net::TcpSocket;

use super::upgrade::message::Passed;
use crate::config::Listener;

/// Connections the kernel holds for a worker that is busy.
const BACKLOG: u32 = 4096;

/// A listening socket, and whether somebody else keeps it when this process closes it.
#[derive(Debug)]
pub struct Socket {
    /// Bound and listening.
    pub listener: TcpListener,
    /// Whether the service manager holds it too: what is in its queue waits for the next process then.
    pub shared: bool,
}

/// Sockets that were bound before this process began.
#[derive(Debug, Default)]
pub struct Inherited {
    listeners: Vec<Waiting>,
    admin: Vec<(Option<String>, OwnedFd)>,
    draining: Vec<Draining>,
}

#[derive(Debug)]
struct Waiting {
    address: SocketAddr,
    /// TLS and PROXY protocol, if the predecessor told.
    form: Option<(bool, bool)>,
    socket: Socket,
}

/// A process of an earlier generation that has not ended.
#[derive(Debug)]
pub struct Draining {
    /// Its number.
    pub pid: u32,
    /// Its pidfd.
    pub handle: OwnedFd,
}

impl Inherited {
    /// What a predecessor passes.
    pub fn from_predecessor(passed: impl Iterator<Item = (Passed, OwnedFd)>) -> Self {
        let mut inherited = Self::default();
        for (what, descriptor) in passed {
            match what {
                Passed::Listener { configured, tls, proxy_protocol, shared } => {
                    let socket = Socket { listener: descriptor.into(), shared };
                    inherited.listeners.push(Waiting { address: configured, form: Some((tls, proxy_protocol)), socket });
                }
                Passed::Admin { address } => inherited.admin.push((Some(address), descriptor)),
                Passed::Draining { pid } => inherited.draining.push(Draining { pid, handle: descriptor }),
            }
        }
        inherited
    }

    /// What a service manager passes (`LISTEN_FDS`). Call before there are threads: the environment is read and cleared.
    #[must_use]
    pub fn from_service_manager() -> Self {
        let mut inherited = Self::default();
        let mut given = ListenFd::from_env();
        for index in 0..given.len() {
            if let Ok(Some(listener)) = given.take_tcp_listener(index) {
                // Without blocking, because that is how it will be waited for; an address, because it is a listener.
                if let (Ok(()), Ok(address)) = (listener.set_nonblocking(true), listener.local_addr()) {
                    inherited.listeners.push(Waiting { address, form: None, socket: Socket { listener, shared: true } });
                }
            } else if let Ok(Some(listener)) = given.take_unix_listener(index) {
                inherited.admin.push((unix_text(&listener), listener.into()));
            } else {
                tracing::warn!("descriptor {} of the service manager is no listening stream socket", index + 3);
            }
        }
        inherited
    }

    /// The socket for a listener: in the same form if there is one, at the same address otherwise.
    pub fn take(&mut self, listener: &Listener) -> Option<Socket> {
        let form = Some((listener.tls, listener.proxy_protocol));
        let alike = |waiting: &Waiting| waiting.address == listener.address && waiting.form == form;
        // Port 0 is no address: each such listener stands for one of its own.
        let near = |waiting: &Waiting| listener.address.port() != 0 && serves(waiting.address, listener.address);
        let index = self.listeners.iter().position(alike).or_else(|| self.listeners.iter().position(near))?;
        Some(self.listeners.swap_remove(index).socket)
    }

    /// The socket of the admin API at this address.
    pub fn take_admin(&mut self, address: &str) -> Option<OwnedFd> {
        let index = self.admin.iter().position(|(at, _)| at.as_deref() == Some(address))?;
        Some(self.admin.swap_remove(index).1)
    }

    /// Generations that drain.
    pub fn take_draining(&mut self) -> Vec<Draining> {
        std::mem::take(&mut self.draining)
    }

    /// Addresses that no listener took.
    #[must_use]
    pub fn left_over(&self) -> Vec<String> {
        let listeners = self.listeners.iter().map(|waiting| waiting.address.to_string());
        listeners.chain(self.admin.iter().map(|(at, _)| at.clone().unwrap_or_default())).collect()
    }
}

/// Whether a socket bound to `bound` is what a listener with the address `wanted` needs.
fn serves(bound: SocketAddr, wanted: SocketAddr) -> bool {
    // Service managers bind both families by default, and so does `:PORT`.
    let both_families = bound.ip().is_unspecified() && wanted.ip().is_unspecified() && matches!(bound.ip(), IpAddr::V6(_));
    bound.port() == wanted.port() && (bound.ip() == wanted.ip() || both_families)
}

fn unix_text(listener: &UnixListener) -> Option<String> {
    let address = listener.local_addr().ok()?;
    Some(format!("unix:{}", address.as_pathname()?.display()))
}

/// Binds an address.
///
/// # Errors
/// The system's.
pub fn bind(address: SocketAddr) -> std::io::Result<Socket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(Socket { listener: socket.listen(BACKLOG)?.into_std()?, shared: false })
}

/// Makes the kernel ignore who wants to connect from now on, while handshakes under way go on. A socket that is closed at once resets
/// connections that clients believe to have; after a moment of this there are none. Whoever is ignored asks again after a second, and
/// is refused.
pub fn ignore_newcomers(listener: &TcpListener) {
    // Classic BPF over the TCP header: the byte of flags, SYN and ACK of it; SYN alone is dropped, everything else passes whole.
    const DROP_SYN: [SockFilter; 5] = [
        SockFilter::new(0x30, 0, 0, 13),
        SockFilter::new(0x54, 0, 0, 0x12),
        SockFilter::new(0x15, 0, 1, 0x02),
        SockFilter::new(0x06, 0, 0, 0),
        SockFilter::new(0x06, 0, 0, u32::MAX),
    ];
    // A kernel without socket filters closes a little less gently.
    if let Err(error) = SockRef::from(listener).attach_filter(&DROP_SYN) {
        tracing::debug!("cannot filter newcomers: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;
    use std::time::Duration;

    use super::*;
    use crate::config::Location;

    fn listener(address: &str, tls: bool) -> Listener {
        let at = Location { file: std::path::Path::new("weir.toml").into(), line: 1 };
        Listener { address: address.parse().unwrap(), tls, proxy_protocol: false, at }
    }

    fn passed(address: &str, tls: bool) -> (Passed, OwnedFd, SocketAddr) {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let real = socket.local_addr().unwrap();
        let configured = address.parse().unwrap();
        (Passed::Listener { configured, tls, proxy_protocol: false, shared: false }, socket.into(), real)
    }

    #[test]
    fn listeners_find_the_sockets_of_their_predecessors() {
        let all = [passed("127.0.0.1:0", true), passed("127.0.0.1:0", false), passed("192.0.2.1:443", true)];
        let real: Vec<SocketAddr> = all.iter().map(|(_, _, real)| *real).collect();
        let mut inherited = Inherited::from_predecessor(all.into_iter().map(|(passed, socket, _)| (passed, socket)));
        let mut take = |address: &str, tls: bool| {
            inherited.take(&listener(address, tls)).map(|socket| socket.listener.local_addr().unwrap())
        };
        assert_eq!(take("127.0.0.1:0", false), Some(real[1]), "by its form");
        assert_eq!(take("127.0.0.1:0", false), None, "another form is another listener when the system chooses the port");
        assert_eq!(take("192.0.2.1:443", false), Some(real[2]), "an address may change its form");
        assert_eq!(take("192.0.2.1:444", true), None);
        assert_eq!(inherited.left_over(), ["127.0.0.1:0"]);
    }

    #[test]
    fn a_socket_of_both_families_serves_either() {
        let serves = |bound: &str, wanted: &str| serves(bound.parse().unwrap(), wanted.parse().unwrap());
        assert!(serves("[::]:443", "0.0.0.0:443"));
        assert!(serves("[::]:443", "[::]:443"));
        assert!(!serves("0.0.0.0:443", "[::]:443"));
        assert!(!serves("[::]:443", "127.0.0.1:443"));
        assert!(!serves("[::]:443", "[::]:444"));
    }

    #[test]
    fn newcomers_are_ignored_and_who_is_connected_is_heard() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let mut early = TcpStream::connect(address).unwrap();
        ignore_newcomers(&socket);
        assert!(TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_err(), "no answer at all");
        let (mut accepted, _) = socket.accept().unwrap();
        early.write_all(b"x").unwrap();
        accepted.read_exact(&mut [0]).unwrap();
    }
}
