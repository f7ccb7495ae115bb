//! The files: how they are written, and what they mean.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use toml::Spanned;

use crate::data::{Data, Headers};
use crate::expect::Expect;
use crate::upstreams::Upstreams;

/// A file of cases.
#[derive(Clone, Debug)]
pub struct CaseFile {
    /// As it was named.
    pub path: PathBuf,
    /// How the policy is set up, unless a case says otherwise.
    pub policy: Policy,
    /// At least one.
    pub cases: Vec<Case>,
}

/// `[policy]`: as in `weir.toml`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// The policy's own configuration; default an empty table.
    pub config: Option<Value>,
    /// Capabilities beyond the defaults.
    #[serde(default)]
    pub grants: Vec<String>,
    /// Whom the policy may ask.
    #[serde(default)]
    pub http_out: HttpOut,
    /// Limits other than the gateway's own.
    #[serde(default)]
    pub limits: Limits,
}

/// `[policy.http_out]`: as in `weir.toml`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpOut {
    /// Names of upstreams.
    #[serde(default)]
    pub upstreams: Vec<String>,
}

/// `[policy.limits]`: as in `weir.toml`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// A duration such as `10ms`.
    pub cpu: Option<String>,
    /// A duration.
    pub wall: Option<String>,
    /// A size such as `64MiB`.
    pub memory: Option<String>,
}

/// One case.
#[derive(Clone, Debug)]
pub struct Case {
    /// What it shows.
    pub name: String,
    /// Where it begins in its file.
    pub line: usize,
    /// The policy's configuration: the case's own, else the file's.
    pub config: Value,
    /// What is done with the policy.
    pub setting: Setting,
}

/// What a case does.
#[derive(Clone, Debug)]
pub enum Setting {
    /// The configuration must be refused with an error that holds this text.
    Refused(String),
    /// Exchanges, one after the other, with the same state of `kv` and `metrics`, which is empty at first.
    Steps(Vec<Step>),
}

/// One exchange.
#[derive(Clone, Debug)]
pub struct Step {
    /// The request.
    pub request: Ask,
    /// The upstream's answer; the response phases run only if there is one.
    pub response: Option<Answer>,
    /// What upstreams answer to the policy.
    pub upstreams: Upstreams,
    /// What must be seen, each time.
    pub expect: Expect,
    /// How often.
    pub repeat: u32,
}

/// A request.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ask {
    /// Default GET.
    pub method: String,
    /// Path and query, default `/`.
    pub target: String,
    /// Default `gateway.example`.
    pub host: String,
    /// `HTTP/1.0`, `HTTP/1.1` (default) or `HTTP/2`.
    pub protocol: String,
    /// Header fields.
    pub headers: Headers,
    /// The body.
    pub body: Data,
    /// The client's address, default 192.0.2.1.
    pub client: IpAddr,
    /// The other end of the socket, default the client.
    pub peer: Option<IpAddr>,
    /// The client's country, as the database would say.
    pub country: Option<String>,
    /// `false` for plain HTTP, or what is known of the handshake; default TLS 1.3.
    pub tls: Tls,
    /// Tags that earlier policies set.
    pub tags: BTreeMap<String, String>,
}

/// What is known of a TLS handshake.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "WrittenTls")]
pub struct Tls {
    /// `1.2`, `1.3`; none on plain connections.
    pub version: Option<String>,
    /// The server name.
    pub server_name: Option<String>,
    /// The fingerprint of the ClientHello.
    pub ja4: Option<String>,
}

/// An upstream's answer.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Answer {
    /// Default 200.
    pub status: u16,
    /// Header fields.
    pub headers: Headers,
    /// The body.
    pub body: Data,
}

impl Default for Ask {
    fn default() -> Self {
        Self {
            method: "GET".to_owned(),
            target: "/".to_owned(),
            host: "gateway.example".to_owned(),
            protocol: "HTTP/1.1".to_owned(),
            headers: Headers::default(),
            body: Data::default(),
            client: IpAddr::from([192, 0, 2, 1]),
            peer: None,
            country: None,
            tls: Tls::default(),
            tags: BTreeMap::new(),
        }
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self { version: Some("1.3".to_owned()), server_name: None, ja4: None }
    }
}

impl Default for Answer {
    fn default() -> Self {
        Self { status: 200, headers: Headers::default(), body: Data::default() }
    }
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "true, false, or { version = \"1.3\", server_name = \"a.example\", ja4 = \"t13d…\" }")]
enum WrittenTls {
    Is(bool),
    Facts(Facts),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Facts {
    version: Option<String>,
    server_name: Option<String>,
    ja4: Option<String>,
}

impl TryFrom<WrittenTls> for Tls {
    type Error = String;

    fn try_from(written: WrittenTls) -> Result<Self, String> {
        let Facts { version, server_name, ja4 } = match written {
            WrittenTls::Is(true) => return Ok(Self::default()),
            WrittenTls::Is(false) => return Ok(Self { version: None, server_name: None, ja4: None }),
            WrittenTls::Facts(facts) => facts,
        };
        let version = version.unwrap_or_else(|| "1.3".to_owned());
        if !["1.2", "1.3"].contains(&version.as_str()) {
            return Err(format!("tls.version = {version:?}: \"1.2\" or \"1.3\""));
        }
        Ok(Self { version: Some(version), server_name, ja4 })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenFile {
    #[serde(default)]
    policy: Policy,
    #[serde(default)]
    case: Vec<Spanned<WrittenCase>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenCase {
    name: String,
    config: Option<Value>,
    refused: Option<String>,
    request: Option<Ask>,
    response: Option<Answer>,
    upstreams: Option<Upstreams>,
    expect: Option<Expect>,
    #[serde(default)]
    step: Vec<WrittenStep>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenStep {
    #[serde(default)]
    request: Ask,
    response: Option<Answer>,
    #[serde(default)]
    upstreams: Upstreams,
    expect: Expect,
    #[serde(default = "once")]
    repeat: u32,
}

const fn once() -> u32 {
    1
}

/// Reads a file of cases, or every `*.toml` of a directory in the order of their names.
///
/// # Errors
/// What cannot be read or understood, with file and line.
pub fn read(path: &Path) -> Result<Vec<CaseFile>, String> {
    let failed = |path: &Path, error: &std::io::Error| format!("{}: {error}", path.display());
    let mut files = vec![path.to_owned()];
    if path.is_dir() {
        let entries = path.read_dir().map_err(|error| failed(path, &error))?;
        let all: Result<Vec<_>, _> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
        files = all.map_err(|error| failed(path, &error))?;
        files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
        files.sort();
        if files.is_empty() {
            return Err(format!("{}: no *.toml in it", path.display()));
        }
    }
    let read = |file: &PathBuf| {
        let text = std::fs::read_to_string(file).map_err(|error| failed(file, &error))?;
        parse(file, &text)
    };
    files.iter().map(read).collect()
}

/// Understands a file of cases; `path` is for errors.
///
/// # Errors
/// What is wrong, with file and line.
pub fn parse(path: &Path, text: &str) -> Result<CaseFile, String> {
    let shown = path.display();
    let written: WrittenFile = toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(text, span.start));
        format!("{shown}:{line}: {}", error.message())
    })?;
    let empty = || Value::Object(serde_json::Map::new());
    let mut cases = Vec::with_capacity(written.case.len());
    for case in written.case {
        let line = line_of(text, case.span().start);
        let case = case.into_inner();
        let config = case.config.clone().or_else(|| written.policy.config.clone()).unwrap_or_else(empty);
        let name = case.name.clone();
        let setting = setting(case).map_err(|error| format!("{shown}:{line}: {error}"))?;
        if let Some(name) = stranger(&setting, &written.policy.http_out) {
            return Err(format!(
                "{shown}:{line}: upstreams: the policy may not ask {name:?}: [policy] http_out = {{ upstreams = [{name:?}] }}"
            ));
        }
        cases.push(Case { name, line, config, setting });
    }
    if cases.is_empty() {
        return Err(format!("{shown}: no case in it: begin one with [[case]]"));
    }
    Ok(CaseFile { path: path.to_owned(), policy: written.policy, cases })
}

fn setting(case: WrittenCase) -> Result<Setting, &'static str> {
    let exchange = case.request.is_some() || case.response.is_some() || case.upstreams.is_some() || case.expect.is_some();
    match (case.refused, case.expect, case.step.is_empty()) {
        (Some(_), _, _) if exchange || !case.step.is_empty() => Err("refused: nothing can be asked of a policy that is refused"),
        (Some(text), _, _) => Ok(Setting::Refused(text)),
        (None, _, false) if exchange => Err("either request and expect, or steps"),
        (None, _, false) => {
            let step = |step: WrittenStep| Step {
                request: step.request,
                response: step.response,
                upstreams: step.upstreams,
                expect: step.expect,
                repeat: step.repeat,
            };
            Ok(Setting::Steps(case.step.into_iter().map(step).collect()))
        }
        (None, Some(expect), true) => {
            let request = case.request.unwrap_or_default();
            let upstreams = case.upstreams.unwrap_or_default();
            Ok(Setting::Steps(vec![Step { request, response: case.response, upstreams, expect, repeat: 1 }]))
        }
        (None, None, true) => Err("expect is missing: expect = { verdict = \"next\" }"),
    }
}

/// An upstream that answers, but may not be asked.
fn stranger<'a>(setting: &'a Setting, http_out: &HttpOut) -> Option<&'a String> {
    let Setting::Steps(steps) = setting else { return None };
    steps.iter().flat_map(|step| step.upstreams.keys()).find(|name| !http_out.upstreams.contains(*name))
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}
