//! P7: what many sites cost: per request, to check, to start and to reload.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use weir_tests::{gateway, setup};

use crate::error::Error;
use crate::load::Traffic;
use crate::measure::{self, Row};
use crate::notes::{self, Notes};
use crate::options::Options;
use crate::proxies::{self, Ground, Proxy};
use crate::sheet::{Outcome, Sheet};
use crate::tools::Tools;
use crate::wrk::Wrk;

/// Sites of the gateway that the other is compared with.
const FEW: usize = 10;
/// Sites of the figure.
const MANY: usize = 10_000;
/// For a first look.
const QUICK: usize = 1_000;
/// Goal: CPU per request for the same hosts, in times that with few sites. A look-up that grows with the sites would be far above. Asked
/// for in turn, ten thousand sites also leave the caches, as they would with any look-up: that has no goal.
const FLAT: f64 = 1.05;
/// Goal: seconds to check, to start and to reload.
const SECONDS: f64 = 2.0;
const COLUMNS: [&str; 7] = ["sites", "us/req, same ten", "us/req, in turn", "check s", "start s", "reload s", "RSS MB"];

/// What so many sites cost.
#[derive(Clone, Debug, Default)]
struct Cost {
    sites: usize,
    /// All hosts in turn; nothing when there is no `wrk`.
    row: Option<Row>,
    /// Only the few hosts that both gateways have.
    same: Option<Row>,
    check: f64,
    start: f64,
    reload: f64,
    memory: u64,
}

/// Measures both numbers of sites.
pub(crate) fn measure(ground: &Ground, origin: SocketAddr, tools: &Tools, options: &Options, notes: &mut Notes) -> Sheet {
    let counts = [FEW, if options.quick { QUICK } else { MANY }];
    notes::say(&format!("{} and {} sites", counts[0], counts[1]));
    let mut costs = Vec::new();
    for count in counts {
        match load(ground, origin, count) {
            Ok(cost) => costs.push(cost),
            Err(error) => notes.fail(&format!("P7 with {count} sites: {error}")),
        }
    }
    match (&tools.wrk, costs.len()) {
        (None, _) => notes.skip("no P7 look-ups: they are driven by wrk"),
        (Some(wrk), 2) => {
            if let Err(error) = look_ups(ground, origin, wrk, options, &mut costs) {
                notes.fail(&format!("P7: {error}"));
            }
        }
        _ => {}
    }
    sheet(&costs)
}

fn sheet(costs: &[Cost]) -> Sheet {
    let many = costs.get(1);
    let cpu = |row: Option<&Row>| row.map(|row| row.cpu_us).filter(|cpu| *cpu > 0.0);
    let few = cpu(costs.first().and_then(|cost| cost.row.as_ref()));
    let ratio = |row: Option<&Row>| cpu(row).zip(few).map(|(many, few)| many / few);
    let outcome = |value, unit, goal| Outcome { id: "P7", value, unit, goal };
    let outcomes = vec![
        outcome(ratio(many.and_then(|cost| cost.same.as_ref())), "x the CPU of few sites, the same few among many", Some(FLAT)),
        outcome(ratio(many.and_then(|cost| cost.row.as_ref())), "x the CPU of few sites, all of many in turn", None),
        outcome(many.map(|cost| cost.check), "s to check many sites", Some(SECONDS)),
        outcome(many.map(|cost| cost.start), "s to start with many sites", Some(SECONDS)),
        outcome(many.map(|cost| cost.reload), "s to reload many sites", Some(SECONDS)),
    ];
    let row = |cost: &Cost| {
        let cpu = |row: Option<&Row>| row.map_or_else(|| "-".to_owned(), |row| format!("{:.1}", row.cpu_us));
        let (same, turn) = (cpu(cost.same.as_ref()), cpu(cost.row.as_ref()));
        let seconds = |value: f64| format!("{value:.2}");
        let memory = format!("{:.0}", cost.memory as f64 / 1e6);
        vec![cost.sites.to_string(), same, turn, seconds(cost.check), seconds(cost.start), seconds(cost.reload), memory]
    };
    Sheet {
        id: "P7",
        title: "sites: a file, a host and an upstream each; look-ups before one upstream".to_owned(),
        columns: &COLUMNS,
        rows: costs.iter().map(row).collect(),
        outcomes,
    }
}

/// Checks, starts and reloads.
fn load(ground: &Ground, origin: SocketAddr, count: usize) -> Result<Cost, Error> {
    let (directory, address) = (directory(ground, count, true), proxies::free_address()?);
    let config = write(ground, &directory, &Sites { address, origin, count, own_upstreams: true });
    let check = seconds(|| run_check(&config))?.0;
    let (start, proxy) = seconds(|| start(ground, &config, address))?;
    // Another host name, so that there is something to load.
    ground.scratch.write(&format!("{directory}/sites.d/0.toml"), site(0, origin, "changed.bench.test", true));
    let admin = ground.scratch.path().join(&directory).join("state/admin.sock");
    let reload = seconds(|| reload(&admin))?.0;
    Ok(Cost { sites: count, row: None, same: None, check, start, reload, memory: proxy.process.usage()?.memory })
}

fn seconds<T>(what: impl FnOnce() -> Result<T, Error>) -> Result<(f64, T), Error> {
    let started = Instant::now();
    let done = what()?;
    Ok((started.elapsed().as_secs_f64(), done))
}

fn run_check(config: &Path) -> Result<(), Error> {
    let failed = |reason: String| Error::Load { target: "weir check".to_owned(), reason };
    let mut command = Command::new(setup::binary());
    let output = command.args(["check", "--config"]).arg(config).stdin(Stdio::null()).output();
    let output = output.map_err(|error| failed(error.to_string()))?;
    if output.status.success() { Ok(()) } else { Err(failed(String::from_utf8_lossy(&output.stderr).into_owned())) }
}

fn reload(admin: &Path) -> Result<(), Error> {
    let failed = |reason: String| Error::Load { target: "POST /v1/reload".to_owned(), reason };
    let answer = gateway::ask_admin(admin, "POST /v1/reload").map_err(|error| failed(error.to_string()))?;
    if answer.status == 200 { Ok(()) } else { Err(failed(answer.text())) }
}

/// A gateway that is asked for some of its sites.
struct Asked<'a> {
    proxy: &'a Proxy,
    wrk: Wrk,
    rows: Vec<Row>,
}

/// CPU per request: few sites, the same few among many, and many in turn.
fn look_ups(ground: &Ground, origin: SocketAddr, wrk: &Path, options: &Options, costs: &mut [Cost]) -> Result<(), Error> {
    let mut proxies: Vec<Proxy> = Vec::new();
    for cost in costs.iter() {
        let (directory, address) = (directory(ground, cost.sites, false), proxies::free_address()?);
        let config = write(ground, &directory, &Sites { address, origin, count: cost.sites, own_upstreams: false });
        proxies.push(start(ground, &config, address)?);
    }
    let most = costs.iter().map(|cost| cost.sites).max().unwrap_or(1);
    let asked = |proxy, count| {
        let wrk = Wrk::for_sites(wrk.to_owned(), &ground.scratch, count, most);
        Asked { proxy, wrk, rows: Vec::new() }
    };
    let [few, many] = proxies.as_slice() else { return Ok(()) };
    let mut driven = [asked(few, FEW), asked(many, FEW), asked(many, most)];
    for one in &driven {
        one.wrk.drive(&measure::target(one.proxy, Traffic::Plain)?, 1)?;
    }
    for _ in 0..options.rounds {
        for Asked { proxy, wrk, rows } in &mut driven {
            let seconds = options.seconds;
            rows.push(measure::timed(proxy, Traffic::Plain, seconds, |target| wrk.drive(target, seconds))?);
        }
    }
    let [few, same, turn] = driven.map(|asked| measure::median(asked.rows));
    if let Some(row) = [&few, &same, &turn].into_iter().flatten().find(|row| row.refused > 0) {
        let reason = format!("answered {} requests with other than 2xx", row.refused);
        return Err(Error::Load { target: "weir".to_owned(), reason });
    }
    if let [first, last] = costs {
        first.same.clone_from(&few);
        (first.row, last.same, last.row) = (few, same, turn);
    }
    Ok(())
}

fn start(ground: &Ground, config: &Path, address: SocketAddr) -> Result<Proxy, Error> {
    let mut command = Command::new(setup::binary());
    command.args(["run", "--config"]).arg(config);
    proxies::start(ground, "weir sites", command, address, None)
}

fn directory(ground: &Ground, count: usize, own_upstreams: bool) -> String {
    // Where the log of both goes.
    ground.scratch.write("weir-sites/log", "");
    format!("weir-sites/{count}-{}", if own_upstreams { "own" } else { "one" })
}

/// What is written.
struct Sites {
    address: SocketAddr,
    origin: SocketAddr,
    count: usize,
    own_upstreams: bool,
}

fn write(ground: &Ground, directory: &str, sites: &Sites) -> PathBuf {
    for number in 0..sites.count {
        let text = site(number, sites.origin, &format!("site{number}.bench.test"), sites.own_upstreams);
        ground.scratch.write(&format!("{directory}/sites.d/{number}.toml"), text);
    }
    let upstream = if sites.own_upstreams { String::new() } else { upstream("origin", sites.origin) };
    ground.scratch.write(
        &format!("{directory}/weir.toml"),
        format!(
            "[server]\nworkers = 1\nplugins = \"none\"\ninclude = [\"sites.d/*.toml\"]\n[telemetry]\naccess_log = \"off\"\n[[listener]]\naddress = \"{}\"\n{upstream}",
            sites.address
        ),
    )
}

fn upstream(name: &str, origin: SocketAddr) -> String {
    format!("[upstream.{name}]\nservers = [{{ url = \"http://{origin}\" }}]\n")
}

fn site(number: usize, origin: SocketAddr, host: &str, own_upstream: bool) -> String {
    let own = format!("origin{number}");
    let (name, section) = if own_upstream { (own.as_str(), upstream(&own, origin)) } else { ("origin", String::new()) };
    format!("{section}[[site]]\nname = \"site{number}\"\nhosts = [\"{host}\"]\nupstream = \"{name}\"\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Sample;

    fn cost(sites: usize, cpu_us: f64) -> Cost {
        let row = Row {
            proxy: "weir sites",
            traffic: Traffic::Plain,
            cpu_us,
            sample: Sample::default(),
            memory: 0,
            refused: 0,
            errors: 0,
        };
        Cost {
            sites,
            row: Some(row.clone()),
            same: Some(Row { cpu_us: 10.5, ..row }),
            check: 1.0,
            start: 1.25,
            reload: 0.5,
            memory: 50_000_000,
        }
    }

    #[test]
    fn many_are_compared_with_few() {
        let sheet = sheet(&[cost(10, 10.0), cost(10_000, 11.0)]);
        assert_eq!(sheet.rows[1], ["10000", "10.5", "11.0", "1.00", "1.25", "0.50", "50"]);
        let values: Vec<Option<f64>> = sheet.outcomes.iter().map(|outcome| outcome.value).collect();
        assert_eq!(values, [Some(1.05), Some(1.1), Some(1.0), Some(1.25), Some(0.5)]);
    }

    #[test]
    fn nothing_is_made_of_few_alone() {
        let sheet = sheet(&[cost(10, 10.0)]);
        assert!(sheet.outcomes.iter().all(|outcome| outcome.value.is_none()));
    }
}
