//! What a policy sees of a request body, and what becomes of a body that is longer than its window.

use std::time::Duration;

use weir_tests::{Answer, Gateway, Request, Setup, Upstream};

/// Bytes the policy asks for.
const WINDOW: usize = 1000;

fn gateway(origin: &Upstream, lines: &str) -> Gateway {
    Setup::before(origin)
        .guest("bodies", &format!("config = {{ window = {WINDOW} }}\nlimits = {{ cpu = \"1s\", wall = \"10s\" }}\n{lines}"))
        .start()
}

fn filled(length: usize) -> Vec<u8> {
    (0..length).map(|place| b'a' + (place % 13) as u8).collect()
}

/// FNV-1a, as the guest computes it.
fn hash(bytes: &[u8]) -> String {
    let hash =
        bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    format!("{hash:016x}")
}

fn post(body: Vec<u8>) -> Request {
    Request::post("/", "application/octet-stream", body)
}

#[test]
fn a_header_made_from_the_body_reaches_the_upstream_before_the_body() {
    // Pain 8
    let origin = Upstream::text("ok");
    let gateway = gateway(&origin, "");
    for length in [1, 500, WINDOW, 3000] {
        let body = filled(length);
        assert_eq!(gateway.ask(&post(body.clone())).status, 200);
        let received = origin.last();
        let seen = &body[..length.min(WINDOW)];
        assert_eq!(received.header("x-body-hash"), Some(&*hash(seen)), "{length} bytes");
        assert_eq!(received.body, body);
    }
}

/// The status, and what the policy told the upstream: how much it saw, and whether that was all.
type Seen = (u16, Option<String>, Option<String>);

fn seen(origin: &Upstream, answer: &Answer) -> Seen {
    let told = |name| if answer.status == 200 { origin.last().header(name).map(str::to_owned) } else { None };
    (answer.status, told("x-body-length"), told("x-body-complete"))
}

#[test]
fn the_operator_says_what_becomes_of_a_longer_body() {
    // Pain 9
    let told = |length: &str, complete: &str| (200, Some(length.to_owned()), Some(complete.to_owned()));
    let cases =
        [("inspect-prefix", told("1000", "false"), 200), ("pass", (200, None, None), 200), ("reject", (413, None, None), 413)];
    let origin = Upstream::text("ok");
    for (word, beyond, status) in cases {
        let gateway = gateway(&origin, &format!("on_overflow = \"{word}\""));
        let within = gateway.ask(&post(filled(WINDOW)));
        assert_eq!(seen(&origin, &within), told("1000", "true"), "{word}: just as long as the window");
        let before = origin.count();
        let answer = gateway.ask(&post(filled(WINDOW + 1)));
        assert_eq!(seen(&origin, &answer), beyond, "{word}: one byte longer");
        assert_eq!((answer.status, origin.count() - before), (status, usize::from(status == 200)));
        let line = gateway.log_of(&answer);
        if word == "reject" {
            assert_eq!(
                (line["reason"].as_str(), line["decided_by"].as_str()),
                (Some("body_over_window"), Some("bodies")),
                "{line}"
            );
        }
        let call = &line["policies"][0];
        let verdict = if word == "reject" { "deny" } else { "next" };
        assert_eq!((call["phase"].as_str(), call["verdict"].as_str()), (Some("request-body"), Some(verdict)), "{line}");
    }
}

#[test]
fn who_only_observes_rejects_nothing() {
    let origin = Upstream::text("ok");
    let gateway = gateway(&origin, "on_overflow = \"reject\"\nmode = \"observe\"");
    let answer = gateway.ask(&post(filled(WINDOW + 1)));
    let line = gateway.log_of(&answer);
    assert_eq!((answer.status, line["policies"][0]["verdict"].as_str()), (200, Some("deny")), "{line}");
}

#[test]
fn one_plugin_serves_two_sites_with_settings_of_their_own() {
    // Pain 15
    let origin = Upstream::text("ok");
    let second = "[policy.short]\nplugin = \"bodies\"\nconfig = { window = 10 }\n[[site]]\nname = \"two\"\nhosts = [\"two.test\"]\nupstream = \"origin\"\nchain = [\"short\"]";
    let gateway = Setup::before(&origin).guest("bodies", "config = { window = 1000 }").section(second).start();
    for (host, length) in [("site.test", "500"), ("two.test", "10"), ("site.test", "500")] {
        assert_eq!(gateway.ask(&post(filled(500)).host(host)).status, 200);
        assert_eq!(origin.last().header("x-body-length"), Some(length), "{host}");
    }
    assert_eq!(gateway.plugin("bodies").len(), 1, "compiled once");
}

/// Numbers that are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        // Marsaglia's xorshift with the shifts 13, 7, 17.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }

    /// Cuts bytes at places that have nothing to do with what they mean.
    fn pieces<'a>(&mut self, bytes: &'a [u8]) -> Vec<&'a [u8]> {
        let mut rest = bytes;
        let mut pieces = Vec::new();
        while !rest.is_empty() {
            let largest = [1, 7, 300, 5000][self.below(4)];
            let (piece, behind) = rest.split_at(1 + self.below(largest.min(rest.len())));
            pieces.push(piece);
            rest = behind;
        }
        pieces
    }
}

/// Sends a body in chunks of any size, in writes of any size.
fn ask_in_chunks(gateway: &Gateway, body: &[u8], numbers: &mut Numbers) -> Answer {
    let mut message = b"POST / HTTP/1.1\r\nhost: site.test\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for piece in numbers.pieces(body) {
        message.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        message.extend_from_slice(piece);
        message.extend_from_slice(b"\r\n");
    }
    message.extend_from_slice(b"0\r\n\r\n");
    ask_in_pieces(gateway, &message, numbers)
}

fn ask_in_pieces(gateway: &Gateway, message: &[u8], numbers: &mut Numbers) -> Answer {
    let mut client = gateway.connect();
    for piece in numbers.pieces(message) {
        // Whoever is refused early is told so, and nothing more is read.
        if client.send(piece).is_err() {
            break;
        }
        if numbers.below(4) == 0 {
            std::thread::yield_now();
        }
    }
    client.answer().unwrap()
}

#[test]
fn the_pieces_in_which_a_body_comes_change_no_verdict() {
    // Pain 9
    let origin = Upstream::text("ok");
    let gateways = ["inspect-prefix", "pass", "reject"].map(|word| gateway(&origin, &format!("on_overflow = \"{word}\"")));
    let mut numbers = Numbers(0x2545_f491_4f6c_dd1d);
    for round in 0..60 {
        let length = [0, 1, WINDOW - 1, WINDOW, WINDOW + 1, 1 + numbers.below(4000)][round % 6];
        let mut body = filled(length);
        if length > 6 && numbers.below(2) == 0 {
            let place = numbers.below(length - 6);
            body[place..place + 6].copy_from_slice(b"attack");
        }
        for gateway in &gateways {
            let whole = gateway.ask(&post(body.clone()));
            let expected = seen(&origin, &whole);
            let ways = [
                ask_in_pieces(gateway, &post(body.clone()).bytes(), &mut numbers),
                ask_in_chunks(gateway, &body, &mut numbers),
                ask_in_chunks(gateway, &body, &mut numbers),
            ];
            for answer in ways {
                assert_eq!(seen(&origin, &answer), expected, "round {round}: {length} bytes");
            }
        }
    }
}

/// Nothing but the end of the body came after its head, and late.
#[test]
fn what_a_server_takes_is_counted_from_the_body_on_that_was_waited_for() {
    const LATE: Duration = Duration::from_millis(1200);
    let origin = Upstream::text("ok");
    let gateway = gateway(&origin, "");
    let mut client = gateway.connect();
    assert_eq!(client.ask(&Request::get("/")).unwrap().status, 200, "a connection is kept");
    client.send("POST /late HTTP/1.1\r\nhost: site.test\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
    std::thread::sleep(LATE);
    client.send("0\r\n\r\n").unwrap();
    assert_eq!(client.answer().unwrap().status, 200);
    let line = gateway.log_where(|line| line["path"] == "/late");
    let (attempt, whole) = (line["attempts"][0]["ms"].as_f64().unwrap(), line["duration_ms"].as_f64().unwrap());
    assert!(whole >= LATE.as_secs_f64() * 1e3 && attempt <= whole - LATE.as_secs_f64() * 1e3, "{attempt} of {whole}");
}
