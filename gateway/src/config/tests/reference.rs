//! `docs/reference/configuration.md` and the code say the same.

use std::collections::BTreeSet;

use super::{SMALL, read, refused};
use crate::config::{Failback, Health, HttpOut, Limits, PolicyLimits, Quarantine, Retry, Telemetry, Timeouts};

const REFERENCE: &str = include_str!("../../../../docs/reference/configuration.md");

/// A key nobody knows, in every section: each refusal then lists the keys known there.
const PROBE: &str = "
zzzzzzzzzz = 1
[server]
zzzzzzzzzz = 1
[telemetry]
zzzzzzzzzz = 1
[limits]
zzzzzzzzzz = 1
[geoip]
zzzzzzzzzz = 1
[client_address]
zzzzzzzzzz = 1
[[listener]]
zzzzzzzzzz = 1
[[certificate]]
zzzzzzzzzz = 1
[plugin.NAME]
zzzzzzzzzz = 1
[policy.NAME]
zzzzzzzzzz = 1
[policy.NAME.http_out]
zzzzzzzzzz = 1
[policy.NAME.candidate]
zzzzzzzzzz = 1
[policy.NAME.limits]
zzzzzzzzzz = 1
[policy.NAME.quarantine]
zzzzzzzzzz = 1
[upstream.NAME]
zzzzzzzzzz = 1
[[upstream.NAME.servers]]
zzzzzzzzzz = 1
[upstream.NAME.tls]
zzzzzzzzzz = 1
[upstream.NAME.health]
zzzzzzzzzz = 1
[upstream.NAME.timeouts]
zzzzzzzzzz = 1
[upstream.NAME.retry]
zzzzzzzzzz = 1
[upstream.NAME.failback]
zzzzzzzzzz = 1
[[site]]
zzzzzzzzzz = 1
";

/// `section.key` of everything the code knows; sections that hold only keys are not keys themselves.
fn known() -> BTreeSet<String> {
    let mut known = BTreeSet::new();
    for line in refused(PROBE) {
        let Some((place, names)) = line.split_once(": unknown key; known here: ") else { continue };
        let section = place.rsplit(' ').next().unwrap().strip_suffix("zzzzzzzzzz").unwrap();
        known.extend(names.split(", ").map(|name| format!("{section}{name}")));
    }
    known
}

/// `(section, key, default)` of every table row under a heading that names a section.
fn documented() -> Vec<(String, String, String)> {
    let mut section = None;
    let mut rows = Vec::new();
    for line in REFERENCE.lines() {
        if line.starts_with("## ") {
            section = line.split('`').nth(1).map(|name| name.trim_matches(['[', ']']).to_owned());
        }
        let cells: Vec<_> = line.split(" | ").map(|cell| cell.trim_matches(['|', ' '])).collect();
        if let (Some(section), [key, _, default, ..]) = (&section, &cells[..])
            && let Some(key) = key.strip_prefix('`').and_then(|key| key.strip_suffix('`'))
        {
            rows.push((section.clone(), key.to_owned(), (*default).to_owned()));
        }
    }
    rows
}

#[test]
fn every_key_is_documented_and_every_documented_key_exists() {
    let documented: BTreeSet<_> = documented().into_iter().map(|(section, key, _)| format!("{section}.{key}")).collect();
    let (known, top): (BTreeSet<_>, BTreeSet<_>) = known().into_iter().partition(|key| key.contains('.'));
    let sections: BTreeSet<_> = documented.iter().filter_map(|key| key.split('.').next()).map(str::to_owned).collect();
    assert_eq!(top, sections);
    assert!(known.len() > 50, "{known:?}");
    assert_eq!(known, documented);
}

#[test]
fn documented_defaults_are_the_defaults() {
    let text_of = |section: &str| {
        let rows = documented().into_iter().filter(|row| row.0 == section);
        let literal =
            rows.filter_map(|(_, key, default)| Some(format!("{key} = {}\n", default.strip_prefix('`')?.strip_suffix('`')?)));
        format!("[{section}]\n{}", literal.collect::<String>())
    };
    let sections = [
        "telemetry",
        "limits",
        "policy.NAME.http_out",
        "policy.NAME.limits",
        "policy.NAME.quarantine",
        "upstream.NAME.failback",
        "upstream.NAME.health",
        "upstream.NAME.timeouts",
        "upstream.NAME.retry",
    ];
    let text: String = sections.into_iter().map(text_of).collect();
    assert!(text.matches(" = ").count() >= 24, "most defaults are literal: {text}");
    let text = text.replace("[policy.NAME.http_out]\n", "[policy.NAME.http_out]\nupstreams = ['NAME']\n");
    let required = "[policy.NAME]\nplugin = 'x'\ngrants = ['http-out']\n[upstream.NAME]\nservers = [{ url = 'http://a' }]\n";
    let text = text.replace("[upstream.NAME.health]\n", "[upstream.NAME.health]\npath = '/'\n");
    let config = read(&format!("{text}{required}{SMALL}")).unwrap_or_else(|errors| panic!("{errors}\n{text}"));
    let upstream = &config.upstreams["NAME"];
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.telemetry, Telemetry::default());
    assert_eq!(config.policies["NAME"].limits, PolicyLimits::default());
    let http_out = HttpOut { upstreams: vec!["NAME".into()], ..HttpOut::default() };
    assert_eq!(config.policies["NAME"].http_out, http_out);
    assert_eq!(config.policies["NAME"].quarantine, Quarantine::default());
    assert_eq!((&upstream.timeouts, &upstream.retry), (&Timeouts::default(), &Retry::default()));
    assert_eq!(upstream.failback, Failback::default());
    let plain = read(&format!("{SMALL}[upstream.NAME]\nservers = [{{ url = 'http://a' }}]\nhealth = {{ path = '/' }}")).unwrap();
    let health: Option<&Health> = plain.upstreams["NAME"].health.as_ref();
    assert_eq!(upstream.health.as_ref(), health);
}
