//! The configuration as written, and its resolution into [`Rules`]. `schema.json` describes the same keys.

use serde::Deserialize;

use crate::class::{Class, PerClass};
use crate::network::Networks;
use crate::rules::{ClassRule, Model, Rules, Source, Window};
use crate::secret::{Parameter, Secret, Secrets};
use crate::time;

/// The `config` table of the policy; the crate's page has the meaning and default of each key.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    model: Model,
    #[serde(default)]
    trusted: Vec<String>,
    #[serde(default)]
    class: ClassTable,
    #[serde(default)]
    parameter: OneOrMany<ParameterTable>,
    #[serde(default)]
    header: OneOrMany<HeaderTable>,
    deployment_window: Option<WindowTable>,
    legacy_deployment: Option<bool>,
    #[serde(default)]
    require_tls: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClassTable {
    agent: Option<RuleTable>,
    transfer: Option<RuleTable>,
    deployment: Option<RuleTable>,
    technician: Option<RuleTable>,
    api: Option<RuleTable>,
    other: Option<RuleTable>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleTable {
    from: From,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum From {
    Word(String),
    Networks(Vec<String>),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ParameterTable {
    class: Class,
    name: String,
    value: String,
    #[serde(default = "yes")]
    remember: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderTable {
    class: Class,
    name: String,
    value: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WindowTable {
    until: String,
    from: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

/// Every mistake so far; the operator sees them all at once.
struct Mistakes(Vec<String>);

impl Config {
    /// Checks every key and reports all mistakes at once.
    pub(crate) fn resolve(self) -> Result<Rules, String> {
        let mut mistakes = Mistakes(Vec::new());
        let trusted = mistakes.keep(Networks::parse("trusted", &self.trusted));
        let classes = PerClass::from_fn(|class| {
            let written = self.class.of(class).map(|rule| mistakes.keep(rule.source(class)));
            ClassRule::new(class, written.unwrap_or_else(|| self.model.source(class)))
        });
        let secrets = Secrets {
            parameters: self.parameter.into_vec().into_iter().map(|table| mistakes.keep_some(table.resolve())).collect(),
            headers: self.header.into_vec().into_iter().map(|table| mistakes.keep_some(table.resolve())).collect(),
        };
        let secrets = Secrets {
            parameters: secrets.parameters,
            headers: secrets.headers,
        };
        let window = self.deployment_window.and_then(|table| mistakes.keep_some(table.resolve()));
        if !mistakes.0.is_empty() {
            return Err(mistakes.0.join("; "));
        }
        Ok(Rules {
            model: self.model,
            restricted: Class::ALL.iter().any(|class| classes.of(*class).from != Source::Anywhere),
            trusted,
            classes,
            legacy_deployment: self.legacy_deployment.unwrap_or(self.model == Model::AllTraffic),
            require_tls: self.require_tls,
            secrets,
            window,
        })
    }
}
