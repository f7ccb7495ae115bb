//! The six things to try: what is sent, and what must come of it. The printed lines and `--check` are both made from these.

use std::path::{Path, PathBuf};

use http::Method;
use http::header::{ACCESS_CONTROL_REQUEST_METHOD, CONTENT_TYPE, HeaderName, ORIGIN, USER_AGENT};

use super::files::{Directory, PUBLIC_HOST};
use super::origin::{CHECK_IN_ANSWER, CONSOLE_ANSWER};

/// Tells of the client that a case is sent for.
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// An agent somewhere in a country that is allowed.
const AGENT: &str = "192.0.2.17";

/// A technician in the trusted network.
const OFFICE: &str = "198.51.100.7";

/// Anybody in a country that is not allowed.
const BLOCKED: &str = "203.0.113.9";

/// One thing to try.
#[derive(Debug)]
pub(super) struct Case {
    /// A few words.
    pub(super) title: &'static str,
    /// What to expect and why, in half a sentence.
    pub(super) expectation: String,
    /// A line for a shell.
    pub(super) line: String,
    /// How `--check` proves it.
    pub(super) proof: Proof,
}

/// What shows that a case behaves.
#[derive(Debug)]
pub(super) enum Proof {
    /// The first call is the one in the line; the others show that its answer is not everybody's.
    Calls(Vec<(Call, Expected)>),
    /// A plugin is replaced while agents check in.
    Swap(Box<Swap>),
}

/// A request to the demo's TLS listener.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) method: Method,
    /// Path and query.
    pub(super) target: &'static str,
    /// Besides Host, and the content type that comes with a body.
    pub(super) headers: Vec<(HeaderName, String)>,
    /// A form; empty for none.
    pub(super) body: &'static str,
}

/// The answer to a call, and what the decision log says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) status: u16,
    /// `upstream` or the name of a policy.
    pub(super) decided_by: &'static str,
    /// Of the decision; empty when the upstream answered.
    pub(super) reason: &'static str,
    /// In the body; empty for anything.
    pub(super) in_body: &'static str,
    /// The value of `Access-Control-Allow-Origin`.
    pub(super) allowed_origin: Option<String>,
}

/// A plugin file and what takes its place.
#[derive(Debug)]
pub(super) struct Swap {
    /// The plugin's name.
    pub(super) plugin: &'static str,
    /// Its file in the watched directory.
    pub(super) loaded: PathBuf,
    /// The other build.
    pub(super) spare: PathBuf,
    /// Where the gateway tells which build is live.
    pub(super) admin_socket: PathBuf,
    /// What is sent all the while.
    pub(super) meanwhile: (Call, Expected),
}

/// The six cases of a demo in `directory` with its TLS listener on `port`.
pub(super) fn cases(directory: &Directory, port: u16) -> Vec<Case> {
    let line = |call: &Call| call.curl(&directory.certificate(), port);
    let case = |title, expectation: &str, calls: Vec<(Call, Expected)>| Case {
        title,
        expectation: expectation.to_owned(),
        line: calls.first().map(|(call, _)| line(call)).unwrap_or_default(),
        proof: Proof::Calls(calls),
    };
    vec![
        case("agent checks in", "200, agents may come from any allowed country", vec![check_in()]),
        case(
            "console from outside",
            "403 by acl, in agent-only consoles are for trusted networks (198.51.100.0/24)",
            vec![(console(AGENT), denied("acl", "class_not_allowed")), (console(OFFICE), answered(CONSOLE_ANSWER))],
        ),
        case(
            "blocked country",
            "403 by geoip, 203.0.113.0/24 lies in ZZ here and only US and CA are allowed",
            vec![(from(BLOCKED, check_in().0), denied("geoip", "country_not_allowed"))],
        ),
        case("SQL injection", "403 by ips, the answer shows a reference and never the rule", vec![injection()]),
        case(
            "CORS preflight",
            "204 by sso, the edge answers and allows its own public name only",
            vec![
                (preflight(&public_origin(port)), preflight_answered(Some(public_origin(port)))),
                (preflight("https://evil.example"), preflight_answered(None)),
            ],
        ),
        hot_swap(directory),
    ]
}

impl Call {
    /// The call as a line for a shell.
    fn curl(&self, certificate: &Path, port: u16) -> String {
        let mut line = format!("curl -si --cacert {}", quoted(&certificate.to_string_lossy()));
        if self.method != Method::GET && self.body.is_empty() {
            line.push_str(&format!(" -X {}", self.method));
        }
        for (name, value) in &self.headers {
            line.push_str(&format!(" -H {}", quoted(&format!("{name}: {value}"))));
        }
        if !self.body.is_empty() {
            line.push_str(&format!(" --data {}", quoted(self.body)));
        }
        line.push_str(&format!(" {}", quoted(&format!("{}{}", public_origin(port), self.target))));
        line
    }

    /// The headers to send, the content type of a body among them.
    pub(super) fn all_headers(&self) -> impl Iterator<Item = (HeaderName, &str)> {
        let form = (!self.body.is_empty()).then_some((CONTENT_TYPE, "application/x-www-form-urlencoded"));
        self.headers.iter().map(|(name, value)| (name.clone(), value.as_str())).chain(form)
    }
}

/// The demo's public URL without a path; an origin in the sense of browsers.
pub(super) fn public_origin(port: u16) -> String {
    format!("https://{PUBLIC_HOST}:{port}")
}

fn check_in() -> (Call, Expected) {
    let call = Call {
        method: Method::POST,
        target: "/LabTech/agent.aspx?31=&272c1=",
        headers: vec![(X_FORWARDED_FOR, AGENT.to_owned()), (USER_AGENT, "LabTech Agent v250.204".to_owned())],
        body: "p6mUZcN5M0qJxV1Xb2lk",
    };
    (call, answered(CHECK_IN_ANSWER))
}

fn console(client: &str) -> Call {
    from(client, get("/LabTech/ControlCenter.asmx"))
}

fn injection() -> (Call, Expected) {
    let call = from(AGENT, get("/LabTech/Agent.aspx?id=1%20UNION%20SELECT%20user,password%20FROM%20mysql.user"));
    (call, denied("ips", "sql_injection"))
}

fn preflight(origin: &str) -> Call {
    let mut call = from(OFFICE, Call { method: Method::OPTIONS, ..get("/cwa/api/v1/computers") });
    call.headers.push((ORIGIN, origin.to_owned()));
    call.headers.push((ACCESS_CONTROL_REQUEST_METHOD, "POST".to_owned()));
    call
}

fn hot_swap(directory: &Directory) -> Case {
    let swap = Swap {
        plugin: "geoip",
        loaded: directory.plugin(),
        spare: directory.spare(),
        admin_socket: directory.admin_socket(),
        meanwhile: check_in(),
    };
    Case {
        title: "hot swap",
        expectation: "geoip live with another digest, and requests answered all the while".to_owned(),
        line: format!(
            "cp {} {} && sleep 2 && curl -s --unix-socket {} http://localhost/v1/plugins",
            quoted(&swap.spare.to_string_lossy()),
            quoted(&swap.loaded.to_string_lossy()),
            quoted(&swap.admin_socket.to_string_lossy()),
        ),
        proof: Proof::Swap(Box::new(swap)),
    }
}

fn get(target: &'static str) -> Call {
    Call { method: Method::GET, target, headers: Vec::new(), body: "" }
}

/// The call as a client at this address would make it.
fn from(client: &str, mut call: Call) -> Call {
    call.headers.retain(|(name, _)| *name != X_FORWARDED_FOR);
    call.headers.insert(0, (X_FORWARDED_FOR, client.to_owned()));
    call
}

fn answered(in_body: &'static str) -> Expected {
    Expected { status: 200, decided_by: "upstream", reason: "", in_body, allowed_origin: None }
}

fn denied(decided_by: &'static str, reason: &'static str) -> Expected {
    Expected { status: 403, decided_by, reason, in_body: "reference", allowed_origin: None }
}

fn preflight_answered(allowed_origin: Option<String>) -> Expected {
    let reason = if allowed_origin.is_some() { "preflight_answered" } else { "preflight_unknown_origin" };
    Expected { status: 204, decided_by: "sso", reason, in_body: "", allowed_origin }
}

/// One word for a POSIX shell. What needs no quotes gets none.
fn quoted(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=@%,+".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_six_cases_each_with_a_line() {
        let directory = Directory::create(None).unwrap();
        let cases = cases(&directory, 8443);
        assert_eq!(cases.len(), 6);
        for case in &cases {
            assert!(case.line.contains("curl -s"), "{}: {}", case.title, case.line);
            assert!(!case.line.contains('\n') && !case.expectation.is_empty(), "{}", case.title);
        }
    }

    #[test]
    fn a_call_is_one_shell_line() {
        let place = Path::new("/d e/demo.pem");
        assert_eq!(
            check_in().0.curl(place, 8443),
            "curl -si --cacert '/d e/demo.pem' -H 'x-forwarded-for: 192.0.2.17' -H 'user-agent: LabTech Agent v250.204' \
             --data p6mUZcN5M0qJxV1Xb2lk 'https://localhost:8443/LabTech/agent.aspx?31=&272c1='"
        );
        assert_eq!(
            preflight("https://a.example").curl(Path::new("/demo.pem"), 1),
            "curl -si --cacert /demo.pem -X OPTIONS -H 'x-forwarded-for: 198.51.100.7' -H 'origin: https://a.example' \
             -H 'access-control-request-method: POST' https://localhost:1/cwa/api/v1/computers"
        );
        let head = console(OFFICE).curl(Path::new("/demo.pem"), 1);
        assert!(!head.contains("-X") && !head.contains("--data"), "{head}");
    }

    #[test]
    fn words_survive_the_shell() {
        for text in ["plain", "two words", "it's", "$HOME `id` \"x\" \\", "a;b&c|d", "", "*?~"] {
            let output = std::process::Command::new("sh").args(["-c", &format!("printf %s {}", quoted(text))]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), text);
        }
    }

    #[test]
    fn a_client_is_named_once() {
        let call = from(BLOCKED, check_in().0);
        let named: Vec<_> =
            call.headers.iter().filter(|(name, _)| *name == X_FORWARDED_FOR).map(|(_, value)| value.as_str()).collect();
        assert_eq!(named, [BLOCKED]);
        assert_eq!(call.all_headers().filter(|(name, _)| *name == CONTENT_TYPE).count(), 1);
    }
}
