//! TLS and HTTP/2 towards a real server: nginx, with the self-signed certificate that on-premise servers often have.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use weir_tests::load::Load;
use weir_tests::{Gateway, LONG, Request, Scratch, Setup, Upstream, eventually, tool};

/// An nginx that speaks HTTP/2 over TLS and ends every connection after a hundred requests. Ended by its process id.
struct Nginx {
    process: Child,
    port: u16,
    certificate: String,
    _files: Scratch,
}

impl Nginx {
    /// `None` when there is no nginx; said loudly.
    fn start() -> Option<Self> {
        if !tool::has("nginx") {
            return None;
        }
        let files = Scratch::new();
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["origin.test".to_owned()]).unwrap();
        // A CA and a server certificate in one: the usual rules refuse it.
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap().pem();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (cert, key) = (files.write("cert.pem", &certificate), files.write("key.pem", key.serialize_pem()));
        let at = files.path().display();
        let config = files.write(
            "nginx.conf",
            format!(
                "daemon off; worker_processes 1; pid {at}/pid; error_log {at}/error.log;\n\
                 events {{ worker_connections 256; }}\n\
                 http {{ access_log off; keepalive_requests 100;\n\
                 server {{ listen 127.0.0.1:{port} ssl http2; ssl_certificate {}; ssl_certificate_key {};\n\
                 location / {{ default_type text/plain; return 200 \"$server_protocol $host $remote_addr\"; }} }} }}",
                cert.display(),
                key.display()
            ),
        );
        let process = Command::new("nginx").arg("-c").arg(config).stderr(Stdio::null()).spawn().unwrap();
        let nginx = Self { process, port, certificate, _files: files };
        eventually(LONG, "nginx listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        Some(nginx)
    }

    fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // SIGTERM to the master ends its workers too.
        drop(Command::new("kill").arg(self.process.id().to_string()).status());
        drop(self.process.wait());
    }
}

/// How the only server is doing.
fn condition(gateway: &Gateway) -> Value {
    let answer: Value = serde_json::from_slice(&gateway.admin("GET /v1/upstreams").body).unwrap();
    answer["upstreams"][0]["servers"][0].clone()
}

#[test]
fn the_certificate_an_operator_names_is_trusted_and_http_2_loses_nothing_when_connections_end() {
    let Some(nginx) = Nginx::start() else { return };
    let gateway = Setup::before_servers(&[(&nginx.url(), 0)])
        .file("origin.pem", &nginx.certificate)
        .upstream("tls = { ca = \"origin.pem\", server_name = \"origin.test\" }\nbind = \"127.0.0.2\"")
        .start();
    assert_eq!(gateway.get("/").text(), "HTTP/2.0 site.test 127.0.0.2");
    let load = Load::start(gateway.plain(), 8, &Request::get("/"));
    eventually(LONG, "many connections of a hundred requests have ended", || load.done() > 3000);
    let report = load.finish();
    assert!(report.failures.is_empty(), "{:?}", report.failures.first());
    // What the server says it did not look at is sent again, whatever it is.
    let load = Load::start(gateway.plain(), 8, &Request::post("/", "text/plain", "x".repeat(2000)));
    eventually(LONG, "many connections of a hundred POSTs have ended", || load.done() > 3000);
    let report = load.finish();
    assert!(report.failures.is_empty(), "{:?}", report.failures.first());
}

#[test]
fn probes_speak_the_protocol_that_requests_do() {
    let Some(nginx) = Nginx::start() else { return };
    let health = "health = { path = \"/\", every = \"50ms\", expect = \"HTTP/2.0 origin.test\" }";
    let gateway = Setup::before_servers(&[(&nginx.url(), 0)])
        .file("origin.pem", &nginx.certificate)
        .upstream(&format!("tls = {{ ca = \"origin.pem\", server_name = \"origin.test\" }}\n{health}"))
        .start();
    eventually(LONG, "some probes have ended", || {
        gateway.get("/").status == 200 && condition(&gateway)["counts"]["good_probes"].as_u64() > Some(5)
    });
    let condition = condition(&gateway);
    assert_eq!((&condition["state"], &condition["counts"]["failed_probes"]), (&"ready".into(), &0.into()), "{condition}");
}

#[test]
fn a_certificate_nobody_named_is_refused_with_the_reason_in_the_log() {
    let Some(nginx) = Nginx::start() else { return };
    let other = rcgen::generate_simple_self_signed(vec!["origin.test".to_owned()]).unwrap().cert.pem();
    for (name, pem) in [("origin.test", other), ("other.test", nginx.certificate.clone())] {
        let gateway = Setup::before_servers(&[(&nginx.url(), 0)])
            .file("origin.pem", pem)
            .upstream(&format!("tls = {{ ca = \"origin.pem\", server_name = \"{name}\" }}"))
            .start();
        let answer = gateway.get("/");
        assert_eq!(answer.status, 502);
        assert_eq!(gateway.log_of(&answer)["reason"], "upstream_certificate_invalid");
        // After some failures the server is down, and the reason is still there.
        eventually(LONG, "the server is down", || condition(&gateway)["state"] == "down");
        assert_eq!(condition(&gateway)["reason"], "certificate_invalid");
    }
}

#[test]
fn what_a_dying_http_2_server_leaves_goes_whole_to_one_that_speaks_http_1() {
    let Some(nginx) = Nginx::start() else { return };
    let other = Upstream::echo();
    let gateway = Setup::before_servers(&[(&nginx.url(), 0), (&other.url(), 1)])
        .file("origin.pem", &nginx.certificate)
        .upstream("tls = { ca = \"origin.pem\", server_name = \"origin.test\" }")
        .start();
    let load = Load::start(gateway.plain(), 8, &Request::get("/agent?id=1").header("x-kept", "yes"));
    eventually(LONG, "HTTP/2 is in use", || load.done() > 500);
    drop(nginx);
    eventually(LONG, "the other server answers", || other.count() > 500);
    let report = load.finish();
    assert!(report.failures.is_empty(), "{:?}", report.failures.first());
    for request in other.requests() {
        assert_eq!(request.head.first_line, "GET /agent?id=1 HTTP/1.1");
        assert_eq!((request.header("host"), request.header("x-kept")), (Some("site.test"), Some("yes")));
    }
}
