//! The single writer: turns configuration, certificates, databases and plugins into snapshots, on a thread of its own because
//! compiling takes whole seconds of CPU. Whatever fails leaves the running snapshot as it is. [`run`] is the thread's loop.

mod run;

use std::collections::HashMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rustls::server::ProducesTickets;
use tokio::task::JoinSet;
use weir_plugins::capability::geoip::Database;
use weir_plugins::{Chain, Host};

pub use run::{Event, run};

use super::files::Watched;
use super::plugins::Plugins;
use super::plugins::status::Status;
use super::plugins::wanted::{Generations, Live, Prepared};
use super::snapshot::{Site, Snapshot};
use super::trials::Trials;
use crate::config::{self, Config, Errors};
use crate::route::Hosts;
use crate::tls;
use crate::tls::tickets::{TicketKey, Tickets};
use crate::upstream::{Group, Groups};

/// A configuration on its way.
struct Building {
    config: Arc<Config>,
    countries: Option<Database>,
    tls: Option<Arc<tls::certificates::TlsServer>>,
    groups: Vec<Arc<Group>>,
    /// The mistakes that are known.
    errors: Vec<config::Error>,
    /// What was live when it began.
    live: Live,
    prepared: Pin<Box<dyn Future<Output = Prepared>>>,
}

/// Builds snapshots.
#[derive(Debug)]
pub struct Builder {
    host: Arc<Host>,
    pub(super) plugins: Plugins,
    pub(super) trials: Trials,
    groups: Groups,
    tickets: Arc<Tickets>,
    ticketer: Arc<dyn ProducesTickets>,
    generation: u64,
}

impl Builder {
    /// A builder without any plugin yet, with the ticket keys of a predecessor.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn new(host: Arc<Host>, keys: &[TicketKey]) -> Result<Self, String> {
        let plugins = Plugins::new(Arc::clone(&host));
        let tickets = Arc::new(Tickets::new(keys)?);
        let ticketer = Arc::<Tickets>::clone(&tickets);
        Ok(Self { host, plugins, trials: Trials::default(), groups: Groups::default(), tickets, ticketer, generation: 0 })
    }

    /// The ticket keys, for a successor.
    #[must_use]
    pub fn tickets(&self) -> Arc<Tickets> {
        Arc::clone(&self.tickets)
    }

    /// The plugin host.
    #[must_use]
    pub fn host(&self) -> Arc<Host> {
        Arc::clone(&self.host)
    }

    /// Where the operator looks for plugins.
    #[must_use]
    pub fn status(&self) -> Arc<Status> {
        self.plugins.status()
    }

    /// Where the operator looks for candidates.
    #[must_use]
    pub fn trials(&self) -> &Trials {
        &self.trials
    }

    /// Loads the plugin directory, for the start. `last_good` says whether a build that was live before may stand in for a bad file;
    /// without it this is a check, after which nothing runs.
    pub async fn load_plugins(&mut self, config: &Config, last_good: bool) {
        self.plugins.checking = !last_good;
        self.plugins.load_directory(&config.server.plugins, config, last_good).await;
    }

    /// This process serves now: what becomes of plugins is remembered from now on.
    pub fn serve(&mut self, config: &Config) {
        self.host.serve();
        self.plugins.serve(config);
    }

    /// Everything a configuration needs, or every reason why not. It waits for candidates for the given time; those that are not ready
    /// then come later.
    ///
    /// # Errors
    /// All mistakes at once, each with its place.
    pub async fn build(&mut self, config: Arc<Config>, candidates: Duration) -> Result<Arc<Snapshot>, Errors> {
        let mut building = self.begin(config, &HashMap::new());
        let prepared = (&mut building.prepared).await;
        self.finish(building, prepared, candidates).await
    }

    /// Begins with a configuration: what takes no time is done, its policies are being prepared, those aside that were before.
    fn begin(&mut self, config: Arc<Config>, before: &Generations) -> Building {
        let mut errors = Vec::new();
        let mut countries = None;
        if let Some(geoip) = &config.geoip {
            match Database::open(&geoip.database, self.host.state()) {
                Ok(database) => countries = Some(database),
                Err(error) => errors.push(config::Error {
                    location: Some(geoip.at.clone()),
                    key: "geoip.database".to_owned(),
                    message: error.to_string(),
                    hint: Some("give a country database in MaxMind format (.mmdb)".to_owned()),
                }),
            }
        }
        let tls = if config.certificates.is_empty() {
            None
        } else {
            match tls::certificates::server_config(&config.certificates, &self.ticketer) {
                Ok(server) => Some(server),
                Err(wrong) => {
                    errors.extend(wrong);
                    None
                }
            }
        };
        let groups = self.groups(&config, &mut errors);
        if self.generation == 0 {
            // Policies that are configured for the first time may ask for countries.
            self.host.countries().replace(countries.take());
        }
        let (wanted, live) = (self.plugins.wanted(&config, before), self.plugins.live_for(&config));
        let (host, named) = (Arc::clone(&self.host), groups.clone());
        let prepared = Box::pin(async move {
            let prepared = wanted.prepare(host).await;
            if prepared.is_ok() {
                resolve(&named).await;
            }
            prepared
        });
        Building { config, countries, tls, groups, errors, live, prepared }
    }

    /// Whether a configuration can be finished as it was begun. A plugin that came, went or was replaced meanwhile makes it another one.
    fn is_current(&self, building: &Building) -> bool {
        self.plugins.live_for(&building.config) == building.live
    }

    /// Ends what was begun. Nothing changes unless all of it worked.
    async fn finish(&mut self, building: Building, prepared: Prepared, candidates: Duration) -> Result<Arc<Snapshot>, Errors> {
        let Building { config, countries, tls, groups, mut errors, .. } = building;
        match prepared {
            Ok(generations) if errors.is_empty() => {
                if self.generation > 0 {
                    self.host.countries().replace(countries);
                }
                self.plugins.commit(generations, &config);
                self.trials.refresh(&self.host, &self.plugins, &config);
                self.trials.settle(&self.host, &self.plugins, &config, candidates).await;
                Ok(self.snapshot(config, tls, groups))
            }
            prepared => {
                errors.extend(prepared.err().into_iter().flatten());
                Err(errors.into())
            }
        }
    }

    /// The same configuration with the plugins as they are now.
    fn rebuild(&mut self, current: &Snapshot) -> Arc<Snapshot> {
        self.snapshot(Arc::clone(&current.config), current.tls.clone(), current.groups.clone())
    }

    fn groups(&mut self, config: &Config, errors: &mut Vec<config::Error>) -> Vec<Arc<Group>> {
        let mut groups = Vec::with_capacity(config.upstreams.len());
        for upstream in config.upstreams.values() {
            match tls::upstream::client(upstream) {
                Ok(client) => groups.push(self.groups.build(upstream, client)),
                Err(error) => errors.push(error),
            }
        }
        groups
    }

    fn snapshot(
        &mut self,
        config: Arc<Config>,
        tls: Option<Arc<tls::certificates::TlsServer>>,
        groups: Vec<Arc<Group>>,
    ) -> Arc<Snapshot> {
        let by_name: HashMap<_, _> = groups.iter().map(|group| (Arc::clone(&group.name), group)).collect();
        let mut hosts = Hosts::default();
        for site in &config.sites {
            let policy = |name: &Arc<str>| Some((self.plugins.generations().get(name).cloned()?, self.trials.of(name)));
            let policies = site.chain.iter().filter_map(policy).collect();
            let built = Arc::new(Site {
                name: Arc::clone(&site.name),
                chain: Chain::with_candidates(policies),
                group: by_name.get(&site.upstream).map(|group| Arc::clone(group)),
                refuse_when_down: site.refuse_when_down,
            });
            for host in &site.hosts {
                hosts.insert(host, &built);
            }
        }
        self.generation += 1;
        Arc::new(Snapshot { generation: self.generation, config, hosts, tls, groups })
    }
}

/// Looks up the names that have no address yet, all at once.
async fn resolve(groups: &[Arc<Group>]) {
    let mut look_ups = JoinSet::new();
    for server in groups.iter().flat_map(|group| &group.servers).filter(|server| server.addresses().is_empty()) {
        let server = Arc::clone(server);
        look_ups.spawn(async move { server.resolve().await });
    }
    while look_ups.join_next().await.is_some() {}
}

/// Every file whose change is a reason to reload, as it is now: call before the files are read, so that no change is missed.
#[must_use]
pub fn watched(config: &Config) -> Watched {
    let mut files: Vec<PathBuf> = config.read_from.clone();
    files.extend(config.certificates.iter().flat_map(|certificate| [certificate.cert.clone(), certificate.key.clone()]));
    files.extend(config.geoip.iter().map(|geoip| geoip.database.clone()));
    files.extend(config.upstreams.values().filter_map(|upstream| upstream.tls.ca.clone()));
    Watched::new(files)
}
