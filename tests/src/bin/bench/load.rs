//! What the clients ask, and who asks.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::built_in;
use crate::error::Error;
use crate::proxies::Ground;
use crate::wrk::Wrk;

/// Connections at the same time, each with one request under way.
pub(crate) const CONNECTIONS: usize = 32;
/// What the origin answers, in bytes.
pub(crate) const ANSWER: usize = 1024;
/// The name that is asked for, by `Host` and in the TLS handshake.
pub(crate) const HOST: &str = "localhost";
/// The path and query that are asked for.
pub(crate) const TARGET: &str = "/automate/computers?id=42&sort=name";
/// The headers of a request beside `Host`, which makes nine.
pub(crate) const HEADERS: [(&str, &str); 8] = [
    ("User-Agent", "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/120 Safari/537.36"),
    ("Accept", "text/html,application/xhtml+xml"),
    ("Accept-Language", "en-US,en;q=0.9"),
    ("Accept-Encoding", "gzip, deflate"),
    ("Cookie", "ASP.NET_SessionId=abcdefghijklmnop; theme=dark"),
    ("X-Client-IP", "8.8.8.8"),
    ("Referer", "https://automate.example.com/automate/"),
    ("Upgrade-Insecure-Requests", "1"),
];

/// How requests come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Traffic {
    /// HTTP/1.1 over connections that are kept.
    Plain,
    /// The same over TLS 1.3.
    Tls,
    /// A new TLS connection per request, each with a full handshake.
    FullHandshake,
    /// A new TLS connection per request, each resuming the session before.
    Resumed,
}

impl Traffic {
    /// In the order in which they are measured.
    pub(crate) const ALL: [Self; 4] = [Self::Plain, Self::Tls, Self::FullHandshake, Self::Resumed];

    /// Its name for a person.
    #[must_use]
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Plain => "kept connections",
            Self::Tls => "kept TLS connections",
            Self::FullHandshake => "new TLS connections, full handshakes",
            Self::Resumed => "new TLS connections, resumed sessions",
        }
    }

    /// Whether it goes over TLS.
    #[must_use]
    pub(crate) const fn is_tls(self) -> bool {
        !matches!(self, Self::Plain)
    }

    /// Whether a connection serves more than one request.
    #[must_use]
    pub(crate) const fn keeps_connections(self) -> bool {
        matches!(self, Self::Plain | Self::Tls)
    }
}

/// Whom to ask, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    /// The proxy's name.
    pub(crate) name: &'static str,
    /// Its listener.
    pub(crate) address: SocketAddr,
    /// The kind of requests.
    pub(crate) traffic: Traffic,
}

/// What the clients saw in one run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Sample {
    /// Requests answered, whatever the status.
    pub(crate) requests: u64,
    /// The same per second.
    pub(crate) per_second: f64,
    /// Median time to the end of an answer, in microseconds.
    pub(crate) p50_us: f64,
    /// 99 of 100 answers took no longer, in microseconds.
    pub(crate) p99_us: f64,
    /// Answers that were not 2xx.
    pub(crate) refused: u64,
    /// Connections that broke and answers that did not come.
    pub(crate) errors: u64,
    /// Connections that resumed a session, where the generator can tell.
    pub(crate) resumed: Option<u64>,
}

/// Closed-loop clients: `wrk` for kept connections when it is installed, else threads of this program. New TLS connections are always
/// the latter's: `wrk` resumes sessions wherever a server lets it, and whether a handshake is full must not depend on the server.
#[derive(Debug)]
pub(crate) struct Generator {
    wrk: Option<Wrk>,
    built_in: built_in::Clients,
}

impl Generator {
    /// Prepares both.
    ///
    /// # Errors
    /// The certificate of this run cannot be trusted.
    pub(crate) fn new(ground: &Ground, wrk: Option<PathBuf>) -> Result<Self, Error> {
        let wrk = wrk.map(|program| Wrk::new(program, &ground.scratch));
        Ok(Self { wrk, built_in: built_in::Clients::new(&ground.authority)? })
    }

    /// Asks once and checks the answer in full: a proxy that answers something else must not be measured.
    ///
    /// # Errors
    /// The answer is not 200 with the origin's body.
    pub(crate) fn probe(&self, target: &Target) -> Result<(), Error> {
        self.built_in.probe(target)
    }

    /// Asks for this many seconds. On a machine that is busy elsewhere there may be no answer at all.
    ///
    /// # Errors
    /// The generator failed.
    pub(crate) fn drive(&self, target: &Target, seconds: u32) -> Result<Sample, Error> {
        match &self.wrk {
            Some(wrk) if target.traffic.keeps_connections() => wrk.drive(target, seconds),
            _ => Ok(self.built_in.drive(target, seconds)),
        }
    }

    /// Who asks over kept connections.
    #[must_use]
    pub(crate) const fn name(&self) -> &'static str {
        if self.wrk.is_some() { "wrk" } else { "built-in" }
    }
}
