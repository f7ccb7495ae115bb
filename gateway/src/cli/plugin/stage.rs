//! One plugin file in the real host, without a gateway around it.

use std::future::Future;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use ipnet::IpNet;
use serde_json::Value;
use weir_cases::{Answer, Ask};
use weir_plugins::capability::geoip::Database;
use weir_plugins::capability::http_out::HttpOut;
use weir_plugins::rehearsal::{Interface, Rehearsal, RehearsalRequest, Start};
use weir_plugins::{ConnectionFacts, Host, HostOptions, Isolation, LoadError, Mode, OnError, OnOverflow, Plugin, PolicySpec};

use super::temporary::Temporary;
use crate::config;
use crate::demo::mmdb::country_database;

/// A host for one file.
pub(super) struct Stage {
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
    host: Arc<Host>,
    runtime: tokio::runtime::Runtime,
    directory: Temporary,
}

impl Stage {
    /// Reads the file and starts a host.
    ///
    /// # Errors
    /// What cannot be read or started.
    pub(super) fn open(file: &Path) -> Result<Self, String> {
        let bytes = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
        let name = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let directory = Temporary::new()?;
        let host = Host::new(&HostOptions { state: directory.path().join("state"), workers: 1, compiler: None })?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.map_err(|error| format!("cannot start a runtime: {error}"))?;
        Ok(Self { name, bytes, host, runtime, directory })
    }

    /// Compiles and describes the plugin.
    ///
    /// # Errors
    /// As [`Host::load`].
    pub(super) fn load(&self) -> Result<Arc<Plugin>, LoadError> {
        self.wait(self.host.load(&self.name, &self.bytes))
    }

    /// What it imports and exports.
    ///
    /// # Errors
    /// As [`Host::interface`].
    pub(super) fn interface(&self) -> Result<Interface, LoadError> {
        self.host.interface(&self.bytes)
    }

    /// What starting one instance costs.
    ///
    /// # Errors
    /// As [`Host::start`].
    pub(super) fn start(&self, spec: &PolicySpec, plugin: &Plugin) -> Result<Start, LoadError> {
        self.wait(self.host.measure_start(spec, plugin))
    }

    /// Configures and proves the plugin as a gateway does before it goes live.
    ///
    /// # Errors
    /// As [`Host::prepare`].
    pub(super) fn rehearsal(&self, spec: &PolicySpec, plugin: &Arc<Plugin>) -> Result<Rehearsal, LoadError> {
        self.wait(self.host.prepare(spec, plugin, true)).map(Rehearsal::new)
    }

    /// The policy of a file of cases in one configuration.
    ///
    /// # Errors
    /// A limit that is none.
    pub(super) fn spec(&self, policy: &weir_cases::Policy, config: &Value) -> Result<PolicySpec, String> {
        let limits = &policy.limits;
        let limits = config::parse_limits(limits.cpu.as_deref(), limits.wall.as_deref(), limits.memory.as_deref())?;
        Ok(PolicySpec {
            name: self.name.as_str().into(),
            plugin: self.name.clone(),
            mode: Mode::Enforce,
            on_error: OnError::Deny,
            on_overflow: OnOverflow::default(),
            grants: policy.grants.clone(),
            http_out: HttpOut {
                upstreams: policy.http_out.upstreams.iter().map(|name| name.as_str().into()).collect(),
                ..HttpOut::default()
            },
            isolation: Isolation::default(),
            config: config.clone(),
            limits,
        })
    }

    /// Lets the country database know one address, or none.
    ///
    /// # Errors
    /// No country, or the database cannot be written.
    pub(super) fn locate(&self, client: IpAddr, country: Option<&str>) -> Result<(), String> {
        let Some(country) = country else {
            self.host.countries().replace(None);
            return Ok(());
        };
        if country.len() != 2 || !country.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            return Err(format!("request.country: {country:?} is no country: two letters, such as \"CA\""));
        }
        let (file, private) = (self.directory.path().join("country.mmdb"), self.directory.path().join("private"));
        std::fs::create_dir_all(&private).map_err(|error| error.to_string())?;
        let bytes = country_database(&[(IpNet::from(client), &country.to_ascii_uppercase())]);
        std::fs::write(&file, bytes).map_err(|error| format!("{}: {error}", file.display()))?;
        let database = Database::open(&file, &private).map_err(|error| error.to_string())?;
        self.host.countries().replace(Some(database));
        Ok(())
    }

    /// Runs what waits.
    pub(super) fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }
}

/// A case's request and answer in the host's types.
///
/// # Errors
/// What is no request.
pub(super) fn request(ask: &Ask, answer: Option<&Answer>) -> Result<RehearsalRequest, String> {
    let method = Method::from_bytes(ask.method.as_bytes()).map_err(|_| format!("request.method: {:?} is none", ask.method))?;
    let version = match ask.protocol.as_str() {
        "HTTP/1.0" => Version::HTTP_10,
        "HTTP/1.1" => Version::HTTP_11,
        "HTTP/2" => Version::HTTP_2,
        other => return Err(format!("request.protocol: {other:?} is none of HTTP/1.0, HTTP/1.1, HTTP/2")),
    };
    let tls_version = match ask.tls.version.as_deref() {
        Some("1.2") => Some("1.2"),
        Some(_) => Some("1.3"),
        None => None,
    };
    let mut own = headers(&ask.headers.0)?;
    if !ask.body.0.is_empty() && !own.contains_key(http::header::CONTENT_LENGTH) {
        own.insert(http::header::CONTENT_LENGTH, HeaderValue::from(ask.body.0.len()));
    }
    let response = match answer {
        Some(answer) => Some((answer.status, headers(&answer.headers.0)?, answer.body.0.clone().into())),
        None => None,
    };
    Ok(RehearsalRequest {
        connection: ConnectionFacts {
            client_ip: ask.client,
            peer_ip: ask.peer.unwrap_or(ask.client),
            listener: "127.0.0.1:443".into(),
            server_name: ask.tls.server_name.as_deref().map(Into::into),
            tls_version,
            ja4: ask.tls.ja4.as_deref().map(Into::into),
        },
        head: (method, version, ask.target.clone(), ask.host.to_ascii_lowercase()),
        headers: own,
        tags: ask.tags.clone().into_iter().collect(),
        body: ask.body.0.clone().into(),
        response,
    })
}

pub(super) fn headers(list: &[(String, Vec<u8>)]) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::with_capacity(list.len());
    for (name, value) in list {
        let wrong = || format!("headers: {name}: {:?} is no header field", String::from_utf8_lossy(value));
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
        headers.append(key, HeaderValue::from_bytes(value).map_err(|_| wrong())?);
    }
    Ok(headers)
}
