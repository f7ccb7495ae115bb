//! R1: what clients notice of reloads and of binary upgrades, with tunnels and downloads open.

use std::path::Path;
use std::time::{Duration, Instant};

use weir_tests::open_loop::{OpenLoop, Plan, Summary};

use crate::configs::HOST;
use crate::error::Error;
use crate::failover;
use crate::options::Options;
use crate::report::{Goal, Value};
use crate::sessions::Sessions;
use crate::stage::{Kind, Stage};

/// Reloads, and how long they may take together: a peer that reloads slowly is not waited for.
const RELOADS: usize = 1000;
const RELOADING: Duration = Duration::from_secs(25);
/// The same of upgrades.
const UPGRADES: usize = 50;
const UPGRADING: Duration = Duration::from_secs(20);
/// Load goes on for so long after the last order.
const AFTER: Duration = Duration::from_secs(2);
/// From one reload to the next, beside the time it takes: requests must run on every generation.
const PAUSE: Duration = Duration::from_millis(5);
/// From one upgrade to the next.
const UPGRADE_PAUSE: Duration = Duration::from_millis(100);

/// The rows of reloads.
pub(crate) const RELOAD: [(&str, Goal); 7] = [
    ("R1 reload: requests lost", Goal::AtMost(0.0)),
    ("R1 reload: tunnels cut", Goal::AtMost(0.0)),
    ("R1 reload: downloads cut", Goal::AtMost(0.0)),
    ("R1 reload: p99 ms", Goal::None),
    ("R1 reload: reloads", Goal::None),
    ("R1 reload: % of those meant", Goal::AtLeast(100.0)),
    ("R1 reload: processes at the end", Goal::None),
];

/// The rows of upgrades.
pub(crate) const UPGRADE: [(&str, Goal); 7] = [
    ("R1 upgrade: requests lost", Goal::AtMost(0.0)),
    ("R1 upgrade: tunnels cut", Goal::None),
    ("R1 upgrade: downloads cut", Goal::None),
    ("R1 upgrade: p99 ms", Goal::None),
    ("R1 upgrade: upgrades", Goal::None),
    ("R1 upgrade: % of those meant", Goal::AtLeast(100.0)),
    ("R1 upgrade: processes at the end", Goal::None),
];

/// Reload after reload.
///
/// # Errors
/// The proxy refuses.
pub(crate) fn reload(kind: Kind, program: &Path, options: &Options) -> Result<Vec<Value>, Error> {
    let stage = &mut Stage::set(kind, program, failover::DELAY, None)?;
    let count = if options.quick { RELOADS / 10 } else { RELOADS };
    under_load(stage, &Orders { count, limit: RELOADING, pause: PAUSE, give: Stage::reload })
}

/// Upgrade after upgrade.
///
/// # Errors
/// The proxy refuses or cannot do it.
pub(crate) fn upgrade(kind: Kind, program: &Path, options: &Options) -> Result<Vec<Value>, Error> {
    let stage = &mut Stage::set(kind, program, failover::DELAY, None)?;
    let count = if options.quick { UPGRADES / 10 } else { UPGRADES };
    under_load(stage, &Orders { count, limit: UPGRADING, pause: UPGRADE_PAUSE, give: Stage::upgrade })
}

struct Orders {
    count: usize,
    limit: Duration,
    pause: Duration,
    give: fn(&mut Stage) -> Result<(), Error>,
}

fn under_load(stage: &mut Stage, orders: &Orders) -> Result<Vec<Value>, Error> {
    let load = OpenLoop::start(Plan { length: orders.limit + AFTER * 4, clients: 64, ..Plan::to(stage.proxy, HOST) });
    let sessions = Sessions::start(stage.proxy);
    std::thread::sleep(AFTER);
    let (started, mut done) = (Instant::now(), 0);
    while done < orders.count && started.elapsed() < orders.limit {
        match (orders.give)(stage) {
            Ok(()) => {}
            Err(error) if done == 0 => return Err(error),
            // nginx takes no second upgrade while its first master waits for tunnels.
            Err(error) => {
                crate::say(&format!("  after {done} orders {error}"));
                break;
            }
        }
        done += 1;
        std::thread::sleep(orders.pause);
    }
    std::thread::sleep(AFTER);
    let processes = stage.processes();
    let seen = load.stop();
    crate::say_lost(&seen);
    let summary = Summary::of(&seen);
    let held = sessions.finish();
    if held.tunnels == 0 || held.downloads == 0 {
        return Err(Error::Void { why: format!("no session was ever open: {held:?}") });
    }
    Ok(vec![
        Value::count(summary.lost()),
        Value::count(held.tunnels_cut),
        Value::count(held.downloads_cut),
        Value::millis(summary.p99),
        Value::count(done),
        Value::number((done * 100 / orders.count) as f64),
        Value::count(processes),
    ])
}
