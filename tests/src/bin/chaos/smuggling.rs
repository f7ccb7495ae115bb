//! R2: requests that two servers could read differently. `make test` proves each verdict of Weir, in several deliveries; here the same
//! bytes go to all proxies, before an origin that takes a request only in the one form that no reader takes for another.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use weir_tests::Connection;
use weir_tests::recording::{Recording, Seen};

use crate::configs::HOST;
use crate::error::Error;
use crate::options::Options;
use crate::report::{Goal, Value};
use crate::stage::{Kind, Stage};
use table::{Case, Verdict};

/// The scenarios' own, so that there is one table.
#[path = "../../../tests/smuggling/table.rs"]
#[allow(dead_code, reason = "the scenarios look closer")]
mod table;

/// A proxy that says nothing for so long waits for more.
const SILENCE: Duration = Duration::from_millis(100);
/// How an interim answer begins, and one that may follow it in the same bytes.
const INTERIM: &[u8] = b"HTTP/1.1 1";
const FINAL: &[u8] = b"\r\n\r\nHTTP/1.1 2";
/// What a proxy passes on is there after this.
const PASSED: Duration = Duration::from_millis(20);
/// The longest answer that is listened to.
const LISTEN: Duration = Duration::from_secs(3);
/// One in so many cases of a quick run.
const QUICK: usize = 8;

/// The rows.
pub(crate) const R2: [(&str, Goal); 5] = [
    ("R2 must be refused, but reached the origin", Goal::AtMost(0.0)),
    ("R2 more than one request for one", Goal::AtMost(0.0)),
    ("R2 the origin got bytes that are no strict request", Goal::AtMost(0.0)),
    ("R2 must be forwarded, but was not", Goal::AtMost(0.0)),
    ("R2 cases", Goal::None),
];

/// What the origin made of the cases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    leaked: usize,
    doubled: usize,
    unclear: usize,
    withheld: usize,
    cases: usize,
}

/// Sends every case.
///
/// # Errors
/// The proxy does not start.
pub(crate) fn r2(kind: Kind, program: &Path, options: &Options) -> Result<Vec<Value>, Error> {
    let origin = Recording::start();
    let address = origin.url().trim_start_matches("http://").parse::<SocketAddr>();
    let address = address.map_err(|error| Error::Void { why: format!("the origin's address: {error}") })?;
    let stage = Stage::set(kind, program, Duration::ZERO, Some(address))?;
    let mut tally = Tally::default();
    let step = if options.quick { QUICK } else { 1 };
    drop(origin.take());
    for case in table::cases().iter().step_by(step) {
        send(stage.proxy, case);
        std::thread::sleep(PASSED);
        let seen = origin.take();
        tally.count(&case.verdict, &seen);
        if kind == Kind::Weir && !is_good(&case.verdict, &seen) {
            crate::say(&format!("  {}\n    the origin saw {seen:?}", case.name));
        }
        tally.cases += 1;
    }
    let Tally { leaked, doubled, unclear, withheld, cases } = tally;
    Ok([leaked, doubled, unclear, withheld, cases].map(Value::count).to_vec())
}

impl Tally {
    fn count(&mut self, verdict: &Verdict, seen: &Seen) {
        self.leaked += usize::from(matches!(verdict, Verdict::Refused { .. }) && seen.bytes > 0);
        // What is refused or breaks off is at most one request, whatever follows it in the same bytes.
        self.doubled += usize::from(!matches!(verdict, Verdict::Accepted(_)) && seen.requests.len() > 1);
        self.unclear += usize::from(!seen.faults.is_empty());
        self.withheld += usize::from(matches!(verdict, Verdict::Accepted(_)) && seen.requests.is_empty());
    }
}

fn is_good(verdict: &Verdict, seen: &Seen) -> bool {
    let mut tally = Tally::default();
    tally.count(verdict, seen);
    tally == Tally::default()
}

/// Sends the bytes and listens until nothing more comes.
fn send(proxy: SocketAddr, case: &Case) {
    let Ok(mut client) = Connection::open(proxy) else { return };
    // A proxy may close before it has read everything.
    drop(client.send(case.bytes(HOST)));
    if case.fin {
        drop(client.finish());
    }
    let (started, forwarded) = (Instant::now(), matches!(case.verdict, Verdict::Accepted(_)));
    let mut answered = false;
    while started.elapsed() < LISTEN {
        match client.next_within(SILENCE) {
            Ok(bytes) if bytes.is_empty() => return,
            // Whatever comes after the interim answers.
            Ok(bytes) => answered |= !bytes.starts_with(INTERIM) || bytes.windows(FINAL.len()).any(|part| part == FINAL),
            // A proxy that has to pass something on may be busy with it.
            Err(error) if error.kind() == ErrorKind::WouldBlock && forwarded && !answered => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(verdict: &Verdict, seen: &Seen) -> Tally {
        let mut tally = Tally::default();
        tally.count(verdict, seen);
        tally
    }

    #[test]
    fn what_the_origin_saw_is_held_against_the_verdict() {
        let refused = Verdict::Refused { status: 400, reason: "*".to_owned() };
        let accepted = Verdict::Accepted(table::Detail::default());
        let seen = |bytes, faults: &[&str]| Seen {
            bytes,
            faults: faults.iter().map(|text| (*text).to_owned()).collect(),
            ..Seen::default()
        };
        assert_eq!(tally(&refused, &seen(0, &[])), Tally::default());
        assert_eq!(tally(&refused, &seen(9, &[])), Tally { leaked: 1, ..Tally::default() });
        assert_eq!(tally(&accepted, &seen(0, &[])), Tally { withheld: 1, ..Tally::default() });
        assert_eq!(tally(&Verdict::Broken, &seen(9, &["odd"])), Tally { unclear: 1, ..Tally::default() });
        assert!(is_good(&refused, &seen(0, &[])) && !is_good(&refused, &seen(1, &[])));
    }
}
