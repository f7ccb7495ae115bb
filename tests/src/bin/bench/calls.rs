//! P9 inside the host: what a call of a policy costs by itself, and what an instance of its own costs an exchange.
//!
//! The row of figure P9 that is driven over HTTP is the whole cost of a policy in the gateway; these are its parts.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weir_plugins::{
    Chain, ConnectionFacts, Exchange, Host, HostOptions, Isolation, Mode, OnError, OnOverflow, PolicyLimits, PolicySpec, Verdict,
};
use weir_tests::wasm;

use crate::notes::{self, Notes};
use crate::options::Options;
use crate::proxies::Ground;
use crate::sheet::{Outcome, Sheet};

/// Goal: nanoseconds of a warm call that does nothing.
const WARM_NS: f64 = 250.0;
/// Goal: microseconds of an exchange with an instance of its own, whatever `configure` cost.
const FRESH_US: f64 = 30.0;
/// Arithmetic of about half a second.
const HALF_A_SECOND: u64 = 400_000_000;
/// Calls between two exchanges: each notes its calls.
const CALLS: u32 = 200;

/// One measured way of calling.
struct Way {
    name: &'static str,
    plugin: &'static str,
    isolation: Isolation,
    config: serde_json::Value,
}

/// Measures all of them in CPU time, the best of three rounds each: whatever else the machine does only adds.
pub(crate) fn measure(ground: &Ground, options: &Options, notes: &mut Notes) -> Sheet {
    notes::say("calls inside the host");
    let heavy = || serde_json::json!({ "rounds": HALF_A_SECOND, "mebibytes": 4 });
    let way = |name, plugin, isolation, config| Way { name, plugin, isolation, config };
    let nothing = || serde_json::json!({});
    let ways = [
        way("warm call, no-op", "noop", Isolation::Pooled, nothing()),
        way("fresh instance, no-op", "noop", Isolation::Request, nothing()),
        way("warm call, configured for 500 ms, 4 MiB", "configures", Isolation::Pooled, heavy()),
        way("fresh instance, configured for 500 ms, 4 MiB", "configures", Isolation::Request, heavy()),
    ];
    let mut sheet = Sheet {
        id: "P9",
        title: "a call of one policy inside the host, request phase".to_owned(),
        columns: &["call", "us", "prepared in ms"],
        rows: Vec::new(),
        outcomes: Vec::new(),
    };
    // As in the gateway, where workers call.
    weir_plugins::become_worker(0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let mut values = Vec::new();
    for way in &ways {
        let measured = match &runtime {
            Ok(runtime) => runtime.block_on(cost(ground.scratch.path(), way, options.quick)),
            Err(error) => Err(error.to_string()),
        };
        match measured {
            Ok((seconds, prepared)) => {
                sheet.rows.push(vec![way.name.to_owned(), format!("{:.2}", seconds * 1e6), format!("{:.0}", prepared * 1e3)]);
                values.push(Some(seconds));
            }
            Err(error) => {
                notes.fail(&format!("P9, {}: {error}", way.name));
                values.push(None);
            }
        }
    }
    let value = |index: usize, factor: f64| values.get(index).copied().flatten().map(|seconds| seconds * factor);
    sheet.outcomes = vec![
        Outcome { id: "P9", value: value(0, 1e9), unit: "ns, warm call inside the host", goal: Some(WARM_NS) },
        Outcome { id: "P9", value: value(1, 1e6), unit: "us, fresh instance", goal: Some(FRESH_US) },
        Outcome { id: "P9", value: value(3, 1e6), unit: "us, fresh instance configured for 500 ms", goal: Some(FRESH_US) },
    ];
    sheet
}

/// Seconds of one call, and of the preparation.
async fn cost(directory: &Path, way: &Way, quick: bool) -> Result<(f64, f64), String> {
    let file = wasm::guest(way.plugin);
    let bytes = std::fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let host = Host::new(&HostOptions { state: directory.join("calls"), workers: 1, compiler: None })?;
    let begin = Instant::now();
    let plugin = host.load(way.plugin, &bytes).await.map_err(|error| error.to_string())?;
    let generation = host.prepare(&spec(way), &plugin, false).await.map_err(|error| error.to_string())?;
    let prepared = begin.elapsed().as_secs_f64();
    let chain = Chain::new(vec![generation]);
    let calls = match (way.isolation, quick) {
        (Isolation::Pooled, false) => 500_000,
        (Isolation::Pooled, true) => 50_000,
        (Isolation::Request, false) => 20_000,
        (Isolation::Request, true) => 2_000,
    };
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        let measured = match way.isolation {
            Isolation::Pooled => warm(&chain, calls).await,
            Isolation::Request => fresh(&chain, calls).await,
        };
        best = best.min(measured?);
    }
    Ok((best, prepared))
}

/// Calls on one instance, for one exchange after another.
async fn warm(chain: &Chain, calls: u32) -> Result<f64, String> {
    let mut taken = 0.0;
    for _ in 0..calls / CALLS {
        let mut slot = Some(Box::new(exchange()));
        let begin = own_time();
        // As along a chain: one call begins where the one before it has ended.
        let mut clock = Instant::now();
        for _ in 0..CALLS {
            call(chain, &mut slot, &mut clock).await?;
        }
        taken += own_time() - begin;
    }
    Ok(taken / f64::from(calls))
}

/// Each call for another exchange, whose instance is made and goes with it.
async fn fresh(chain: &Chain, calls: u32) -> Result<f64, String> {
    let mut taken = 0.0;
    for _ in 0..calls {
        let mut slot = Some(Box::new(exchange()));
        let begin = own_time();
        call(chain, &mut slot, &mut Instant::now()).await?;
        drop(slot);
        taken += own_time() - begin;
    }
    Ok(taken / f64::from(calls))
}

async fn call(chain: &Chain, slot: &mut Option<Box<Exchange>>, clock: &mut Instant) -> Result<(), String> {
    match chain.request(slot, clock).await {
        Verdict::Continue => Ok(()),
        _ => Err(format!("refused: {:?}", slot.as_ref().map(|exchange| &exchange.decisions))),
    }
}

/// CPU time of this thread in seconds: others may have the processors meanwhile.
fn own_time() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn spec(way: &Way) -> PolicySpec {
    PolicySpec {
        name: "measured".into(),
        plugin: way.plugin.to_owned(),
        mode: Mode::Enforce,
        on_error: OnError::Deny,
        on_overflow: OnOverflow::InspectPrefix,
        grants: vec!["kv".to_owned()],
        http_out: weir_plugins::capability::http_out::HttpOut::default(),
        isolation: way.isolation,
        config: way.config.clone(),
        // The machine may be busy.
        limits: PolicyLimits { wall: Duration::from_secs(10), ..PolicyLimits::default() },
    }
}

fn exchange() -> Exchange {
    let local = IpAddr::from([127, 0, 0, 1]);
    let connection = ConnectionFacts {
        client_ip: local,
        peer_ip: local,
        listener: "bench".into(),
        server_name: None,
        tls_version: None,
        ja4: None,
    };
    let head = (http::Method::GET, http::Version::HTTP_11, "/".to_owned(), "bench.test".to_owned());
    Exchange::new(connection, Arc::from("bench"), 1, head, weir_plugins::fields::Fields::default())
}
