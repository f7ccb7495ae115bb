//! Load that does not wait for answers: requests begin at a fixed rate, and the time of each counts from when it should have begun. So a
//! server that stops for a second is seen by every request of that second, not by the few that were under way.
//!
//! | to | see |
//! |---|---|
//! | make load | [`Plan`], [`OpenLoop`] |
//! | read what came out | [`Seen`], [`Summary`] |

mod client;
mod seen;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustls::ClientConfig;

use client::Client;
pub use seen::{Outcome, Seen, Summary, causes};

/// Stack of a client's thread, in bytes.
const STACK: usize = 256 * 1024;
/// Of ten requests these are POSTs.
const POSTS: [u64; 3] = [2, 5, 8];

/// What is asked, and how often.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Who is asked.
    pub address: SocketAddr,
    /// The name that is asked for.
    pub host: String,
    /// TLS, if it is spoken.
    pub tls: Option<Arc<ClientConfig>>,
    /// Requests per second.
    pub rate: u32,
    /// How long, at most.
    pub length: Duration,
    /// Clients, each with a connection it keeps: at least as many as requests may be under way.
    pub clients: usize,
    /// Ids begin here, so that those of several loads differ.
    pub first_id: u64,
    /// How long a client waits for an answer.
    pub patience: Duration,
    /// No POSTs.
    pub only_gets: bool,
    /// Further fields of each request, as lines.
    pub fields: String,
}

impl Plan {
    /// 300 requests per second, 70 % GET and 30 % POST, for a minute.
    #[must_use]
    pub fn to(address: SocketAddr, host: &str) -> Self {
        Self {
            address,
            host: host.to_owned(),
            tls: None,
            rate: 300,
            length: Duration::from_secs(60),
            clients: 256,
            first_id: 0,
            patience: Duration::from_secs(10),
            only_gets: false,
            fields: String::new(),
        }
    }

    /// When the request with this number should begin, after the start.
    #[must_use]
    pub fn offset(&self, number: u64) -> Duration {
        Duration::from_secs_f64(number as f64 / f64::from(self.rate))
    }

    /// Whether the request with this number is a POST.
    #[must_use]
    pub fn is_post(&self, number: u64) -> bool {
        !self.only_gets && POSTS.contains(&(number % 10))
    }
}

/// Running load. What it saw is lost when it is dropped.
#[derive(Debug)]
pub struct OpenLoop {
    started: Instant,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Vec<Seen>>>,
}

impl OpenLoop {
    /// Starts it.
    #[must_use]
    pub fn start(plan: Plan) -> Self {
        // Time for the threads to be there.
        let started = Instant::now() + Duration::from_millis(300);
        let (stop, next) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let plan = Arc::new(plan);
        let clients = (0..plan.clients)
            .filter_map(|_| {
                let (plan, stop, next) = (Arc::clone(&plan), Arc::clone(&stop), Arc::clone(&next));
                let own = std::thread::Builder::new().stack_size(STACK);
                own.spawn(move || ask(&plan, started, &stop, &next)).ok()
            })
            .collect();
        Self { started, stop, clients }
    }

    /// How long it has been running.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Waits until so long after its start.
    pub fn reach(&self, offset: Duration) {
        std::thread::sleep((self.started + offset).saturating_duration_since(Instant::now()));
    }

    /// Waits for its planned end, and answers what every request saw, in order.
    #[must_use]
    pub fn finish(self) -> Vec<Seen> {
        let mut all: Vec<Seen> = self.clients.into_iter().filter_map(|client| client.join().ok()).flatten().collect();
        all.sort_by_key(|seen| seen.number);
        all
    }

    /// Begins no further request, waits for those under way, and answers what every request saw.
    #[must_use]
    pub fn stop(self) -> Vec<Seen> {
        self.stop.store(true, Ordering::SeqCst);
        self.finish()
    }
}

fn ask(plan: &Plan, started: Instant, stop: &AtomicBool, next: &AtomicU64) -> Vec<Seen> {
    // A stretch of load is not about the hundred connections that it begins with.
    let mut client = Client::connected(plan);
    let mut all = Vec::new();
    loop {
        let number = next.fetch_add(1, Ordering::SeqCst);
        let offset = plan.offset(number);
        if offset >= plan.length {
            return all;
        }
        let intended = started + offset;
        std::thread::sleep(intended.saturating_duration_since(Instant::now()));
        if stop.load(Ordering::SeqCst) {
            return all;
        }
        let is_post = plan.is_post(number);
        let outcome = client.ask(is_post, plan.first_id + number);
        all.push(Seen { number, id: plan.first_id + number, is_post, offset, latency: intended.elapsed(), outcome });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::{Behaviour, ChaosUpstream, Fault};

    fn plan(address: SocketAddr) -> Plan {
        Plan { rate: 200, length: Duration::from_millis(500), clients: 16, ..Plan::to(address, "test") }
    }

    #[test]
    fn seven_of_ten_requests_are_gets() {
        let plan = plan("127.0.0.1:9".parse().unwrap());
        assert_eq!((0..1000).filter(|number| plan.is_post(*number)).count(), 300);
        assert_eq!(plan.offset(100), Duration::from_millis(500));
    }

    #[test]
    fn requests_begin_at_their_time_and_are_all_answered() {
        let upstream = ChaosUpstream::start("127.0.0.1:0".parse().unwrap(), Behaviour::default(), None).unwrap();
        let seen = OpenLoop::start(plan(upstream.address())).finish();
        assert_eq!(seen.len(), 100);
        assert!(seen.iter().all(|one| one.outcome == Outcome::Status(200)), "{seen:?}");
        assert_eq!(upstream.requests(), 100);
    }

    #[test]
    fn faults_are_seen_as_broken_answers() {
        let upstream = ChaosUpstream::start("127.0.0.1:0".parse().unwrap(), "reset-after-head/2".parse().unwrap(), None).unwrap();
        let seen = OpenLoop::start(plan(upstream.address())).finish();
        let lost = seen.iter().filter(|one| one.is_lost()).count();
        assert_eq!(lost, 50, "{seen:?}");
        upstream.behave(Behaviour::always(Fault::ShortBody));
        let seen = OpenLoop::start(plan(upstream.address())).finish();
        assert!(seen.iter().all(Seen::is_lost));
    }
}
