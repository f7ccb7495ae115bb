//! What a plugin says about itself (`describe`) and about one configuration of itself (`configure`).

use serde::Deserialize;

use crate::decision::Phase;
use crate::error::LoadError;
use crate::response_when::ResponseWhen;

/// A set of phases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Phases(u8);

impl Phases {
    pub(crate) const fn has(self, phase: Phase) -> bool {
        self.0 & phase.bit() != 0
    }

    pub(crate) const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Phases by name.
    ///
    /// # Errors
    /// The first name that is no phase.
    pub(crate) fn parse(names: &[String]) -> Result<Self, String> {
        names.iter().try_fold(Self::default(), |set, name| {
            let phase =
                Phase::ALL.into_iter().find(|phase| phase.name() == name).ok_or_else(|| format!("no such phase: {name}"))?;
            Ok(Self(set.0 | phase.bit()))
        })
    }

    const fn is_subset_of(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }
}

/// The answer of `describe`.
#[derive(Clone, Debug)]
pub(crate) struct Manifest {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) phases: Phases,
    /// The largest window of the request body in bytes.
    pub(crate) request_body: usize,
    /// JSON Schema of the configuration, when there is one.
    pub(crate) schema: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Described {
    name: String,
    version: String,
    phases: Vec<String>,
    #[serde(default)]
    request_body: usize,
    #[serde(default)]
    schema: serde_json::Value,
}

/// Windows are copied into the guest: more than this needs another design.
const MAX_REQUEST_BODY: usize = 1024 * 1024;

impl Manifest {
    pub(crate) fn parse(json: &str) -> Result<Self, LoadError> {
        let wrong = |error: String| LoadError::Describe(error);
        let described: Described = serde_json::from_str(json).map_err(|error| wrong(error.to_string()))?;
        if described.request_body > MAX_REQUEST_BODY {
            return Err(wrong(format!("request_body: {} bytes, at most {MAX_REQUEST_BODY}", described.request_body)));
        }
        let schema = match described.schema {
            serde_json::Value::Null => None,
            schema @ serde_json::Value::Object(_) => Some(schema),
            _ => return Err(wrong("schema: not a JSON object: is the schema's file valid JSON?".to_owned())),
        };
        Ok(Self {
            name: described.name.chars().take(64).collect(),
            version: described.version.chars().take(64).collect(),
            phases: Phases::parse(&described.phases).map_err(wrong)?,
            request_body: described.request_body,
            schema,
        })
    }
}

/// What one configuration needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Needs {
    pub(crate) phases: Phases,
    pub(crate) request_body: usize,
    /// Which responses it is asked about; every one when there is nothing here.
    pub(crate) response_when: Option<ResponseWhen>,
}

#[derive(Default, Deserialize)]
struct Configured {
    phases: Option<Vec<String>>,
    request_body: Option<usize>,
    response_when: Option<ResponseWhen>,
}

impl Needs {
    /// All that a plugin describes.
    pub(crate) const fn all(manifest: &Manifest) -> Self {
        Self { phases: manifest.phases, request_body: manifest.request_body, response_when: None }
    }

    /// The answer of `configure`, which may only narrow what `describe` promised.
    pub(crate) fn parse(json: &str, manifest: &Manifest) -> Result<Self, LoadError> {
        let wrong = |error: String| LoadError::Describe(format!("configure answered {error}"));
        let configured: Configured = if json.is_empty() {
            Configured::default()
        } else {
            serde_json::from_str(json).map_err(|error| wrong(error.to_string()))?
        };
        let phases = match configured.phases {
            Some(names) => Phases::parse(&names).map_err(wrong)?,
            None => manifest.phases,
        };
        let request_body = configured.request_body.unwrap_or(manifest.request_body);
        if !phases.is_subset_of(manifest.phases) || request_body > manifest.request_body {
            return Err(wrong("more than describe promised".to_owned()));
        }
        let response_when = configured.response_when.map(ResponseWhen::checked).transpose().map_err(wrong)?;
        Ok(Self { phases, request_body, response_when })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configure_narrows_and_never_widens() {
        let manifest = Manifest::parse(r#"{"name":"a","version":"1","phases":["request","response"],"schema":null}"#).unwrap();
        assert!(Needs::parse("", &manifest).unwrap().phases.has(Phase::Response));
        assert!(!Needs::parse(r#"{"phases":["request"]}"#, &manifest).unwrap().phases.has(Phase::Response));
        assert!(Needs::parse(r#"{"phases":["complete"]}"#, &manifest).is_err());
        assert!(Needs::parse(r#"{"request_body":1}"#, &manifest).is_err());
        assert!(Needs::parse("[", &manifest).is_err());
        assert!(Needs::parse(r#"{"response_when":{"headers":["location"]}}"#, &manifest).unwrap().response_when.is_some());
        assert!(Needs::parse(r#"{"response_when":{"containing":[""]}}"#, &manifest).is_err());
        assert!(Needs::parse(r#"{"response_when":{"header":[]}}"#, &manifest).is_err());
    }

    #[test]
    fn descriptions_that_break_the_contract_are_refused() {
        let schema = r#"{"name":"a","version":"1","phases":[],"schema":"{ not JSON"}"#;
        for bad in ["", "{}", r#"{"name":"a","version":"1","phases":["nope"]}"#, schema] {
            assert!(matches!(Manifest::parse(bad), Err(LoadError::Describe(_))), "{bad}");
        }
    }
}
