//! A browser that loads a page with everything: a fetch each way, an image, server-sent events and a WebSocket.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use weir_tests::{Received, Reply, Scratch, Upstream, eventually, tool};

use crate::stage::Stage;

/// Reports what it got as one word for each thing.
const PAGE: &str = r#"<!doctype html><meta charset="utf-8"><title>page</title><body><script>
const within = (what, promise) => Promise.race([promise, new Promise(done => setTimeout(() => done(what + "-late"), 12000))]);
const image = new Promise(done => {
  const image = new Image();
  image.onload = () => done("image-" + image.width);
  image.onerror = () => done("image-error");
  image.src = "/image";
  document.body.append(image);
});
const events = new Promise(done => {
  const source = new EventSource("/events"), got = [];
  source.onmessage = event => { got.push(event.data); if (got.length == 3) { source.close(); done("events-" + got.join("")); } };
});
const socket = new Promise(done => {
  const socket = new WebSocket("wss://" + location.host + "/socket");
  socket.onmessage = event => { socket.send("bye"); done("socket-" + event.data); };
  socket.onerror = () => done("socket-error");
});
const fetched = fetch("/data").then(answer => answer.json()).then(data => "fetch-" + data.n);
const posted = fetch("/post", { method: "POST", body: "x".repeat(300000) }).then(answer => answer.text()).then(text => "post-" + text);
Promise.all([["image", image], ["events", events], ["socket", socket], ["fetch", fetched], ["post", posted]].map(each => within(...each)))
  .then(words => { document.body.append(words.join(" ")); return fetch("/report", { method: "POST", body: words.join(" ") }); });
</script>"#;
/// One black point.
const IMAGE: &[u8] = b"GIF87a\x01\0\x01\0\x80\x01\0\0\0\0\xff\xff\xff,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;";

fn page(request: &Received) -> Reply {
    let typed = |kind: &str, body: &[u8]| Reply::with("200 OK", &[("content-type", kind)], body);
    match request.target() {
        "/" => typed("text/html", PAGE.as_bytes()),
        "/image" => typed("image/gif", IMAGE),
        "/data" => typed("application/json", b"{\"n\": 42}"),
        "/post" => Reply::text(request.length.to_string()),
        "/events" => Reply::Raw(
            [
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".as_slice(),
                b"9\r\ndata: a\n\n\r\n9\r\ndata: b\n\n\r\n9\r\ndata: c\n\n\r\n",
            ]
            .concat(),
        ),
        "/socket" => Reply::Raw(
            [
                b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: "
                    .as_slice(),
                accept(request.header("sec-websocket-key").unwrap_or_default()).as_bytes(),
                b"\r\n\r\n\x81\x05hello",
            ]
            .concat(),
        ),
        "/report" => Reply::text("thanks"),
        _ => Reply::with("404 Not Found", &[], ""),
    }
}

/// The answer to a WebSocket's key (RFC 6455, section 4.2.2).
fn accept(key: &str) -> String {
    let script = "printf %s \"$1\" | openssl dgst -sha1 -binary | openssl base64";
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    String::from_utf8_lossy(&tool::run("sh", &["-c", script, "sh", &text]).stdout).trim().to_owned()
}

/// A browser that ends with its test.
struct Browser(Child);

impl Drop for Browser {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn a_page_with_everything_works_in_a_browser() {
    if !tool::has("chromium") || tool::find("openssl").is_none() {
        tool::skipped("the browser's page needs chromium and openssl");
        return;
    }
    let origin = Upstream::scripted(page);
    let stage = Stage::guarded(&origin.url());
    let profile = Scratch::new();
    let flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--ignore-certificate-errors",
        "--remote-debugging-port=0",
        "--host-resolver-rules=MAP * 127.0.0.1",
    ];
    let browser = Command::new("chromium")
        .args(flags)
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(stage.https("/"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("chromium");
    let _browser = Browser(browser);
    let report = || origin.requests().iter().find(|request| request.target() == "/report").cloned();
    eventually(Duration::from_secs(30), "the page reports", || report().is_some());
    let words = String::from_utf8_lossy(&report().unwrap().body).into_owned();
    assert_eq!(words, "image-1 events-abc socket-hello fetch-42 post-300000");
    let page = stage.gateway.log_where(|line| line["path"] == "/data");
    assert_eq!(page["protocol"], "HTTP/2", "browsers speak it when they can");
}
