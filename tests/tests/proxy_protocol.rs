//! A load balancer in front tells the client's address before the first byte of HTTP.

use weir_tests::{Connection, Gateway, Request, Setup, Upstream};

fn gateway(origin: &Upstream, trusted: &str) -> Gateway {
    Setup::before(origin)
        .replace("address = \"127.0.0.1:0\"", "address = \"127.0.0.1:0\"\nproxy_protocol = true")
        .section(&format!("[client_address]\ntrusted_proxies = [\"{trusted}\"]"))
        .start()
}

fn version_2(source: [u8; 4]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend_from_slice(&source);
    header.extend_from_slice(&[127, 0, 0, 1, 0x12, 0x34, 0, 80]);
    header
}

#[test]
fn both_versions_of_the_header_are_read() {
    let origin = Upstream::text("ok");
    let gateway = gateway(&origin, "127.0.0.0/8");
    let headers = [b"PROXY TCP4 192.0.2.55 127.0.0.1 4660 80\r\n".to_vec(), version_2([192, 0, 2, 55])];
    for header in headers {
        let mut client = gateway.connect();
        client.send([header, Request::get("/").bytes()].concat()).unwrap();
        let answer = client.answer().unwrap();
        assert_eq!(answer.status, 200);
        let line = gateway.log_of(&answer);
        assert_eq!((&line["client_ip"], &line["peer_ip"]), (&"192.0.2.55".into(), &"127.0.0.1".into()));
        assert_eq!(origin.last().header("x-forwarded-for"), Some("192.0.2.55"));
    }
}

#[test]
fn a_header_of_a_stranger_is_no_http() {
    let origin = Upstream::text("ok");
    let gateway = gateway(&origin, "10.0.0.0/8");
    let mut client = Connection::open(gateway.plain()).unwrap();
    client.send([b"PROXY TCP4 192.0.2.55 127.0.0.1 4660 80\r\n".to_vec(), Request::get("/").bytes()].concat()).unwrap();
    let told = client.answer();
    assert!(told.as_ref().map_or(true, |answer| answer.status == 400), "{told:?}");
    assert_eq!(gateway.ask(&Request::get("/")).status, 200, "who needs no header is served without one");
    assert_eq!(origin.count(), 1);
}

#[test]
fn a_broken_header_of_a_proxy_ends_the_connection_with_a_line() {
    let origin = Upstream::text("ok");
    let gateway = gateway(&origin, "127.0.0.0/8");
    let mut client = gateway.connect();
    client.send("PROXY TCP4 nonsense\r\nGET / HTTP/1.1\r\nhost: site.test\r\n\r\n").unwrap();
    assert!(client.is_closed());
    let line = gateway.log_where(|line| line["event"] == "connection");
    assert_eq!(line["reason"], "bad_proxy_header");
    assert_eq!(origin.count(), 0);
}
