//! What only shows when sections are put side by side: names that do not exist, and things that can be there once only.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::net::SocketAddr;
use std::sync::Arc;

use super::error::{Invalid, Location, Mistakes};
use super::listener::Listener;
use super::reader::Located;
use super::resolve::{Declared, Draft, Main};
use super::server::AdminAddress;
use super::site::SiteDraft;
use super::suggest;
use super::values::quoted;

/// Checks all files together.
pub(super) fn together(main: &Main, draft: &Draft, mistakes: &Mistakes) {
    if main.listeners.is_empty() {
        let none = Invalid::new("none is configured").hint("add [[listener]] with address = \"0.0.0.0:443\"");
        mistakes.add(&main.at, "listener", none);
    }
    addresses_differ(main, mistakes);
    for listener in main.listeners.iter().flatten() {
        has_what_it_needs(listener, main, draft, mistakes);
    }
    names_and_hosts_differ(&draft.sites, mistakes);
    let mut hints = 0;
    for site in &draft.sites {
        names_exist(site, draft, &mut hints, mistakes);
    }
    upstreams_to_ask_exist(draft, &mut hints, mistakes);
}

fn addresses_differ(main: &Main, mistakes: &Mistakes) {
    // For port 0 the system chooses another port each time.
    let fixed = |address: &SocketAddr| address.port() != 0;
    let admin = match &main.server.admin {
        AdminAddress::Tcp { address, .. } => Some(*address).filter(fixed),
        AdminAddress::Unix(_) => None,
    };
    let mut seen = Once::default();
    for listener in main.listeners.iter().flatten().filter(|listener| fixed(&listener.address)) {
        if let Some(first) = seen.taken(listener.address, None, &listener.at) {
            let twice = Invalid::new(format!("already used by the listener at {first} ({})", listener.address));
            mistakes.add(&listener.at, "listener.address", twice.hint("remove one of the two"));
        }
        if admin == Some(listener.address) {
            let taken = Invalid::new(format!("already used by the admin API ({})", listener.address));
            mistakes.add(&listener.at, "listener.address", taken.hint("choose another port for server.admin"));
        }
    }
}

fn has_what_it_needs(listener: &Listener, main: &Main, draft: &Draft, mistakes: &Mistakes) {
    if listener.tls && draft.certificates.is_empty() && !draft.incomplete {
        let none = Invalid::new("TLS needs a certificate, and none is configured (true)");
        mistakes.add(&listener.at, "listener.tls", none.hint("add [[certificate]] with cert and key"));
    }
    if listener.proxy_protocol && !main.trusts_proxies {
        let nobody = Invalid::new("no peer's PROXY header would be believed (true)");
        let hint = "name the proxies in [client_address] trusted_proxies";
        mistakes.add(&listener.at, "listener.proxy_protocol", nobody.hint(hint));
    }
}

fn names_and_hosts_differ(sites: &[SiteDraft], mistakes: &Mistakes) {
    let (mut names, mut hosts) = (Once::default(), Once::default());
    for site in sites {
        let name = site.name.as_ref().map(|name| &*name.value);
        if let (Some(text), Some(located)) = (name, &site.name)
            && let Some(first) = names.taken(text, None, &located.at)
        {
            let twice = Invalid::new(format!("already the name of the site at {first} ({text:?})"));
            mistakes.add(&located.at, "site.name", twice.hint("give each site a name of its own"));
        }
        for host in &site.hosts {
            if let Some(first) = hosts.taken(&host.value, name, &host.at) {
                let twice = Invalid::new(format!("already a host of {first} ({:?})", host.value.to_string()));
                mistakes.add(&host.at, "site.hosts", twice.hint("a host belongs to one site: remove it here or there"));
            }
        }
    }
}

fn names_exist(site: &SiteDraft, draft: &Draft, hints: &mut usize, mistakes: &Mistakes) {
    if !draft.incomplete {
        if let Some(upstream) = &site.upstream {
            exists(upstream, "upstream", "site.upstream", &draft.upstreams, hints, mistakes);
        }
        for policy in &site.chain {
            exists(policy, "policy", "site.chain", &draft.policies, hints, mistakes);
        }
    }
    for (index, policy) in site.chain.iter().enumerate() {
        if site.chain.iter().take(index).any(|earlier| earlier.value == policy.value) {
            let twice = Invalid::new(format!("named twice in this chain ({})", quoted(&policy.value)));
            mistakes.add(&policy.at, "site.chain", twice.hint("remove one, or add a second [policy.NAME] with the same plugin"));
        }
    }
}

fn upstreams_to_ask_exist(draft: &Draft, hints: &mut usize, mistakes: &Mistakes) {
    if draft.incomplete {
        return;
    }
    for policy in draft.policies.values().filter_map(|declared| declared.section.as_ref()) {
        let key = format!("policy.{}.http_out.upstreams", policy.name);
        for upstream in &policy.http_out.upstreams {
            let named = Located { value: Arc::clone(upstream), at: policy.at.clone() };
            exists(&named, "upstream", &key, &draft.upstreams, hints, mistakes);
        }
    }
}

/// How many unknown names get a hint: each is compared with every name there is, which thousands of sites cannot afford twice over.
const HINTS: usize = 20;

fn exists<T>(
    name: &Located<Arc<str>>,
    kind: &str,
    key: &str,
    declared: &BTreeMap<Arc<str>, Declared<T>>,
    hints: &mut usize,
    mistakes: &Mistakes,
) {
    if declared.contains_key(&name.value) {
        return;
    }
    let unknown = Invalid::new(format!("unknown {kind} ({})", quoted(&name.value)));
    let hint = (*hints < HINTS).then(|| {
        let names = declared.keys().map(|known| &**known);
        suggest::hint(&name.value, "defined", names).unwrap_or_else(|| format!("none is defined: add [{kind}.NAME]"))
    });
    *hints += 1;
    mistakes.add(&name.at, key, unknown.maybe_hint(hint));
}

/// Things that may be there once, with the site that has them.
struct Once<'d, K>(HashMap<K, (Option<&'d str>, &'d Location)>);

impl<K> Default for Once<'_, K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<'d, K: Hash + Eq> Once<'d, K> {
    /// Notes `key`; when it was there before, says where.
    fn taken(&mut self, key: K, site: Option<&'d str>, at: &'d Location) -> Option<String> {
        match self.0.entry(key) {
            Entry::Vacant(free) => {
                free.insert((site, at));
                None
            }
            Entry::Occupied(taken) => {
                let (site, at) = taken.get();
                Some(site.map_or_else(|| at.to_string(), |site| format!("site {site} at {at}")))
            }
        }
    }
}
