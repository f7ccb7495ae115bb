//! The single writer: turns configuration, certificates, databases and plugins into snapshots, on a thread of its own because
//! compiling takes whole seconds of CPU. Whatever fails leaves the running snapshot as it is.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::server::ProducesTickets;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use weir_plugins::capability::geoip::Database;
use weir_plugins::directory::{Change, Watcher};
use weir_plugins::{Chain, Host};

use super::files::Watched;
use super::plugins::{Outcome, Plugins, Status};
use super::snapshot::{Site, Snapshot};
use super::trials::{Done, Order, Refusal, Trials};
use crate::config::{self, Config, Errors};
use crate::observe::Metrics;
use crate::route::Hosts;
use crate::tls;
use crate::tls::tickets::{TicketKey, Tickets};
use crate::upstream::{Group, Groups};

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

    /// Loads the plugin directory, for the start.
    pub async fn load_plugins(&mut self, config: &Config) {
        self.plugins.load_directory(&config.server.plugins).await;
    }

    /// Everything a configuration needs, or every reason why not.
    ///
    /// # Errors
    /// All mistakes at once, each with its place.
    pub async fn build(&mut self, config: Arc<Config>) -> Result<Arc<Snapshot>, Errors> {
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
        let generations = match self.plugins.prepare(&config).await {
            Ok(generations) => Some(generations),
            Err(wrong) => {
                errors.extend(wrong);
                None
            }
        };
        match generations {
            Some(generations) if errors.is_empty() => {
                self.host.countries().replace(countries);
                self.plugins.commit(generations);
                self.trials.refresh(&self.host, &self.plugins, &config).await;
                resolve(&groups).await;
                Ok(self.snapshot(config, tls, groups))
            }
            _ => Err(errors.into()),
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
        let by_name: std::collections::HashMap<_, _> = groups.iter().map(|group| (Arc::clone(&group.name), group)).collect();
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

/// Something the builder shall do.
#[derive(Debug)]
pub enum Event {
    /// Read the configuration again and tell the result.
    Reload(oneshot::Sender<Result<u64, Errors>>),
    /// Promote or abandon a candidate and tell the result.
    Trial(Order, String, oneshot::Sender<Result<Done, Refusal>>),
    /// A plugin file changed.
    Plugin(Change),
    /// End.
    Stop,
}

/// How often configuration, certificates and databases are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Runs the builder until it is told to stop: takes events, looks at files, publishes snapshots.
pub async fn run(
    mut builder: Builder,
    mut current: Arc<Snapshot>,
    mut watched: Watched,
    mut events: mpsc::UnboundedReceiver<Event>,
    plugin_events: mpsc::UnboundedSender<Event>,
    publish: impl Fn(&Arc<Snapshot>),
    metrics: Arc<Metrics>,
) {
    let mut watcher = watch_plugins(&builder, &current.config, &plugin_events);
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        let (changed, reply) = tokio::select! {
            event = events.recv() => match event {
                None | Some(Event::Stop) => return,
                Some(Event::Plugin(change)) => {
                    if apply(&mut builder, change, &current.config, &metrics).await {
                        current = builder.rebuild(&current);
                        publish(&current);
                    }
                    continue;
                }
                Some(Event::Trial(order, name, reply)) => {
                    let done = builder.order(order, &name, &current.config).await;
                    if done.is_ok() {
                        current = builder.rebuild(&current);
                        publish(&current);
                    }
                    // Whoever asked may have gone.
                    drop(reply.send(done));
                    continue;
                }
                Some(Event::Reload(reply)) => (true, Some(reply)),
            },
            _ = look.tick() => (watched.look(), None),
        };
        if !changed {
            continue;
        }
        let mut result = reload(&mut builder, &current).await;
        metrics.reload(result.is_ok());
        match &mut result {
            Ok((snapshot, files)) => {
                watched = std::mem::take(files);
                if snapshot.config.server.plugins != current.config.server.plugins {
                    watcher = watch_plugins(&builder, &snapshot.config, &plugin_events);
                }
                current = Arc::clone(snapshot);
                publish(&current);
                tracing::info!(generation = current.generation, "configuration is live");
            }
            Err(errors) => {
                for error in errors.iter() {
                    tracing::error!("configuration refused, the running one stays: {error}");
                }
            }
        }
        if let Some(reply) = reply {
            // Whoever asked may have gone.
            drop(reply.send(result.map(|(snapshot, _)| snapshot.generation)));
        }
        if watcher.is_none() {
            watcher = watch_plugins(&builder, &current.config, &plugin_events);
        }
    }
}

async fn reload(builder: &mut Builder, current: &Snapshot) -> Result<(Arc<Snapshot>, Watched), Errors> {
    let config = config::load(&current.config.path)?;
    let (old, new) = (&current.config.server, &config.server);
    if old.state != new.state || old.admin != new.admin || old.workers != new.workers {
        tracing::warn!("server.workers, server.state and server.admin take effect with the next start");
    }
    let files = watched(&config);
    Ok((builder.build(Arc::new(config)).await?, files))
}

async fn apply(builder: &mut Builder, change: Change, config: &Config, metrics: &Metrics) -> bool {
    let mut live = false;
    match change {
        Change::Settled(name, bytes) => match builder.plugins.settled(&name, &bytes, Some(config)).await {
            Outcome::Live => {
                metrics.plugin_live(&name, builder.generation + 1);
                live = true;
            }
            Outcome::Rejected => metrics.plugin_rejected(&name),
            Outcome::Unchanged => {}
        },
        Change::Unreadable(name, reason) => {
            builder.plugins.reject(&name, None, reason);
            metrics.plugin_rejected(&name);
        }
        Change::Removed(name) => builder.plugins.removed(&name, config),
    }
    builder.trials.refresh(&builder.host, &builder.plugins, config).await || live
}

fn watch_plugins(builder: &Builder, config: &Config, events: &mpsc::UnboundedSender<Event>) -> Option<Watcher> {
    let events = events.clone();
    let report = move |change| drop(events.send(Event::Plugin(change)));
    let known = builder.plugins.digests();
    Watcher::start(config.server.plugins.clone(), known, report).map_err(|error| tracing::error!("{error}")).ok()
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
