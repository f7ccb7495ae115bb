//! `[upstream.NAME]`: servers that answer, and how they are reached.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use toml::de::DeValue;

use super::address::{self, Scheme, Url};
use super::error::{Invalid, Location};
use super::reader::Reader;
use super::{defaults, values};

/// A group of interchangeable servers.
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    /// The name in the section's head.
    pub name: Arc<str>,
    /// At least one; no two alike.
    pub servers: Vec<UpstreamServer>,
    /// Local address of outgoing connections. Default: the system's choice.
    pub bind: Option<IpAddr>,
    /// How `https` servers are verified. Verification cannot be switched off.
    pub tls: UpstreamTls,
    /// Active probes. Default none: servers are then judged by the traffic alone.
    pub health: Option<Health>,
    /// How long to wait.
    pub timeouts: Timeouts,
    /// When to try another server.
    pub retry: Retry,
    /// How a server that was down comes back.
    pub failback: Failback,
    /// Where it is configured.
    pub at: Location,
}

/// One server of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamServer {
    /// Its address.
    pub url: Url,
    /// 0 is used first; a higher number only while no server with a lower one is eligible. Default 0.
    pub priority: u32,
}

/// How `https` servers are verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamTls {
    /// PEM file of the authorities to believe. Default: the system's.
    pub ca: Option<PathBuf>,
    /// The name sent and verified. Default: the host of each URL.
    pub server_name: Option<String>,
}

/// Active health probes: `GET path` on every server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Path and query to ask for; begins with `/`.
    pub path: String,
    /// From one probe to the next. Default 2 s.
    pub every: Duration,
    /// How long a probe may take. Default 1 s.
    pub timeout: Duration,
    /// The status that counts as healthy, 100 to 599. Default: any from 200 to 399.
    pub status: Option<u16>,
    /// Text the answer's body must contain. Default: the body is not looked at.
    pub expect: Option<String>,
    /// Failed probes in a row that make a server ineligible. Default 2.
    pub fall: u32,
    /// Good probes in a row that bring it back. Default 3.
    pub rise: u32,
    /// How long probes may connect and get no answer before the server is ineligible. Default 60 s.
    pub stall: Duration,
}

/// How long to wait for a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP and TLS. Default 1 s.
    pub connect: Duration,
    /// How long a request waits for one server's connection before the next server is tried beside it. Default 250 ms.
    pub race: Duration,
    /// From the request sent to the response head. Default 60 s.
    pub first_byte: Duration,
    /// From the request head to the response head, all attempts and the request's body included. Default none.
    pub total: Option<Duration>,
    /// How long an unused connection is kept for the next request. Default 30 s.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: defaults::CONNECT,
            race: defaults::RACE,
            first_byte: defaults::FIRST_BYTE,
            total: None,
            idle: defaults::UPSTREAM_IDLE,
        }
    }
}

/// When to try another server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retry {
    /// Further attempts after the first failed, 0 to 10. Default 2; 0 never tries again.
    pub attempts: u32,
    /// Retries of requests that a server may have seen, as a share of requests, 0 to 1. Default 0.2.
    pub budget: f64,
    /// Whether a request that may be repeated is sent again when its connection ended without an answer. Default true.
    pub safe: bool,
}

/// Most that `retry.attempts` can be.
pub const MAX_RETRY_ATTEMPTS: u32 = 10;

/// How a server that was down comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failback {
    /// How long it must have been good before it is preferred again; doubled, up to 5 min, while it flaps. Default 10 s.
    pub after: Duration,
    /// From then, how long until it gets all requests again. Default 10 s.
    pub ramp: Duration,
}

impl Default for Failback {
    fn default() -> Self {
        Self { after: defaults::FAILBACK_AFTER, ramp: defaults::FAILBACK_RAMP }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: defaults::RETRY_ATTEMPTS, budget: defaults::RETRY_BUDGET, safe: defaults::RETRY_SAFE }
    }
}

/// One `[upstream.NAME]`; none when no server is left.
pub(super) fn upstream(name: Arc<str>, mut reader: Reader<'_, '_>) -> Option<Upstream> {
    let servers = servers(&mut reader);
    let bind = reader.optional("bind", values::ip);
    let tls_reader = reader.table("tls");
    let has_tls = tls_reader.is_some();
    let upstream = Upstream {
        name,
        bind,
        tls: tls_reader.map(tls).unwrap_or_default(),
        health: reader.table("health").and_then(health),
        timeouts: reader.table("timeouts").map(timeouts).unwrap_or_default(),
        retry: reader.table("retry").map(retry).unwrap_or_default(),
        failback: reader.table("failback").map(failback).unwrap_or_default(),
        at: reader.at(),
        servers,
    };
    if !upstream.servers.is_empty() {
        if has_tls && upstream.servers.iter().all(|server| server.url.scheme == Scheme::Http) {
            reader.conflict(
                "tls",
                Invalid::new("no server of this upstream speaks TLS").hint("write https:// in its URLs, or remove tls"),
            );
        }
        check_bind(&reader, &upstream);
    }
    reader.finish();
    (!upstream.servers.is_empty()).then_some(upstream)
}

fn servers(reader: &mut Reader<'_, '_>) -> Vec<UpstreamServer> {
    const EXAMPLE: &str = "servers = [{ url = \"https://10.0.0.5\" }]";
    let Some(tables) = reader.tables("servers") else {
        reader.missing("servers", EXAMPLE);
        return Vec::new();
    };
    let mut servers: Vec<UpstreamServer> = Vec::with_capacity(tables.len());
    if reader.length("servers") == Some(0) {
        reader.conflict("servers", Invalid::new("is empty").hint(format!("write {EXAMPLE}")));
    }
    for mut table in tables {
        let url = table.required("url", "{ url = \"https://10.0.0.5\" }", address::url);
        let priority = table.or("priority", 0, values::count(0..=u64::from(u32::MAX)));
        if let Some(url) = url {
            if servers.iter().any(|server| server.url == url) {
                table
                    .conflict("url", Invalid::new(format!("named twice in this upstream ({url})")).hint("remove one of the two"));
            }
            servers.push(UpstreamServer { url, priority });
        }
        table.finish();
    }
    servers
}

fn check_bind(reader: &Reader<'_, '_>, upstream: &Upstream) {
    let Some(bind) = upstream.bind else { return };
    let other_family = |server: &&UpstreamServer| server.url.ip().is_some_and(|ip| ip.is_ipv4() != bind.is_ipv4());
    if let Some(server) = upstream.servers.iter().find(other_family) {
        let message = format!("{} cannot be reached from this address ({bind})", server.url);
        reader.conflict("bind", Invalid::new(message).hint("both must be IPv4, or both IPv6"));
    }
}

fn tls(mut reader: Reader<'_, '_>) -> UpstreamTls {
    let tls = UpstreamTls { ca: reader.file("ca"), server_name: reader.optional("server_name", server_name) };
    reader.finish();
    tls
}

fn server_name(value: &DeValue<'_>) -> Result<String, Invalid> {
    let name = address::host_name(values::string(value)?);
    name.ok_or_else(|| Invalid::new(format!("not a host name ({})", values::shown(value))).hint("write \"origin.example.com\""))
}

fn health(mut reader: Reader<'_, '_>) -> Option<Health> {
    let path = reader.required("path", "path = \"/healthz\"", path);
    let health = Health {
        path: path.clone().unwrap_or_default(),
        every: reader.or("every", defaults::HEALTH_EVERY, values::duration),
        timeout: reader.or("timeout", defaults::HEALTH_TIMEOUT, values::duration),
        status: reader.optional("status", values::count(100..=599)),
        expect: reader.optional("expect", values::text),
        fall: reader.or("fall", defaults::HEALTH_FALL, values::count(1..=100)),
        rise: reader.or("rise", defaults::HEALTH_RISE, values::count(1..=100)),
        stall: reader.or("stall", defaults::HEALTH_STALL, values::duration),
    };
    reader.finish();
    path.map(|_| health)
}

fn path(value: &DeValue<'_>) -> Result<String, Invalid> {
    let text = values::string(value)?;
    let target = text.starts_with('/') && !text.contains('#') && text.parse::<http::uri::PathAndQuery>().is_ok();
    let wrong = || Invalid::new(format!("not a path ({})", values::shown(value))).hint("write \"/healthz\", percent-encoded");
    target.then(|| text.to_owned()).ok_or_else(wrong)
}

fn timeouts(mut reader: Reader<'_, '_>) -> Timeouts {
    let default = Timeouts::default();
    let timeouts = Timeouts {
        connect: reader.or("connect", default.connect, values::duration),
        race: reader.or("race", default.race, values::duration),
        first_byte: reader.or("first_byte", default.first_byte, values::duration),
        total: reader.optional("total", values::duration),
        idle: reader.or("idle", default.idle, values::duration),
    };
    reader.finish();
    timeouts
}

fn retry(mut reader: Reader<'_, '_>) -> Retry {
    let default = Retry::default();
    let retry = Retry {
        attempts: reader.or("attempts", default.attempts, values::count(0..=u64::from(MAX_RETRY_ATTEMPTS))),
        budget: reader.or("budget", default.budget, values::ratio),
        safe: reader.or("safe", default.safe, values::boolean),
    };
    reader.finish();
    retry
}

fn failback(mut reader: Reader<'_, '_>) -> Failback {
    let default = Failback::default();
    let failback = Failback {
        after: reader.or("after", default.after, values::duration),
        ramp: reader.or("ramp", default.ramp, values::duration),
    };
    reader.finish();
    failback
}
