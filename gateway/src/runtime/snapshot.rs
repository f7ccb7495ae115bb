//! Everything a request needs, built whole and published at once.

use std::sync::Arc;

use weir_plugins::Chain;

use crate::config::Config;
use crate::route::Hosts;
use crate::tls::certificates::TlsServer;
use crate::upstream::Group;

/// One state of the world. A request loads it once.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts publications, from 1.
    pub generation: u64,
    /// What it was built from.
    pub config: Arc<Config>,
    /// Host names to sites.
    pub hosts: Hosts<Site>,
    /// For TLS listeners.
    pub tls: Option<Arc<TlsServer>>,
    /// All upstreams.
    pub groups: Vec<Arc<Group>>,
}

/// One site.
#[derive(Debug)]
pub struct Site {
    /// Its name in `weir.toml`.
    pub name: Arc<str>,
    /// Its policies.
    pub chain: Chain,
    /// Its upstream; absent when that could not be brought to life.
    pub group: Option<Arc<Group>>,
    /// Close connections while every server is down.
    pub refuse_when_down: bool,
}
