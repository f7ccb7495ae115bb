//! The configuration as written, and its resolution into [`Rules`]. `schema.json` describes the same keys.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::country::Countries;
use crate::rules::{Rule, Rules};

/// The `config` table of the policy; the crate's page has the meaning and default of each key.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    #[serde(default)]
    allow: Vec<String>,
    #[serde(default)]
    deny: Vec<String>,
    #[serde(default)]
    class: BTreeMap<String, Lists>,
    unknown: Option<Access>,
    #[serde(default)]
    private: Access,
    #[serde(default = "forbidden")]
    status: u16,
    phase: Option<When>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lists {
    #[serde(default)]
    allow: Vec<String>,
    #[serde(default)]
    deny: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Access {
    #[default]
    Allow,
    Deny,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum When {
    Connection,
    Request,
}

impl Config {
    /// Checks every key and reports all mistakes at once.
    pub(crate) fn resolve(self) -> Result<Rules, String> {
        let mut mistakes = Vec::new();
        let default = self.rule("", &self.allow, &self.deny, &mut mistakes);
        let mut classes = Vec::with_capacity(self.class.len());
        for (name, lists) in &self.class {
            if lists.allow.is_empty() && lists.deny.is_empty() {
                mistakes.push(format!("class.{name}: give it `allow` or `deny`; `allow = [\"*\"]` lets every country through"));
            }
            let rule = self.rule(&format!("class.{name}."), &lists.allow, &lists.deny, &mut mistakes);
            classes.push((name.clone(), rule));
        }
        if !matches!(self.status, 0 | 400..=599) {
            mistakes.push(format!("status: {} is neither 400 to 599 nor 0 (close without an answer)", self.status));
        }
        if !classes.is_empty() && self.phase == Some(When::Connection) {
            mistakes.push("phase: rules per class need the request: remove `phase = \"connection\"` or `class`".to_owned());
        }
        if !mistakes.is_empty() {
            return Err(mistakes.join("; "));
        }
        let per_request = !classes.is_empty() || self.phase == Some(When::Request);
        Ok(Rules { default, classes, private_allowed: self.private == Access::Allow, status: self.status, per_request })
    }

    fn rule(&self, place: &str, allow: &[String], deny: &[String], mistakes: &mut Vec<String>) -> Rule {
        let mut parse = |key: &str, codes: &[String]| {
            Countries::parse(&format!("{place}{key}"), codes).unwrap_or_else(|mistake| {
                mistakes.push(mistake);
                Countries::default()
            })
        };
        let (denied, allowed) = (parse("deny", deny), parse("allow", allow));
        let contradiction = allow.iter().find(|code| denied.contains(&code.to_ascii_uppercase()));
        if let Some(code) = contradiction {
            mistakes.push(format!("{place}allow: \"{code}\" is also denied by `{place}deny`: remove it from one of the two"));
        }
        // A list of countries says where clients are; an address from nowhere is then none of them.
        let closed = denied.is_every() || !(allowed.is_empty() || allowed.is_every());
        let unknown_allowed = self.unknown.map_or(!closed, |access| access == Access::Allow);
        Rule { allow: allowed, deny: denied, unknown_allowed }
    }
}

const fn forbidden() -> u16 {
    403
}
