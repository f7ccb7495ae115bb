//! Each attack as frames, without a connection and without a clock.

use super::super::frames::PREFACE;
use super::*;

const LIMITS: Limits = Limits { head: Duration::from_secs(10), stall: Duration::from_secs(30) };

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn headers(stream: u32) -> Vec<u8> {
    frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, stream, &[0x82])
}

fn open() -> Account {
    let mut account = Account::new(LIMITS);
    assert_eq!(account.read(PREFACE, Instant::now), None);
    account
}

/// Sends what `step` makes of 0, 1, … until there is a verdict; answers it and the number of steps. `step` also says at what time.
fn until(account: &mut Account, most: u32, step: impl Fn(&mut Account, u32) -> (Vec<u8>, Duration)) -> (Option<Verdict>, u32) {
    let start = Instant::now();
    for number in 0..most {
        let (bytes, after) = step(account, number);
        let verdict = account.read(&bytes, || start + after);
        if verdict.is_some() {
            return (verdict, number + 1);
        }
    }
    (None, most)
}

#[track_caller]
fn check(reason: Reason, bound: u32, step: impl Fn(&mut Account, u32) -> (Vec<u8>, Duration)) {
    let (verdict, steps) = until(&mut open(), bound, step);
    assert_eq!((verdict, steps), (Some(Verdict::End(reason)), bound), "{reason:?}");
}

#[track_caller]
fn passes(what: &str, count: u32, step: impl Fn(&mut Account, u32) -> (Vec<u8>, Duration)) {
    assert_eq!(until(&mut open(), count, step), (None, count), "{what}");
}

const fn at(milliseconds: u32) -> Duration {
    Duration::from_millis(milliseconds as u64)
}

fn reset(number: u32) -> Vec<u8> {
    [headers(2 * number + 1), frame(kind::RST_STREAM, 0, 2 * number + 1, &[0, 0, 0, 8])].concat()
}

#[test]
fn any_bytes_are_taken_and_splitting_them_changes_nothing() {
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let now = Instant::now();
    for _ in 0..300 {
        // Headers of frames that are mostly plausible, with anything behind them.
        let mut bytes = PREFACE.to_vec();
        for _ in 0..next() % 400 {
            let length = (next() % 40) as usize;
            let payload: Vec<u8> = (0..length).map(|_| next() as u8).collect();
            bytes.extend(frame((next() % 11) as u8, next() as u8, (next() % 20) as u32, &payload));
        }
        let (mut whole, mut split) = (Account::new(LIMITS), Account::new(LIMITS));
        let (mut whole_server, mut split_server) = (Account::new(LIMITS), Account::new(LIMITS));
        let verdict = whole.read(&bytes, || now);
        let said = whole_server.wrote(&bytes[PREFACE.len()..]);
        let (mut verdicts, mut words) = (None, None);
        for piece in bytes.chunks(1 + (next() % 30) as usize) {
            let read = split.read(piece, || now);
            verdicts = verdicts.or(read);
        }
        for piece in bytes[PREFACE.len()..].chunks(1 + (next() % 30) as usize) {
            let wrote = split_server.wrote(piece);
            words = words.or(wrote);
        }
        assert_eq!((verdict, whole.summary(), whole.needs_clock()), (verdicts, split.summary(), split.needs_clock()));
        assert_eq!((said, whole_server.summary()), (words, split_server.summary()));
    }
}

#[test]
fn every_flood_ends_at_its_limit() {
    check(Reason::RapidReset, RESETS + 1, |_, number| (reset(number), at(0)));
    check(Reason::RapidReset, PREMATURE, |_, number| (reset(number), at(100 * number)));
    check(Reason::SettingsFlood, SETTINGS + 1, |_, _| (frame(kind::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9]), at(0)));
    check(Reason::PingFlood, PINGS + 1, |_, _| (frame(kind::PING, 0, 0, &[0; 8]), at(0)));
    check(Reason::PriorityFlood, 101, |_, number| (frame(kind::PRIORITY, 0, 2 * number + 1, &[0; 5]), at(1000 * number)));
    check(Reason::PriorityFlood, 101, |_, number| (frame(0xfe, 0, 0, &[]), at(1000 * number)));
    check(Reason::WindowUpdateFlood, 101, |_, number| (frame(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]), at(1000 * number)));
    check(Reason::DataFlood, TINY + 1, |_, _| (frame(kind::DATA, 0, 1, b"x"), at(0)));
    check(Reason::DataFlood, TINY + 1, |_, _| {
        (frame(kind::DATA, flag::PADDED, 1, &[[250].as_slice(), &[0; 251]].concat()), at(0))
    });
    check(Reason::ContinuationFlood, CONTINUATIONS + 2, |_, number| {
        (if number == 0 { frame(kind::HEADERS, 0, 1, &[]) } else { frame(kind::CONTINUATION, 0, 1, &[]) }, at(0))
    });
}

#[test]
fn what_ordinary_clients_do_passes() {
    passes("a ping every 20 ms", 1000, |_, number| (frame(kind::PING, 0, 0, &[0; 8]), at(20 * number)));
    passes("settings every 50 ms", 1000, |_, number| (frame(kind::SETTINGS, 0, 0, &[]), at(50 * number)));
    passes("a hundred cancels at once, again and again, among answers", 5000, |account, number| {
        let stream = 2 * number + 1;
        if number % 300 < 100 {
            return (reset(number), at(10 * number));
        }
        assert_eq!(account.wrote(&frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, stream, &[0x88])), None);
        (headers(stream), at(10 * number))
    });
    passes("PRIORITY with every request", 1000, |_, number| {
        ([headers(2 * number + 1), frame(kind::PRIORITY, 0, 2 * number + 1, &[0; 5])].concat(), at(0))
    });
    passes("a download with two updates a frame", 5000, |account, _| {
        assert_eq!(account.wrote(&frame(kind::DATA, 0, 1, &[0; 100])), None);
        ([frame(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 100]), frame(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 100])].concat(), at(0))
    });
    passes("an upload in whole frames", 5000, |_, _| (frame(kind::DATA, 0, 1, &[0; 16_384]), at(0)));
    passes("an upload of small messages", 5000, |_, number| (frame(kind::DATA, 0, 1, b"hello"), at(5 * number)));
    passes("bodies of one small frame", 5000, |_, _| (frame(kind::DATA, flag::END_STREAM, 1, b"a=1"), at(0)));
}

#[test]
fn resets_that_the_client_provokes_are_counted_and_others_not() {
    for (code, want) in [(1, true), (2, false), (0, false), (3, true), (5, true), (7, false), (8, false)] {
        let mut account = open();
        let mut verdict = None;
        let mut resets = 0;
        while verdict.is_none() && resets < 1000 {
            resets += 1;
            verdict = account.wrote(&frame(kind::RST_STREAM, 0, 2 * resets + 1, &[0, 0, 0, code]));
        }
        let ended = (verdict, resets) == (Some(Verdict::End(Reason::MadeYouReset)), OWN_RESETS + 1);
        assert_eq!(ended, want, "code {code}: {verdict:?} after {resets}");
    }
}

#[test]
fn what_the_parser_says_has_the_same_words() {
    for (code, text, want) in [
        (0, "", None),
        (11, "too_many_resets", Some(Reason::RapidReset)),
        (11, "too_many_internal_resets", Some(Reason::MadeYouReset)),
        (11, "too_many_data_frames", Some(Reason::DataFlood)),
        (11, "too_many_continuations", Some(Reason::ContinuationFlood)),
        (11, "header_list_way_too_large", Some(Reason::HeaderFlood)),
        (1, "", Some(Reason::ProtocolError)),
        (9, "", Some(Reason::ProtocolError)),
    ] {
        let payload = [&[0, 0, 0, 7, 0, 0, 0, code], text.as_bytes()].concat();
        assert_eq!(open().wrote(&frame(kind::GOAWAY, 0, 0, &payload)), want.map(Verdict::Told), "{code} {text}");
    }
}

#[test]
fn a_head_must_come_to_its_end() {
    let start = Instant::now();
    let block = [headers(1), frame(kind::HEADERS, 0, 3, &[0x82])].concat();
    for (what, bytes, slow) in [
        ("a preface", &PREFACE[..10], true),
        ("a whole preface", &PREFACE[..], false),
        ("a header block", &[PREFACE, block.as_slice()].concat(), true),
        ("a frame's header", &[PREFACE.as_slice(), &[0, 0]].concat(), true),
        ("a frame", &[PREFACE, &headers(1)[..9]].concat(), true),
        ("a whole request", &[PREFACE, headers(1).as_slice()].concat(), false),
        ("a frame of a body", &[PREFACE, headers(1).as_slice(), &frame(kind::DATA, 0, 1, &[0; 9])[..12]].concat(), false),
    ] {
        let mut account = Account::new(LIMITS);
        assert_eq!(account.read(bytes, || start), None);
        assert_eq!(account.needs_clock(), slow, "{what}");
        assert_eq!(account.look(start), None, "{what}");
        assert_eq!(account.look(start + at(9_999)), None, "{what}");
        assert_eq!(account.look(start + at(10_000)), slow.then_some(Reason::SlowHead), "{what}");
    }
    let mut account = open();
    for second in 0..100 {
        assert_eq!(account.look(start + at(1000 * second)), None, "each head has its own time");
        assert_eq!(account.read(&frame(kind::HEADERS, flag::END_HEADERS, 2 * second + 1, &[0x82])[..9], || start), None);
        assert_eq!(account.look(start + at(1000 * second + 500)), None);
        assert_eq!(account.read(&[0x82], || start), None);
    }
}

#[test]
fn answers_that_the_client_holds_are_not_waited_for_for_ever() {
    let start = Instant::now();
    let mut account = open();
    account.read(&frame(kind::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]), || start);
    account.read(&headers(1), || start);
    assert!(!account.needs_clock(), "nothing is answered yet: a long poll may take hours");
    account.wrote(&frame(kind::HEADERS, flag::END_HEADERS, 1, &[0x88]));
    assert!(account.needs_clock() && account.is_answering());
    for second in 0..30 {
        assert_eq!(account.look(start + at(1000 * second)), None, "{second}");
        account.read(&frame(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]), || start);
        account.wrote(&frame(kind::DATA, 0, 1, b"x"));
    }
    assert_eq!(account.look(start + LIMITS.stall), Some(Reason::Stalled));
    account.wrote(&frame(kind::RST_STREAM, 0, 1, &[0, 0, 0, 8]));
    assert!(!account.needs_clock() && !account.is_answering());
}
