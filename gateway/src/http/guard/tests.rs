use http::{HeaderValue, Request};

use super::*;

const LIMITS: Limits = Limits { head_bytes: 2048, target_bytes: 64, fields: 8 };

fn request(version: Version, method: &str, target: &str, fields: &[(&str, &str)]) -> RequestHead {
    let mut builder = Request::builder().version(version).method(method).uri(target);
    for (name, value) in fields {
        builder = builder.header(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    *crate::http::message::Request::from(builder.body(()).unwrap()).head
}

/// The host a request is for: of HTTP/1, judged as bytes first.
fn verdict(version: Version, method: &str, target: &str, fields: &[(&str, &str)]) -> Result<String, Refusal> {
    if version < Version::HTTP_2 {
        let mut head = format!("{method} {target} {version:?}\r\n");
        fields.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
        head.push_str("\r\n");
        match raw::read(head.as_bytes(), LIMITS) {
            raw::Reading::Refused(refusal) => return Err(refusal),
            reading => assert!(matches!(reading, raw::Reading::Whole(_)), "{head}"),
        }
    }
    check(&request(version, method, target, fields), false, LIMITS).map(|authority| authority.host.into_owned())
}

#[track_caller]
fn refused(version: Version, method: &str, target: &str, fields: &[(&str, &str)], refusal: Refusal) {
    assert_eq!(verdict(version, method, target, fields), Err(refusal), "{method} {target} {fields:?}");
}

#[track_caller]
fn accepted(version: Version, method: &str, target: &str, fields: &[(&str, &str)], host: &str) {
    assert_eq!(verdict(version, method, target, fields), Ok(host.to_owned()), "{method} {target} {fields:?}");
}

const H10: Version = Version::HTTP_10;
const H11: Version = Version::HTTP_11;
const H2: Version = Version::HTTP_2;
const HOST_A: (&str, &str) = ("host", "a.example");

#[test]
fn ordinary_requests_pass() {
    for (version, method, target, fields, host) in [
        (H11, "GET", "/", &[("host", "A.example:80")][..], "a.example"),
        (H11, "GET", "/x\"{}|?y=1&z=[{}|^\\]", &[HOST_A], "a.example"),
        (H11, "GET", "http://a.example/x", &[("host", "a.example:80")], "a.example"),
        (H11, "OPTIONS", "*", &[HOST_A], "a.example"),
        (H11, "OPTIONS", "/x", &[HOST_A], "a.example"),
        (H11, "VERSION-CONTROL", "/", &[HOST_A], "a.example"),
        (H11, "POST", "/", &[HOST_A, ("content-length", "5"), ("expect", "100-Continue")], "a.example"),
        (H11, "POST", "/", &[HOST_A, ("content-length", "0")], "a.example"),
        (H11, "POST", "/", &[HOST_A, ("transfer-encoding", "Chunked")], "a.example"),
        (H11, "GET", "/", &[HOST_A, ("content-length", "34")], "a.example"),
        (H11, "GET", "/", &[HOST_A, ("x_custom", "1"), ("content_type", "1"), ("te", "trailers")], "a.example"),
        (H10, "GET", "/", &[], ""),
        (H10, "GET", "/", &[("content-length", "0")], ""),
        (H10, "POST", "/", &[HOST_A, ("content-length", "5")], "a.example"),
        (H2, "GET", "https://b.example/", &[], "b.example"),
        (H2, "GET", "https://b.example/", &[("host", "B.example.")], "b.example"),
        (H2, "GET", "/", &[HOST_A], "a.example"),
    ] {
        accepted(version, method, target, fields, host);
    }
}

#[test]
fn the_authority_is_what_the_client_sent() {
    let parts = request(H11, "GET", "/", &[("host", "A.example:8080")]);
    let authority = check(&parts, true, LIMITS).unwrap();
    assert_eq!((authority.host.as_ref(), authority.text, authority.port), ("a.example", "A.example:8080", 8080));
    let parts = request(H11, "GET", "/", &[HOST_A]);
    assert_eq!([true, false].map(|tls| check(&parts, tls, LIMITS).unwrap().port), [443, 80]);
}

#[test]
fn transfer_encoding_is_one_chunked() {
    use Refusal::{AmbiguousLength, BadTransferEncoding, UnexpectedTransferEncoding, UnknownTransferCoding};
    for (value, refusal) in [
        ("chunked, chunked", BadTransferEncoding),
        (",chunked", BadTransferEncoding),
        ("chunked,", BadTransferEncoding),
        ("chunked, gzip", BadTransferEncoding),
        ("gzip", BadTransferEncoding),
        ("identity, chunked", BadTransferEncoding),
        ("xchunked", BadTransferEncoding),
        ("\"chunked\"", BadTransferEncoding),
        ("chunked;q=1", BadTransferEncoding),
        ("cow chunked", BadTransferEncoding),
        ("", BadTransferEncoding),
        ("chun\u{212a}ed", BadTransferEncoding),
        ("gzip, chunked", UnknownTransferCoding),
        ("Deflate,GZip ,chunked", UnknownTransferCoding),
    ] {
        refused(H11, "POST", "/", &[HOST_A, ("transfer-encoding", value)], refusal);
    }
    for values in [["chunked", "chunked"], ["identity", "chunked"], ["chunked", "identity"]] {
        let fields = values.map(|value| ("transfer-encoding", value));
        refused(H11, "POST", "/", &[HOST_A, fields[0], fields[1]], BadTransferEncoding);
    }
    let chunked = ("transfer-encoding", "chunked");
    refused(H11, "POST", "/", &[HOST_A, ("content-length", "5"), chunked], AmbiguousLength);
    refused(H11, "POST", "/", &[HOST_A, chunked, ("content-length", "5")], AmbiguousLength);
    refused(H10, "POST", "/", &[HOST_A, chunked], UnexpectedTransferEncoding);
    refused(H2, "POST", "http://a.example/", &[chunked], UnexpectedTransferEncoding);
}

#[test]
fn content_length_is_one_canonical_number() {
    for value in ["010", "00", "+5", "-1", "0x10", "1_0", "5e0", "5.0", "5 5", "5,5", "5, 5", "", "٥"] {
        refused(H11, "POST", "/", &[HOST_A, ("content-length", value)], Refusal::BadContentLength);
    }
    // hyper takes the largest two for something else, and a reader with signed numbers the upper half.
    for value in ["9223372036854775808", "18446744073709551614", "18446744073709551615", "18446744073709551616"] {
        refused(H11, "POST", "/", &[HOST_A, ("content-length", value)], Refusal::BadContentLength);
    }
    refused(H11, "POST", "/", &[HOST_A, ("content-length", "5"), ("content-length", "6")], Refusal::BadContentLength);
    accepted(H11, "POST", "/", &[HOST_A, ("content-length", "5"), ("content-length", "5")], "a.example");
    for method in ["GET", "HEAD"] {
        refused(H10, method, "/", &[HOST_A, ("content-length", "5")], Refusal::UnexpectedBody);
    }
}

#[test]
fn fields_that_shadow_framing_are_refused() {
    for name in ["transfer_encoding", "content_length", "transfer-%45ncoding", "content%2dlength"] {
        refused(H11, "POST", "/", &[HOST_A, (name, "chunked")], Refusal::ShadowedField);
    }
}

#[test]
fn expectations_other_than_continue_are_refused() {
    for value in ["x 100-continue", "100-continue, 100-continue", "200-ok", ""] {
        refused(H11, "POST", "/", &[HOST_A, ("expect", value)], Refusal::BadExpectation);
    }
    refused(H11, "POST", "/", &[HOST_A, ("expect", "100-continue"), ("expect", "100-continue")], Refusal::BadExpectation);
}

#[test]
fn methods_are_upper_case_tokens() {
    let long = "X".repeat(MAX_METHOD + 1);
    for method in ["get", "Get", "GET!", "1GET", "-", "G'T", long.as_str()] {
        refused(H11, method, "/", &[HOST_A], Refusal::BadMethod);
    }
    accepted(H11, &"X".repeat(MAX_METHOD), "/", &[HOST_A], "a.example");
    refused(H11, "CONNECT", "a.example:443", &[HOST_A], Refusal::ConnectRefused);
    refused(H2, "CONNECT", "a.example:443", &[], Refusal::ConnectRefused);
    refused(H2, "CONNECT", "https://a.example/socket", &[], Refusal::ConnectRefused);
}

#[test]
fn targets_have_one_meaning() {
    for (method, target) in [
        ("GET", "good.example:80"),
        ("GET", "admin"),
        ("GET", "*"),
        ("POST", "*"),
        ("GET", "ftp://a.example/"),
        ("GET", "http://a.example?q"),
        ("GET", "/caf\u{e9}"),
        ("GET", "/?q=\u{e9}"),
    ] {
        refused(H11, method, target, &[HOST_A], Refusal::BadTarget);
    }
    for raw in [&b"/a#b"[..], b"/a b", b"/a\tb", b"/\x00", b"/\x7f", b"/\xff"] {
        assert_eq!(check_target(raw), Err(Refusal::BadTarget), "{raw:?}");
    }
    assert_eq!(check_target(b"/a;x=1/%2e%2e/?b=c"), Ok(()));
}

#[test]
fn exactly_one_host_and_it_agrees_with_the_target() {
    use Refusal::{AuthorityMismatch, BadHost, DuplicateHost, MissingHost};
    refused(H11, "GET", "/", &[], MissingHost);
    refused(H11, "GET", "http://a.example/", &[], MissingHost);
    refused(H2, "GET", "/", &[], MissingHost);
    refused(H11, "GET", "/", &[HOST_A, HOST_A], DuplicateHost);
    refused(H2, "GET", "http://a.example/", &[HOST_A, HOST_A], DuplicateHost);
    for host in ["", "a, b", "a/b", "u@a", "a b", "a:99999", "a:0", "a:", "a:x", "caf\u{e9}", "*"] {
        refused(H11, "GET", "/", &[("host", host)], BadHost);
    }
    refused(H2, "GET", "http://u@a.example/", &[], BadHost);
    refused(H2, "GET", "http://a.example/", &[("host", "a/b")], BadHost);
    for (version, target) in [(H11, "http://evil.example/"), (H10, "http://evil.example/"), (H2, "http://evil.example/")] {
        refused(version, "GET", target, &[HOST_A], AuthorityMismatch);
    }
    refused(H11, "GET", "http://a.example:8080/", &[HOST_A], AuthorityMismatch);
}

#[test]
fn sizes_are_limited() {
    let target = format!("/{}", "x".repeat(LIMITS.target_bytes));
    refused(H11, "GET", &target, &[HOST_A], Refusal::TargetTooLong);
    accepted(H11, "GET", &target[..LIMITS.target_bytes], &[HOST_A], "a.example");
    let mut fields = vec![("x-a", "1"); LIMITS.fields - 1];
    fields.push(HOST_A);
    accepted(H11, "GET", "/", &fields, "a.example");
    fields.push(("x-a", "1"));
    refused(H11, "GET", "/", &fields, Refusal::TooManyFields);
}

#[test]
fn statuses_say_whose_mistake_it_is() {
    for (refusal, status, reason) in [
        (Refusal::ConnectRefused, 405, "connect_refused"),
        (Refusal::TargetTooLong, 414, "target_too_long"),
        (Refusal::TooManyFields, 431, "too_many_fields"),
        (Refusal::BadExpectation, 417, "bad_expectation"),
        (Refusal::UnknownTransferCoding, 501, "unknown_transfer_coding"),
        (Refusal::MissingHost, 400, "missing_host"),
    ] {
        assert_eq!((refusal.status().as_u16(), refusal.to_string().as_str()), (status, reason));
    }
}

const BYTES: Limits = Limits { head_bytes: 512, target_bytes: 64, fields: 8 };

/// Refused whole, and not taken for whole at any byte before.
#[track_caller]
fn refused_bytes(head: &[u8], refusal: Refusal) {
    assert_eq!(raw::read(head, BYTES), raw::Reading::Refused(refusal), "{}", head.escape_ascii());
    for end in 0..head.len() {
        assert!(!matches!(raw::read(&head[..end], BYTES), raw::Reading::Whole(_)), "{}", head[..end].escape_ascii());
    }
}

#[test]
fn what_other_readers_mend_is_refused() {
    use Refusal::{
        AmbiguousLength, BadContentLength, BadField, BadMethod, BadTarget, BadTransferEncoding, BadVersion, BareLineFeed,
        DuplicateHost, HeadTooLarge, TargetTooLong, TooManyFields, UnexpectedBody, UnexpectedTransferEncoding,
    };
    for (head, refusal) in [
        (&b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"[..], AmbiguousLength),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", AmbiguousLength),
        (b"GET / HTTP/1.1\nHost: a\n\n", BareLineFeed),
        (b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", BareLineFeed),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\n", BareLineFeed),
        (b"GET / HTTP/1.1\r\nHost\n: a\r\n\r\n", BareLineFeed),
        (b"GET / HTTP/1.1\r\nX: a\rTransfer-Encoding: chunked\r\n\r\n", BadField),
        (b"GET / HTTP/1.1\r\nX: a\r\n\rTransfer-Encoding: chunked\r\n\r\n", BadField),
        (b"GET / HTTP/1.1\r\nX: a\r\n folded\r\n\r\n", BadField),
        (b"GET / HTTP/1.1\r\nX : a\r\n\r\n", BadField),
        (b"GET / HTTP/1.1\r\nX\r\n\r\n", BadField),
        (b"GET / HTTP/1.1\r\n: a\r\n\r\n", BadField),
        (b"GET / HTTP/1.1\r\nX: 1234567\x00\r\n\r\n", BadField),
        (b"GET / HTTP/1.1\r\nX: 12\x7f\r\n\r\n", BadField),
        (b"GET / HTTP/1.1\r\nX\x80: a\r\n\r\n", BadField),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", DuplicateHost),
        (b"\r\n\r\nGET / HTTP/1.1\r\n\r\n", BadMethod),
        (b"\nGET / HTTP/1.1\r\n\r\n", BadMethod),
        (b"get / HTTP/1.1\r\n\r\n", BadMethod),
        (b"GET  / HTTP/1.1\r\n\r\n", BadTarget),
        (b"GET /  HTTP/1.1\r\n\r\n", BadVersion),
        (b"GET\t/ HTTP/1.1\r\n\r\n", BadMethod),
        (b"GET /\r\n\r\n", BadTarget),
        (b"GET /a#b HTTP/1.1\r\n\r\n", BadTarget),
        (b"GET /\xc3\xa9 HTTP/1.1\r\n\r\n", BadTarget),
        (b"GET /<a> HTTP/1.1\r\n\r\n", BadTarget),
        (b"GET a:b:c HTTP/1.1\r\n\r\n", BadTarget),
        (b"GET http://[ HTTP/1.1\r\n\r\n", BadTarget),
        (b"GET / HTTP/1.2\r\n\r\n", BadVersion),
        (b"GET / http/1.1\r\n\r\n", BadVersion),
        (b"GET / HTTP/1.10\r\n\r\n", BadField),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", BadVersion),
        (b"\x16\x03\x01\x02\x00\x01", BadMethod),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", UnexpectedTransferEncoding),
        (b"GET / HTTP/1.0\r\nContent-Length: 5\r\n\r\n", UnexpectedBody),
        (b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", BadContentLength),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", BadTransferEncoding),
    ] {
        refused_bytes(head, refusal);
    }
    let long = |prefix: &str, length: usize, suffix: &str| format!("{prefix}{}{suffix}", "x".repeat(length)).into_bytes();
    for (head, refusal) in [
        (long("GET /", 400, " HTTP/1.1\r\n\r\n"), TargetTooLong),
        (long("GET /", 600, ""), TargetTooLong),
        (long("GET / HTTP/1.1\r\nX: ", 600, "\r\n\r\n"), HeadTooLarge),
        (long("GET / HTTP/1.1\r\nX: ", 600, ""), HeadTooLarge),
        (long("GET / HTTP/1.1\r\n", 300, ": a\r\n\r\n"), BadField),
        ([b"GET / HTTP/1.1\r\n".as_slice(), &b"X: a\r\n".repeat(9), b"\r\n"].concat(), TooManyFields),
    ] {
        assert_eq!(raw::read(&head, BYTES), raw::Reading::Refused(refusal), "{}", head.escape_ascii());
    }
}

#[test]
fn ordinary_heads_pass() {
    for head in [
        &b"\r\nGET / HTTP/1.1\r\n\r\n"[..],
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET http://a.example/x HTTP/1.1\r\nHost: a.example\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost:a\r\n\r\n",
        b"CONNECT a.example:443 HTTP/1.1\r\n\r\n",
        b"GET /x\"{}|?y=1&z=[{}|^\\] HTTP/1.1\r\nX:\t tab\tand \xe9 \r\nY:\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 0\r\nExpect: 100-Continue\r\n\r\n",
    ] {
        let raw::Reading::Whole(read) = raw::read(head, BYTES) else { panic!("{}", head.escape_ascii()) };
        assert_eq!(read.length, head.len());
        assert_eq!(raw::read(&head[..head.len() - 1], BYTES), raw::Reading::Partial);
    }
}
