//! How soon a dropped file is live. Alone in its file, so that no other scenario of this crate has the processors meanwhile.

use std::path::Path;
use std::time::{Duration, Instant};

use weir_tests::load::Load;
use weir_tests::{LONG, Request, Setup, Upstream, eventually, wasm};

/// From the last change of a file: the quiet period of the gateway (150 ms, looked at every 50 ms), then one second.
const LIVE_WITHIN: Duration = Duration::from_millis(1200);

/// How a file gets where it belongs.
type Way = dyn Fn(&[u8], &Path);

#[test]
fn a_new_digest_is_live_within_a_second_of_settling_under_load() {
    let origin = Upstream::text("ok");
    let gateway = Setup::before(&origin).policy("ips", "ips", "").start();
    let file = gateway.plugin_file("ips");
    let load = Load::start(gateway.plain(), 2, &Request::get("/automate/computers?id=42"));
    eventually(LONG, "traffic flows", || load.done() > 200);

    let slowly = |bytes: &[u8], target: &Path| wasm::copy_slowly(bytes, target, Duration::from_millis(500));
    let ways: [(&str, &Way); 2] = [("mv", &wasm::move_over), ("a slow cp", &slowly)];
    for (name, replace) in ways {
        // The best of three: other programs may have the processors for a moment.
        let times: Vec<Duration> = (0..3)
            .map(|round| {
                replace(&wasm::changed(&wasm::policy("ips"), &format!("{name} {round}")), &file);
                let written = Instant::now();
                let wanted = wasm::digest(&file);
                eventually(LONG, "the new digest is live", || gateway.is_live("ips", &wanted));
                written.elapsed()
            })
            .collect();
        assert!(times.iter().any(|time| *time <= LIVE_WITHIN), "{name}: live after {times:?}");
    }
    let report = load.finish();
    assert!(report.failures.is_empty(), "{} failed: {:?}", report.failures.len(), report.failures.first());
}
