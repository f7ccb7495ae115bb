//! How long a neighbour on the same worker waits for its turn while policies compute or allocate: in CPU time of the worker, because other
//! programs have the processors meanwhile.

use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, LocalOptions};
use weir_plugins::fields::Fields;
use weir_plugins::{
    Chain, ConnectionFacts, Exchange, Generation, Host, HostOptions, Isolation, Mode, OnError, OnOverflow, PolicyLimits,
    PolicySpec, Verdict,
};
use weir_tests::{Scratch, wasm};

/// Turns in which no guest computed are shorter.
const NOBODY: Duration = Duration::from_micros(20);
/// So much may be longer what is compared with something measured in the same minute.
const TOLERANCE: u32 = 2;
/// Calls of each kind, one after the other and at once.
const CALLS: usize = 10;
const AT_ONCE: usize = 6;
/// Other workers with a guest that computes.
const OTHERS: usize = 5;
/// Calls after which a guest is trusted with the stack of its worker (`plugins/src/stack.rs`).
const SHORT: usize = 1_000;

#[test]
fn memory_is_filled_in_slices_like_any_computing() {
    let scratch = Scratch::new();
    on_a_worker(async {
        let chain = Rc::new(policy(&scratch, "hostile").await);
        let computing = turns(&chain, "request loop", 1).await;
        // In small pieces until the limit, and in one instruction.
        for order in ["request hoard", "request fill 60"] {
            let filling = turns(&chain, order, 1).await;
            let most = computing.median() * TOLERANCE;
            assert!(filling.median() <= most, "{order}: {:?}, loop: {:?}", filling.median(), computing.median());
            let most = computing.sum() * TOLERANCE;
            assert!(filling.sum() <= most, "{order} takes {:?} in all, loop: {:?}", filling.sum(), computing.sum());
        }
    });
}

#[test]
fn many_that_compute_hold_up_a_neighbour_no_longer_than_one() {
    let scratch = Scratch::new();
    on_a_worker(async {
        let chain = Rc::new(policy(&scratch, "hostile").await);
        let one = turns(&chain, "request loop", 1).await;
        let many = turns(&chain, "request loop", AT_ONCE).await;
        assert!(many.median() <= one.median() * TOLERANCE, "{:?} beside one, {:?} beside many", one.median(), many.median());
    });
}

/// The epoch is everybody's.
#[test]
fn what_computes_on_other_workers_neither_shortens_nor_lengthens_turns() {
    let scratch = Scratch::new();
    on_a_worker(async {
        let generation = generation(&scratch, "hostile").await;
        let chain = Rc::new(Chain::new(vec![Arc::clone(&generation)]));
        let alone = turns(&chain, "request loop", 1).await;
        let done = AtomicBool::new(false);
        let beside = std::thread::scope(|scope| {
            for _ in 0..OTHERS {
                scope.spawn(|| {
                    on_a_worker(async {
                        let chain = Chain::new(vec![Arc::clone(&generation)]);
                        while !done.load(Ordering::Relaxed) {
                            chain.request(&mut Some(Box::new(exchange("/", "request loop"))), &mut Instant::now()).await;
                        }
                    });
                });
            }
            let here = scope.spawn(|| {
                let mut here = None;
                on_a_worker(async {
                    let chain = Rc::new(Chain::new(vec![Arc::clone(&generation)]));
                    here = Some(turns(&chain, "request loop", 1).await);
                });
                done.store(true, Ordering::Relaxed);
                here
            });
            here.join().unwrap().unwrap()
        });
        let (most, least) = (alone.median() * TOLERANCE, alone.median() / TOLERANCE);
        assert!((least..=most).contains(&beside.median()), "{:?} alone, {:?} beside others", alone.median(), beside.median());
    });
}

#[test]
fn a_guest_that_never_computed_holds_its_worker_once_and_then_takes_turns() {
    let scratch = Scratch::new();
    on_a_worker(async {
        let chain = Rc::new(policy(&scratch, "loop").await);
        for _ in 0..SHORT {
            assert_eq!(chain.request(&mut Some(Box::new(exchange("/", ""))), &mut Instant::now()).await, Verdict::Continue);
        }
        let turns = beside(&chain, || exchange("/loop", ""), 1).await;
        let [.., second, first] = turns.0.as_slice() else { panic!("{:?}", turns.0) };
        // Its CPU limit is 10 ms, a slice 40 us.
        assert!(*first >= Duration::from_millis(5), "it has its worker's stack: {first:?}");
        assert!(*second < *first / 2, "the next ones have their own: {second:?} beside {first:?}");
        assert!(turns.median() < *first / 10, "{:?} beside {first:?}", turns.median());
    });
}

#[test]
fn on_its_workers_stack_a_guest_decides_as_on_its_own() {
    let scratch = Scratch::new();
    on_a_worker(async {
        let chain = policy(&scratch, "greedy").await;
        let ask = async |path: &str| chain.request(&mut Some(Box::new(exchange(path, ""))), &mut Instant::now()).await;
        let own = ask("/fill").await;
        assert!(matches!(&own, Verdict::Deny(refusal) if refusal.status == 400 && refusal.rule == "fill"), "{own:?}");
        for _ in 0..SHORT {
            assert_eq!(ask("/").await, Verdict::Continue);
        }
        assert_eq!(ask("/fill").await, own);
    });
}

/// As the gateway's workers run.
fn on_a_worker(work: impl Future<Output = ()>) {
    Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap().block_on(work);
}

/// The turns of a neighbour beside calls of a policy that is ordered to do harm, so many at once.
async fn turns(chain: &Rc<Chain>, order: &'static str, at_once: usize) -> Turns {
    beside(chain, move || exchange("/", order), at_once).await
}

async fn beside(chain: &Rc<Chain>, harmful: impl Fn() -> Exchange, at_once: usize) -> Turns {
    let mut waited = Vec::new();
    for _ in 0..CALLS {
        let running = Rc::new(Cell::new(at_once));
        for _ in 0..at_once {
            let (chain, running, exchange) = (Rc::clone(chain), Rc::clone(&running), harmful());
            tokio::task::spawn_local(async move {
                let verdict = chain.request(&mut Some(Box::new(exchange)), &mut Instant::now()).await;
                assert!(!matches!(verdict, Verdict::Continue), "it harms");
                running.set(running.get() - 1);
            });
        }
        while running.get() > 0 {
            let before = own_time();
            tokio::task::yield_now().await;
            waited.push(own_time() - before);
        }
    }
    waited.retain(|turn| *turn > NOBODY);
    waited.sort_unstable();
    Turns(waited)
}

/// In order of their length.
struct Turns(Vec<Duration>);

impl Turns {
    fn median(&self) -> Duration {
        self.0[self.0.len() / 2]
    }

    fn sum(&self) -> Duration {
        self.0.iter().sum()
    }
}

/// CPU time of this thread.
fn own_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
}

fn exchange(path: &str, order: &str) -> Exchange {
    let local = IpAddr::from([127, 0, 0, 1]);
    let connection = ConnectionFacts {
        client_ip: local,
        peer_ip: local,
        listener: "test".into(),
        server_name: None,
        tls_version: None,
        ja4: None,
    };
    let head = (http::Method::GET, http::Version::HTTP_11, path.to_owned(), "turns.test".to_owned());
    let mut headers = http::HeaderMap::new();
    headers.insert("x-do", order.parse().unwrap());
    Exchange::new(connection, Arc::from("test"), 1, head, Fields::from(&headers))
}

async fn policy(scratch: &Scratch, guest: &str) -> Chain {
    Chain::new(vec![generation(scratch, guest).await])
}

async fn generation(scratch: &Scratch, guest: &str) -> Arc<Generation> {
    let host = Host::new(&HostOptions { state: scratch.path().join("state"), workers: 1, compiler: None }).unwrap();
    let plugin = host.load(guest, &std::fs::read(wasm::guest(guest)).unwrap()).await.unwrap();
    let spec = PolicySpec {
        name: guest.into(),
        plugin: guest.to_owned(),
        mode: Mode::Enforce,
        on_error: OnError::Deny,
        on_overflow: OnOverflow::InspectPrefix,
        grants: vec!["kv".to_owned()],
        http_out: weir_plugins::capability::http_out::HttpOut::default(),
        isolation: Isolation::Pooled,
        config: serde_json::json!({}),
        // The machine may be busy.
        limits: PolicyLimits { wall: Duration::from_secs(10), ..PolicyLimits::default() },
    };
    host.prepare(&spec, &plugin, false).await.unwrap()
}
