//! R3: what other requests notice of a policy that misbehaves, on the one worker they all share.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use weir_tests::open_loop::{OpenLoop, Outcome, Plan, Seen, Summary};
use weir_tests::process::{Process, ProcessError};
use weir_tests::{Connection, Request, Scratch, sockets, wasm};

use crate::bearable::bearable;
use crate::configs::beginning;
use crate::error::Error;
use crate::options::Options;
use crate::processors::{Given, give_one};
use crate::report::{Goal, Value};
use crate::stage::{Kind, Server};
use crate::{say, say_lost};

/// Requests a second that harm nobody, half of them through the policy that misbehaves.
const RATE: u32 = 5_000;
/// The same for a first look, and where the machine cannot keep up.
const QUICK_RATE: u32 = 1_000;
/// A quiet stretch, and one with harm.
const STRETCH: Duration = Duration::from_secs(1);
/// Of each, taken in turns, so that a busy machine is busy in both. What counts is the median of the stretches: a virtual machine that
/// stands still for some milliseconds, which this one cannot prevent, spoils the stretch in which it does.
const ROUNDS: usize = 9;
/// The same for a first look.
const QUICK_ROUNDS: usize = 3;
/// Requests that do harm: one in so many.
const HARMFUL: u32 = 100;
const QUIET: &str = "quiet.test";
const GUARDED: &str = "guarded.test";
/// How long the first answer may take.
const READY: Duration = Duration::from_secs(60);

/// What a policy does: its name, what the guest is asked for, how the request that asks for it ends.
struct Harm {
    name: &'static str,
    order: &'static str,
    status: u16,
}

const HARMS: [Harm; 6] = [
    Harm { name: "trap", order: "request panic", status: 503 },
    Harm { name: "loop", order: "request loop", status: 503 },
    Harm { name: "allocate", order: "request hoard", status: 503 },
    Harm { name: "recurse", order: "request recurse 100000000", status: 503 },
    Harm { name: "flood of lines", order: "request log 2000 10", status: 200 },
    Harm { name: "huge line", order: "request log 1 2000000", status: 200 },
];

/// The rows: three for each harm, after two that tell what they are compared with.
pub(crate) const R3: [(&str, Goal); 20] = [
    ("R3 requests per second, one worker", Goal::None),
    ("R3 quiet: p99 ms", Goal::None),
    ("R3 trap: others lost", Goal::AtMost(0.0)),
    ("R3 trap: others' p99, times that of quiet", Goal::AtMost(2.0)),
    ("R3 trap: % of the harmful ended as stated", Goal::AtLeast(100.0)),
    ("R3 loop: others lost", Goal::AtMost(0.0)),
    ("R3 loop: others' p99, times that of quiet", Goal::AtMost(2.0)),
    ("R3 loop: % of the harmful ended as stated", Goal::AtLeast(100.0)),
    ("R3 allocate: others lost", Goal::AtMost(0.0)),
    ("R3 allocate: others' p99, times that of quiet", Goal::AtMost(2.0)),
    ("R3 allocate: % of the harmful ended as stated", Goal::AtLeast(100.0)),
    ("R3 recurse: others lost", Goal::AtMost(0.0)),
    ("R3 recurse: others' p99, times that of quiet", Goal::AtMost(2.0)),
    ("R3 recurse: % of the harmful ended as stated", Goal::AtLeast(100.0)),
    ("R3 flood of lines: others lost", Goal::AtMost(0.0)),
    ("R3 flood of lines: others' p99, times that of quiet", Goal::AtMost(2.0)),
    ("R3 flood of lines: % of the harmful ended as stated", Goal::AtLeast(100.0)),
    ("R3 huge line: others lost", Goal::AtMost(0.0)),
    ("R3 huge line: others' p99, times that of quiet", Goal::AtMost(2.0)),
    ("R3 huge line: % of the harmful ended as stated", Goal::AtLeast(100.0)),
];

/// Plays one harm after the other.
///
/// # Errors
/// The gateway does not start.
pub(crate) fn r3(_: Kind, program: &Path, options: &Options) -> Result<Vec<Value>, Error> {
    let (rate, rounds) = if options.quick { (QUICK_RATE, QUICK_ROUNDS) } else { (RATE, ROUNDS) };
    let stage = Stage::set(program)?;
    let rate = bearable(rate, |rate| stage.others(rate).finish());
    let mut values = Vec::new();
    let mut all_quiet = Stretches::default();
    for harm in &HARMS {
        let (mut quiet, mut beside, mut harmful) = (Stretches::default(), Stretches::default(), Vec::new());
        for _ in 0..rounds {
            quiet.add(&stage.others(rate).finish());
            let load = (stage.others(rate), stage.harm(rate, harm));
            beside.add(&load.0.finish());
            harmful.extend(load.1.finish());
        }
        let p99 = |stretches: &Stretches| stretches.median(|stretch| stretch.p99);
        let of = |stretches: &Stretches| {
            (stretches.median(|stretch| stretch.p50), stretches.median(|stretch| stretch.p90), p99(stretches))
        };
        say(&format!(
            "  {}: p50, p90 and p99 {:?} quiet, {:?} beside it; of the worst stretch {:?} and {:?}",
            harm.name,
            of(&quiet),
            of(&beside),
            quiet.worst(),
            beside.worst()
        ));
        let ended = harmful.iter().filter(|seen| seen.outcome == Outcome::Status(harm.status)).count();
        values.push(Value::count(quiet.lost() + beside.lost()));
        values.push(Value::ratio(p99(&beside).as_secs_f64() / p99(&quiet).as_secs_f64()));
        values.push(Value::number(100.0 * ended as f64 / harmful.len().max(1) as f64));
        all_quiet.0.extend(quiet.0);
    }
    let mut rows = vec![Value::number(f64::from(rate)), Value::millis(all_quiet.median(|stretch| stretch.p99))];
    rows.extend(values);
    Ok(rows)
}

/// What the others saw in each stretch.
#[derive(Default)]
struct Stretches(Vec<Summary>);

impl Stretches {
    fn add(&mut self, seen: &[Seen]) {
        say_lost(seen);
        self.0.push(Summary::of(seen));
    }

    fn median(&self, value: impl Fn(&Summary) -> Duration) -> Duration {
        let mut values: Vec<_> = self.0.iter().map(value).collect();
        values.sort_unstable();
        values.get(values.len() / 2).copied().unwrap_or_default()
    }

    /// The longest p99.
    fn worst(&self) -> Duration {
        self.0.iter().map(|stretch| stretch.p99).max().unwrap_or_default()
    }

    fn lost(&self) -> usize {
        self.0.iter().map(Summary::lost).sum()
    }
}

/// Weir with one worker, a site without policies and one with the policy that misbehaves.
struct Stage {
    proxy: SocketAddr,
    process: Process,
    _origin: Server,
    _processor: Option<Given>,
    _scratch: Scratch,
}

impl Stage {
    fn set(program: &Path) -> Result<Self, Error> {
        let scratch = Scratch::new();
        let origin = Server::start(&scratch, "origin", Duration::ZERO)?;
        let proxy = sockets::free_address().map_err(Error::system("no free port"))?;
        let plugins = scratch.path().join("plugins");
        fs::create_dir_all(&plugins).map_err(Error::system("no directory"))?;
        fs::copy(wasm::guest("hostile"), plugins.join("hostile.wasm")).map_err(Error::system("no copy of the guest"))?;
        let config = scratch.write("weir.toml", config(scratch.path(), proxy, origin.address));
        let mut command = Command::new(program);
        command.args(["run", "--config"]).arg(&config);
        let process = Process::start("weir", command, scratch.path().join("weir.log"), &[proxy])?;
        let (gateway, others) = (process.id(), origin.id());
        let stage = Self { proxy, process, _origin: origin, _processor: None, _scratch: scratch };
        stage.wait_until_ready()?;
        let given = give_one(gateway, others.as_slice());
        let given = given.map_err(|error| Error::system("no processor for the gateway")(error.into()))?;
        Ok(Self { _processor: Some(given), ..stage })
    }

    fn wait_until_ready(&self) -> Result<(), Error> {
        let started = Instant::now();
        let ask = || Connection::open(self.proxy)?.ask(&Request::get("/").host(GUARDED).header(weir_tests::chaos::ID, "0"));
        while !ask().is_ok_and(|answer| answer.status == 200) {
            if started.elapsed() > READY {
                return Err(ProcessError::NotReady { program: "weir".to_owned(), said: self.process.said() }.into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Requests that harm nobody.
    fn others(&self, rate: u32) -> Both {
        let plan =
            |host: &str| Plan { rate: rate / 2, length: STRETCH, clients: 32, only_gets: true, ..Plan::to(self.proxy, host) };
        Both(OpenLoop::start(plan(QUIET)), OpenLoop::start(Plan { first_id: 1_000_000, ..plan(GUARDED) }))
    }

    /// Requests that do.
    fn harm(&self, rate: u32, harm: &Harm) -> OpenLoop {
        let fields = format!("x-do: {}\r\n", harm.order);
        let plan = Plan {
            rate: (rate / HARMFUL).max(1),
            length: STRETCH,
            clients: 32,
            only_gets: true,
            ..Plan::to(self.proxy, GUARDED)
        };
        OpenLoop::start(Plan { fields, first_id: 2_000_000, ..plan })
    }
}

/// Load on both sites.
struct Both(OpenLoop, OpenLoop);

impl Both {
    fn finish(self) -> Vec<Seen> {
        let mut all = self.0.finish();
        all.extend(self.1.finish());
        all
    }
}

fn config(directory: &Path, proxy: SocketAddr, origin: SocketAddr) -> String {
    let servers = format!("{{ url = \"http://{origin}\" }}");
    let beginning = beginning(directory, 1, &proxy, &servers);
    format!(
        "{beginning}[policy.hostile]
plugin = \"hostile\"
grants = [\"kv\"]
[[site]]
name = \"quiet\"
hosts = [\"{QUIET}\"]
upstream = \"origin\"
[[site]]
name = \"guarded\"
hosts = [\"{GUARDED}\"]
upstream = \"origin\"
chain = [\"hostile\"]
"
    )
}
