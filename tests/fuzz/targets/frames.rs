#![no_main]

use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use weir_fuzz::http::abuse::account::Verdict;
use weir_fuzz::http::abuse::frames::PREFACE;
use weir_fuzz::http::abuse::{Account, Limits};
use weir_fuzz::pieces::pieces;
use weir_fuzz::seeds;

const LIMITS: Limits = Limits { head: Duration::from_secs(10), stall: Duration::from_secs(30) };

/// What is made of frames of a client, and of the same as those of a server, at the first verdict and at the end.
fn account(pieces: &[&[u8]], now: Instant) -> (Option<Verdict>, Option<Verdict>, String, bool) {
    let mut account = Account::new(LIMITS);
    account.read(PREFACE, || now);
    let (mut read, mut wrote) = (None, None);
    for piece in pieces {
        let verdict = account.read(piece, || now);
        read = read.or(verdict);
    }
    for piece in pieces {
        let verdict = account.wrote(piece);
        wrote = wrote.or(verdict);
    }
    account.look(now);
    (read, wrote, account.summary(), account.look(now + LIMITS.stall).is_some())
}

fuzz_target!(init: seeds::write(seeds::frames()), |input: &[u8]| {
    let Some((bytes, pieces)) = pieces(input) else { return };
    let now = Instant::now();
    assert_eq!(account(&[bytes], now), account(&pieces, now));
});
