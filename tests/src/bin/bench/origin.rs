//! What stands behind every proxy: one kilobyte for every request.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use weir_tests::process::Process;

use crate::configs;
use crate::error::Error;
use crate::load::ANSWER;
use crate::proxies::{Ground, free_address};

/// A running origin.
#[derive(Debug)]
pub(crate) enum Origin {
    /// nginx with one worker.
    Nginx {
        /// Ends it when dropped.
        _process: Process,
        /// Where it listens.
        address: SocketAddr,
    },
    /// Threads of this program.
    BuiltIn {
        /// Where they listen.
        address: SocketAddr,
    },
}

impl Origin {
    /// Starts nginx when there is one, else threads.
    ///
    /// # Errors
    /// It does not start.
    pub(crate) fn start(ground: &Ground, nginx: Option<&Path>) -> Result<Self, Error> {
        let Some(nginx) = nginx else { return Ok(Self::BuiltIn { address: serve_threads()? }) };
        let address = free_address()?;
        let config = ground.scratch.write("origin/nginx.conf", configs::origin(ground, address));
        let mut command = Command::new(nginx);
        command.arg("-c").arg(config);
        let process = Process::start("origin", command, ground.scratch.path().join("origin/log"), &[address])?;
        Ok(Self::Nginx { _process: process, address })
    }

    /// Where it listens.
    #[must_use]
    pub(crate) const fn address(&self) -> SocketAddr {
        match self {
            Self::Nginx { address, .. } | Self::BuiltIn { address } => *address,
        }
    }

    /// Its name in the report.
    #[must_use]
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Nginx { .. } => "nginx",
            Self::BuiltIn { .. } => "built-in",
        }
    }
}

/// Listens on a port that the system chooses, with a thread per connection, until this program ends.
///
/// # Errors
/// There is no port.
pub(crate) fn serve_threads() -> Result<SocketAddr, Error> {
    let failed = |source| Error::System { what: "no port for the origin", source };
    let listener = TcpListener::bind("127.0.0.1:0").map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A connection that ends, ends its thread.
            std::thread::spawn(move || drop(serve(stream)));
        }
    });
    Ok(address)
}

/// Answers every head that comes; the requests have no bodies.
fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let answer = format!(
        "HTTP/1.1 200 OK\r\nserver: origin\r\ncontent-type: text/plain\r\ncontent-length: {ANSWER}\r\n\r\n{}",
        "x".repeat(ANSWER)
    );
    let mut pending = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let count = stream.read(&mut piece)?;
        if count == 0 {
            return Ok(());
        }
        pending.extend_from_slice(piece.get(..count).unwrap_or_default());
        while let Some(end) = pending.windows(4).position(|four| four == b"\r\n\r\n") {
            pending.drain(..end + 4);
            stream.write_all(answer.as_bytes())?;
        }
    }
}
