//! What passes through five policies that are called in every phase.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use weir_tests::{Connection, Gateway, Hostile, LONG, Reply, Request, Setup, Upstream, wasm};

/// Five policies before the server at this URL, all of which see heads and bodies, and change nothing.
fn through_five(url: &str) -> Gateway {
    let lines = "grants = [\"kv\"]\nconfig = { phases = [\"response\", \"response-body\", \"complete\"] }\nlimits = { cpu = \"1s\", wall = \"10s\" }";
    let bodies = "config = { window = 100 }";
    let one = Setup::before_servers(&[(url, 0)]).replace("workers = 2", "workers = 1").guest("bodies", bodies);
    let chain =
        ["a", "b", "c", "d"].iter().fold(one, |setup, name| setup.plugin(name, "hostile", &wasm::guest("hostile"), lines));
    chain.start()
}

/// An origin that sends a head and then what it is told to, piece by piece.
fn told(head: &'static str) -> (Hostile, Sender<String>) {
    let (tell, listen) = channel::<String>();
    let listen: Mutex<Receiver<String>> = Mutex::new(listen);
    let origin = Hostile::new(move |victim| {
        victim.read()?;
        victim.send(head.as_bytes())?;
        while let Ok(piece) = listen.lock().unwrap().recv_timeout(LONG) {
            victim.send(piece.as_bytes())?;
        }
        Ok(())
    });
    (origin, tell)
}

#[test]
fn server_sent_events_are_not_held_back_by_five_policies() {
    // Pain 10
    let (origin, tell) = told("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
    let gateway = through_five(&origin.url());
    let mut client = gateway.connect();
    client.send(Request::get("/events").header("accept", "text/event-stream").bytes()).unwrap();
    assert_eq!(client.head().unwrap().get("content-type"), Some("text/event-stream"));
    for number in 0..50 {
        let event = format!("id: {number}\ndata: event {number}\n\n");
        let framed = format!("{:x}\r\n{event}\r\n", event.len());
        // The next event exists only after this one has arrived.
        tell.send(framed.clone()).unwrap();
        assert_eq!(client.exactly(framed.len()).unwrap(), framed.as_bytes());
    }
}

#[test]
fn a_websocket_echoes_through_five_policies() {
    // Pain 10
    let origin = Upstream::scripted(|request| match request.header("upgrade") {
        Some("websocket") => Reply::Tunnel,
        _ => Reply::text("no upgrade"),
    });
    let gateway = through_five(&origin.url());
    let mut client = gateway.connect();
    let upgrade = Request::get("/socket")
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    assert_eq!(client.ask(&upgrade).unwrap().status, 101);
    for round in 0..100_u8 {
        let frame = [0x82, 0x84, 0, 0, 0, 0, round, 1, 2, 3];
        client.send(frame).unwrap();
        assert_eq!(client.exactly(frame.len()).unwrap(), frame);
    }
    drop(client);
    let line = gateway.log_where(|line| line["status"] == 101);
    let calls = line["policies"].as_array().cloned().unwrap_or_default();
    assert!(calls.iter().all(|call| call["verdict"] == "next" && call["phase"] != "response-body"), "{line}");
}

/// Values of a field whose name may come again, as bytes.
fn values(head: &[u8], name: &str) -> Vec<Vec<u8>> {
    let prefix = format!("{name}: ").into_bytes();
    let lines = head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    lines.filter(|line| line.to_ascii_lowercase().starts_with(&prefix)).map(|line| line[prefix.len()..].to_vec()).collect()
}

fn read_head(client: &mut Connection) -> Vec<u8> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend_from_slice(&client.exactly(1).unwrap());
    }
    head
}

#[test]
fn repeated_fields_and_bytes_that_are_no_text_survive_a_chain() {
    // Pain 19
    const COOKIES: [&[u8]; 3] = [b"a=1; Path=/", b"b=2; HttpOnly", b"a=3; Expires=Thu, 01 Jan 2026 00:00:00 GMT"];
    const ODD: [&[u8]; 3] = [b"caf\xe9", b"\xff\xfe", b"plain"];
    let origin = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", origin.local_addr().unwrap());
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = origin.accept().unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.extend_from_slice(&byte);
        }
        let mut answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n".to_vec();
        for (name, fields) in [("set-cookie", COOKIES), ("x-odd", ODD)] {
            for value in fields {
                answer.extend_from_slice(&[name.as_bytes(), b": ", value, b"\r\n"].concat());
            }
        }
        answer.extend_from_slice(b"\r\nok");
        stream.write_all(&answer).unwrap();
        head
    });
    let gateway = through_five(&url);
    let mut client = gateway.connect();
    let mut request = b"GET / HTTP/1.1\r\nhost: site.test\r\n".to_vec();
    for value in ODD {
        request.extend_from_slice(&[b"x-odd: ", value, b"\r\n"].concat());
    }
    client.send([request.as_slice(), b"x-do: response edits 1 3\r\n\r\n"].concat()).unwrap();
    let answer = read_head(&mut client);
    assert_eq!(values(&answer, "set-cookie"), COOKIES);
    assert_eq!(values(&answer, "x-odd"), ODD);
    assert_eq!(values(&answer, "x-00"), [b"xxx".to_vec()], "the policies took part");
    let received = answering.join().unwrap();
    assert_eq!(values(&received, "x-odd"), ODD);
}
