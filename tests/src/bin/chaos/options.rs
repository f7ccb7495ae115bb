//! The command line.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use weir_tests::chaos::Behaviour;

/// What `--help` prints.
pub(crate) const HELP: &str = "\
What clients notice when upstreams die and when the gateway is changed: Weir, nginx and HAProxy through the same script.

usage: chaos [--only FIGURE]... [--proxy NAME]... [--quick] [--awake] [--json]
       chaos soak [--seconds N]
       chaos upstream --listen ADDRESS [--journal FILE] [--fault NAME[/N]] [--delay-ms N]

  --only FIGURE  F1 (kill -9), F2 (black hole), F3 (all down), R1 (reloads and upgrades), R2 (smuggled requests),
                 R3 (policies that misbehave), P8 (new builds of a plugin)
  --proxy NAME   weir, nginx or haproxy
  --quick        fewer kills, reloads, upgrades and swaps
  --awake        let no processor sleep meanwhile (as root): virtual machines are woken late, which hides what R3 and P8 measure
  --json         one JSON object instead of a table
  soak           hours of change in minutes: memory and descriptors must stay flat, nothing may be lost
  --seconds N    its length (default SOAK_SECONDS, else 600)
  upstream       one misbehaving upstream

environment:
  WEIR_BIN       the gateway (default target/release/weir)
  WEIR_GUESTS    directory of noop.wasm and hostile.wasm (default target/guests)
  WEIR_POLICIES  directory of ips.wasm and agent-acl.wasm (default target/policies)";

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Order {
    /// Print the help.
    Help,
    /// Measure the figures.
    Figures(Options),
    /// Run the soak.
    Soak(Duration),
    /// Be an upstream.
    Upstream(Upstream),
}

/// Which figures, of whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Empty: all.
    pub(crate) only: Vec<String>,
    /// Empty: all.
    pub(crate) proxies: Vec<String>,
    /// Fewer of everything.
    pub(crate) quick: bool,
    /// Processors that do not sleep.
    pub(crate) awake: bool,
    /// JSON instead of a table.
    pub(crate) json: bool,
}

impl Options {
    /// Whether a figure is wanted.
    #[must_use]
    pub(crate) fn wants(&self, figure: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == figure)
    }

    /// Whether a proxy is wanted.
    #[must_use]
    pub(crate) fn wants_proxy(&self, name: &str) -> bool {
        self.proxies.is_empty() || self.proxies.iter().any(|proxy| proxy == name)
    }
}

/// How to be an upstream.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Upstream {
    /// Where to listen.
    pub(crate) listen: SocketAddr,
    /// Where to write what was executed.
    pub(crate) journal: Option<PathBuf>,
    /// What goes wrong.
    pub(crate) behaviour: Behaviour,
}

/// What is wrong with the command line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Usage(String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The figures.
pub(crate) const FIGURES: [&str; 7] = ["F1", "F2", "F3", "R1", "R2", "R3", "P8"];
const PROXIES: [&str; 3] = ["weir", "nginx", "haproxy"];
const SOAK: u64 = 600;

/// Reads the arguments that follow the program's name.
///
/// # Errors
/// An option is unknown or lacks its value.
pub(crate) fn parse(arguments: &[String], soak_seconds: Option<&str>) -> Result<Order, Usage> {
    match arguments.split_first() {
        Some((first, rest)) if first == "soak" => soak(rest, soak_seconds),
        Some((first, rest)) if first == "upstream" => upstream(rest),
        _ => figures(arguments),
    }
}

fn figures(arguments: &[String]) -> Result<Order, Usage> {
    let mut options = Options::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--only" => options.only.push(one_of("--only", rest.next(), &FIGURES)?),
            "--proxy" => options.proxies.push(one_of("--proxy", rest.next(), &PROXIES)?),
            "--quick" => options.quick = true,
            "--awake" => options.awake = true,
            "--json" => options.json = true,
            "--help" | "-h" => return Ok(Order::Help),
            other => return Err(unknown(other)),
        }
    }
    Ok(Order::Figures(options))
}

fn soak(arguments: &[String], environment: Option<&str>) -> Result<Order, Usage> {
    let mut seconds = environment.map_or(Ok(SOAK), |text| number("SOAK_SECONDS", Some(text)))?;
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--seconds" => seconds = number("--seconds", rest.next().map(String::as_str))?,
            other => return Err(unknown(other)),
        }
    }
    Ok(Order::Soak(Duration::from_secs(seconds)))
}

fn upstream(arguments: &[String]) -> Result<Order, Usage> {
    let (mut listen, mut journal, mut behaviour, mut delay) = (None, None, Behaviour::default(), Duration::ZERO);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let value = rest.next();
        match (argument.as_str(), value) {
            ("--listen", Some(value)) => listen = value.parse().ok(),
            ("--journal", Some(value)) => journal = Some(PathBuf::from(value)),
            ("--fault", Some(value)) => behaviour = value.parse().map_err(|error| Usage(format!("--fault: {error}")))?,
            ("--delay-ms", value) => delay = Duration::from_millis(number("--delay-ms", value.map(String::as_str))?),
            (other, _) => return Err(unknown(other)),
        }
    }
    let listen = listen.ok_or_else(|| Usage("`--listen` needs an address and a port".to_owned()))?;
    Ok(Order::Upstream(Upstream { listen, journal, behaviour: Behaviour { delay, ..behaviour } }))
}

fn one_of(option: &str, value: Option<&String>, values: &[&str]) -> Result<String, Usage> {
    let found = value.filter(|value| values.contains(&value.as_str())).cloned();
    found.ok_or_else(|| Usage(format!("`{option}` needs one of {}", values.join(", "))))
}

fn number(option: &str, value: Option<&str>) -> Result<u64, Usage> {
    let number = value.and_then(|value| value.parse().ok());
    number.ok_or_else(|| Usage(format!("`{option}` needs a number")))
}

fn unknown(option: &str) -> Usage {
    Usage(format!("unknown option `{option}`"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_tests::chaos::Fault;

    fn read(line: &str) -> Result<Order, Usage> {
        parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>(), None)
    }

    #[test]
    fn figures_and_proxies_are_chosen_by_name() {
        let Ok(Order::Figures(options)) = read("--only F1 --only R2 --proxy weir --quick") else { panic!("no figures") };
        assert!(options.wants("F1") && options.wants("R2") && !options.wants("F2"));
        assert!(options.wants_proxy("weir") && !options.wants_proxy("nginx") && options.quick && !options.json);
        assert!(!options.awake && matches!(read("--awake"), Ok(Order::Figures(Options { awake: true, .. }))));
        let Ok(Order::Figures(all)) = read("") else { panic!("no figures") };
        assert!(FIGURES.iter().all(|figure| all.wants(figure)));
        for wrong in ["--only P1", "--only", "--proxy envoy", "--fast", "soak --only F1", "soak --seconds long"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_environment_sets_the_length_of_a_soak() {
        assert_eq!(read("soak"), Ok(Order::Soak(Duration::from_secs(600))));
        assert_eq!(parse(&["soak".to_owned()], Some("60")), Ok(Order::Soak(Duration::from_secs(60))));
        assert_eq!(read("soak --seconds 7"), Ok(Order::Soak(Duration::from_secs(7))));
        assert!(parse(&["soak".to_owned()], Some("an hour")).is_err());
    }

    #[test]
    fn an_upstream_is_told_what_goes_wrong() {
        let order = read("upstream --listen 127.0.0.1:80 --fault garbage/3 --delay-ms 5");
        let Ok(Order::Upstream(upstream)) = order else { panic!("{order:?}") };
        assert_eq!(upstream.behaviour.fault, Some((Fault::Garbage, 3)));
        assert_eq!(upstream.behaviour.delay, Duration::from_millis(5));
        assert!(read("upstream").is_err() && read("upstream --listen 127.0.0.1:80 --fault kind").is_err());
    }
}
