//! `weir.toml`: read whole, checked whole, and turned into types in which wrong states cannot exist.
//!
//! Reading order: `resolve` goes from files to a [`Config`] and lists the sections; one file per section holds its type and how
//! it is read (`server`, `limits`, `listener`, `policy`, `upstream`, `site`); `check` holds what only shows when sections are put
//! side by side. Below them are the tools: `reader` walks a table and finds unknown keys, `values` and `address` parse single
//! values, `source` is a file with its line numbers, `suggest` finds near names, `defaults` names every default with its reason.
//!
//! Nothing here opens the files a configuration names (certificates, databases, plugins): that is done when the run-time state is
//! built, which can still point at the line through the [`Location`] kept in each item.

mod address;
mod candidate;
mod check;
mod defaults;
mod error;
mod limits;
mod listener;
mod plugin;
mod policy;
mod reader;
mod resolve;
mod server;
mod site;
mod source;
mod suggest;
mod upstream;
mod values;

#[cfg(test)]
mod tests;

pub use address::{HostPattern, Scheme, Url};
pub use candidate::{Candidate, TrialMode, of as plugin_of};
pub use error::{Error, Errors, Location};
pub use limits::Limits;
pub use listener::{Certificate, GeoIp, Listener};
pub use policy::{HttpOut, Isolation, Mode, OnError, OnOverflow, Policy, PolicyLimits, Quarantine, parse_limits};
pub use resolve::{Config, admin_address, load, parse};
pub use server::{AccessLog, AdminAddress, Server, Telemetry};
pub use site::Site;
pub use upstream::{Failback, Health, MAX_RETRY_ATTEMPTS, Retry, Timeouts, Upstream, UpstreamServer, UpstreamTls};
