//! The configuration as written, and its resolution into [`Rules`]. `schema.json` describes the same keys.

use serde::Deserialize;

use crate::class::{Class, PerClass};
use crate::network::Networks;
use crate::rules::{ClassRule, Model, Rules, Source, Window};
use crate::secret::{Parameter, Secret, Secrets};
use crate::time;

/// The `config` table of the policy; the crate's page has the meaning and default of each key. Holds
/// secrets, so it cannot be printed.
#[derive(Deserialize)]
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

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClassTable {
    agent: Option<RuleTable>,
    transfer: Option<RuleTable>,
    deployment: Option<RuleTable>,
    technician: Option<RuleTable>,
    api: Option<RuleTable>,
    other: Option<RuleTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleTable {
    from: From,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum From {
    Word(String),
    Networks(Vec<String>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ParameterTable {
    class: Class,
    name: String,
    value: String,
    #[serde(default = "yes")]
    remember: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderTable {
    class: Class,
    name: String,
    value: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WindowTable {
    until: String,
    from: Option<Vec<String>>,
}

#[derive(Deserialize)]
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
        let trusted = mistakes.keep(Networks::parse("trusted", &self.trusted)).unwrap_or_default();
        let parameters = self.parameter.into_vec();
        if parameters.len() > 256 {
            mistakes.0.push(format!("parameter: {} are too many, the limit is 256", parameters.len()));
        }
        let secrets = Secrets {
            parameters: parameters.into_iter().filter_map(|table| mistakes.keep(table.resolve())).collect(),
            headers: self.header.into_vec().into_iter().filter_map(|table| mistakes.keep(table.resolve())).collect(),
        };
        let classes = PerClass::from_fn(|class| {
            let written = self.class.of(class).and_then(|rule| mistakes.keep(rule.source(class)));
            if written == Some(Source::Anywhere) && secrets.guard(class) {
                let name = class.name();
                mistakes
                    .0
                    .push(format!("class.{name}.from: a secret opens nothing that is open to \"anywhere\": write \"trusted\""));
            }
            // A secret for a class means that the class is not for everybody.
            let default = || if secrets.guard(class) { Source::Trusted } else { self.model.source(class) };
            ClassRule::new(class, written.unwrap_or_else(default))
        });
        let window = self.deployment_window.and_then(|table| mistakes.keep(table.resolve()));
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

impl Mistakes {
    fn keep<T>(&mut self, result: Result<T, String>) -> Option<T> {
        result.map_err(|mistake| self.0.push(mistake)).ok()
    }
}

impl ClassTable {
    const fn of(&self, class: Class) -> Option<&RuleTable> {
        match class {
            Class::Agent => self.agent.as_ref(),
            Class::Transfer => self.transfer.as_ref(),
            Class::Deployment => self.deployment.as_ref(),
            Class::Technician => self.technician.as_ref(),
            Class::Api => self.api.as_ref(),
            Class::Other => self.other.as_ref(),
        }
    }
}

impl RuleTable {
    fn source(&self, class: Class) -> Result<Source, String> {
        let place = format!("class.{}.from", class.name());
        match &self.from {
            From::Word(word) => match word.as_str() {
                "anywhere" => Ok(Source::Anywhere),
                "trusted" => Ok(Source::Trusted),
                "nowhere" => Ok(Source::Nowhere),
                _ => Err(format!("{place}: \"{word}\" is not \"anywhere\", \"trusted\", \"nowhere\" or a list of networks")),
            },
            From::Networks(networks) => listed(&place, networks),
        }
    }
}

impl ParameterTable {
    fn resolve(self) -> Result<Parameter, String> {
        // What a browser never percent-encodes: the query can be compared as it comes.
        let plain =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte));
        if !plain(&self.name) || !plain(&self.value) {
            return Err(format!("parameter: name and value of \"{}\" may hold letters, digits and -._~ only", self.name));
        }
        Ok(Parameter::new(Secret { class: self.class, name: self.name, value: self.value }, self.remember))
    }
}

impl HeaderTable {
    fn resolve(self) -> Result<Secret, String> {
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if self.name.is_empty() || !self.name.bytes().all(token) {
            return Err(format!("header: \"{}\" is not a header name", self.name));
        }
        let value = self.value.as_bytes();
        if value.is_empty() || value.trim_ascii().len() != value.len() || !value.iter().all(|byte| matches!(byte, b' '..=b'~')) {
            return Err(format!("header: the value of \"{}\" must be visible ASCII without spaces at its ends", self.name));
        }
        Ok(Secret { class: self.class, name: self.name.to_ascii_lowercase(), value: self.value })
    }
}

impl WindowTable {
    fn resolve(self) -> Result<Window, String> {
        let until = time::parse(&self.until).ok_or_else(|| {
            format!("deployment_window.until: \"{}\" is no RFC 3339 time: write it like \"2026-11-30T18:00:00Z\"", self.until)
        })?;
        let from = self.from.map_or(Ok(Source::Anywhere), |networks| listed("deployment_window.from", &networks))?;
        Ok(Window { until, from })
    }
}

impl<T> Default for OneOrMany<T> {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl<T> OneOrMany<T> {
    fn into_vec(self) -> Vec<T> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

fn listed(place: &str, networks: &[String]) -> Result<Source, String> {
    if networks.is_empty() {
        return Err(format!("{place}: the list is empty: name a network, or remove the key"));
    }
    Networks::parse(place, networks).map(Source::Networks)
}

const fn yes() -> bool {
    true
}
