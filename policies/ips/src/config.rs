//! The configuration: a mirror of the `config` table, and what it means.

use serde::Deserialize;

use crate::glob::Glob;
use crate::profile;
use crate::rules::{Rule, catalogue};

/// The largest window, in bytes; the same number is in the `#[policy]` attribute.
pub const WINDOW_MAX: usize = 64 * 1024;

/// The `config` table.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Whether a request is denied, or only reported.
    pub mode: Mode,
    /// The score at which a request is denied.
    pub threshold: u32,
    /// Which rules are off, where.
    pub exclude: Vec<Exclude>,
    /// Globs of rules that are off everywhere.
    pub disable: Vec<String>,
    /// How much of a body is inspected.
    pub body_window: Size,
    /// The built-in exclusions.
    pub profile: Profile,
}

/// What a score at the threshold leads to.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The request is denied.
    #[default]
    Block,
    /// The request passes; its findings are in the decision log.
    Detect,
}

/// A set of built-in exclusions.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Those of the protected application; see [`profile::AUTOMATE`].
    #[default]
    Automate,
    /// None.
    None,
}

/// One entry of `exclude`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exclude {
    /// A glob of the normalised path.
    pub path: String,
    /// Globs of rules; without them all rules.
    #[serde(default)]
    pub rules: Option<Vec<String>>,
    /// A glob of the target, e.g. `query:condition`; without it all targets.
    #[serde(default)]
    pub target: Option<String>,
}

/// A number of bytes, or a text such as `64KiB`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(untagged)]
pub enum Size {
    /// In bytes.
    Bytes(usize),
    /// A number and `B`, `KB`, `KiB`, `MB` or `MiB`.
    Text(String),
}

/// A set of rules, by their number.
pub type RuleSet = u128;

/// The resolved configuration.
#[derive(Debug)]
pub struct Settings {
    /// See [`Config::mode`].
    pub mode: Mode,
    /// See [`Config::threshold`].
    pub threshold: u32,
    /// In bytes, [`WINDOW_MAX`] at most; 0 = bodies are not inspected.
    pub body_window: usize,
    /// All rules, in the order of their numbers.
    pub rules: Vec<&'static Rule>,
    /// The rules that are off everywhere.
    pub disabled: RuleSet,
    /// The rules that are off somewhere.
    pub exclusions: Vec<Exclusion>,
}

/// Rules that are off for a target of a path.
#[derive(Debug)]
pub struct Exclusion {
    path: Glob,
    rules: RuleSet,
    target: Option<Glob>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            threshold: 5,
            exclude: Vec::new(),
            disable: Vec::new(),
            body_window: Size::Bytes(WINDOW_MAX),
            profile: Profile::default(),
        }
    }
}

impl Config {
    /// Resolves names of rules and sizes.
    ///
    /// # Errors
    /// The key and the remedy for everything that cannot be used, one per line.
    pub fn resolve(&self) -> Result<Settings, String> {
        let rules = catalogue();
        let mut errors = Vec::new();
        if !(1..=1000).contains(&self.threshold) {
            errors.push(format!("threshold: {} is not a score from 1 to 1000", self.threshold));
        }
        let body_window = self.body_window.bytes().unwrap_or_else(|error| {
            errors.push(format!("body_window: {error}"));
            0
        });
        let mut set = |key: &str, globs: &[String]| {
            rule_set(&rules, globs).unwrap_or_else(|glob| {
                errors.push(format!("{key}: no rule is called `{glob}`; ids are like sqli-1, xss-*, protocol-5"));
                0
            })
        };
        let disabled = set("disable", &self.disable);
        let mut exclusions = Vec::new();
        for (number, entry) in self.exclude.iter().enumerate() {
            let named = entry.rules.as_ref().map_or(RuleSet::MAX, |globs| set(&format!("exclude[{number}].rules"), globs));
            exclusions.push(Exclusion::new(&entry.path, named, entry.target.as_deref()));
        }
        for (number, entry) in self.exclude.iter().enumerate().filter(|(_, entry)| !entry.path.starts_with(['/', '*'])) {
            errors.push(format!("exclude[{number}].path: `{}` starts neither with / nor with *", entry.path));
        }
        if self.profile == Profile::Automate {
            exclusions.extend(profile::exclusions(&rules));
        }
        if errors.is_empty() {
            Ok(Settings { mode: self.mode, threshold: self.threshold, body_window, rules, disabled, exclusions })
        } else {
            Err(errors.join("\n"))
        }
    }
}

impl Exclusion {
    /// Turns `rules` off for targets that match a glob (`None` = all) on paths that match a glob.
    #[must_use]
    pub fn new(path: &str, rules: RuleSet, target: Option<&str>) -> Self {
        Self { path: Glob::new(path), rules, target: target.map(Glob::new) }
    }

    /// Whether a rule that is off for one part of a body is off for all of them.
    #[must_use]
    pub fn spans_bodies(&self) -> bool {
        self.target.as_ref().is_none_or(|glob| glob.matches("body") && glob.matches("body:") && glob.matches("body-"))
    }

    /// Whether a rule is off here.
    #[must_use]
    pub fn covers(&self, rule: u8, path: &str, target: &str) -> bool {
        self.rules & bit(rule) != 0 && self.path.matches(path) && self.target.as_ref().is_none_or(|glob| glob.matches(target))
    }
}

impl Size {
    fn bytes(&self) -> Result<usize, String> {
        let bytes = match self {
            Self::Bytes(bytes) => Some(*bytes),
            Self::Text(text) => parse_size(text),
        };
        match bytes {
            Some(bytes) if bytes <= WINDOW_MAX => Ok(bytes),
            Some(bytes) => Err(format!(
                "{bytes} bytes are more than the {WINDOW_MAX} a policy can see; larger bodies pass with their beginning inspected"
            )),
            None => Err("expected a size such as \"64KiB\", or 0 to inspect no body".to_owned()),
        }
    }
}

/// The set with one rule.
#[must_use]
pub const fn bit(rule: u8) -> RuleSet {
    1 << (rule & 127)
}

/// The rules that any of the globs names, or the first glob that names none.
pub fn rule_set<'a>(rules: &[&Rule], globs: &'a [impl AsRef<str>]) -> Result<RuleSet, &'a str> {
    globs.iter().try_fold(0, |all, glob| {
        let pattern = Glob::new(glob.as_ref());
        let named =
            rules.iter().zip(0..).filter(|(rule, _)| pattern.matches(rule.id)).fold(0, |set, (_, number)| set | bit(number));
        if named == 0 { Err(glob.as_ref()) } else { Ok(all | named) }
    })
}

fn parse_size(text: &str) -> Option<usize> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let factor = match unit.trim() {
        "" | "B" => 1,
        "KB" => 1_000,
        "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "MiB" => 1 << 20,
        _ => return None,
    };
    number.parse::<usize>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(json: &str) -> Result<Settings, String> {
        serde_json::from_str::<Config>(json).map_err(|error| error.to_string())?.resolve()
    }

    #[test]
    fn every_key_has_a_default() {
        let settings = resolve("{}").unwrap();
        assert_eq!((settings.mode, settings.threshold, settings.body_window, settings.disabled), (Mode::Block, 5, 65536, 0));
        assert!(!settings.exclusions.is_empty());
        assert!(resolve(r#"{"profile": "none"}"#).unwrap().exclusions.is_empty());
    }

    #[test]
    fn sizes_are_numbers_or_texts() {
        for (size, bytes) in [("0", 0), ("\"0\"", 0), ("1024", 1024), ("\"64KiB\"", 65536), ("\"8 KB\"", 8000)] {
            assert_eq!(resolve(&format!(r#"{{"body_window": {size}}}"#)).unwrap().body_window, bytes, "{size}");
        }
    }

    #[test]
    fn mistakes_name_the_key() {
        let cases = [
            (r#"{"treshold": 3}"#, "treshold"),
            (r#"{"mode": "off"}"#, "expected `block` or `detect`"),
            (r#"{"threshold": 0}"#, "threshold: 0"),
            (r#"{"body_window": "1MiB"}"#, "body_window: 1048576"),
            (r#"{"body_window": "much"}"#, "body_window: expected"),
            (r#"{"disable": ["sqlj-*"]}"#, "disable: no rule is called `sqlj-*`"),
            (r#"{"exclude": [{"path": "/a"}, {"path": "/b", "rules": ["x"]}]}"#, "exclude[1].rules"),
            (r#"{"exclude": [{"path": "a"}]}"#, "exclude[0].path"),
            (r#"{"exclude": [{"rules": []}]}"#, "path"),
        ];
        for (json, want) in cases {
            let error = resolve(json).unwrap_err();
            assert!(error.contains(want), "{json}: {error}");
        }
        let both = resolve(r#"{"threshold": 0, "disable": ["x"]}"#).unwrap_err();
        assert_eq!(both.lines().count(), 2, "{both}");
    }

    #[test]
    fn exclusions_cover_a_rule_on_a_path_and_target() {
        let rules = catalogue();
        let sqli = rule_set(&rules, &["sqli-*"]).unwrap();
        let exclusion = Exclusion::new("/LabTech/*", sqli, Some("body*"));
        assert!(exclusion.covers(0, "/labtech/controlcenter.asmx", "body:x"));
        assert!(!exclusion.covers(0, "/labtech/controlcenter.asmx", "query:x"));
        assert!(!exclusion.covers(0, "/cwa/", "body"));
        assert!(!exclusion.covers(u8::try_from(rules.len() - 1).unwrap(), "/labtech/x", "body"));
    }
}
