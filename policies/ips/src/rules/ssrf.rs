//! Requests that the server is to make for the attacker.

use super::Category::ServerSideRequest as Ssrf;
use super::Severity::{Critical, Warning};
use super::{Matcher, Rule, Targets, rule};

/// The rules of this category.
pub(super) const RULES: &[Rule] = &[
    rule("ssrf-1", Ssrf, Critical, Targets::PARAMETERS, Matcher::Any(METADATA), "The metadata service of a cloud"),
    rule(
        "ssrf-2",
        Ssrf,
        Critical,
        Targets::PARAMETERS,
        Matcher::Any(SCHEMES),
        "A URL scheme that speaks to other services: gopher, dict",
    ),
    rule("ssrf-3", Ssrf, Warning, Targets::QUERY, Matcher::Any(LOCAL), "A URL of the server itself"),
];

const METADATA: &[&str] = &[
    "169.254.169.254",
    "2852039166",
    "[fd00:ec2::254]",
    "metadata.google.internal",
    "100.100.100.200",
    "/latest/meta-data*",
    "/computemetadata/v1*",
    "/metadata/instance*",
];
const SCHEMES: &[&str] = &["gopher://*", "dict://*", "ldap://127.*", "tftp://*"];
const LOCAL: &[&str] = &[
    "http://127.*",
    "https://127.*",
    "http://localhost*",
    "https://localhost*",
    "http://[::1]*",
    "http://0.0.0.0*",
    "http://0x7f*",
    "http://2130706433*",
];
