//! What each proxy is told: a primary, a backup for when it is down, and a second for a connection. Each is set up as well as its manual
//! allows for that, so that a difference is one of the programs and not of their files.

use std::net::SocketAddr;
use std::path::Path;

use weir_tests::chaos::HEALTH;

/// The name that clients ask for.
pub(crate) const HOST: &str = "chaos.test";

/// Where everything listens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    /// The proxy's plain listener.
    pub(crate) proxy: SocketAddr,
    /// The server to use.
    pub(crate) primary: SocketAddr,
    /// The server to use when it is down.
    pub(crate) secondary: SocketAddr,
    /// Whether they are asked for their health.
    pub(crate) checks: bool,
}

/// nginx, as a daemon, because a binary is replaced only then: passive checks, an attempt at the backup for whatever may be tried again, and a failed server asked again after two seconds.
pub(crate) fn nginx(directory: &Path, at: &Addresses) -> String {
    let (directory, Addresses { proxy, primary, secondary, .. }) = (directory.display(), at);
    format!(
        "daemon on;
worker_processes 2;
pid {directory}/pid;
error_log {directory}/error.log;
events {{ worker_connections 4096; }}
http {{
access_log off;
keepalive_requests 1000000000;
keepalive_timeout 3600;
client_body_temp_path {directory}/client;
proxy_temp_path {directory}/proxy;
fastcgi_temp_path {directory}/fastcgi;
uwsgi_temp_path {directory}/uwsgi;
scgi_temp_path {directory}/scgi;
map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
upstream origin {{
  zone origin 128k;
  server {primary} max_fails=1 fail_timeout=2s;
  server {secondary} backup max_fails=0;
  keepalive 64;
}}
server {{
  listen {proxy} backlog=4096;
  location / {{
    proxy_http_version 1.1;
    proxy_set_header Connection $connection_upgrade;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Host $host;
    proxy_connect_timeout 1s;
    proxy_next_upstream error timeout http_502 http_503;
    proxy_next_upstream_tries 3;
    proxy_buffering off;
    proxy_pass http://origin;
  }}
}}
}}
"
    )
}

/// HAProxy: active checks, redispatch to another server at the first retry, retries for whatever it can repeat.
pub(crate) fn haproxy(at: &Addresses) -> String {
    let Addresses { proxy, primary, secondary, checks } = at;
    let checks = if *checks {
        format!(
            " option httpchk GET {HEALTH}\n default-server check inter 500ms fastinter 250ms fall 2 rise 2 observe layer4 error-limit 3 on-error mark-down\n"
        )
    } else {
        String::new()
    };
    format!(
        "global
 maxconn 4096
 no strict-limits
 nbthread 2
defaults
 mode http
 timeout client 60s
 timeout server 60s
 timeout connect 1s
 timeout tunnel 1h
 option redispatch 1
 retries 3
 retry-on conn-failure empty-response
 http-reuse safe
frontend in
 bind {proxy}
 default_backend origin
backend origin
{checks} server primary {primary}
 server secondary {secondary} backup
"
    )
}

/// The beginning of a weir.toml, up to the servers of the upstream `origin`: what belongs to that upstream may follow.
pub(crate) fn beginning(directory: &Path, workers: usize, proxy: &impl std::fmt::Display, servers: &str) -> String {
    let directory = directory.display();
    format!(
        "[server]
workers = {workers}
plugins = \"{directory}/plugins\"
state = \"{directory}/state\"
[telemetry]
access_log = \"off\"
[[listener]]
address = \"{proxy}\"
[upstream.origin]
servers = [{servers}]
"
    )
}

/// Weir, which prefers a server again about as soon as the others do, but ever later while it flaps. `note` changes nothing but the file, so that there is something to reload.
pub(crate) fn weir(directory: &Path, at: &Addresses, note: u64) -> String {
    let Addresses { proxy, primary, secondary, checks } = at;
    let servers = format!("{{ url = \"http://{primary}\" }}, {{ url = \"http://{secondary}\", priority = 1 }}");
    let beginning = beginning(directory, 2, proxy, &servers);
    let health = if *checks { format!("health = {{ path = \"{HEALTH}\", every = \"500ms\" }}\n") } else { String::new() };
    let first_byte = 60 + note % 60;
    format!(
        "{beginning}{health}failback = {{ after = \"500ms\", ramp = \"1s\" }}
timeouts = {{ connect = \"1s\", first_byte = \"{first_byte}s\" }}
[[site]]
name = \"chaos\"
hosts = [\"{HOST}\"]
upstream = \"origin\"
"
    )
}
