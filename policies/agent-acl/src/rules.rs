//! The resolved configuration: class × source.

use std::net::IpAddr;

use crate::class::{Class, PerClass};
use crate::network::Networks;
use crate::secret::Secrets;

/// Everything a decision depends on.
pub(crate) struct Rules {
    pub(crate) model: Model,
    pub(crate) trusted: Networks,
    pub(crate) classes: PerClass<ClassRule>,
    /// Whether some class is closed to somebody.
    pub(crate) restricted: bool,
    pub(crate) legacy_deployment: bool,
    pub(crate) require_tls: bool,
    pub(crate) secrets: Secrets,
    pub(crate) window: Option<Window>,
}

/// What is exposed when a class has no rule of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Model {
    /// The whole application.
    AllTraffic,
    /// What agents need; the rest from trusted networks.
    AgentOnly,
}

/// Who may reach a class.
#[derive(Debug)]
pub(crate) struct ClassRule {
    pub(crate) from: Source,
    /// Names class and source in the log of a refusal, e.g. `technician-from-untrusted`.
    pub(crate) denial: String,
}

/// A set of clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Anywhere,
    /// [`Rules::trusted`]
    Trusted,
    Nowhere,
    Networks(Networks),
}

/// A time in which deployment is open.
#[derive(Debug)]
pub(crate) struct Window {
    /// Seconds since 1970; closed from then on.
    pub(crate) until: u64,
    pub(crate) from: Source,
}

impl Model {
    /// Who may reach a class that has no rule of its own.
    pub(crate) const fn source(self, class: Class) -> Source {
        match (self, class) {
            (Self::AllTraffic, _) | (Self::AgentOnly, Class::Agent | Class::Transfer) => Source::Anywhere,
            (Self::AgentOnly, Class::Deployment | Class::Technician | Class::Api | Class::Other) => Source::Trusted,
        }
    }
}

impl ClassRule {
    pub(crate) fn new(class: Class, from: Source) -> Self {
        let whence = match &from {
            Source::Trusted => "untrusted",
            Source::Networks(_) => "unlisted",
            Source::Anywhere | Source::Nowhere => "anywhere",
        };
        Self { denial: format!("{}-from-{whence}", class.name()), from }
    }
}

impl Rules {
    /// Whether a set of clients holds an address, which is asked for only when the answer depends on it.
    pub(crate) fn holds(&self, source: &Source, address: impl FnOnce() -> IpAddr) -> bool {
        match source {
            Source::Anywhere => true,
            Source::Nowhere => false,
            Source::Trusted => self.trusted.contains(address()),
            Source::Networks(networks) => networks.contains(address()),
        }
    }

    /// Whether an address may reach every class.
    pub(crate) fn is_open_to(&self, address: impl FnOnce() -> IpAddr) -> bool {
        if !self.restricted {
            return true;
        }
        let address = address();
        Class::ALL.iter().all(|class| self.holds(&self.classes.of(*class).from, || address))
    }
}
