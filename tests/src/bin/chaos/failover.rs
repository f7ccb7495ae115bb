//! F1, F2, F3: what clients notice when upstreams die.

use std::path::Path;
use std::time::{Duration, Instant};

use weir_tests::BlackHole;
use weir_tests::open_loop::{OpenLoop, Plan, Seen, Summary};

use crate::configs::HOST;
use crate::error::Error;
use crate::options::Options;
use crate::report::{Goal, Value};
use crate::stage::{Kind, Stage};

/// How long an upstream takes for an answer, so that there are requests under way when it dies.
pub(crate) const DELAY: Duration = Duration::from_millis(10);
/// Kills of the primary.
const KILLS: u32 = 6;
/// How long the primary stays dead.
const DEAD: Duration = Duration::from_millis(700);
/// How long it serves before it dies again.
const SERVES: Duration = Duration::from_millis(1500);
/// How long a proxy may take to send requests to the primary again.
const BACK: Duration = Duration::from_secs(25);
/// The length of the load before and after an event.
const BEFORE: Duration = Duration::from_secs(2);
const AFTER: Duration = Duration::from_secs(8);
/// A request that takes longer noticed.
const NOTICED: Duration = Duration::from_millis(500);
/// After so long everybody knows that the primary is down: a request that still waits for it is used as a probe.
const KNOWN: Duration = Duration::from_secs(3);
/// An answer of an upstream that is up takes [`DELAY`]; with so much more it came after an attempt at the one that is not.
const PROBED: Duration = Duration::from_millis(200);
/// Requests that may be under way: a second's worth of them waits for a connection.
const CLIENTS: usize = 512;
/// Where answers come at once: the threads of many would wait for each other more than for the proxy.
const FEW: usize = 32;

/// The rows of F1.
pub(crate) const F1: [(&str, Goal); 5] = [
    ("F1 GETs lost", Goal::AtMost(0.0)),
    ("F1 POSTs executed twice", Goal::AtMost(0.0)),
    ("F1 POSTs lost that were not under way at a kill", Goal::AtMost(0.0)),
    ("F1 POSTs lost that were, and had left", Goal::None),
    ("F1 requests (GET and POST)", Goal::None),
];

/// `kill -9` and restart of the primary under load.
///
/// # Errors
/// Nothing can be measured.
pub(crate) fn f1(kind: Kind, program: &Path, options: &Options) -> Result<Vec<Value>, Error> {
    let stage = &mut Stage::set(kind, program, DELAY, None)?;
    let kills = if options.quick { 2 } else { KILLS };
    let length = (BACK + DEAD + SERVES) * kills;
    let load = OpenLoop::start(Plan { length, clients: 128, ..Plan::to(stage.proxy, HOST) });
    let mut killed = Vec::new();
    for _ in 0..kills {
        if !serves(stage) {
            break;
        }
        std::thread::sleep(SERVES);
        let before = load.elapsed();
        stage.primary.kill();
        killed.push((before, load.elapsed()));
        std::thread::sleep(DEAD);
        stage.primary.begin()?;
    }
    std::thread::sleep(SERVES);
    let seen = load.stop();
    if killed.len() < kills as usize {
        let killed = killed.len();
        return Err(Error::Void { why: format!("after {killed} kills the primary got no requests for {BACK:?}") });
    }
    crate::say_lost(&seen);
    let lost_posts: Vec<&Seen> = seen.iter().filter(|one| one.is_post && one.is_lost()).collect();
    let at_kill = lost_posts.iter().filter(|one| one.was_under_way(&killed)).count();
    let summary = Summary::of(&seen);
    Ok(vec![
        Value::count(summary.lost_gets),
        Value::number(stage.executed().duplicates() as f64),
        Value::count(lost_posts.len() - at_kill),
        Value::count(at_kill),
        Value::count(summary.requests),
    ])
}

/// Whether the primary gets requests, sooner or later.
fn serves(stage: &Stage) -> bool {
    let started = Instant::now();
    let mut last = stage.primary.requests();
    while started.elapsed() < BACK {
        std::thread::sleep(Duration::from_millis(100));
        let now = stage.primary.requests();
        if now > last && last.is_some() {
            return true;
        }
        last = now;
    }
    false
}

/// The rows of F2.
pub(crate) const F2: [(&str, Goal); 5] = [
    ("F2 requests over 0.5 s", Goal::AtMost(0.0)),
    ("F2 lost", Goal::AtMost(0.0)),
    ("F2 slow later than 3 s after (user requests as probes)", Goal::AtMost(0.0)),
    ("F2 p99 ms", Goal::AtMost(300.0)),
    ("F2 max ms", Goal::None),
];

/// The primary's port takes no more connections, silently.
///
/// # Errors
/// Nothing can be measured.
pub(crate) fn f2(kind: Kind, program: &Path, _: &Options) -> Result<Vec<Value>, Error> {
    let stage = &mut Stage::set(kind, program, DELAY, None)?;
    before(stage)?;
    stage.primary.kill();
    let hole = BlackHole::at(stage.primary.address);
    let seen = OpenLoop::start(Plan { length: AFTER, ..plan(stage) }).finish();
    drop(hole);
    crate::say_lost(&seen);
    let noticed = seen.iter().filter(|one| one.latency > NOTICED).count();
    let probes = seen.iter().filter(|one| one.offset > KNOWN && one.latency > PROBED).count();
    let summary = Summary::of(&seen);
    Ok(vec![
        Value::count(noticed),
        Value::count(summary.lost()),
        Value::count(probes),
        Value::millis(summary.p99),
        Value::millis(summary.max),
    ])
}

/// The rows of F3.
pub(crate) const F3: [(&str, Goal); 3] =
    [("F3 p99 ms of the answer", Goal::AtMost(5.0)), ("F3 p50 ms", Goal::None), ("F3 max ms", Goal::None)];

/// Both upstreams are dead: their ports refuse.
///
/// # Errors
/// Nothing can be measured.
pub(crate) fn f3(kind: Kind, program: &Path, _: &Options) -> Result<Vec<Value>, Error> {
    let stage = &mut Stage::set(kind, program, DELAY, None)?;
    before(stage)?;
    stage.primary.kill();
    stage.secondary.kill();
    let seen = OpenLoop::start(Plan { length: AFTER / 2, clients: FEW, ..plan(stage) }).finish();
    if let Some(one) = seen.iter().find(|one| !one.is_lost()) {
        return Err(Error::Void { why: format!("somebody answered: {one:?}") });
    }
    let summary = Summary::of(&seen);
    Ok(vec![Value::millis(summary.p99), Value::millis(summary.p50), Value::millis(summary.max)])
}

fn plan(stage: &Stage) -> Plan {
    Plan { clients: CLIENTS, ..Plan::to(stage.proxy, HOST) }
}

/// Load while all is well, so that connections are open and everybody is known to be up.
fn before(stage: &Stage) -> Result<(), Error> {
    let seen = OpenLoop::start(Plan { length: BEFORE, first_id: 1_000_000_000, ..plan(stage) }).finish();
    match Summary::of(&seen) {
        Summary { lost_gets: 0, lost_posts: 0, .. } => Ok(()),
        summary => Err(Error::Void { why: format!("requests were lost before anything happened: {summary:?}") }),
    }
}
