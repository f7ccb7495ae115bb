//! What the protected application legitimately sends that looks like an attack.

use crate::config::{Exclusion, rule_set};
use crate::rules::Rule;

/// One built-in exclusion: why, where, which rules, which targets.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// What the application sends there.
    pub reason: &'static str,
    /// A glob of the normalised path.
    pub path: &'static str,
    /// Globs of rules.
    pub rules: &'static [&'static str],
    /// A glob of the target.
    pub target: &'static str,
}

/// The rules that a filter expression such as `Name like '%x%' and Status = 'Online'` trips; statements and functions stay on.
const EXPRESSION: &[&str] = &["sqli-4", "sqli-5", "sqli-6", "sqli-19", "sqli-21"];

/// Everything that text written for a shell or a database trips.
const CODE: &[&str] = &["sqli-*", "rce-*", "xss-*", "lfi-*", "ssrf-*", "log4j-4", "app-6", "app-7"];

/// The exclusions of the profile `automate`.
pub const AUTOMATE: &[Known] = &[
    Known {
        reason: "SOAP calls of the Control Center carry SQL",
        path: "/LabTech/ControlCenter.asmx*",
        rules: CODE,
        target: "body*",
    },
    Known { reason: "The same service behind the rewrite", path: "/LegacyCCASMX/*", rules: CODE, target: "body*" },
    Known { reason: "A password may hold anything", path: "/cwa/api/*/apitoken*", rules: &["*"], target: "body:*Pass*" },
    Known { reason: "A password may hold anything", path: "/WCC2/API/APIToken*", rules: &["*"], target: "body:*Pass*" },
    Known { reason: "A password may hold anything", path: "/WCC2/Home/Login*", rules: &["*"], target: "body:*Pass*" },
    Known { reason: "A password may hold anything", path: "/automate/login*", rules: &["*"], target: "body:*Pass*" },
    Known { reason: "Filters are SQL-like expressions", path: "/cwa/api/*", rules: EXPRESSION, target: "query:condition" },
    Known { reason: "Filters are SQL-like expressions", path: "/cwa/api/*", rules: EXPRESSION, target: "body:condition" },
    Known { reason: "Orders are column names", path: "/cwa/api/*", rules: &["sqli-21"], target: "query:orderby" },
    Known { reason: "OData filters are expressions", path: "/WCC2/api/*", rules: EXPRESSION, target: "query:$filter" },
    Known { reason: "OData filters are expressions", path: "/cwa/api/*", rules: EXPRESSION, target: "query:$filter" },
    Known { reason: "Commands are what this call is for", path: "/cwa/api/*/CommandExecute*", rules: CODE, target: "body*" },
    Known { reason: "Script parameters hold commands", path: "/cwa/api/*/Scripts/*/Execute*", rules: CODE, target: "body*" },
    Known { reason: "Scripts are code", path: "/cwa/api/*/Scripts*", rules: CODE, target: "body*" },
    Known { reason: "Script results hold command lines", path: "/cwa/api/*/scripthistory*", rules: EXPRESSION, target: "query*" },
    Known { reason: "Service names and paths", path: "/cwa/api/*/services*", rules: EXPRESSION, target: "query*" },
    Known {
        reason: "Agents send opaque text, not percent-encoded",
        path: "/LabTech/agent.aspx",
        rules: &["protocol-*", "app-5"],
        target: "body*",
    },
];

/// The built-in exclusions, resolved against the rules.
pub fn exclusions(rules: &[&Rule]) -> impl Iterator<Item = Exclusion> {
    AUTOMATE.iter().map(|known| Exclusion::new(known.path, rule_set(rules, known.rules).unwrap_or(0), Some(known.target)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::catalogue;

    #[test]
    fn every_entry_names_rules_that_exist() {
        let rules = catalogue();
        for known in AUTOMATE {
            assert!(rule_set(&rules, known.rules).is_ok(), "{}", known.path);
            assert!(known.path.starts_with('/') && !known.reason.is_empty());
        }
    }
}
