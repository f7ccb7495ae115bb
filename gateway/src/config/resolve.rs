//! From files to a [`Config`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;
use weir_plugins::signature::Key;

use super::error::{Errors, Invalid, Location, Mistakes};
use super::limits::Limits;
use super::listener::{Certificate, GeoIp, Listener};
use super::plugin::{self, Plugin};
use super::policy::Policy;
use super::reader::{Located, Reader};
use super::server::{AdminAddress, Server, Telemetry};
use super::site::{Site, SiteDraft};
use super::source::{self, Source};
use super::upstream::Upstream;
use super::{check, defaults, limits, listener, policy, server, site, upstream};

/// A configuration that holds together: every name it uses exists, every value is in its range.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The main file, as it was named.
    pub path: PathBuf,
    /// The files that were read, and the directories that `include` patterns look into: a change to one of them is a reason to reload.
    pub read_from: Vec<PathBuf>,
    /// `[server]`.
    pub server: Server,
    /// `[telemetry]`.
    pub telemetry: Telemetry,
    /// `[limits]`.
    pub limits: Limits,
    /// `[geoip]`.
    pub geoip: Option<GeoIp>,
    /// `[client_address] trusted_proxies`: peers whose forwarding and PROXY headers are believed. Empty: nobody's.
    pub trusted_proxies: Vec<IpNet>,
    /// `[[listener]]`: at least one; addresses differ unless the system chooses the port.
    pub listeners: Vec<Listener>,
    /// `[[certificate]]`: at least one when a listener speaks TLS.
    pub certificates: Vec<Certificate>,
    /// `[plugin.NAME]` by name.
    pub plugins: BTreeMap<Arc<str>, Plugin>,
    /// `[policy.NAME]` by name.
    pub policies: BTreeMap<Arc<str>, Policy>,
    /// `[upstream.NAME]` by name.
    pub upstreams: BTreeMap<Arc<str>, Upstream>,
    /// `[[site]]` in the order written, the main file's first. Names and hosts differ.
    pub sites: Vec<Site>,
}

impl Config {
    /// The keys one of which must have signed the file `NAME.wasm`; none when it need not be signed. Candidates have those of their plugin.
    #[must_use]
    pub fn keys(&self, file: &str) -> &[Key] {
        self.plugins.get(super::plugin_of(file)).map_or(&self.server.require_signature, |plugin| &plugin.require_signature)
    }
}

/// Reads `path` and the files it includes. Opens no other file: whether certificates, databases and plugins are there shows later.
///
/// # Errors
///
/// Every mistake in every file at once, or the one reason why `path` cannot be read.
pub fn load(path: &Path) -> Result<Config, Errors> {
    parse(&source::read(path)?, path)
}

/// Like [`load`], with the main file's text given. `path` is shown in errors, and relative paths, those of included files too, are
/// relative to its directory.
///
/// # Errors
///
/// Every mistake in every file at once.
pub fn parse(text: &str, path: &Path) -> Result<Config, Errors> {
    let mistakes = Mistakes::default();
    let source = Source::new(path, text);
    let document = source.parse(text)?;
    let (main, mut draft) = main_file(Reader::new(&source, &mistakes, &document));
    let mut read_from = vec![path.to_owned()];
    for (file, named_at) in included_files(&main.include, &source, &mistakes) {
        read_from.extend(file.parent().map(Path::to_owned));
        read_from.push(file.clone());
        if let Err(errors) = include(&file, &named_at, &mistakes, &mut draft) {
            errors.into_iter().for_each(|error| mistakes.push(error));
            draft.incomplete = true;
        }
    }
    check::together(&main, &draft, &mistakes);
    mistakes.finish(path)?;
    read_from.sort();
    read_from.dedup();
    Ok(config(path, read_from, main, draft))
}

/// Where the admin API of the gateway that runs with this file listens. Only `[server]` has to be right: somebody may be editing the rest.
///
/// # Errors
///
/// Every mistake in `[server]`, or the one reason why the file cannot be read or is no TOML.
pub fn admin_address(path: &Path) -> Result<AdminAddress, Errors> {
    let text = source::read(path)?;
    let mistakes = Mistakes::default();
    let source = Source::new(path, &text);
    let document = source.parse(&text)?;
    let (server, _) = server_section(&mut Reader::new(&source, &mistakes, &document));
    mistakes.finish(path)?;
    Ok(server.admin)
}

/// What only the main file may hold. An item is none when it is wrong, which has been recorded.
pub(super) struct Main {
    pub(super) server: Server,
    include: Vec<Located<String>>,
    telemetry: Telemetry,
    limits: Limits,
    geoip: Option<GeoIp>,
    trusted_proxies: Vec<IpNet>,
    /// Whether any proxy is named, right or wrong.
    pub(super) trusts_proxies: bool,
    pub(super) listeners: Vec<Option<Listener>>,
    plugins: BTreeMap<Arc<str>, Declared<Plugin>>,
    pub(super) at: Location,
}

/// What every file may hold.
#[derive(Default)]
pub(super) struct Draft {
    pub(super) certificates: Vec<Option<Certificate>>,
    pub(super) policies: BTreeMap<Arc<str>, Declared<Policy>>,
    pub(super) upstreams: BTreeMap<Arc<str>, Declared<Upstream>>,
    pub(super) sites: Vec<SiteDraft>,
    /// A file could not be read: names that seem not to exist may stand there.
    pub(super) incomplete: bool,
}

/// A named section: that it exists is known even when something in it is wrong.
pub(super) struct Declared<T> {
    pub(super) at: Location,
    pub(super) section: Option<T>,
}

fn main_file(mut reader: Reader<'_, '_>) -> (Main, Draft) {
    let mut draft = Draft::default();
    let (server, include) = server_section(&mut reader);
    let (trusts_proxies, trusted_proxies) = reader.table("client_address").map(listener::trusted_proxies).unwrap_or_default();
    let mut plugins = BTreeMap::new();
    declare(&mut reader, "plugin", &mut plugins, plugin::plugin);
    let main = Main {
        server,
        include,
        telemetry: server::telemetry(reader.table("telemetry")),
        limits: limits::limits(reader.table("limits")),
        geoip: reader.table("geoip").and_then(listener::geoip),
        trusts_proxies,
        trusted_proxies,
        listeners: reader.tables("listener").unwrap_or_default().into_iter().map(listener::listener).collect(),
        plugins,
        at: reader.at(),
    };
    shared_sections(&mut reader, &mut draft);
    reader.finish();
    (main, draft)
}

fn server_section(reader: &mut Reader<'_, '_>) -> (Server, Vec<Located<String>>) {
    let (plugins, state) = (reader.resolve(defaults::PLUGINS), reader.resolve(defaults::STATE));
    server::server(reader.table("server"), plugins, state)
}

fn shared_sections(reader: &mut Reader<'_, '_>, draft: &mut Draft) {
    draft.certificates.extend(reader.tables("certificate").unwrap_or_default().into_iter().map(listener::certificate));
    declare(reader, "policy", &mut draft.policies, policy::policy);
    declare(reader, "upstream", &mut draft.upstreams, upstream::upstream);
    draft.sites.extend(reader.tables("site").unwrap_or_default().into_iter().map(site::site));
}

fn declare<'r, 'i, T>(
    reader: &mut Reader<'r, 'i>,
    key: &'static str,
    declared: &mut BTreeMap<Arc<str>, Declared<T>>,
    read: impl Fn(Arc<str>, Reader<'r, 'i>) -> Option<T>,
) {
    for (name, section) in reader.named(key) {
        let at = section.at();
        if let Some(first) = declared.get(&name) {
            let message = format!("already defined at {}", first.at);
            reader.refuse_at(&at, &format!("{key}.{name}"), Invalid::new(message).hint("rename or remove one of the two"));
        }
        let section = read(name.clone(), section);
        declared.entry(name).or_insert(Declared { at, section });
    }
}

/// The files that `include` names, each once, and the line that named it.
fn included_files(patterns: &[Located<String>], main: &Source, mistakes: &Mistakes) -> Vec<(PathBuf, Location)> {
    let mut files = BTreeMap::new();
    for pattern in patterns {
        match source::matching_files(&main.resolve(&pattern.value)) {
            Ok(matching) => files.extend(matching.into_iter().map(|file| (file, pattern.at.clone()))),
            Err(invalid) => mistakes.add(&pattern.at, "server.include", invalid),
        }
    }
    files.into_iter().collect()
}

fn include(file: &Path, named_at: &Location, mistakes: &Mistakes, draft: &mut Draft) -> Result<(), Errors> {
    const MAIN_ONLY: [&str; 7] = ["server", "telemetry", "limits", "geoip", "client_address", "listener", "plugin"];
    let text = source::read(file).map_err(|error| {
        let invalid = Invalid::new(format!("{}: {}", error.key, error.message));
        invalid.at(named_at.clone(), "server.include")
    })?;
    let source = Source::new(file, &text);
    let document = source.parse(&text)?;
    let mut reader = Reader::new(&source, mistakes, &document);
    shared_sections(&mut reader, draft);
    reader.finish_or(|key| {
        let moved =
            || Invalid::new("belongs in the main file").hint("an included file holds certificate, policy, site and upstream");
        MAIN_ONLY.contains(&key).then(moved)
    });
    Ok(())
}

/// Everything is there: whatever is missing was recorded as a mistake, and then this is not reached.
fn config(path: &Path, read_from: Vec<PathBuf>, main: Main, draft: Draft) -> Config {
    Config {
        path: path.to_owned(),
        read_from,
        server: main.server,
        telemetry: main.telemetry,
        limits: main.limits,
        geoip: main.geoip,
        trusted_proxies: main.trusted_proxies,
        listeners: main.listeners.into_iter().flatten().collect(),
        certificates: draft.certificates.into_iter().flatten().collect(),
        plugins: sections(main.plugins),
        policies: sections(draft.policies),
        upstreams: sections(draft.upstreams),
        sites: draft.sites.into_iter().filter_map(SiteDraft::resolve).collect(),
    }
}

fn sections<T>(declared: BTreeMap<Arc<str>, Declared<T>>) -> BTreeMap<Arc<str>, T> {
    declared.into_iter().filter_map(|(name, declared)| Some((name, declared.section?))).collect()
}
