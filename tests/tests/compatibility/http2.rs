//! What HTTP/2 adds: trailers as a second head, bodies without framing of their own, answers to HEAD.

use weir_tests::h2::{Field, Frame, Http2, Outcome, flag, kind};
use weir_tests::recording::{Body, Recording, answer};

use crate::origin::{self, FILE, GZIP};
use crate::stage::Stage;

/// Method, path, more fields; status and body of the answer.
type Case<'a> = (&'a str, &'a str, &'a [Field<'a>], u16, &'a [u8]);

fn fields<'a>(method: &'a str, path: &'a str, more: &[Field<'a>]) -> Vec<Field<'a>> {
    let pseudo: [Field<'a>; 4] =
        [(b":method", method.as_bytes()), (b":scheme", b"https"), (b":authority", b"site.test"), (b":path", path.as_bytes())];
    [&pseudo, more].concat()
}

#[test]
fn answers_arrive_as_they_were_sent() {
    let origin = origin::site();
    let stage = Stage::guarded(&origin.url());
    let mut client = Http2::open(&stage.authority, stage.gateway.tls(), "site.test").unwrap();
    let cases: [Case<'_>; 8] = [
        ("GET", "/gzip", &[(b"accept-encoding", b"gzip")], 200, GZIP),
        ("GET", "/file", &[], 200, &origin::file()),
        ("HEAD", "/file", &[], 200, b""),
        ("GET", "/file", &[(b"range", b"bytes=4000-")], 206, &origin::file()[4000..FILE]),
        ("GET", "/204", &[], 204, b""),
        ("GET", "/304", &[(b"if-none-match", b"\"v1\"")], 304, b""),
        ("GET", "/early", &[], 200, b"final"),
        ("GET", "/trailers", &[(b"te", b"trailers")], 200, b"body"),
    ];
    for (number, (method, path, more, status, body)) in cases.into_iter().enumerate() {
        let stream = 2 * u32::try_from(number).unwrap() + 1;
        let outcome = client.ask(stream, &fields(method, path, more)).unwrap();
        assert_eq!(outcome, Outcome::Answered(status, body.to_vec()), "{method} {path}");
    }
}

#[test]
fn trailers_pass_in_both_directions() {
    let origin = Recording::scripted(|request| match request.asked() {
        "POST /both" => {
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n".to_vec()
        }
        asked => answer(asked),
    });
    let stage = Stage::guarded(&origin.url());
    let mut client = Http2::open(&stage.authority, stage.gateway.tls(), "site.test").unwrap();
    client.send(&Frame::headers(1, &fields("POST", "/both", &[(b"te", b"trailers"), (b"trailer", b"x-sum")]), false)).unwrap();
    client.send(&Frame::data(1, b"body", false)).unwrap();
    client.send(&Frame::headers(1, &[(b"x-sum", b"abc=")], true)).unwrap();
    let (mut heads, mut data) = (Vec::new(), Vec::new());
    loop {
        let frame = client.receive().unwrap().expect("an answer");
        if frame.stream == 1 {
            match frame.kind {
                kind::HEADERS => heads.push(frame.clone()),
                kind::DATA => data.extend_from_slice(&frame.payload),
                other => panic!("frame {other}"),
            }
            if frame.flags & flag::END_STREAM != 0 {
                break;
            }
        }
    }
    assert_eq!((heads.len(), data.as_slice()), (2, b"ok".as_slice()), "a head, the body, the trailers");
    assert!(heads[1].flags & flag::END_STREAM != 0);
    let seen = origin.take();
    assert_eq!(seen.faults, [""; 0]);
    assert_eq!(seen.requests[0].body, Body::Chunked(b"body".to_vec(), vec!["x-sum: abc=".to_owned()]));
}

/// The gateway sends no 100 over HTTP/2; clients wait for one only for a moment.
#[test]
fn a_body_that_was_announced_with_an_expectation_arrives() {
    let stage = Stage::plain(&origin::mirror());
    let mut client = Http2::open(&stage.authority, stage.gateway.tls(), "site.test").unwrap();
    client.send(&Frame::headers(1, &fields("PUT", "/x", &[(b"expect", b"100-continue")]), false)).unwrap();
    client.send(&Frame::data(1, b"body", true)).unwrap();
    assert_eq!(client.outcome(1).unwrap(), Outcome::Answered(200, b"body".to_vec()));
}
