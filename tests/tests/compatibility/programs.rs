//! nghttp, h2load, wrk and Python.

use std::process::{Command, Stdio};

use weir_tests::{Scratch, Upstream, tool};

use crate::origin;
use crate::stage::Stage;

#[test]
fn nghttp_gets_pages_parts_and_trailers_and_sends_trailers() {
    if !tool::has("nghttp") {
        return;
    }
    let origin = origin::site();
    let stage = Stage::guarded(&origin.url());
    let verbose = |more: &[&str], path: &str| {
        let url = stage.localhost(path);
        let output = tool::run("nghttp", &[&["--verbose", "--no-verify-peer", "--timeout=20"], more, &[&url]].concat());
        tool::text(&output)
    };
    let text = verbose(&[], "/text");
    assert!(text.contains(":status: 200") && text.contains("a page of text"), "{text}");
    let part = verbose(&["-n", "-H", "range: bytes=0-9"], "/file");
    assert!(part.contains(":status: 206") && part.contains("content-range: bytes 0-9/5000"), "{part}");
    let trailers = verbose(&["-H", "te: trailers"], "/trailers");
    assert!(trailers.contains("x-sum: abc=") && trailers.contains("x-count: 1"), "{trailers}");

    let scratch = Scratch::new();
    let file = scratch.write("body", "a body").display().to_string();
    let sent = verbose(&["--data", &file, "--trailer", "x-sum: 7"], "/form");
    assert!(sent.contains(":status: 200") && sent.contains("a body"), "{sent}");
    assert_eq!(origin.last().header("trailer"), Some("x-sum"));
}

#[test]
fn h2load_with_bodies_and_with_http_1() {
    if !tool::has("h2load") {
        return;
    }
    let origin = Upstream::echo();
    let stage = Stage::plain(&origin.url());
    let scratch = Scratch::new();
    let file = scratch.write("body", crate::stage::noise(10_000)).display().to_string();
    for (protocol, url) in [("h2", stage.localhost("/x")), ("http/1.1", stage.localhost("/y"))] {
        let protocols = format!("--npn-list={protocol}");
        let output = tool::run("h2load", &["-n", "400", "-c", "4", "-m", "8", "-d", &file, &protocols, &url]);
        let text = tool::text(&output);
        assert!(text.contains("400 succeeded, 0 failed, 0 errored, 0 timeout"), "{protocol}: {text}");
    }
    let bodies = origin.requests().iter().filter(|request| request.length == 10_000).count();
    assert_eq!(bodies, 800);
}

#[test]
fn wrk_sees_no_error() {
    if !tool::has("wrk") {
        return;
    }
    let origin = Upstream::text("ok");
    let stage = Stage::plain(&origin.url());
    for (kind, port) in [("http", stage.gateway.plain().port()), ("https", stage.gateway.tls().port())] {
        let url = format!("{kind}://localhost:{port}/");
        let text = tool::text(&tool::run("wrk", &["-t1", "-c4", "-d1s", &url]));
        let requests = text.lines().find_map(|line| line.trim().split_once(" requests in ")?.0.parse::<u64>().ok());
        assert!(requests.is_some_and(|requests| requests > 10), "{text}");
        assert!(!text.contains("Socket errors") && !text.contains("Non-2xx"), "{text}");
    }
}

const PYTHON: &str = r#"
import gzip, http.client, ssl, sys, urllib.error, urllib.request
host, plain, secure, ca = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
context = ssl.create_default_context(cafile=ca)

def ask(client, method, path, body=None, headers={}, **more):
    client.request(method, path, body=body, headers=headers, **more)
    answer = client.getresponse()
    return answer.status, answer.read(), answer

for client in (http.client.HTTPConnection(host, plain, timeout=20),
               http.client.HTTPSConnection(host, secure, timeout=20, context=context)):
    client.connect()
    socket = client.sock
    for again in range(3):
        assert ask(client, "GET", "/text")[:2] == (200, b"a page of text")
        assert ask(client, "POST", "/form", b"x" * 100000)[1] == b"x" * 100000
        pieces = (b"%d," % number for number in range(1000))
        sent = b"".join(b"%d," % number for number in range(1000))
        assert ask(client, "PUT", "/pieces", pieces, encode_chunked=True)[1] == sent
        status, body, answer = ask(client, "HEAD", "/file")
        assert (status, body, answer.getheader("content-length")) == (200, b"", "5000")
        assert ask(client, "GET", "/204")[:2] == (204, b"")
        status, body, answer = ask(client, "GET", "/304")
        assert (status, body, answer.getheader("etag")) == (304, b"", '"v1"')
        assert gzip.decompress(ask(client, "GET", "/gzip")[1]) == b"compressed, and left alone"
        status, body, answer = ask(client, "GET", "/file", headers={"Range": "bytes=100-299"})
        assert (status, len(body), answer.getheader("content-range")) == (206, 200, "bytes 100-299/5000")
        assert ask(client, "GET", "/trailers")[1] == b"body"
        assert len(ask(client, "GET", "/stream")[1]) == 8 << 20
        assert client.sock is socket, "one connection for all of it"

for base in (f"http://{host}:{plain}", f"https://{host}:{secure}"):
    with urllib.request.urlopen(base + "/text", timeout=20, context=context if base.startswith("https") else None) as answer:
        assert (answer.status, answer.read()) == (200, b"a page of text")
    try:
        urllib.request.urlopen(urllib.request.Request(base + "/file", headers={"Range": "bytes=9999-"}), timeout=20,
                               context=context if base.startswith("https") else None)
        raise SystemExit("416 is an error")
    except urllib.error.HTTPError as error:
        assert error.code == 416

old = http.client.HTTPConnection(host, plain, timeout=20)
old._http_vsn, old._http_vsn_str = 10, "HTTP/1.0"
status, body, answer = ask(old, "GET", "/stream", headers={"Host": host})
assert (status, answer.version, len(body)) == (200, 10, 8 << 20)
print("all of it")
"#;

#[test]
fn python_speaks_http_with_one_connection_after_another() {
    if !tool::has("python3") {
        return;
    }
    let origin = origin::site();
    let stage = Stage::guarded(&origin.url());
    let ports = [stage.gateway.plain().port().to_string(), stage.gateway.tls().port().to_string()];
    let output = Command::new("python3")
        .args(["-c", PYTHON, "localhost", &ports[0], &ports[1], &stage.ca])
        .stdin(Stdio::null())
        .output()
        .expect("python3");
    assert_eq!(tool::text(&output), "all of it\n");
}
