//! Bodies stream: a gigabyte costs no more memory than a page.

use std::process::{Command, Stdio};

use weir_tests::tls::{Authority, Kind};
use weir_tests::{Gate, Gateway, Reply, Request, Setup, Upstream, tool};

const GIB: u64 = 1 << 30;
/// What the gateway may need more, whatever the body's size.
const FLAT: u64 = 64 << 20;

fn origin() -> Upstream {
    Upstream::scripted(|request| match request.target() {
        "/length" => Reply::Stream { length: GIB, chunked: false },
        "/chunked" => Reply::Stream { length: GIB, chunked: true },
        _ => Reply::text(request.length.to_string()),
    })
}

/// Runs `work` and answers how much the gateway's memory grew at most meanwhile.
fn growth(gateway: &Gateway, work: impl FnOnce() + Send) -> u64 {
    let before = gateway.memory();
    let mut peak = before;
    std::thread::scope(|scope| {
        let working = scope.spawn(work);
        while !working.is_finished() {
            peak = peak.max(gateway.memory());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    });
    peak - before
}

#[track_caller]
fn download(gateway: &Gateway, url: &str, authority: &str) {
    let size = curl(gateway, &["--output", "/dev/null", "--write-out", "%{size_download}", url], authority, Stdio::null());
    assert_eq!(size, GIB.to_string(), "{url}");
}

fn curl(gateway: &Gateway, arguments: &[&str], authority: &str, input: Stdio) -> String {
    let resolve = |port: u16| format!("site.test:{port}:127.0.0.1");
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "120", "--http1.1", "--cacert", authority])
        .args(["--resolve", &resolve(gateway.plain().port()), "--resolve", &resolve(gateway.tls().port())])
        .args(arguments)
        .stdin(input)
        .output()
        .expect("curl");
    assert!(output.status.success(), "{arguments:?}: {}", tool::text(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_gigabyte_streams_both_ways_through_tls_with_flat_memory() {
    if !tool::has("curl") {
        return;
    }
    let origin = origin();
    let authority = Authority::new();
    let gateway = Setup::before(&origin).certificate(&authority.issue(Kind::Ecdsa, &["site.test"])).start();
    let ca = gateway.directory().write("ca.pem", &authority.pem).display().to_string();
    let plain = format!("http://site.test:{}", gateway.plain().port());
    let secure = format!("https://site.test:{}", gateway.tls().port());

    let grown = growth(&gateway, || download(&gateway, &format!("{plain}/chunked"), &ca));
    assert!(grown < FLAT, "plain download: memory grew by {grown} bytes");
    let grown = growth(&gateway, || download(&gateway, &format!("{secure}/length"), &ca));
    assert!(grown < FLAT, "download: memory grew by {grown} bytes");

    let grown = growth(&gateway, || {
        let mut zeros =
            Command::new("head").args(["-c", &GIB.to_string(), "/dev/zero"]).stdout(Stdio::piped()).spawn().expect("head");
        let input = Stdio::from(zeros.stdout.take().expect("piped"));
        let counted = curl(&gateway, &["--upload-file", "-", &format!("{secure}/upload")], &ca, input);
        zeros.wait().expect("head");
        assert_eq!(counted, GIB.to_string(), "the origin counted what arrived");
    });
    assert!(grown < FLAT, "upload: memory grew by {grown} bytes");
}

#[test]
fn a_client_that_reads_nothing_makes_the_origin_wait_not_the_gateway_swell() {
    let origin = origin();
    let gateway = Setup::before(&origin).start();
    let before = gateway.memory();
    let mut clients: Vec<_> = (0..16)
        .map(|_| {
            let mut client = gateway.connect();
            client.send(Request::get("/length").bytes()).unwrap();
            client.head().unwrap();
            client
        })
        .collect();
    // Each has taken a piece; the gateway is ahead of them by no more than its buffers.
    for client in &mut clients {
        client.exactly(1 << 20).unwrap();
    }
    let grown = gateway.memory().saturating_sub(before);
    assert!(grown < FLAT, "memory grew by {grown} bytes");
}

#[test]
fn the_first_bytes_of_an_answer_do_not_wait_for_the_last() {
    let origin = Upstream::scripted(|_| Reply::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfirst".to_vec()));
    let gateway = Setup::before(&origin).start();
    let mut client = gateway.connect();
    client.send(Request::get("/").bytes()).unwrap();
    assert_eq!(client.head().unwrap().get("content-length"), Some("10"));
    assert_eq!(client.exactly(5).unwrap(), b"first");
}

#[test]
fn an_upload_may_take_longer_than_the_wait_for_the_first_byte_of_its_answer() {
    let origin = Upstream::text("ok");
    let gateway = Setup::before(&origin).upstream("timeouts = { first_byte = \"300ms\" }").start();
    let mut client = gateway.connect();
    client.send("POST /slow HTTP/1.1\r\nhost: site.test\r\ncontent-length: 12\r\n\r\n").unwrap();
    for _ in 0..12 {
        // A slow line: twelve pieces, each well within the limit, all together four times as long as it.
        std::thread::sleep(std::time::Duration::from_millis(100));
        client.send("x").unwrap();
    }
    assert_eq!(client.answer().unwrap().status, 200);
    assert_eq!(origin.last().body, b"xxxxxxxxxxxx");
}

#[test]
fn an_origin_that_takes_the_request_and_says_nothing_is_given_up() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Upstream::scripted(move |_| Reply::Behind(held.clone(), Box::new(Reply::text("late"))));
    let gateway = Setup::before(&origin).upstream("timeouts = { first_byte = \"300ms\" }").start();
    let answer = gateway.ask(&Request::post("/", "text/plain", "all of it"));
    gate.open();
    assert_eq!(answer.status, 504);
    assert_eq!(gateway.log_of(&answer)["reason"], "upstream_timeout");
}
