//! Lets requests through by the country of the client's address.
//!
//! ```toml
//! [policy.geoip]
//! plugin = "geoip"
//! config = { allow = ["US", "CA"], class.agent = { allow = ["*"] } }
//! ```
//!
//! | key | meaning | default |
//! |---|---|---|
//! | `allow` | countries let through; when set, every other country is refused; `"*"` is every country | none |
//! | `deny` | countries refused, even when `allow` is `["*"]` | none |
//! | `class.<class>` | `allow` and `deny` for one value of the tag `class` (set by an earlier policy such as `agent-acl`); replaces both lists above | none |
//! | `unknown` | `"allow"` or `"deny"` addresses the database does not know | `"deny"` with an `allow` list of countries or `deny = ["*"]`, else `"allow"` |
//! | `private` | `"allow"` or `"deny"` private, loopback, link-local, shared and unique local addresses; they are never looked up | `"allow"` |
//! | `status` | status of a refusal, 400 to 599; 0 closes the connection without an answer | 403 |
//! | `phase` | `"connection"` decides once per connection, `"request"` once per request | `"connection"` without `class`, else `"request"` |
//!
//! Behind a trusted proxy many clients share a connection: the gateway then asks the connection phase once per request, with the
//! client of that request, so nothing has to be set there.
//!
//! Reasons: `country_denied`, `country_not_allowed`, `country_unknown`, `private_denied`. The rule is the country code,
//! `unknown` or `private`.

mod config;
mod country;
mod rules;

use std::net::IpAddr;

use weir_sdk::prelude::*;

use crate::rules::{Refusal, Rule, Rules};

/// The policy: rules resolved from [`config::Config`].
pub struct GeoIp(Rules);

#[policy(schema = "schema.json", capabilities("geoip"))]
impl Policy for GeoIp {
    type Config = config::Config;

    fn configure(config: config::Config) -> Result<Self, String> {
        config.resolve().map(Self)
    }

    fn needs(&self) -> Needs {
        Needs::only(&[if self.0.per_request { Phase::Request } else { Phase::Connection }])
    }

    fn connection(&self, connection: Connection<'_>) -> Verdict {
        self.decide(&self.0.default, || connection.client_ip())
    }

    fn request(&self, request: Request<'_>) -> Verdict {
        let rule = if self.0.classes.is_empty() {
            &self.0.default
        } else {
            request.tag("class").map_or(&self.0.default, |class| self.0.of_class(&class))
        };
        self.decide(rule, || request.client_ip())
    }
}

impl GeoIp {
    /// Asks the gateway only for what the rule depends on.
    fn decide(&self, rule: &Rule, client_ip: impl FnOnce() -> IpAddr) -> Verdict {
        if rule.is_open() && self.0.private_allowed {
            return Verdict::Next;
        }
        let client_ip = client_ip();
        if country::is_private(client_ip) {
            return if self.0.private_allowed { Verdict::Next } else { self.deny("private", Refusal::PrivateDenied) };
        }
        if rule.is_open() {
            return Verdict::Next;
        }
        let country = geoip::country(client_ip);
        match rule.judge(country.as_deref()) {
            Ok(()) => Verdict::Next,
            Err(refusal) => self.deny(country.as_deref().unwrap_or("unknown"), refusal),
        }
    }

    fn deny(&self, rule: &str, refusal: Refusal) -> Verdict {
        Verdict::deny_with(self.0.status, rule, refusal.reason())
    }
}
