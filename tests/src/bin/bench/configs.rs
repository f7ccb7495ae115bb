//! The configuration of each program, as text: one worker, no access log, kept connections to the origin.

use std::net::SocketAddr;
use std::path::Path;

use crate::load::{ANSWER, HOST};
use crate::proxies::Ground;

/// nginx as the origin: a fixed answer.
pub(crate) fn origin(ground: &Ground, address: SocketAddr) -> String {
    let body = "x".repeat(ANSWER);
    let server = format!(
        "server {{ listen {address} reuseport backlog=4096; location / {{ default_type text/plain; return 200 \"{body}\"; }} }}"
    );
    nginx_around(&ground.scratch.path().join("origin"), &server)
}

/// nginx as a proxy.
pub(crate) fn nginx(ground: &Ground, origin: SocketAddr, plain: SocketAddr, tls: SocketAddr) -> String {
    let (cert, key) = (ground.cert.display(), ground.key.display());
    let server = format!(
        "upstream origin {{ server {origin}; keepalive 256; keepalive_requests 1000000000; }}
server {{
  listen {plain} reuseport backlog=4096;
  listen {tls} ssl reuseport backlog=4096;
  ssl_certificate {cert};
  ssl_certificate_key {key};
  ssl_protocols TLSv1.2 TLSv1.3;
  ssl_session_cache shared:sessions:1m;
  location / {{
    proxy_http_version 1.1;
    proxy_set_header Connection \"\";
    proxy_set_header Host $host;
    proxy_set_header X-Forwarded-For $remote_addr;
    proxy_pass http://origin;
  }}
}}"
    );
    nginx_around(&ground.scratch.path().join("nginx"), &server)
}

/// Every path is in the directory: the compiled-in ones belong to root.
fn nginx_around(directory: &Path, server: &str) -> String {
    let directory = directory.display();
    format!(
        "daemon off;
worker_processes 1;
pid {directory}/pid;
error_log {directory}/error.log;
events {{ worker_connections 16384; }}
http {{
access_log off;
keepalive_requests 1000000000;
keepalive_timeout 3600;
client_body_temp_path {directory}/client;
proxy_temp_path {directory}/proxy;
fastcgi_temp_path {directory}/fastcgi;
uwsgi_temp_path {directory}/uwsgi;
scgi_temp_path {directory}/scgi;
{server}
}}
"
    )
}

/// HAProxy.
pub(crate) fn haproxy(ground: &Ground, origin: SocketAddr, plain: SocketAddr, tls: SocketAddr) -> String {
    let both = ground.both.display();
    format!(
        "global
 nbthread 1
 maxconn 10240
 no strict-limits
defaults
 mode http
 timeout client 60s
 timeout server 60s
 timeout connect 5s
 option forwardfor
 http-reuse always
frontend in
 bind {plain}
 bind {tls} ssl crt {both} alpn http/1.1
 default_backend origin
backend origin
 server origin {origin}
"
    )
}

/// The listeners, plugins and policies of a gateway.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weir<'a> {
    /// Keeps its state and its plugins apart from those of the other gateways.
    pub(crate) directory: &'a Path,
    /// The plain listener.
    pub(crate) plain: SocketAddr,
    /// The TLS listener, if it has one.
    pub(crate) tls: Option<SocketAddr>,
    /// Names and tables of the policies, in the order of the chain.
    pub(crate) policies: &'a [(String, String)],
    /// The country database, if a policy asks for one.
    pub(crate) countries: Option<&'a Path>,
}

/// Weir.
pub(crate) fn weir(ground: &Ground, origin: SocketAddr, weir: &Weir<'_>) -> String {
    let (directory, plain) = (weir.directory.display(), weir.plain);
    let mut text = format!(
        "[server]
workers = 1
plugins = \"{directory}/plugins\"
state = \"{directory}/state\"
[telemetry]
access_log = \"off\"
[[listener]]
address = \"{plain}\"
"
    );
    if let Some(tls) = weir.tls {
        let (cert, key) = (ground.cert.display(), ground.key.display());
        text.push_str(&format!(
            "[[listener]]\naddress = \"{tls}\"\ntls = true\n[[certificate]]\ncert = \"{cert}\"\nkey = \"{key}\"\n"
        ));
    }
    if let Some(countries) = weir.countries {
        text.push_str(&format!("[geoip]\ndatabase = \"{}\"\n", countries.display()));
    }
    for (name, table) in weir.policies {
        text.push_str(&format!("[policy.{name}]\n{table}\n"));
    }
    let chain: Vec<&str> = weir.policies.iter().map(|(name, _)| name.as_str()).collect();
    text.push_str(&format!(
        "[upstream.origin]
servers = [{{ url = \"http://{origin}\" }}]
[[site]]
name = \"bench\"
hosts = [\"{HOST}\"]
upstream = \"origin\"
chain = {chain:?}
"
    ));
    text
}

/// The four policies that come with the gateway, set up as for a site with all of them.
pub(crate) fn four_policies() -> Vec<(String, String)> {
    [
        ("acl", "plugin = \"agent-acl\"\nconfig = { model = \"all-traffic\" }"),
        ("geoip", "plugin = \"geoip\"\nconfig = { deny = [\"KP\"] }"),
        ("ips", "plugin = \"ips\""),
        ("sso", "plugin = \"sso-cors\"\nconfig = { public = \"localhost\", origin = \"automate.internal\" }"),
    ]
    .map(|(name, table)| (name.to_owned(), table.to_owned()))
    .to_vec()
}

/// As many policies of one plugin that does nothing.
pub(crate) fn noop_policies(count: u32) -> Vec<(String, String)> {
    (0..count).map(|number| (format!("noop{number}"), "plugin = \"noop\"".to_owned())).collect()
}
