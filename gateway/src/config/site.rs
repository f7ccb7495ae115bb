//! `[[site]]`: host names, the chain they pass through, and the upstream that answers.

use std::sync::Arc;

use super::address::{self, HostPattern};
use super::error::{Invalid, Location};
use super::reader::{Located, Reader};
use super::values;

/// One protected application, as clients name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Unique; appears in logs, metrics and commands.
    pub name: Arc<str>,
    /// At least one; no two sites share one.
    pub hosts: Vec<HostPattern>,
    /// A name of [`Config::upstreams`](super::Config::upstreams).
    pub upstream: Arc<str>,
    /// Names of [`Config::policies`](super::Config::policies) in the order they are called; none twice. Default empty.
    pub chain: Vec<Arc<str>>,
    /// Close TCP while every server of the upstream is down, so that clients use their own secondary. Default false: answer 503.
    pub refuse_when_down: bool,
    /// Where it is configured.
    pub at: Location,
}

/// A site as written: its names are not yet known to exist, and each keeps its line.
#[derive(Debug)]
pub(super) struct SiteDraft {
    pub(super) name: Option<Located<Arc<str>>>,
    pub(super) hosts: Vec<Located<HostPattern>>,
    pub(super) upstream: Option<Located<Arc<str>>>,
    pub(super) chain: Vec<Located<Arc<str>>>,
    refuse_when_down: bool,
    at: Location,
}

impl SiteDraft {
    /// The site; none when a required key is missing.
    pub(super) fn resolve(self) -> Option<Site> {
        Some(Site {
            name: self.name?.value,
            hosts: self.hosts.into_iter().map(|host| host.value).collect(),
            upstream: self.upstream?.value,
            chain: self.chain.into_iter().map(|policy| policy.value).collect(),
            refuse_when_down: self.refuse_when_down,
            at: self.at,
        })
    }
}

/// One `[[site]]`.
pub(super) fn site(mut reader: Reader<'_, '_>) -> SiteDraft {
    const HOSTS: &str = "hosts = [\"www.example.com\"]";
    let name = |value: &toml::de::DeValue<'_>| values::name(value).map(Arc::from);
    // Names in the chain and of the upstream are only compared with what exists, so any text is a candidate.
    let reference = |value: &toml::de::DeValue<'_>| values::string(value).map(Arc::from);
    let draft = SiteDraft {
        name: reader.required_at("name", "name = \"partner-a\"", name),
        hosts: reader.list("hosts", address::host_pattern),
        upstream: reader.required_at("upstream", "upstream = \"NAME\" for a section [upstream.NAME]", reference),
        chain: reader.list("chain", reference),
        refuse_when_down: reader.or("refuse_when_down", false, values::boolean),
        at: reader.at(),
    };
    match reader.length("hosts") {
        None => reader.missing("hosts", HOSTS),
        Some(0) => reader.conflict("hosts", Invalid::new("is empty").hint(format!("write {HOSTS}"))),
        Some(_) => {}
    }
    reader.later("legacy_tls", "remove it or write false: clients need TLS 1.2");
    reader.finish();
    draft
}
