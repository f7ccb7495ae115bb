//! The example of the interface page, value for value.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use super::read;
use crate::config::{
    AccessLog, AdminAddress, Config, Failback, GeoIp, Health, HostPattern, Limits, Location, Mode, OnError, PolicyLimits, Retry,
    Scheme, Timeouts, UpstreamTls, parse,
};

const EXAMPLE: &str = r#"
[server]
workers = 2
plugins = "plugins"
state   = "state"
admin   = "unix:state/admin.sock"
include = ["sites.d/*.toml"]

[telemetry]
otlp       = "http://127.0.0.1:4317"
sample     = 1.0
access_log = "stdout"

[limits]
head_bytes = "32KiB"
fields = 100
tls_handshake = "5s"
request_head = "10s"
idle = "60s"

[geoip]
database = "country.mmdb"

[client_address]
trusted_proxies = []

[[listener]]
address = "0.0.0.0:443"
tls = true
proxy_protocol = false

[[certificate]]
cert = "tls/site.pem"
key  = "tls/site.key"

[policy.geoip]
plugin   = "geoip"
mode     = "enforce"
on_error = "deny"
grants   = []
config   = { allow = ["US", "CA"], class.agent = { allow = ["*"] } }

[policy.acl]
plugin = "agent-acl"
config = { model = "agent-only", trusted = ["198.51.100.0/24"], class.technician = { from = "trusted" } }

[policy.ips]
plugin = "ips"
config = { mode = "block", threshold = 5, exclude = [{ path = "/LabTech/ControlCenter.asmx", rules = ["sqli-*"] }] }

[policy.sso]
plugin = "sso-cors"
config = { public = "052d3c3287c38201.example.com", origin = "automate.partner.example", rewrite_body = false }

[upstream.automate]
servers = [
  { url = "https://10.0.0.5" },
  { url = "https://10.0.0.6", priority = 1 },
]
bind   = "198.51.100.7"
tls    = { ca = "origin-ca.pem", server_name = "automate.partner.example" }
health = { path = "/LabTech/Agent.aspx", every = "2s", expect = "||||||" }
timeouts = { connect = "1s", first_byte = "60s" }
retry  = { attempts = 2, budget = 0.2 }

[[site]]
name     = "partner-a"
hosts    = ["052d3c3287c38201.example.com"]
upstream = "automate"
chain    = ["acl", "geoip", "ips", "sso"]
legacy_tls = false
refuse_when_down = false
"#;

fn example() -> Config {
    parse(EXAMPLE, Path::new("/etc/weir/weir.toml")).unwrap()
}

fn at(line: usize) -> Location {
    Location { file: Path::new("/etc/weir/weir.toml").into(), line }
}

fn etc(path: &str) -> PathBuf {
    Path::new("/etc/weir").join(path)
}

#[test]
fn process_and_listeners() {
    let config = example();
    assert_eq!(config.path, etc("weir.toml"));
    assert_eq!((config.server.workers, config.server.plugins, config.server.state), (2, etc("plugins"), etc("state")));
    assert_eq!(config.server.admin, AdminAddress::Unix(etc("state/admin.sock")));
    let otlp = config.telemetry.otlp.unwrap();
    assert_eq!((otlp.to_string().as_str(), otlp.port), ("http://127.0.0.1:4317", 4317));
    assert_eq!((config.telemetry.sample, config.telemetry.access_log), (1.0, AccessLog::Stdout));
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.geoip, Some(GeoIp { database: etc("country.mmdb"), at: at(21) }));
    assert_eq!(config.trusted_proxies, []);
    let [listener] = &config.listeners[..] else { panic!("{:?}", config.listeners) };
    assert_eq!((listener.address, listener.tls, listener.proxy_protocol), (([0, 0, 0, 0], 443).into(), true, false));
    let [certificate] = &config.certificates[..] else { panic!("{:?}", config.certificates) };
    assert_eq!((&certificate.cert, &certificate.key, &certificate.at), (&etc("tls/site.pem"), &etc("tls/site.key"), &at(32)));
}

#[test]
fn policies() {
    let config = example();
    assert_eq!(config.policies.keys().map(|name| &**name).collect::<Vec<_>>(), ["acl", "geoip", "ips", "sso"]);
    let geoip = &config.policies["geoip"];
    assert_eq!((&*geoip.name, &*geoip.plugin, geoip.mode, geoip.on_error), ("geoip", "geoip", Mode::Enforce, OnError::Deny));
    assert_eq!((geoip.grants.len(), &geoip.limits, &geoip.at), (0, &PolicyLimits::default(), &at(36)));
    assert_eq!(geoip.config, json!({"allow": ["US", "CA"], "class": {"agent": {"allow": ["*"]}}}));
    let ips = &config.policies["ips"];
    let exclude = json!([{"path": "/LabTech/ControlCenter.asmx", "rules": ["sqli-*"]}]);
    assert_eq!(ips.config, json!({"mode": "block", "threshold": 5, "exclude": exclude}));
}

#[test]
fn upstream_and_site() {
    let config = example();
    let upstream = &config.upstreams["automate"];
    let servers: Vec<_> = upstream.servers.iter().map(|server| (server.url.to_string(), server.priority)).collect();
    assert_eq!(servers, [("https://10.0.0.5".to_owned(), 0), ("https://10.0.0.6".to_owned(), 1)]);
    assert_eq!((upstream.servers[0].url.scheme, upstream.servers[0].url.port), (Scheme::Https, 443));
    assert_eq!(upstream.bind, Some(IpAddr::from([198, 51, 100, 7])));
    let name = Some("automate.partner.example".to_owned());
    assert_eq!(upstream.tls, UpstreamTls { ca: Some(etc("origin-ca.pem")), server_name: name });
    let health = Health {
        path: "/LabTech/Agent.aspx".to_owned(),
        every: Duration::from_secs(2),
        timeout: Duration::from_secs(1),
        status: None,
        expect: Some("||||||".to_owned()),
        fall: 2,
        rise: 3,
        stall: Duration::from_secs(60),
    };
    assert_eq!(upstream.health, Some(health));
    assert_eq!((&upstream.timeouts, &upstream.retry, &upstream.at), (&Timeouts::default(), &Retry::default(), &at(55)));
    let [site] = &config.sites[..] else { panic!("{:?}", config.sites) };
    assert_eq!((&*site.name, &*site.upstream, site.refuse_when_down, &site.at), ("partner-a", "automate", false, &at(66)));
    assert_eq!(site.hosts, [HostPattern::Exact("052d3c3287c38201.example.com".to_owned())]);
    assert_eq!(site.chain.iter().map(|name| &**name).collect::<Vec<_>>(), ["acl", "geoip", "ips", "sso"]);
}

#[test]
fn every_optional_value_can_be_set() {
    let config = read(
        "[server]\nadmin = '127.0.0.1:9901'\nadmin_token = 'token'\n[telemetry]\naccess_log = 'log/access.json'\n\
         [limits]\nconnections = 5000\nuri_bytes = 4096\ndrain = '2h'\n[[listener]]\naddress = ':80'\nproxy_protocol = true\n\
         [client_address]\ntrusted_proxies = ['10.0.0.0/8', '::1']\n\
         [policy.a]\nplugin = 'x'\nmode = 'observe'\non_error = 'allow'\ngrants = ['kv']\n\
         [policy.a.config]\nuntil = 2027-06-30\n[policy.a.limits]\ncpu = '200ms'\nmemory = '128MiB'\ninstances = 3\nlog = 0\n\
         [upstream.u]\nservers = [{ url = 'http://a' }]\nhealth = { path = '/up?deep=1', status = 204, fall = 1, rise = 1 }\n\
         timeouts = { idle = '5s', race = '400ms' }\nretry = { attempts = 0, budget = 0, safe = false }\n\
         failback = { after = '5s', ramp = '1ms' }",
    )
    .unwrap();
    let admin = AdminAddress::Tcp { address: ([127, 0, 0, 1], 9901).into(), token: "token".into() };
    assert_eq!(config.server.admin, admin);
    assert_eq!(config.telemetry.access_log, AccessLog::File("log/access.json".into()));
    let expected = Limits { connections: Some(5000), uri_bytes: 4096, drain: Duration::from_secs(7200), ..Limits::default() };
    assert_eq!(config.limits, expected);
    assert_eq!(config.listeners[0].address.to_string(), "[::]:80");
    assert_eq!(config.trusted_proxies.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.0/8", "::1/128"]);
    let policy = &config.policies["a"];
    assert_eq!((policy.mode, policy.on_error, &policy.grants[..]), (Mode::Observe, OnError::Allow, &["kv".to_owned()][..]));
    assert_eq!(policy.config, json!({"until": "2027-06-30"}));
    let cpu = Duration::from_millis(200);
    assert_eq!(
        policy.limits,
        PolicyLimits { cpu, wall: cpu, memory: 128 << 20, instances: 3, log: 0, ..PolicyLimits::default() }
    );
    let upstream = &config.upstreams["u"];
    assert_eq!(upstream.health.as_ref().and_then(|health| health.status), Some(204));
    assert_eq!(upstream.timeouts.idle, Duration::from_secs(5));
    assert_eq!(upstream.retry, Retry { attempts: 0, budget: 0.0, safe: false });
    let failback = Failback { after: Duration::from_secs(5), ramp: Duration::from_millis(1) };
    assert_eq!((upstream.failback, upstream.timeouts.race), (failback, Duration::from_millis(400)));
}
