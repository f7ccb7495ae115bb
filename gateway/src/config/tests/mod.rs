//! What is refused, and how it is said.

mod example;
mod files;
mod reference;

use std::path::Path;

use super::{Config, Errors, parse};

/// Enough to be a configuration; the table's cases add to it or stand alone.
const SMALL: &str = "[[listener]]\naddress = '127.0.0.1:0'\n";

fn read(text: &str) -> Result<Config, Errors> {
    parse(text, Path::new("weir.toml"))
}

fn refused(text: &str) -> Vec<String> {
    read(text).expect_err(text).iter().map(ToString::to_string).collect()
}

/// `text` after a listener: its first line is line 3 of the file. Exactly one mistake, shown as `expected`.
fn check(text: &str, expected: &str) {
    assert_eq!(refused(&format!("{SMALL}{text}")), [expected], "{text}");
}

#[test]
fn a_listener_is_all_it_takes() {
    let config = read(SMALL).unwrap();
    assert_eq!(config.listeners.len(), 1);
    assert_eq!(config.limits, super::Limits::default());
    assert_eq!(config.telemetry, super::Telemetry::default());
    assert_eq!(config.server.admin, super::AdminAddress::Unix("state/admin.sock".into()));
}

#[test]
fn unknown_keys_name_the_nearest_known_one() {
    check("[serverr]", "weir.toml:3: serverr: unknown key; did you mean `server`?");
    check("[server]\nworker = 2", "weir.toml:4: server.worker: unknown key; did you mean `workers`?");
    check("[geoip]\ndatabase = 'x'\nzzz = 1", "weir.toml:5: geoip.zzz: unknown key; known here: database");
    check(
        "[policy.a]\nplugin = 'a'\n[policy.a.limits]\ncpus = '1ms'",
        "weir.toml:6: policy.a.limits.cpus: unknown key; did you mean `cpu`?",
    );
    check(
        "[upstream.a]\nservers = [\n  { url = 'http://a' },\n  { url = 'http://b', weight = 3 },\n]",
        "weir.toml:6: upstream.a.servers.weight: unknown key; known here: priority, url",
    );
}

#[test]
fn syntax_errors_name_their_line() {
    let lines = refused("[server]\nworkers = \n\n[limits]\nidle = '5s\n");
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("weir.toml:2: TOML syntax: "), "{lines:?}");
    assert!(lines[1].starts_with("weir.toml:5: TOML syntax: "), "{lines:?}");
    assert_eq!(refused("a = 1\na = 2\n"), ["weir.toml:2: TOML syntax: duplicate key"]);
}

#[test]
fn wrong_types_show_the_value() {
    check("[server]\nworkers = 'two'", "weir.toml:4: server.workers: must be a whole number (\"two\")");
    check("[server]\nworkers = 0", "weir.toml:4: server.workers: must be from 1 to 1024 (0)");
    check("[server]\ninclude = 'a'", "weir.toml:4: server.include: must be an array (\"a\"); write include = [..]");
    check("[server]\nplugins = ''", "weir.toml:4: server.plugins: is empty");
    check("[site]\nname = 'a'", "weir.toml:3: site: must be an array of tables (a table); write [[site]]");
    check("[[geoip]]", "weir.toml:3: geoip: must be a table (an array); write geoip = { .. }, or a section of its own");
    check("[policy]\na = 5", "weir.toml:4: policy.a: must be a table (5); write [policy.a]");
    check("[telemetry]\nsample = 1.5", "weir.toml:4: telemetry.sample: must be from 0.0 to 1.0 (1.5)");
    check("[telemetry]\naccess_log = false", "weir.toml:4: telemetry.access_log: must be a string (false)");
    check(
        "[client_address]\ntrusted_proxies = ['10.0.0.0/8',\n '10.0.0.1/8']",
        "weir.toml:5: client_address.trusted_proxies: the address lies inside the network (\"10.0.0.1/8\"); \
         write \"10.0.0.0/8\", or the one address as \"10.0.0.1\"",
    );
}

#[test]
fn limits_have_units_and_bounds() {
    check(
        "[limits]\nidle = 60",
        "weir.toml:4: limits.idle: not a duration (60); write a whole number with ms, s, m or h: \"250ms\", \"5s\", \"30m\", \"2h\"",
    );
    check(
        "[limits]\ntls_handshake = '0s'",
        "weir.toml:4: limits.tls_handshake: must be more than zero (\"0s\"); every wait has a deadline: write a long one instead",
    );
    check("[limits]\nhead_bytes = '4KiB'", "weir.toml:4: limits.head_bytes: must be from 8 KiB to 1 MiB (\"4KiB\")");
    check(
        "[limits]\nhead_bytes = '8KiB'\nuri_bytes = '16KiB'",
        "weir.toml:5: limits.uri_bytes: more than head_bytes (16384 > 8192 bytes); the request target is part of the head",
    );
    check(
        "[policy.a]\nplugin = 'a'\nlimits = { cpu = '20ms', wall = '10ms' }",
        "weir.toml:5: policy.a.limits.wall: less than the CPU limit (10ms < 20ms), which could never be reached; \
         raise wall or lower cpu",
    );
}

#[test]
fn the_admin_api_on_tcp_needs_a_token() {
    check(
        "[server]\nadmin = '127.0.0.1:9901'",
        "weir.toml:4: server.admin: an admin API on TCP needs a token (127.0.0.1:9901); \
         add admin_token = \"FILE\", or use \"unix:PATH\"",
    );
    check(
        "[server]\nadmin_token = 'token'",
        "weir.toml:4: server.admin_token: only an admin API on TCP takes a token; a unix socket has file permissions; \
         remove it, or set admin = \"127.0.0.1:9901\"",
    );
    check(
        "[server]\nadmin = 'localhost:9901'",
        "weir.toml:4: server.admin: not an admin address (\"localhost:9901\"); write \"unix:PATH\" or \"127.0.0.1:9901\"",
    );
    let long = format!("[server]\nstate = '/{}'", "s".repeat(110));
    assert!(refused(&format!("{SMALL}{long}"))[0].starts_with("weir.toml:3: server.admin: the socket's path is 122 bytes long"));
}

#[test]
fn listeners_need_what_they_use() {
    assert_eq!(refused(""), ["weir.toml:1: listener: none is configured; add [[listener]] with address = \"0.0.0.0:443\""]);
    check("[[listener]]\ntls = false", "weir.toml:3: listener.address: missing; write address = \"0.0.0.0:443\"");
    check(
        "[[listener]]\naddress = ':443'\ntls = true",
        "weir.toml:3: listener.tls: TLS needs a certificate, and none is configured (true); add [[certificate]] with cert and key",
    );
    check(
        "[[listener]]\naddress = ':443'\nproxy_protocol = true",
        "weir.toml:3: listener.proxy_protocol: no peer's PROXY header would be believed (true); \
         name the proxies in [client_address] trusted_proxies",
    );
    check(
        "[[listener]]\naddress = ':443'\n[[listener]]\naddress = '[::]:443'",
        "weir.toml:5: listener.address: already used by the listener at weir.toml:3 ([::]:443); remove one of the two",
    );
    check(
        "[server]\nadmin = '127.0.0.1:80'\nadmin_token = 't'\n[[listener]]\naddress = '127.0.0.1:80'",
        "weir.toml:6: listener.address: already used by the admin API (127.0.0.1:80); choose another port for server.admin",
    );
    check(
        "[[listener]]\naddress = '0.0.0.0:99999'",
        "weir.toml:4: listener.address: not an address and port (\"0.0.0.0:99999\"); \
         write \"0.0.0.0:443\", \"[::]:443\" or \":443\", with a port up to 65535",
    );
    check("[[certificate]]\ncert = 'c.pem'", "weir.toml:3: certificate.key: missing; write key = \"tls/site.key\"");
    assert!(read(&format!("{SMALL}{SMALL}")).is_ok(), "the system chooses a port for each");
}

#[test]
fn policies_are_checked_but_for_their_own_settings() {
    check("[policy.a]", "weir.toml:3: policy.a.plugin: missing; write plugin = \"a\" for a.wasm");
    check(
        "[policy.a]\nplugin = 'a.wasm'",
        "weir.toml:4: policy.a.plugin: a plugin is named without its extension (\"a.wasm\"); write \"a\"",
    );
    check(
        "[policy.a]\nplugin = 'a'\nmode = 'enforced'",
        "weir.toml:5: policy.a.mode: unknown value (\"enforced\"); did you mean `enforce`?",
    );
    check(
        "[policy.a]\nplugin = 'a'\non_error = 'pass'",
        "weir.toml:5: policy.a.on_error: unknown value (\"pass\"); one of: allow, deny",
    );
    check("[policy.a]\nplugin = 'a'\nconfig = [1]", "weir.toml:5: policy.a.config: must be a table (an array)");
    check(
        "[policy.a]\nplugin = 'a'\nconfig = { x = [nan] }",
        "weir.toml:5: policy.a.config: holds a number that JSON cannot hold (nan)",
    );
    check(
        "[policy.'a b']\nplugin = 'a'",
        "weir.toml:3: policy.\"a b\": not a name (\"a b\"); use 1 to 64 letters, digits, `-`, `_` and `.`, \
         beginning with a letter or digit",
    );
}

#[test]
fn upstreams_are_reachable_on_paper() {
    let url = "{ url = \"https://10.0.0.5\" }";
    check("[upstream.a]", &format!("weir.toml:3: upstream.a.servers: missing; write servers = [{url}]"));
    check("[upstream.a]\nservers = []", &format!("weir.toml:4: upstream.a.servers: is empty; write servers = [{url}]"));
    check(
        "[upstream.a]\nservers = ['http://a']",
        "weir.toml:4: upstream.a.servers: must be a table (\"http://a\"); write servers = [{ .. }]",
    );
    check(
        "[upstream.a]\nservers = [{ url = 'https://a/x' }]",
        "weir.toml:4: upstream.a.servers.url: a server's URL has no path or query (\"https://a/x\"); write \"https://a\"",
    );
    check(
        "[upstream.a]\nservers = [{ url = 'http://u:pw@a' }]",
        "weir.toml:4: upstream.a.servers.url: user name and password in a URL are refused; remove everything up to the `@`",
    );
    check(
        "[upstream.a]\nservers = [{ url = 'http://a:70000' }]",
        "weir.toml:4: upstream.a.servers.url: port must be from 1 to 65535 (\"http://a:70000\")",
    );
    check(
        "[upstream.a]\nservers = [{ url = 'http://a' }, { url = 'http://A:80' }]",
        "weir.toml:4: upstream.a.servers.url: named twice in this upstream (http://a); remove one of the two",
    );
    check(
        "[upstream.a]\nservers = [{ url = 'http://a' }]\ntls = { ca = 'ca.pem' }",
        "weir.toml:5: upstream.a.tls: no server of this upstream speaks TLS; write https:// in its URLs, or remove tls",
    );
    check(
        "[upstream.a]\nbind = '::1'\nservers = [{ url = 'http://10.0.0.5' }]",
        "weir.toml:4: upstream.a.bind: http://10.0.0.5 cannot be reached from this address (::1); both must be IPv4, or both IPv6",
    );
    check(
        "[upstream.a]\nservers = [{ url = 'http://a' }]\nretry = { budget = 2 }",
        "weir.toml:5: upstream.a.retry.budget: must be from 0.0 to 1.0 (2)",
    );
    check(
        "[upstream.a]\nservers = [{ url = 'http://a' }]\nhealth = { path = 'up' }",
        "weir.toml:5: upstream.a.health.path: not a path (\"up\"); write \"/healthz\", percent-encoded",
    );
}

const UPSTREAM: &str = "[upstream.origin]\nservers = [{ url = 'http://a' }]\n[[site]]\n";

#[test]
fn sites_name_what_exists() {
    // The site's first key stands on line 6.
    let site = |text: &str, expected: &str| check(&format!("{UPSTREAM}{text}"), expected);
    site("hosts = ['a']\nupstream = 'origin'", "weir.toml:5: site.name: missing; write name = \"partner-a\"");
    site("name = 'a'\nupstream = 'origin'", "weir.toml:5: site.hosts: missing; write hosts = [\"www.example.com\"]");
    site("name = 'a'\nupstream = 'origin'\nhosts = []", "weir.toml:8: site.hosts: is empty; write hosts = [\"www.example.com\"]");
    site(
        "name = 'a'\nhosts = ['a']",
        "weir.toml:5: site.upstream: missing; write upstream = \"NAME\" for a section [upstream.NAME]",
    );
    site(
        "name = 'a'\nhosts = ['a']\nupstream = 'orign'",
        "weir.toml:8: site.upstream: unknown upstream (\"orign\"); did you mean `origin`?",
    );
    site("name = 'a'\nhosts = ['a']\nupstream = 'x'", "weir.toml:8: site.upstream: unknown upstream (\"x\"); defined: origin");
    site(
        "name = 'a'\nhosts = ['a']\nupstream = 'origin'\nchain = [\n 'ips']",
        "weir.toml:10: site.chain: unknown policy (\"ips\"); none is defined: add [policy.NAME]",
    );
    site(
        "name = 'a'\nhosts = ['a']\nupstream = 'origin'\nchain = ['p', 'p']\n[policy.p]\nplugin = 'p'",
        "weir.toml:9: site.chain: named twice in this chain (\"p\"); remove one, or add a second [policy.NAME] with the same plugin",
    );
    site(
        "name = 'a'\nhosts = ['a:80']\nupstream = 'origin'",
        "weir.toml:7: site.hosts: not a host (\"a:80\"); write the host only, without port",
    );
    for later in ["true", "{ until = 2027-06-30 }"] {
        let lines = refused(&format!("{SMALL}{UPSTREAM}name = 'a'\nhosts = ['a']\nupstream = 'origin'\nlegacy_tls = {later}"));
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].starts_with("weir.toml:9: site.legacy_tls: not supported yet ("), "{lines:?}");
    }
}

#[test]
fn sites_share_neither_name_nor_host() {
    let two = |first: &str, second: &str| {
        let site = |keys: &str| format!("{keys}\nupstream = 'origin'\n");
        format!("{UPSTREAM}{}[[site]]\n{}", site(first), site(second))
    };
    check(
        &two("name = 'a'\nhosts = ['x.example']", "name = 'b'\nhosts = ['y.example', 'X.example.']"),
        "weir.toml:11: site.hosts: already a host of site a at weir.toml:7 (\"x.example\"); \
         a host belongs to one site: remove it here or there",
    );
    check(
        &two("name = 'a'\nhosts = ['x']", "name = 'a'\nhosts = ['y']"),
        "weir.toml:10: site.name: already the name of the site at weir.toml:6 (\"a\"); give each site a name of its own",
    );
    for (first, second) in [("*", "*"), ("*.example.com", "*.EXAMPLE.com")] {
        let hosts = |host: &str, name: &str| format!("name = '{name}'\nhosts = ['{host}']");
        assert_eq!(refused(&format!("{SMALL}{}", two(&hosts(first, "a"), &hosts(second, "b")))).len(), 1, "{first}");
    }
    let apart = two("name = 'a'\nhosts = ['*.example.com']", "name = 'b'\nhosts = ['example.com', 'www.example.com', '*']");
    assert_eq!(read(&format!("{SMALL}{apart}")).unwrap().sites.len(), 2);
}

#[test]
fn all_mistakes_are_shown_at_once_in_line_order() {
    let text = "[server]
workers = 0
nonsense = 1
[limits]
idle = 'soon'
[[listener]]
address = ':443'
tls = true
[policy.acl]
mode = 'on'
[upstream.app]
servers = [{ url = 'ftp://a' }, { url = 'http://b', priority = -1 }]
timeouts = { connect = '0s' }
[[site]]
name = 'one'
hosts = ['a b', 'ok.example']
upstream = 'ap'
chain = ['acl', 'geo']
legacy_tls = true
";
    let lines = refused(text);
    let keys: Vec<_> = lines.iter().map(|line| line.split(": ").take(2).collect::<Vec<_>>().join(" ")).collect();
    let expected = [
        "weir.toml:2 server.workers",
        "weir.toml:3 server.nonsense",
        "weir.toml:5 limits.idle",
        "weir.toml:6 listener.tls",
        "weir.toml:9 policy.acl.plugin",
        "weir.toml:10 policy.acl.mode",
        "weir.toml:12 upstream.app.servers.url",
        "weir.toml:12 upstream.app.servers.priority",
        "weir.toml:13 upstream.app.timeouts.connect",
        "weir.toml:16 site.hosts",
        "weir.toml:17 site.upstream",
        "weir.toml:18 site.chain",
        "weir.toml:19 site.legacy_tls",
    ];
    assert_eq!(keys, expected);
}
