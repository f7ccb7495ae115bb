//! A swap where others want every processor. Alone in its file, because it takes the processors from whoever runs beside it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use weir_tests::{Setup, Upstream, eventually, wasm};

/// The compiler needs half a second of one processor. With what the idle class gets here that would be minutes.
const LIVE_WITHIN: Duration = Duration::from_secs(40);
/// Threads that compute, for each processor.
const GREED: usize = 2;

/// A policy against an attack must go live while the attack takes everything.
#[test]
fn a_build_goes_live_where_nothing_is_left_of_the_processors() {
    let origin = Upstream::text("ok");
    let gateway = Setup::before(&origin).policy("ips", "ips", "limits = { wall = \"5s\" }").start();
    let stop = Arc::<AtomicBool>::default();
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    let greedy: Vec<_> = (0..processors * GREED)
        .map(|_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        })
        .collect();
    let file = gateway.plugin_file("ips");
    wasm::move_over(&wasm::changed(&wasm::policy("ips"), "busy"), &file);
    let wanted = wasm::digest(&file);
    eventually(LIVE_WITHIN, "the new build is live", || gateway.is_live("ips", &wanted));
    stop.store(true, Ordering::Relaxed);
    greedy.into_iter().for_each(|thread| thread.join().unwrap());
}
