//! Rows D: the same questions in HTTP/2, and the names that must agree on a site.

use weir_tests::h2::{Field, Frame, Http2, Outcome};
use weir_tests::recording::{Body, Recording, Strict};
use weir_tests::tls::{Authority, Kind};
use weir_tests::{Gateway, LONG, Request, Setup, eventually, setup};

/// A gateway with two sites that share a certificate.
struct Stage {
    authority: Authority,
    gateway: Gateway,
    origin: Recording,
    other: Recording,
}

fn stage() -> Stage {
    stage_with("")
}

fn stage_with(sections: &str) -> Stage {
    let (authority, origin, other) = (Authority::new(), Recording::start(), Recording::start());
    let gateway = Setup::empty()
        .certificate(&authority.issue(Kind::Ecdsa, &["site.test", "other.test"]))
        .section(&setup::site("site", &["site.test"], &origin.url()))
        .section(&setup::site("other", &["other.test"], &other.url()))
        .section(sections)
        .start();
    Stage { authority, gateway, origin, other }
}

impl Stage {
    fn open(&self) -> Http2 {
        Http2::open(&self.authority, self.gateway.tls(), "site.test").unwrap()
    }

    /// What the origin saw, after a bystander on a connection of its own got its answer.
    fn seen(&self, bystander: &mut Http2, stream: u32) -> Vec<Strict> {
        let target = format!("/canary/{stream}");
        let outcome = bystander.ask(stream, &head("GET", &target)).unwrap();
        assert_eq!(outcome, Outcome::Answered(200, format!("GET {target}").into_bytes()));
        let seen = self.origin.take();
        assert!(seen.faults.is_empty() && seen.pending == 0, "{seen:?}");
        let (canary, rest) = seen.requests.split_last().unwrap();
        assert_eq!(canary.asked(), format!("GET {target}"));
        rest.to_vec()
    }
}

fn head<'a>(method: &'a str, path: &'a str) -> [Field<'a>; 4] {
    [(b":method", method.as_bytes()), (b":scheme", b"https"), (b":authority", b"site.test"), (b":path", path.as_bytes())]
}

/// The verdict on one head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// The stream is reset, or the connection ended.
    Reset,
    /// An answer with this status.
    Status(u16),
    /// Either is as good; nothing reaches the origin.
    Refused,
}

use Verdict::{Refused, Reset, Status};

/// Row, what replaces or (with other names) follows the fields of an ordinary GET, and the verdict. A pseudo-header with the value `-` is
/// left out.
const CASES: &[(&str, &[Field<'static>], Verdict)] = &[
    ("D1", &[(b":path", b"/a\r\nX: y")], Reset),
    ("D1", &[(b":path", b"/a\nX: y")], Reset),
    ("D1", &[(b":path", b"/a b")], Refused),
    ("D1", &[(b":path", b"/a\tb")], Refused),
    ("D1", &[(b":path", b"/a HTTP/1.1\r\nHost: evil\r\n\r\nGET /b")], Reset),
    ("D1", &[(b":path", b"/a\x00")], Refused),
    // The parser cuts a fragment before anybody sees it: policies and the origin both see the path without it.
    ("D1", &[(b":path", b"/a#b")], Status(200)),
    ("D1", &[(b":path", b"/caf\xc3\xa9")], Refused),
    ("D2", &[(b":method", b"GET /x HTTP/1.1")], Reset),
    ("D2", &[(b":method", b"GET\r\nX: y")], Reset),
    ("D2", &[(b":method", b"G T")], Reset),
    ("D2", &[(b":method", b"")], Reset),
    ("D2", &[(b":method", b"get")], Status(400)),
    ("D2", &[(b":method", b"CONNECT")], Refused),
    ("D2", &[(b":scheme", b"http://h/?")], Refused),
    ("D2", &[(b":scheme", b"https\r\nX: y")], Refused),
    ("D2", &[(b":scheme", b"ftp")], Refused),
    ("D2", &[(b":scheme", b"")], Refused),
    ("D2", &[(b":authority", b"site.test/b")], Refused),
    ("D2", &[(b":authority", b"u@site.test")], Refused),
    ("D2", &[(b":authority", b"site.test\r\nX: y")], Refused),
    ("D2", &[(b":authority", b"site.test:0")], Refused),
    ("D2", &[(b":authority", b"site.test:99999")], Refused),
    ("D2", &[(b":authority", b"site.test b")], Refused),
    ("D2", &[(b":authority", b"")], Refused),
    ("D2", &[(b":authority", b"-")], Status(400)),
    ("D3", &[(b"x", b"a\r\nY: b")], Reset),
    ("D3", &[(b"x", b"a\nb")], Reset),
    ("D3", &[(b"x", b"a\rb")], Reset),
    ("D3", &[(b"x", b"a\x00b")], Reset),
    ("D3", &[(b"x\r\ny", b"a")], Reset),
    ("D3", &[(b"x y", b"a")], Reset),
    ("D3", &[(b"x:y", b"a")], Reset),
    ("D3", &[(b"X-Upper", b"a")], Reset),
    ("D3", &[(b"", b"a")], Reset),
    ("D3", &[(b":evil", b"a")], Reset),
    ("D3", &[(b"x", b"a"), (b":path", b"/late")], Reset),
    ("D3", &[(b":path", b"/first"), (b":path", b"/second")], Reset),
    ("D3", &[(b":status", b"200")], Reset),
    ("D3", &[(b"transfer_encoding", b"chunked")], Status(400)),
    ("D3", &[(b"content%2dlength", b"5")], Status(400)),
    ("D4", &[(b"transfer-encoding", b"chunked")], Reset),
    ("D4", &[(b"transfer-encoding", b"identity")], Reset),
    ("D4", &[(b"connection", b"close")], Reset),
    ("D4", &[(b"connection", b"host")], Reset),
    ("D4", &[(b"upgrade", b"websocket")], Reset),
    ("D4", &[(b"keep-alive", b"1")], Reset),
    ("D4", &[(b"proxy-connection", b"close")], Reset),
    ("D4", &[(b"te", b"gzip")], Reset),
    ("D4", &[(b"te", b"trailers")], Status(200)),
    ("D5", &[(b"content-length", b"5")], Reset),
    ("D5", &[(b"content-length", b"0"), (b"content-length", b"5")], Reset),
    ("D5", &[(b"content-length", b"+0")], Refused),
    ("D5", &[(b"content-length", b"")], Refused),
    ("D5", &[(b"content-length", b"00")], Refused),
    ("D5", &[(b"content-length", b"0")], Status(200)),
    ("D6", &[(b"host", b"other.test")], Status(400)),
    ("D6", &[(b"host", b"site.test:8443")], Status(400)),
    ("D6", &[(b"host", b"site.test"), (b"host", b"site.test")], Status(400)),
    ("D6", &[(b"host", b"")], Status(400)),
    ("D6", &[(b"host", b"site.test/b")], Status(400)),
    ("D6", &[(b"host", b"site.test")], Status(200)),
    ("D6", &[(b":authority", b"-"), (b"host", b"site.test")], Status(200)),
    ("D6", &[(b":authority", b"-"), (b"host", b"other.test")], Status(421)),
    ("D6", &[(b":authority", b"other.test")], Status(421)),
    ("D7", &[(b":path", b"-")], Refused),
    ("D7", &[(b":path", b"")], Refused),
    ("D7", &[(b":path", b"admin")], Refused),
    ("D7", &[(b":path", b"*")], Refused),
    ("D7", &[(b":path", b"?q")], Refused),
    ("D7", &[(b":path", b"https://site.test/")], Refused),
    ("D7", &[(b":method", b"-")], Reset),
    ("D7", &[(b":scheme", b"-")], Refused),
    ("K4", &[(b"expect", b"x 100-continue")], Status(417)),
];

fn fields<'a>(case: &[Field<'a>]) -> Vec<Field<'a>> {
    let base: [Field<'a>; 4] =
        [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"site.test"), (b":path", b"/case")];
    let mut rest = case.to_vec();
    let mut all = Vec::new();
    for (name, usual) in base {
        // Replaced only when the case begins with it: another one later is the case.
        let own = rest.first().filter(|(own, _)| *own == name).copied();
        if own.is_some() {
            rest.remove(0);
        }
        let value = own.map_or(usual, |(_, value)| value);
        if value != b"-" {
            all.push((name, value));
        }
    }
    all.extend(rest);
    all
}

#[test]
fn every_row_has_its_verdict_over_http_2() {
    let stage = stage();
    let mut bystander = stage.open();
    let mut failures = Vec::new();
    for (number, (row, case, verdict)) in CASES.iter().enumerate() {
        let fields = fields(case);
        let mut client = stage.open();
        let outcome = client.ask(1, &fields).unwrap();
        let reset = matches!(outcome, Outcome::Reset(_) | Outcome::GoneAway(_) | Outcome::Closed);
        let is_own = match verdict {
            Reset => reset,
            Status(status) => matches!(&outcome, Outcome::Answered(own, _) if own == status),
            Refused => reset || matches!(outcome, Outcome::Answered(400.., _)),
        };
        let seen = stage.seen(&mut bystander, 1 + 2 * number as u32);
        let expected = usize::from(*verdict == Status(200));
        if !is_own || seen.len() != expected {
            let fields: Vec<_> =
                fields.iter().map(|(name, value)| format!("{}={}", name.escape_ascii(), value.escape_ascii())).collect();
            failures.push(format!("{row} {fields:?}: {outcome:?} instead of {verdict:?}, the origin saw {seen:?}"));
        }
    }
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), CASES.len(), failures.join("\n"));
    assert_eq!(stage.other.take().bytes, 0);
}

/// Rows D5: a length that the data does not have. Too little is no request. Too much is a broken stream, but when it comes late the
/// request was whole without it, and may have been answered: what is too much goes nowhere in any case.
#[test]
fn a_length_that_is_not_the_data_s_is_no_request() {
    let stage = stage();
    let mut bystander = stage.open();
    for (round, (length, pieces)) in [
        (&b"5"[..], &[&b"hell"[..]][..]),
        (b"5", &[b"hello!"]),
        (b"5", &[b"hel", b"lo", b"!"]),
        (b"0", &[b"GET /smuggled HTTP/1.1\r\nhost: site.test\r\n\r\n"]),
        (b"5", &[]),
    ]
    .iter()
    .enumerate()
    {
        let mut client = stage.open();
        let mut fields = head("POST", "/case").to_vec();
        fields.push((b"content-length", length));
        client.send(&Frame::headers(1, &fields, pieces.is_empty())).unwrap();
        for (number, piece) in pieces.iter().enumerate() {
            client.send(&Frame::data(1, piece, number + 1 == pieces.len())).unwrap();
        }
        let outcome = client.outcome(1).unwrap();
        eventually(LONG, "the origin is not left within a request", || stage.origin.pending() == 0);
        let seen = stage.seen(&mut bystander, 1 + 2 * round as u32);
        let told: usize = std::str::from_utf8(length).unwrap().parse().unwrap();
        let whole = pieces.concat().len() >= told;
        assert!(seen.len() <= usize::from(whole), "{round}: {seen:?}");
        assert!(!matches!(outcome, Outcome::Answered(..400, _)) || seen.len() == 1, "{round}: {outcome:?}");
        let body = Body::Length(pieces.concat()[..told.min(pieces.concat().len())].to_vec());
        assert!(seen.iter().all(|request| request.asked() == "POST /case" && request.body == body), "{round}: {seen:?}");
    }
}

/// Row K2: a head, a pause, and data that looks like a request.
#[test]
fn a_pause_within_a_body_ends_the_stream_and_the_origins_connection() {
    let stage = stage_with("[limits]\nbody_idle = \"300ms\"");
    let mut bystander = stage.open();
    let mut client = stage.open();
    client.send(&Frame::headers(1, &head("POST", "/pause"), false)).unwrap();
    assert!(matches!(client.outcome(1).unwrap(), Outcome::Answered(408, _)));
    drop(client.send(&Frame::data(1, b"GET /smuggled HTTP/1.1\r\nhost: site.test\r\n\r\n", true)));
    // Other streams of the connection are none the worse for it.
    assert_eq!(client.ask(3, &head("GET", "/next")).unwrap(), Outcome::Answered(200, b"GET /next".to_vec()));
    eventually(LONG, "the origin is not left within a request", || stage.origin.pending() == 0);
    let seen = stage.seen(&mut bystander, 1);
    assert_eq!(seen.iter().map(Strict::asked).collect::<Vec<_>>(), ["GET /next"]);
}

/// Rows D8 and D9, and what else HTTP/1 has to be told.
#[test]
fn http_2_becomes_one_canonical_request_of_http_1() {
    let stage = stage();
    let mut bystander = stage.open();
    let mut client = stage.open();
    // Cookie crumbs.
    let mut fields = head("GET", "/cookies").to_vec();
    fields.extend([(&b"cookie"[..], &b"a=1"[..]), (b"x", b"y"), (b"cookie", b"b=2"), (b"cookie", b"c=3")]);
    assert_eq!(client.ask(1, &fields).unwrap(), Outcome::Answered(200, b"GET /cookies".to_vec()));
    let seen = stage.seen(&mut bystander, 1);
    assert_eq!((seen[0].all("cookie"), &seen[0].body), (vec!["a=1; b=2; c=3"], &Body::None));
    assert_eq!(seen[0].all("host"), ["site.test"]);
    // The unannounced body of each method.
    for (round, method) in ["GET", "POST", "DELETE", "OPTIONS"].iter().enumerate() {
        let stream = 3 + 2 * round as u32;
        client.send(&Frame::headers(stream, &head(method, "/body"), false)).unwrap();
        client.send(&Frame::data(stream, b"GET /smuggled HTTP/1.1\r\n\r\n", true)).unwrap();
        assert_eq!(client.outcome(stream).unwrap(), Outcome::Answered(200, format!("{method} /body").into_bytes()));
        let seen = stage.seen(&mut bystander, stream);
        assert_eq!(seen.len(), 1, "{seen:?}");
        assert_eq!(seen[0].body, Body::Chunked(b"GET /smuggled HTTP/1.1\r\n\r\n".to_vec(), Vec::new()), "{method}");
    }
}

/// Server name and Host, over HTTP/1.1.
#[test]
fn the_server_name_and_host_agree_on_a_site() {
    let stage = stage();
    for (name, host, status) in [
        ("site.test", "site.test", 200),
        ("site.test", "SITE.test.", 200),
        ("site.test", "other.test", 421),
        ("other.test", "site.test", 421),
        ("other.test", "other.test:443", 200),
        ("site.test", "nobody.test", 404),
    ] {
        let mut client = stage.authority.connect(stage.gateway.tls(), name).unwrap();
        let answer = client.ask(&Request::get("/").host(host)).unwrap();
        assert_eq!(answer.status, status, "{name} {host}");
    }
    assert_eq!((stage.origin.take().requests.len(), stage.other.take().requests.len()), (2, 1));
}
