//! Why the gateway answered instead of the upstream: whose fault, and what the client and the log are told.

use http::StatusCode;
use weir_plugins::Refusal as PolicyRefusal;

use crate::http::guard;
use crate::http::pace::BodyFault;
use crate::upstream::AttemptError;

/// Everything that ends an exchange without the upstream's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The head is ambiguous or over a limit.
    Head(guard::Refusal),
    /// No site has this host.
    NoSite,
    /// The TLS server name belongs to another site than Host.
    Misdirected,
    /// A policy, or its fail mode, refused.
    Policy(PolicyRefusal),
    /// Every server of the upstream is known to be down.
    NoHealthyServer,
    /// The site's configuration could not be brought to life.
    SiteUnavailable,
    /// The last attempt's failure.
    Attempt(AttemptError),
    /// The client's body failed, or breaks a limit.
    ClientBody(BodyFault),
}

impl Failure {
    /// The status of the answer.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Head(refusal) => refusal.status(),
            Self::NoSite => StatusCode::NOT_FOUND,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::Policy(refusal) => StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::FORBIDDEN),
            Self::NoHealthyServer | Self::SiteUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Attempt(error) => error.status(),
            Self::ClientBody(fault) => fault.status(),
        }
    }

    /// The `reason` of the decision log.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Head(refusal) => refusal.reason(),
            Self::NoSite => "no_site",
            Self::Misdirected => "misdirected",
            Self::Policy(refusal) => &refusal.reason,
            Self::NoHealthyServer => "no_healthy_server",
            Self::SiteUnavailable => "site_unavailable",
            Self::Attempt(error) => error.reason(),
            Self::ClientBody(fault) => fault.reason(),
        }
    }

    /// Whether what follows on this connection cannot be trusted.
    #[must_use]
    pub const fn closes_connection(&self) -> bool {
        match self {
            Self::Head(_) | Self::ClientBody(_) => true,
            Self::NoSite
            | Self::Misdirected
            | Self::Policy(_)
            | Self::NoHealthyServer
            | Self::SiteUnavailable
            | Self::Attempt(_) => false,
        }
    }
}
