//! The configuration as written, and what is derived from it once.

use serde::Deserialize;

use crate::authority::{Authority, Scheme};
use crate::find::Finder;
use crate::query::Names;
use crate::url::{Form, Mapping, Start};

/// The `config` table of `weir.toml`; `schema.json` describes each key.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    public: String,
    origin: String,
    origin_scheme: Option<Scheme>,
    #[serde(default)]
    rewrite_body: bool,
    #[serde(default = "default_query")]
    rewrite_query: Vec<String>,
    #[serde(default)]
    allowed_origins: Vec<String>,
    #[serde(default)]
    preflight: Preflight,
    #[serde(default = "enabled")]
    secure_cookies: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Preflight {
    #[default]
    Answer,
    Pass,
}

/// The two names of one application and everything that is fixed about them.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) public: Authority,
    pub(crate) origin: Authority,
    /// `origin` as the upstream's Host.
    pub(crate) origin_text: String,
    pub(crate) origin_scheme: Option<Scheme>,
    /// Finds `public`'s host.
    pub(crate) public_finder: Finder,
    /// Finds `origin`'s host.
    pub(crate) origin_finder: Finder,
    /// Both names are one host, so that seeing it towards a client is no mismatch.
    pub(crate) same_host: bool,
    pub(crate) query: Names,
    pub(crate) allowed: Vec<AllowedOrigin>,
    pub(crate) answers_preflight: bool,
    pub(crate) secure_cookies: bool,
}

/// An origin of `allowed_origins`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct AllowedOrigin {
    scheme: Scheme,
    host: String,
    port: u16,
}

impl Config {
    /// Parses every name once.
    ///
    /// # Errors
    /// A text that names the key and the remedy.
    pub(crate) fn resolve(self) -> Result<Site, String> {
        if self.rewrite_body {
            return Err(
                "rewrite_body = true is not supported yet: remove the key; headers and query values are rewritten without it"
                    .into(),
            );
        }
        let public = Authority::parse("public", &self.public)?;
        let origin = Authority::parse("origin", &self.origin)?;
        Ok(Site {
            origin_text: origin.text(),
            origin_scheme: self.origin_scheme,
            public_finder: Finder::new(&public.host),
            origin_finder: Finder::new(&origin.host),
            same_host: public.host == origin.host,
            query: Names::new(&self.rewrite_query)?,
            allowed: self.allowed_origins.iter().map(|text| AllowedOrigin::parse(text)).collect::<Result<_, _>>()?,
            answers_preflight: self.preflight == Preflight::Answer,
            secure_cookies: self.secure_cookies,
            public,
            origin,
        })
    }
}

impl Site {
    /// From the public name to the origin's. `client_port` is the port of the Host that the client sent.
    pub(crate) fn inward(&self, client_port: Option<u16>) -> Mapping<'_> {
        Mapping {
            from: &self.public,
            from_port: client_port,
            to: &self.origin.host,
            to_port: self.origin.port,
            scheme: self.origin_scheme,
        }
    }

    /// From the origin's name to the public one, as the client spoke to it.
    pub(crate) fn outward(&self, scheme: Scheme, client_port: Option<u16>) -> Mapping<'_> {
        Mapping {
            from: &self.origin,
            from_port: None,
            to: &self.public.host,
            to_port: self.public.port.or(client_port),
            scheme: Some(scheme),
        }
    }
}

impl AllowedOrigin {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("allowed_origins: {text:?} is no origin: write \"https://host\" or \"https://host:port\" without a path");
        let start = Start::read(text.as_bytes(), Form::Plain).filter(|start| start.end == text.len() && !start.socket);
        let start = start.ok_or_else(wrong)?;
        let host = text.get(start.host.clone()).ok_or_else(wrong)?.to_ascii_lowercase();
        let scheme = start.scheme.ok_or_else(wrong)?;
        Ok(Self { scheme, host, port: start.port.unwrap_or_else(|| scheme.default_port()) })
    }

    /// Whether the start of an `Origin` is this origin.
    pub(crate) fn is(&self, text: &[u8], start: &Start) -> bool {
        start.scheme == Some(self.scheme)
            && start.effective_port() == Some(self.port)
            && text.get(start.host.clone()).is_some_and(|host| self.host.as_bytes().eq_ignore_ascii_case(host))
    }
}

const fn enabled() -> bool {
    true
}

/// The parameters that carry a return address in SAML, WS-Federation, OpenID Connect and ASP.NET.
fn default_query() -> Vec<String> {
    ["redirect_uri", "ReturnUrl", "RelayState", "wreply", "returnurl"].map(str::to_owned).to_vec()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(config: &Value, expected: Result<(), &str>) {
        let resolved =
            serde_json::from_value::<Config>(config.clone()).map_err(|error| error.to_string()).and_then(Config::resolve);
        match (resolved, expected) {
            (Ok(_), Ok(())) => {}
            (Err(error), Err(part)) => assert!(error.contains(part), "{config}: {error}"),
            (resolved, _) => panic!("{config}: {resolved:?}"),
        }
    }

    #[test]
    fn what_is_accepted_and_what_is_refused() {
        let names = |extra: Value| {
            let mut config = json!({ "public": "pub.example", "origin": "org.example" });
            config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            config
        };
        check(&names(json!({})), Ok(()));
        check(
            &names(json!({ "rewrite_body": false, "preflight": "pass", "secure_cookies": false, "origin_scheme": "http" })),
            Ok(()),
        );
        check(&names(json!({ "allowed_origins": ["https://home.connectwise.com", "http://dev.example:8080"] })), Ok(()));
        check(&names(json!({ "rewrite_query": [] })), Ok(()));
        check(&json!({ "public": "same.example", "origin": "same.example" }), Ok(()));
        check(&names(json!({ "rewrite_body": true })), Err("not supported yet"));
        check(&names(json!({ "allowed_origins": ["*"] })), Err("allowed_origins"));
        check(&names(json!({ "allowed_origins": ["null"] })), Err("allowed_origins"));
        check(&names(json!({ "allowed_origins": ["https://home.connectwise.com/"] })), Err("without a path"));
        check(&names(json!({ "allowed_origins": ["wss://home.connectwise.com"] })), Err("allowed_origins"));
        check(&names(json!({ "allowed_origins": ["home.connectwise.com"] })), Err("allowed_origins"));
        check(&names(json!({ "rewrite_query": ["a=b"] })), Err("rewrite_query"));
        check(&names(json!({ "rewrite_query": [""] })), Err("rewrite_query"));
        check(&names(json!({ "public": "https://pub.example" })), Err("public"));
        check(&names(json!({ "origin": "*" })), Err("origin"));
        check(&names(json!({ "preflight": "reflect" })), Err("reflect"));
        check(&names(json!({ "rewrite_headers": true })), Err("rewrite_headers"));
        check(&json!({ "public": "pub.example" }), Err("origin"));
    }

    #[test]
    fn the_schema_names_the_same_keys_and_defaults() {
        let schema: Value = serde_json::from_str(include_str!("../schema.json")).unwrap();
        let mut config = json!({ "public": "pub.example", "origin": "org.example" });
        for (key, property) in schema["properties"].as_object().unwrap() {
            assert!(property["title"].is_string() && property["description"].is_string(), "{key}");
            if let Some(value) = property.get("default").or_else(|| property["enum"].get(0)) {
                config[key] = value.clone();
            }
        }
        let written: Config = serde_json::from_value(config).unwrap();
        let bare: Config = serde_json::from_value(json!({ "public": "pub.example", "origin": "org.example" })).unwrap();
        let defaults = |config: &Config| {
            (
                config.rewrite_body,
                config.rewrite_query.clone(),
                config.allowed_origins.clone(),
                config.preflight,
                config.secure_cookies,
            )
        };
        assert_eq!(defaults(&written), defaults(&bare));
        assert_eq!(schema["additionalProperties"], false);
    }
}
