//! The response phase: from the name the application believes in to the public one.

use std::borrow::Cow;
use std::cell::LazyCell;

use weir_sdk::{Head, ResponseWhen};

use crate::authority::Scheme;
use crate::config::Site;
use crate::url::{Form, Start};
use crate::values;

/// What the client did, as far as the answer depends on it.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) scheme: Scheme,
    /// The port in the Host it sent, when the configuration does not fix it.
    pub(crate) port: Option<u16>,
    /// Its `Origin`, when it is one of `allowed_origins`.
    pub(crate) origin: Option<Vec<u8>>,
}

/// What to do with a response.
#[derive(Debug, Default)]
pub(crate) struct Plan<'h> {
    pub(crate) changes: Vec<Change<'h>>,
    /// Add `Vary: Origin`.
    pub(crate) vary: bool,
    /// Headers that still name the origin's host, each once.
    pub(crate) leftovers: Vec<&'h str>,
}

/// All values of one header, in order; none removes it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Change<'h> {
    pub(crate) name: &'h str,
    pub(crate) values: Vec<Cow<'h, [u8]>>,
}

/// The responses in which there may be something to do: every other one would leave [`plan`] empty.
pub(crate) fn when(site: &Site) -> ResponseWhen {
    let headers = ["set-cookie", ALLOW_ORIGIN].map(str::to_owned).to_vec();
    // Without origins to grant, state holds the client's port at most, which only a name in need of rewriting depends on.
    ResponseWhen { headers, containing: vec![site.origin.host.clone()], state: !site.allowed.is_empty() }
}

/// Decides over the head of a response. `client` is asked only when something depends on it.
pub(crate) fn plan<'h>(site: &Site, head: &'h Head, client: &LazyCell<Client, impl FnOnce() -> Client>) -> Plan<'h> {
    let mut plan = Plan::default();
    let mut cors = Cors::default();
    let mut edits = Vec::new();
    for (number, (name, value)) in head.headers().enumerate() {
        match name {
            "access-control-allow-origin" => cors.allow_origin = Some(value),
            "access-control-allow-credentials" => cors.credentials = value.eq_ignore_ascii_case(b"true"),
            "vary" => cors.varies |= varies_by_origin(value),
            _ => {
                let edit = rewrite(name, value, site, client);
                let seen = edit.as_deref().unwrap_or(value);
                if !site.same_host && site.origin_finder.names_host(seen) && !plan.leftovers.contains(&name) {
                    plan.leftovers.push(name);
                }
                edits.extend(edit.map(|edit| (number, name, edit)));
            }
        }
    }
    plan.changes = group(edits, head);
    cors.decide(site, client, &mut plan);
    plan
}

fn rewrite(name: &str, value: &[u8], site: &Site, client: &LazyCell<Client, impl FnOnce() -> Client>) -> Option<Vec<u8>> {
    if name == "set-cookie" {
        return values::cookie(value, site, || site.secure_cookies && client.scheme == Scheme::Https);
    }
    if !matches!(
        name,
        "location"
            | "content-location"
            | "refresh"
            | "link"
            | "content-security-policy"
            | "content-security-policy-report-only"
            | "x-frame-options"
    ) || !site.origin_finder.occurs(value)
    {
        return None;
    }
    let mapping = site.outward(client.scheme, client.port);
    match name {
        "location" | "content-location" => values::url(value, site, &mapping),
        "refresh" => values::refresh(value, site, &mapping),
        "link" => values::link(value, site, &mapping),
        "x-frame-options" => values::frame_options(value, &mapping),
        _ => values::security_policy(value, &mapping),
    }
}

/// Joins edited values with the untouched ones of the same header, because the gateway replaces a header as a whole.
fn group<'h>(mut edits: Vec<(usize, &'h str, Vec<u8>)>, head: &'h Head) -> Vec<Change<'h>> {
    let mut changes: Vec<Change<'h>> = Vec::new();
    while let Some(&(_, name, _)) = edits.first() {
        let own = head.headers().enumerate().filter(|(_, (other, _))| *other == name);
        let values = own.map(|(number, (_, value))| match edits.iter_mut().find(|(edited, ..)| *edited == number) {
            Some((.., edit)) => Cow::Owned(std::mem::take(edit)),
            None => Cow::Borrowed(value),
        });
        changes.push(Change { name, values: values.collect() });
        edits.retain(|(_, other, _)| *other != name);
    }
    changes
}

/// The CORS headers of the upstream's answer.
#[derive(Debug, Default)]
struct Cors<'h> {
    allow_origin: Option<&'h [u8]>,
    credentials: bool,
    varies: bool,
}

const ALLOW_ORIGIN: &str = "access-control-allow-origin";

impl<'h> Cors<'h> {
    /// Grants what the configuration lists, translates the origin's own grant, and takes back the one no browser accepts.
    fn decide(&self, site: &Site, client: &LazyCell<Client, impl FnOnce() -> Client>, plan: &mut Plan<'h>) {
        let listed = if site.allowed.is_empty() { None } else { client.origin.as_deref() };
        if let Some(origin) = listed {
            plan.vary = !self.varies;
            if self.allow_origin != Some(origin) {
                plan.changes.push(Change { name: ALLOW_ORIGIN, values: vec![Cow::Owned(origin.to_vec())] });
            }
            if !self.credentials {
                plan.changes.push(Change { name: "access-control-allow-credentials", values: vec![Cow::Borrowed(b"true")] });
            }
            return;
        }
        let Some(allowed) = self.allow_origin else { return };
        if allowed == b"*" && self.credentials {
            plan.changes.push(Change { name: ALLOW_ORIGIN, values: Vec::new() });
            plan.vary = !self.varies;
        } else if site.origin_finder.occurs(allowed) {
            let mapping = site.outward(client.scheme, client.port);
            let start = Start::read(allowed, Form::Plain).filter(|start| start.end == allowed.len());
            match start.and_then(|start| mapping.replace_at(allowed, &start)) {
                Some(origin) => {
                    plan.changes.push(Change { name: ALLOW_ORIGIN, values: vec![Cow::Owned(origin)] });
                    plan.vary = !self.varies;
                }
                None if !site.same_host && site.origin_finder.names_host(allowed) => plan.leftovers.push(ALLOW_ORIGIN),
                None => {}
            }
        }
    }
}

fn varies_by_origin(value: &[u8]) -> bool {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).any(|name| name == b"*" || name.eq_ignore_ascii_case(b"origin"))
}
