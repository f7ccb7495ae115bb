//! The decision on one request.

use std::net::IpAddr;

use weir_sdk::{Finding, Head};

use crate::check_in;
use crate::class::{Class, Resource, Target, classify};
use crate::deployment::Form;
use crate::rules::{Model, Rules};
use crate::secret::Proof;

/// What a decision may ask about the client. Each answer costs a call to the gateway, so few are asked for.
pub(crate) trait Client {
    /// The client's address in canonical form.
    fn address(&self) -> IpAddr;
    /// Whether the client spoke TLS.
    fn is_secure(&self) -> bool;
    /// Seconds since 1970.
    fn now(&self) -> u64;
}

/// A request head, read once.
pub(crate) struct Exchange<'a> {
    pub(crate) target: Target,
    method: &'a [u8],
    path: &'a [u8],
    query: &'a [u8],
    head: &'a Head,
}

/// How an allowed request passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passage {
    Plain,
    /// It showed the secret parameter at this position for the first time.
    Remember(u8),
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal<'a> {
    pub(crate) rule: &'a str,
    pub(crate) reason: Reason,
}

/// The closed set of this policy's reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The source may not reach this class.
    ClassNotAllowed,
    /// Another server might read the path as a different one.
    AmbiguousPath,
    /// The resource is not used with this method.
    MethodNotAllowed,
    /// The deployment page was asked for without a well-formed token.
    DeploymentProbe,
    /// The deployment page was asked for in the old way, which is switched off.
    LegacyDeployment,
    /// The client spoke plain HTTP.
    TlsRequired,
}

impl Reason {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::ClassNotAllowed => "class_not_allowed",
            Self::AmbiguousPath => "ambiguous_path",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::DeploymentProbe => "deployment_probe",
            Self::LegacyDeployment => "legacy_deployment",
            Self::TlsRequired => "tls_required",
        }
    }
}

impl<'a> Exchange<'a> {
    /// Reads method, target and class. The gateway normalises paths with the same crate; doing it here saves two calls.
    pub(crate) fn of(head: &'a Head) -> Self {
        let mut halves = head.target().splitn(2, |byte| *byte == b'?');
        let (path, query) = (halves.next().unwrap_or_default(), halves.next().unwrap_or_default());
        let normalised = weir_path::normalise(path);
        Self { target: classify(&normalised.text, normalised.quirks), method: head.method(), path, query, head }
    }
}

/// Decides: what holds for everybody first, then whether this source may reach this class.
pub(crate) fn decide<'a>(rules: &'a Rules, exchange: &Exchange<'_>, client: &impl Client) -> Result<Passage, Refusal<'a>> {
    if rules.require_tls && !client.is_secure() {
        return refuse("plain-http", Reason::TlsRequired);
    }
    let Target { class, resource } = exchange.target;
    let is_unclear = match resource {
        Resource::Disguised => true,
        Resource::Ambiguous => !rules.is_open_to(|| client.address()),
        Resource::CheckIn | Resource::DeploymentPage | Resource::File | Resource::Page => false,
    };
    if is_unclear {
        return refuse("ambiguous-path", Reason::AmbiguousPath);
    }
    if !method_fits(rules.model, exchange) {
        return refuse(method_rule(class), Reason::MethodNotAllowed);
    }
    if resource == Resource::DeploymentPage {
        match Form::of(exchange.query) {
            Form::Probe => return refuse("deployment-without-token", Reason::DeploymentProbe),
            Form::Legacy if !rules.legacy_deployment && !rules.trusted.contains(client.address()) => {
                return refuse("legacy-deployment-from-untrusted", Reason::LegacyDeployment);
            }
            Form::Legacy | Form::Token => {}
        }
    }
    by_source(rules, exchange, client)
}

/// Reports what is odd about a request that passes.
pub(crate) fn findings(exchange: &Exchange<'_>, mut report: impl FnMut(Finding)) {
    match exchange.target.resource {
        Resource::CheckIn => check_in::inspect(exchange.method == b"POST", exchange.head, report),
        Resource::Ambiguous => report(Finding::new("ambiguous-path", "path", "path", 2).evidence(exchange.path)),
        Resource::DeploymentPage | Resource::File | Resource::Page | Resource::Disguised => {}
    }
}

fn by_source<'a>(rules: &'a Rules, exchange: &Exchange<'_>, client: &impl Client) -> Result<Passage, Refusal<'a>> {
    let class = exchange.target.class;
    let rule = rules.classes.of(class);
    if rules.holds(&rule.from, || client.address()) {
        return Ok(Passage::Plain);
    }
    let is_in_window = rules
        .window
        .as_ref()
        .filter(|_| class == Class::Deployment)
        .is_some_and(|window| client.now() < window.until && rules.holds(&window.from, || client.address()));
    if is_in_window {
        return Ok(Passage::Plain);
    }
    match rules.secrets.prove(class, exchange.query, exchange.head) {
        Some(Proof::Fresh(parameter)) => Ok(Passage::Remember(parameter)),
        Some(Proof::Plain) => Ok(Passage::Plain),
        None => refuse(&rule.denial, Reason::ClassNotAllowed),
    }
}

/// All-traffic leaves the methods of files to the upstream; those of agents and installers are known everywhere.
fn method_fits(model: Model, exchange: &Exchange<'_>) -> bool {
    let reads = matches!(exchange.method, b"GET" | b"HEAD");
    match exchange.target.resource {
        Resource::CheckIn => reads || exchange.method == b"POST",
        Resource::DeploymentPage => reads,
        Resource::File => reads || (model == Model::AllTraffic && exchange.target.class != Class::Agent),
        Resource::Page | Resource::Ambiguous | Resource::Disguised => true,
    }
}

const fn method_rule(class: Class) -> &'static str {
    match class {
        Class::Agent => "agent-method",
        Class::Transfer => "transfer-method",
        Class::Deployment => "deployment-method",
        Class::Technician | Class::Api | Class::Other => "method",
    }
}

const fn refuse(rule: &str, reason: Reason) -> Result<Passage, Refusal<'_>> {
    Err(Refusal { rule, reason })
}
