//! P8: what requests notice of one new build of a plugin after the other, how soon each is live, and what a thousand leave behind.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use weir_tests::open_loop::{OpenLoop, Plan, Seen, Summary};
use weir_tests::process::{Process, ProcessError};
use weir_tests::slope::slope;
use weir_tests::{Connection, Request, Scratch, gateway, sockets, wasm};

use crate::bearable::bearable;
use crate::configs::beginning;
use crate::error::Error;
use crate::options::Options;
use crate::report::{Goal, Value};
use crate::stage::{Kind, Server};
use crate::{say, say_lost};

/// The plugin that is replaced.
const PLUGIN: &str = "ips";
const HOST: &str = "swaps.test";
/// How often what, in full and for a first look.
const FULL: Script = Script { rate: 5_000, rounds: 20, swaps: 5, beside: 300, many: 1_000 };
const QUICK: Script = Script { rate: 5_000, rounds: 2, swaps: 5, beside: 300, many: 50 };
/// A quiet stretch.
const STRETCH: Duration = Duration::from_secs(2);
/// The longest stretch with swaps.
const LONGEST: Duration = Duration::from_secs(120);
/// Of the many, the share in which pools fill, pages are touched for the first time and the allocator takes what it needs.
const WARM_UP: f64 = 0.2;
/// Memory that a swap may take, in KiB, beyond so many standard errors of the line through the samples. A build that was forgotten would be
/// hundreds.
const GROWTH: f64 = 1.0;
const SCATTER: f64 = 3.0;
/// Files that may lie in the state directory, and their bytes in MiB: 512 MiB of compiled forms are kept, which are some 850 of this
/// plugin, each with its statistics and its note.
const FILES: f64 = 3_000.0;
const BYTES: f64 = 600.0;
/// How long the many may take.
const SWAPPING: Duration = Duration::from_secs(15 * 60);
/// How long the first answer, and a swap, may take.
const READY: Duration = Duration::from_secs(60);
const LIVE: Duration = Duration::from_secs(30);
/// How often the gateway is asked what is live.
const POLL: Duration = Duration::from_millis(50);
/// At the beginning of a stretch its clients are still being started: that belongs to no server.
const BEGINNING: Duration = Duration::from_millis(200);

/// What is played.
struct Script {
    /// Requests a second.
    rate: u32,
    /// Stretches of each kind, in turns, so that a busy machine is busy in both.
    rounds: usize,
    /// Swaps in a stretch, one as soon as the other is live.
    swaps: usize,
    /// Requests a second beside the many.
    beside: u32,
    /// Swaps for the sake of what they leave behind.
    many: usize,
}

/// The rows.
pub(crate) const P8: [(&str, Goal); 15] = [
    ("P8 KiB of the plugin", Goal::AtLeast(300.0)),
    ("P8 requests per second", Goal::None),
    ("P8 quiet: p99 ms", Goal::None),
    ("P8 swaps: % of those meant", Goal::AtLeast(100.0)),
    ("P8 swaps: requests lost", Goal::AtMost(0.0)),
    ("P8 swaps: p99, times that of quiet", Goal::AtMost(2.0)),
    ("P8 swaps: ms from file to live, median", Goal::AtMost(1000.0)),
    ("P8 swaps: ms from file to live, worst", Goal::AtMost(1000.0)),
    ("P8 many: swaps", Goal::None),
    ("P8 many: % of those meant", Goal::AtLeast(100.0)),
    ("P8 many: requests lost", Goal::AtMost(0.0)),
    ("P8 many: KiB of memory per swap, beyond scatter", Goal::AtMost(GROWTH)),
    ("P8 many: copies of plugins kept", Goal::AtMost(3.0)),
    ("P8 many: files in state", Goal::AtMost(FILES)),
    ("P8 many: MiB in state", Goal::AtMost(BYTES)),
];

/// Swaps under load, then many.
///
/// # Errors
/// The gateway does not start, or a build does not become live.
pub(crate) fn p8(_: Kind, program: &Path, options: &Options) -> Result<Vec<Value>, Error> {
    let script = if options.quick { QUICK } else { FULL };
    let mut stage = Stage::set(program)?;
    let rate = bearable(script.rate, |rate| stage.load(rate, STRETCH).finish());
    let (mut quiet, mut beside, mut times) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..script.rounds {
        quiet.extend(stage.load(rate, STRETCH).finish());
        let builds: Vec<Build> = (0..script.swaps).map(|_| stage.build()).collect();
        let load = stage.load(rate, LONGEST);
        load.reach(BEGINNING);
        for build in builds {
            times.push(stage.swap(&build)?);
        }
        beside.extend(load.stop());
    }
    let settled = |seen: &[Seen]| Summary::of(seen.iter().filter(|one| one.offset >= BEGINNING));
    let (without, with) = (settled(&quiet), settled(&beside));
    say(&format!("  quiet p50 {:?} p99 {:?}; beside p50 {:?} p99 {:?}", without.p50, without.p99, with.p50, with.p99));
    say_lost(&quiet);
    say_lost(&beside);
    times.sort_unstable();
    let mut rows = vec![
        Value::number((stage.size / 1024) as f64),
        Value::number(f64::from(rate)),
        Value::millis(without.p99),
        Value::number((times.len() * 100 / (script.rounds * script.swaps)) as f64),
        Value::count(Summary::of(quiet.iter().chain(&beside)).lost()),
        Value::ratio(with.p99.as_secs_f64() / without.p99.as_secs_f64()),
        Value::millis(times.get(times.len() / 2).copied().unwrap_or_default()),
        Value::millis(times.last().copied().unwrap_or_default()),
    ];
    rows.extend(many(&mut stage, &script)?);
    Ok(rows)
}

/// What many swaps leave behind.
fn many(stage: &mut Stage, script: &Script) -> Result<Vec<Value>, Error> {
    let (mut samples, mut seen) = (Vec::new(), Vec::new());
    let (started, mut load) = (Instant::now(), stage.load(script.beside, LONGEST));
    for number in 0..script.many {
        if started.elapsed() > SWAPPING {
            break;
        }
        let build = stage.build();
        stage.swap(&build)?;
        samples.push((number as f64, stage.process.usage()?.memory as f64 / 1024.0));
        if load.elapsed() > LONGEST / 2 {
            seen.extend(std::mem::replace(&mut load, stage.load(script.beside, LONGEST)).stop());
        }
    }
    seen.extend(load.stop());
    say_lost(&seen);
    let done = samples.len();
    let settled = samples.get((done as f64 * WARM_UP) as usize..).unwrap_or_default();
    let line = slope(settled).ok_or_else(|| Error::Void { why: "too few samples of memory".to_owned() })?;
    let mib = |at: usize| samples.get(at).map_or(0.0, |(_, kib)| kib / 1024.0);
    say(&format!(
        "  memory after 1, {} and {} swaps: {:.1}, {:.1} and {:.1} MiB; {:+.2} +- {:.2} KiB per swap",
        done - settled.len() + 1,
        done,
        mib(0),
        mib(done - settled.len()),
        mib(done - 1),
        line.per_unit,
        line.error
    ));
    let state = stage.scratch.path().join("state");
    let copies = files(&state.join("plugins")).iter().filter(|(name, _)| name.ends_with(".wasm")).count();
    let all = files(&state);
    Ok(vec![
        Value::count(done),
        Value::number((done * 100 / script.many) as f64),
        Value::count(Summary::of(&seen).lost()),
        Value::ratio((line.per_unit - SCATTER * line.error).max(0.0)),
        Value::count(copies),
        Value::count(all.len()),
        Value::number(all.iter().map(|(_, bytes)| *bytes as f64).sum::<f64>() / f64::from(1 << 20)),
    ])
}

/// A build of the plugin that is not in its place yet.
struct Build {
    number: usize,
    file: PathBuf,
    digest: String,
}

/// Weir as it comes, with the plugin that is replaced and another one.
struct Stage {
    proxy: SocketAddr,
    process: Process,
    number: usize,
    size: u64,
    scratch: Scratch,
    _origin: Server,
}

impl Stage {
    fn set(program: &Path) -> Result<Self, Error> {
        let scratch = Scratch::new();
        let origin = Server::start(&scratch, "origin", Duration::ZERO)?;
        let proxy = sockets::free_address().map_err(Error::system("no free port"))?;
        let plugins = scratch.path().join("plugins");
        fs::create_dir_all(&plugins).map_err(Error::system("no directory"))?;
        for plugin in [PLUGIN, "agent-acl"] {
            let copied = fs::copy(wasm::policy(plugin), plugins.join(format!("{plugin}.wasm")));
            copied.map_err(Error::system("no copy of a plugin"))?;
        }
        let size = fs::metadata(wasm::policy(PLUGIN)).map_err(Error::system("no plugin"))?.len();
        let config = scratch.write("weir.toml", config(scratch.path(), proxy, origin.address));
        let mut command = Command::new(program);
        command.args(["run", "--config"]).arg(&config);
        let process = Process::start("weir", command, scratch.path().join("weir.log"), &[proxy])?;
        let stage = Self { proxy, process, number: 0, size, scratch, _origin: origin };
        stage.wait_until_ready()?;
        Ok(stage)
    }

    fn wait_until_ready(&self) -> Result<(), Error> {
        let started = Instant::now();
        let ask = || Connection::open(self.proxy)?.ask(&Request::get("/").host(HOST).header(weir_tests::chaos::ID, "0"));
        while !ask().is_ok_and(|answer| answer.status == 200) {
            if started.elapsed() > READY {
                return Err(ProcessError::NotReady { program: "weir".to_owned(), said: self.process.said() }.into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn load(&self, rate: u32, length: Duration) -> OpenLoop {
        // POSTs are written down by the origin, which waits for the disk.
        OpenLoop::start(Plan { rate, length, clients: 64, only_gets: true, ..Plan::to(self.proxy, HOST) })
    }

    /// Makes another build of the plugin, ready to be moved.
    fn build(&mut self) -> Build {
        self.number += 1;
        let bytes = wasm::changed(&wasm::policy(PLUGIN), &format!("build {}", self.number));
        let digest = weir_plugins::digest(&bytes);
        Build { number: self.number, file: self.scratch.write(&format!("{PLUGIN}-{}.wasm", self.number), bytes), digest }
    }

    /// Moves a build over the plugin's file, and waits until it is live. Answers how long that took.
    fn swap(&self, build: &Build) -> Result<Duration, Error> {
        let moved = Instant::now();
        let target = self.scratch.path().join("plugins").join(format!("{PLUGIN}.wasm"));
        fs::rename(&build.file, target).map_err(Error::system("a build cannot be moved"))?;
        while !self.is_live(&build.digest) {
            if moved.elapsed() > LIVE {
                let why = format!("build {} is not live; it said:\n{}", build.number, self.process.said());
                return Err(Error::Void { why });
            }
            std::thread::sleep(POLL);
        }
        Ok(moved.elapsed())
    }

    fn is_live(&self, digest: &str) -> bool {
        let answer = gateway::ask_admin(&self.scratch.path().join("state/admin.sock"), "GET /v1/plugins");
        let plugins = answer.ok().and_then(|answer| serde_json::from_slice::<Json>(&answer.body).ok()).unwrap_or_default();
        let mut plugins = plugins["plugins"].as_array().into_iter().flatten();
        plugins.any(|plugin| plugin["name"] == PLUGIN && plugin["state"] == "live" && plugin["digest"] == digest)
    }
}

/// Every file below a directory: its name and its bytes.
fn files(directory: &Path) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => found.extend(files(&entry.path())),
            Ok(metadata) => found.push((entry.file_name().to_string_lossy().into_owned(), metadata.len())),
            // Removed meanwhile.
            Err(_) => {}
        }
    }
    found
}

fn config(directory: &Path, proxy: SocketAddr, origin: SocketAddr) -> String {
    let servers = format!("{{ url = \"http://{origin}\" }}");
    let beginning = beginning(directory, 2, &proxy, &servers);
    format!(
        "{beginning}[policy.acl]
plugin = \"agent-acl\"
config = {{ model = \"all-traffic\" }}
[policy.ips]
plugin = \"{PLUGIN}\"
[[site]]
name = \"swaps\"
hosts = [\"{HOST}\"]
upstream = \"origin\"
chain = [\"acl\", \"ips\"]
"
    )
}
