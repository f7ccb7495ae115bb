//! A sample application: an HTTP server on the loopback that answers like the one Weir is made to protect.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_ORIGIN, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, SET_COOKIE,
};
use http::request::Parts;
use http::response::Builder;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

/// What the check-in page answers to a GET: six separators, then the application's version.
pub(super) const PROBE_ANSWER: &str = "||||||250.204";

/// What the check-in page answers to an agent that reports.
pub(super) const CHECK_IN_ANSWER: &str = "|0|300|250.204|";

/// In the answer of the Control Center's service.
pub(super) const CONSOLE_ANSWER: &str = "<GetVersionResult>250.204</GetVersionResult>";

/// How long a client may take to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause after a failed accept, which mostly means that the process has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Size of a download whose query does not say `bytes=N`.
const DOWNLOAD_BYTES: u64 = 1 << 20;

/// The sample application, running until it is dropped.
#[derive(Debug)]
pub(super) struct Origin {
    address: SocketAddr,
    /// Dropped to stop.
    running: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Origin {
    /// Starts the application on a free port of 127.0.0.1, on a thread of its own. It answers whatever Host it is asked for, and
    /// calls itself `host` in redirects, cookies and answers.
    ///
    /// # Errors
    /// When the system gives no port or no thread.
    pub(super) fn start(host: &str) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (running, stopped) = oneshot::channel();
        let host = Arc::from(host);
        let serve = move || serve(&runtime, listener, host, stopped);
        let thread = std::thread::Builder::new().name("demo-origin".to_owned()).spawn(serve)?;
        Ok(Self { address, running: Some(running), thread: Some(thread) })
    }

    /// Where it listens.
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.running.take();
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported on its own thread.
            let _ = thread.join();
        }
    }
}

/// Leaving it drops the runtime, and with it whatever connections are open.
fn serve(runtime: &Runtime, listener: TcpListener, host: Arc<str>, stopped: oneshot::Receiver<()>) {
    runtime.block_on(async {
        let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
        tokio::select! {
            _ = stopped => {}
            () = accept(listener, host) => {}
        }
    });
}

async fn accept(listener: tokio::net::TcpListener, host: Arc<str>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let host = Arc::clone(&host);
        let service = service_fn(move |request| {
            let host = Arc::clone(&host);
            async move { Ok::<_, Infallible>(answer(&host, request).await) }
        });
        let mut server = http1::Builder::new();
        server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
        tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
    }
}

type Answer = Response<Either<Full<Bytes>, Download>>;

async fn answer(host: &str, request: Request<Incoming>) -> Answer {
    let (head, body) = request.into_parts();
    let body_bytes = count(body).await;
    // The real one runs on a server that ignores case.
    let path = head.uri.path().to_ascii_lowercase();
    match path.as_str() {
        "/labtech/agent.aspx" if head.method == Method::POST => text("text/html; charset=utf-8", CHECK_IN_ANSWER),
        "/labtech/agent.aspx" => text("text/html; charset=utf-8", PROBE_ANSWER),
        "/labtech/controlcenter.asmx" => text("text/xml; charset=utf-8", soap()),
        "/" | "/automate" | "/automate/" => to_login(host),
        "/automate/login" => text("text/html; charset=utf-8", login_page(host)),
        "/cwa/api/v1/computers" => computers(host),
        "/echo" => json_answer(Response::builder(), &echo(&head, body_bytes)),
        _ if path.starts_with("/labtech/transfer/") || path.starts_with("/labtech/updates/labtechupdate_") => download(&head),
        _ => finished(Response::builder().status(StatusCode::NOT_FOUND).header(CONTENT_TYPE, "text/plain"), "not found\n"),
    }
}

/// Reads a body to its end, or to where it breaks off.
async fn count(mut body: Incoming) -> u64 {
    let mut bytes = 0;
    while let Some(Ok(frame)) = body.frame().await {
        bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
    }
    bytes
}

fn soap() -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<soap:Envelope xmlns:soap=\"http://schemas.xmlsoap.org/soap/envelope/\"><soap:Body>\
         <GetVersionResponse>{CONSOLE_ANSWER}</GetVersionResponse></soap:Body></soap:Envelope>\n"
    )
}

/// A redirect and cookies that name the application's own host: what host rewriting is for.
fn to_login(host: &str) -> Answer {
    let response = Response::builder()
        .status(StatusCode::FOUND)
        .header(LOCATION, format!("https://{host}/automate/login?ReturnUrl=https%3A%2F%2F{host}%2Fautomate%2Fhome"))
        .header(SET_COOKIE, format!("session=3f9c2a71; Domain={host}; Path=/; HttpOnly"))
        .header(SET_COOKIE, format!("theme=dark; Domain=.{host}; Path=/automate; Expires=Wed, 21 Oct 2099 07:28:00 GMT"));
    finished(response, "")
}

fn login_page(host: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>Sign in</title></head>\n<body>\n<h1>Sign in</h1>\n\
         <form method=\"post\" action=\"/automate/login\">\n<label>Name <input name=\"UserName\" autocomplete=\"username\"></label>\n\
         <label>Password <input name=\"Password\" type=\"password\" autocomplete=\"current-password\"></label>\n<button>Sign in</button>\n\
         </form>\n<p>This is the sample application of the Weir demo; it calls itself {host}.</p>\n</body>\n</html>\n"
    )
}

fn computers(host: &str) -> Answer {
    let computer = |id: u32, name: &str, system: &str| {
        json!({ "Id": id.to_string(), "ComputerName": name, "OperatingSystemName": system, "Status": "Online",
                "RemoteAgentVersion": "250.204", "Url": format!("https://{host}/cwa/api/v1/computers/{id}") })
    };
    let all = json!([
        computer(1, "FRONT-DESK", "Microsoft Windows 11 Pro"),
        computer(2, "FILES-01", "Microsoft Windows Server 2022 Standard"),
        computer(3, "LATHE-7", "Microsoft Windows 7 Professional"),
    ]);
    let response = Response::builder()
        .header(ACCESS_CONTROL_ALLOW_ORIGIN, format!("https://{host}"))
        .header(ACCESS_CONTROL_ALLOW_CREDENTIALS, "true");
    json_answer(response, &all)
}

/// What arrived: method, target, every header with all its values, and the body's length in bytes.
fn echo(head: &Parts, body_bytes: u64) -> Value {
    let mut headers = Map::new();
    for name in head.headers.keys() {
        let values = head.headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        headers.insert(name.as_str().to_owned(), values.collect());
    }
    json!({ "method": head.method.as_str(), "target": head.uri.to_string(), "headers": headers, "body_bytes": body_bytes })
}

fn download(head: &Parts) -> Answer {
    let asked = head.uri.query().and_then(|query| query.split('&').find_map(|pair| pair.strip_prefix("bytes=")));
    let remaining = asked.and_then(|digits| digits.parse().ok()).unwrap_or(DOWNLOAD_BYTES);
    let response = Response::builder().header(CONTENT_TYPE, "application/octet-stream").header(CONTENT_LENGTH, remaining);
    response.body(Either::Right(Download { remaining })).unwrap_or_else(|_| broken())
}

fn text(content_type: &str, body: impl Into<Bytes>) -> Answer {
    finished(Response::builder().header(CONTENT_TYPE, content_type), body)
}

fn json_answer(response: Builder, value: &Value) -> Answer {
    finished(response.header(CONTENT_TYPE, "application/json; charset=utf-8"), format!("{value}\n"))
}

fn finished(response: Builder, body: impl Into<Bytes>) -> Answer {
    response.body(Either::Left(Full::new(body.into()))).unwrap_or_else(|_| broken())
}

/// For a `host` that cannot stand in a header.
fn broken() -> Answer {
    let mut response = Response::new(Either::Left(Full::default()));
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response
}

/// A file that is made up while it is sent.
#[derive(Debug)]
struct Download {
    /// Bytes still to send.
    remaining: u64,
}

impl Body for Download {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        static PATTERN: [u8; 64 << 10] = [b'w'; 64 << 10];
        let length = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(PATTERN.len());
        if length == 0 {
            return Poll::Ready(None);
        }
        self.remaining -= length as u64;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(PATTERN.get(..length).unwrap_or_default())))))
    }

    fn is_end_stream(&self) -> bool {
        self.remaining == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;

    /// Sends one request and reads to the end of the connection: head, body.
    fn ask(origin: &Origin, request_line: &str, more: &str) -> (String, String) {
        let mut stream = TcpStream::connect(origin.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        write!(stream, "{request_line} HTTP/1.1\r\nHost: anything.test\r\nConnection: close\r\n{more}").unwrap();
        if !more.contains("\r\n\r\n") {
            write!(stream, "\r\n").unwrap();
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    #[test]
    fn pages_answer_like_the_protected_application() {
        let origin = Origin::start("automate.internal.example").unwrap();
        for (request_line, status, in_body) in [
            ("GET /LabTech/Agent.aspx", "200", PROBE_ANSWER),
            ("GET /LABTECH/AGENT.ASPX", "200", PROBE_ANSWER),
            ("GET /LabTech/ControlCenter.asmx", "200", CONSOLE_ANSWER),
            ("GET /automate/login?x=1", "200", "<h1>Sign in</h1>"),
            ("GET /cwa/api/v1/computers", "200", "\"ComputerName\":\"LATHE-7\""),
            ("GET /nothing", "404", "not found"),
        ] {
            let (head, body) = ask(&origin, request_line, "");
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{request_line}: {head}");
            assert!(body.contains(in_body), "{request_line}: {body}");
        }
    }

    #[test]
    fn an_agent_that_reports_is_answered() {
        let origin = Origin::start("automate.internal.example").unwrap();
        let (head, body) = ask(&origin, "POST /LabTech/agent.aspx?31=", "Content-Length: 5\r\n\r\nhello");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert_eq!(body, CHECK_IN_ANSWER);
    }

    #[test]
    fn redirect_and_cookies_name_the_application_itself() {
        let origin = Origin::start("automate.internal.example").unwrap();
        let (head, body) = ask(&origin, "GET /automate/", "");
        assert!(head.starts_with("HTTP/1.1 302 "), "{head}");
        assert!(head.contains("location: https://automate.internal.example/automate/login"), "{head}");
        assert_eq!(head.matches("set-cookie: ").count(), 2);
        assert!(head.contains("; Domain=automate.internal.example;"), "{head}");
        assert_eq!(body, "");
    }

    #[test]
    fn the_echo_shows_what_arrived() {
        let origin = Origin::start("automate.internal.example").unwrap();
        let more = "X-Two: a\r\nX-Two: b\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n";
        let (_, body) = ask(&origin, "PUT /echo?q=1", more);
        let echoed: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(echoed["method"], "PUT");
        assert_eq!(echoed["target"], "/echo?q=1");
        assert_eq!(echoed["headers"]["x-two"], json!(["a", "b"]));
        assert_eq!(echoed["headers"]["host"], json!(["anything.test"]));
        assert_eq!(echoed["body_bytes"], 7);
    }

    #[test]
    fn downloads_have_the_size_that_was_asked_for() {
        let origin = Origin::start("automate.internal.example").unwrap();
        for (target, length) in [
            ("/LabTech/Transfer/tools/tool.exe", 1_usize << 20),
            ("/LabTech/Transfer/tool.exe?bytes=70000", 70_000),
            ("/labtech/updates/LabtechUpdate_250.204.zip?bytes=0", 0),
        ] {
            let (head, body) = ask(&origin, &format!("GET {target}"), "");
            assert!(head.contains(&format!("content-length: {length}")), "{target}: {head}");
            assert_eq!(body.len(), length, "{target}");
            let (head, body) = ask(&origin, &format!("HEAD {target}"), "");
            assert!(head.contains(&format!("content-length: {length}")), "HEAD {target}: {head}");
            assert_eq!(body, "");
        }
    }

    #[test]
    fn a_dropped_origin_stops_listening() {
        let origin = Origin::start("automate.internal.example").unwrap();
        let address = origin.address();
        let idle = TcpStream::connect(address).unwrap();
        drop(origin);
        assert!(TcpStream::connect(address).is_err());
        drop(idle);
    }
}
