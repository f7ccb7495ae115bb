//! The command line.

use std::fmt;

/// What `--help` prints.
pub(crate) const HELP: &str = "\
CPU time per request of Weir, nginx and HAProxy, side by side.

usage: bench [--quick] [--rounds N] [--seconds N] [--only NAME] [--json]

  --quick      one round of two seconds, for a first look
  --rounds N   rounds per proxy and kind of traffic, the median counts (default 3)
  --seconds N  length of a round (default 3)
  --only NAME  `cpu` (P1 to P5, P9), `memory` (P6), `sites` (P7) or `calls` (P9 inside the host); may be given more than once (default all)
  --json       one JSON object instead of tables

environment:
  WEIR_BIN       the gateway (default target/release/weir)
  WEIR_POLICIES  directory of the four policies (default target/policies)
  WEIR_GUESTS    directory of noop.wasm (default target/guests)
  WEIR_GEOIP     a country database (default: a small one, made here)";

/// How long to measure and how to report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// Rounds per proxy and kind of traffic; 1 or more.
    pub(crate) rounds: u32,
    /// Seconds per round; 1 or more.
    pub(crate) seconds: u32,
    /// JSON instead of tables.
    pub(crate) json: bool,
    /// Fewer connections and sites, for a first look.
    pub(crate) quick: bool,
    /// What is measured.
    pub(crate) parts: Parts,
}

/// Which figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Parts {
    /// CPU time per request.
    pub(crate) cpu: bool,
    /// Memory per connection.
    pub(crate) memory: bool,
    /// Many sites.
    pub(crate) sites: bool,
    /// Calls of policies inside the host.
    pub(crate) calls: bool,
}

impl Parts {
    const ALL: Self = Self { cpu: true, memory: true, sites: true, calls: true };

    fn add(&mut self, name: Option<&str>) -> Result<(), Usage> {
        match name {
            Some("cpu") => self.cpu = true,
            Some("memory") => self.memory = true,
            Some("sites") => self.sites = true,
            Some("calls") => self.calls = true,
            _ => return Err(Usage::Part),
        }
        Ok(())
    }
}

impl Default for Options {
    fn default() -> Self {
        // Fourteen rows of three rounds of three seconds stay under three minutes, warm-up and start included.
        Self { rounds: 3, seconds: 3, json: false, quick: false, parts: Parts::ALL }
    }
}

/// What is wrong with the command line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Usage {
    /// There is no such option.
    Unknown(String),
    /// The option needs a number of 1 or more.
    Number(&'static str),
    /// `--only` needs the name of a part.
    Part,
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(option) => write!(f, "unknown option `{option}`"),
            Self::Part => write!(f, "`--only` needs `cpu`, `memory`, `sites` or `calls`"),
            Self::Number(option) => write!(f, "`{option}` needs a number of 1 or more"),
        }
    }
}

impl Options {
    /// Reads the arguments that follow the program's name; nothing when help is asked for.
    ///
    /// # Errors
    /// An option is unknown or lacks its number.
    pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<Self>, Usage> {
        let mut options = Self::default();
        let mut only = Parts::default();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--quick" => (options.rounds, options.seconds, options.quick) = (1, 2, true),
                "--rounds" => options.rounds = number("--rounds", arguments.next())?,
                "--seconds" => options.seconds = number("--seconds", arguments.next())?,
                "--only" => only.add(arguments.next().as_deref())?,
                "--json" => options.json = true,
                "--help" | "-h" => return Ok(None),
                _ => return Err(Usage::Unknown(argument)),
            }
        }
        if only != Parts::default() {
            options.parts = only;
        }
        Ok(Some(options))
    }
}

fn number(option: &'static str, value: Option<String>) -> Result<u32, Usage> {
    value.and_then(|value| value.parse().ok()).filter(|number| *number > 0).ok_or(Usage::Number(option))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expected: &Result<Option<Options>, Usage>) {
        assert_eq!(Options::parse(line.split_whitespace().map(str::to_owned)), *expected, "{line}");
    }

    #[test]
    fn options_are_read_in_order() {
        check("", &Ok(Some(Options::default())));
        check("--quick --json", &Ok(Some(Options { rounds: 1, seconds: 2, json: true, quick: true, ..Options::default() })));
        check("--quick --seconds 5", &Ok(Some(Options { rounds: 1, seconds: 5, quick: true, ..Options::default() })));
        check("--rounds 7 --help", &Ok(None));
        let parts = Parts { cpu: false, memory: true, sites: true, calls: false };
        check("--only sites --only memory", &Ok(Some(Options { parts, ..Options::default() })));
    }

    #[test]
    fn mistakes_are_named() {
        check("--rounds", &Err(Usage::Number("--rounds")));
        check("--rounds 0", &Err(Usage::Number("--rounds")));
        check("--seconds fast", &Err(Usage::Number("--seconds")));
        check("--only P6", &Err(Usage::Part));
        check("--fast", &Err(Usage::Unknown("--fast".to_owned())));
    }
}
