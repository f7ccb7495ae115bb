//! `make soak`: everything that changes a gateway, again and again, under load. Memory and descriptors must not grow, and nothing may be
//! lost that need not be.

mod actors;
mod verdict;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use weir_tests::chaos::executed;
use weir_tests::open_loop::{OpenLoop, Plan, Seen};
use weir_tests::process::usage_of;
use weir_tests::tls::{Authority, Kind as Key};
use weir_tests::{Gateway, Scratch, Setup};

use crate::configs::HOST;
use crate::error::Error;
use crate::failover::DELAY;
use crate::sessions::Sessions;
use crate::stage::Server;
use actors::{Count, Gates};
use verdict::{Check, Event, Sample};

/// Requests per second, plain and over TLS; h2load comes on top.
const PLAIN: u32 = 150;
const TLS: u32 = 50;
/// The decision log, beside `weir.toml`.
const LOG: &str = "decisions.jsonl";
/// Ids of the second load.
const TLS_IDS: u64 = 1 << 40;
/// From sample to sample.
const SAMPLE: Duration = Duration::from_secs(1);
/// Seconds from one death of a server to the next, and how long it stays dead.
const PERIOD: u64 = 18;
const DOWN: u64 = 3;
/// How long the gateway may take to close what it holds once nobody asks: an unused upstream connection is kept for 30 s.
const REST: Duration = Duration::from_secs(45);
/// Descriptors that may be open more at rest than at first: a log that was opened with the first line, a connection of each worker.
const AT_REST: usize = 12;

/// Runs it; answers whether all is well.
///
/// # Errors
/// Something does not start.
pub(crate) fn run(length: Duration) -> Result<bool, Error> {
    let scratch = Scratch::new();
    let authority = Authority::new();
    let primary = Server::start(&scratch, "primary", DELAY)?;
    let secondary = Server::start(&scratch, "secondary", DELAY)?;
    let gateway = Arc::new(gateway(&authority, &primary, &secondary));
    let mut servers = [primary, secondary];
    let at_first = usage_of(gateway.id()).unwrap_or_default().descriptors;

    let plan = Plan { rate: PLAIN, length, ..Plan::to(gateway.plain(), HOST) };
    let config = authority.client_config().map_err(Error::system("no TLS"))?;
    let tls =
        Plan { rate: TLS, address: gateway.tls(), tls: Some(Arc::new(config)), first_id: TLS_IDS, clients: 64, ..plan.clone() };
    let (plain, tls) = (OpenLoop::start(plan), OpenLoop::start(tls));
    let sessions = Sessions::start(gateway.plain());
    let stop = Arc::new(AtomicBool::new(false));
    let actors = actors::start(&Gates { gateway: Arc::clone(&gateway), stop: Arc::clone(&stop) });
    let (samples, kills) = sample_and_flap(&gateway, &mut servers, &plain, length)?;
    stop.store(true, Ordering::SeqCst);
    let counts: Vec<Count> = actors.into_iter().filter_map(|actor| actor.join().ok()).collect();
    let seen: Vec<Seen> = [plain.stop(), tls.stop()].concat();
    let held = sessions.finish();

    let mut checks = verdict::requests(&seen, &kills, &executed(&servers.each_ref().map(Server::journal)));
    checks.extend(verdict::growth(&samples, length));
    checks.extend(counts.iter().map(verdict::actor));
    checks.push(at_rest(&gateway, at_first));
    crate::say_lost(&seen);
    let log = std::fs::read_to_string(gateway.directory().path().join(LOG)).unwrap_or_default();
    verdict::reasons(&log).iter().for_each(|reason| crate::say(&format!("  {reason}")));
    crate::print(&format!("soak of {} s: {held:?}", length.as_secs()));
    checks.iter().for_each(|check| crate::print(&check.line()));
    Ok(checks.iter().all(|check| check.good))
}

fn gateway(authority: &Authority, primary: &Server, secondary: &Server) -> Gateway {
    let (primary, secondary) = (format!("http://{}", primary.address), format!("http://{}", secondary.address));
    Setup::before_servers(&[(&primary, 0), (&secondary, 1)])
        .upstream(&format!("health = {{ path = \"{}\", every = \"500ms\" }}", weir_tests::chaos::HEALTH))
        .upstream("timeouts = { first_byte = \"60s\" }")
        .telemetry(&format!("access_log = \"{LOG}\""))
        .replace(weir_tests::client::HOST, HOST)
        .certificate(&authority.issue(Key::Ecdsa, &[HOST]))
        .guest("noop", "")
        .start()
}

/// Looks at the gateway every second, and kills a server now and then; answers when that was on the clock of the load.
fn sample_and_flap(
    gateway: &Gateway,
    servers: &mut [Server; 2],
    load: &OpenLoop,
    length: Duration,
) -> Result<(Vec<Sample>, Vec<Event>), Error> {
    let (started, mut samples, mut kills, mut down) = (Instant::now(), Vec::new(), Vec::new(), false);
    while started.elapsed() < length {
        std::thread::sleep(SAMPLE);
        let second = started.elapsed().as_secs();
        match usage_of(gateway.id()) {
            Some(usage) => samples.push(Sample { time: started.elapsed(), memory: usage.memory, descriptors: usage.descriptors }),
            None => return Err(Error::Void { why: format!("the gateway is gone; it said:\n{}", gateway.stderr()) }),
        }
        // Fifteen seconds up, three down, in turn: one that flaps is preferred ever later, and the other serves.
        let [primary, secondary] = &mut *servers;
        let server = if (second / PERIOD).is_multiple_of(2) { primary } else { secondary };
        match (second % PERIOD >= PERIOD - DOWN, down) {
            (true, false) => {
                let before = load.elapsed();
                server.kill();
                kills.push((before, load.elapsed()));
            }
            (false, true) => servers.iter_mut().try_for_each(Server::revive)?,
            _ => continue,
        }
        down = !down;
    }
    if down {
        servers.iter_mut().try_for_each(Server::revive)?;
    }
    Ok((samples, kills))
}

/// Nobody asks any more: whatever is still open was forgotten.
fn at_rest(gateway: &Gateway, at_first: usize) -> Check {
    let (started, mut now) = (Instant::now(), usize::MAX);
    while started.elapsed() < REST && now > at_first + AT_REST {
        std::thread::sleep(SAMPLE);
        now = usage_of(gateway.id()).unwrap_or_default().descriptors;
    }
    Check {
        what: "descriptors at rest".to_owned(),
        found: format!("{at_first} before, {now} after"),
        good: now <= at_first + AT_REST,
        limit: format!("at most {AT_REST} more"),
    }
}
