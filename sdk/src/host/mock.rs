//! The mock host of native tests: the same names and signatures as the generated bindings, with plain memory behind them.

use std::cell::RefCell;

/// As `ip-address` in the contract.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IpAddress {
    /// The first eight bytes.
    pub high: u64,
    /// The last eight bytes.
    pub low: u64,
}

/// As `header` in the contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Lower case.
    pub name: String,
    /// As on the wire.
    pub value: Vec<u8>,
}

/// A rule that matched without (yet) deciding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finding {
    /// The rule's id.
    pub rule: String,
    /// The kind of rule.
    pub category: String,
    /// Where it matched, e.g. `query:id` or `header:user-agent`.
    pub target: String,
    /// What matched.
    pub evidence: String,
    /// Points.
    pub score: u32,
}

/// How an exchange ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The status the client saw.
    pub status: u16,
    /// `upstream`, `gateway`, or a policy's name.
    pub decided_by: String,
    /// Bytes of the request body.
    pub bytes_in: u64,
    /// Bytes of the response body.
    pub bytes_out: u64,
    /// Microseconds from the head's arrival to the end of the body.
    pub duration_us: u64,
}

/// Why the gateway refused an edit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EditError {
    /// Not a header name.
    InvalidName,
    /// Holds CR, LF or NUL, or is no status or target.
    InvalidValue,
    /// A field that only the gateway may write.
    Forbidden,
    /// Over the limit.
    TooLarge,
    /// This phase cannot change that any more.
    WrongPhase,
}

/// Header fields, status or target of a message under test.
#[derive(Clone, Debug, Default)]
pub(crate) struct Message {
    pub(crate) headers: Vec<Header>,
    pub(crate) tags: Vec<(String, String)>,
    pub(crate) findings: Vec<Finding>,
    pub(crate) state: Vec<u8>,
    pub(crate) authority: String,
    pub(crate) target: Vec<u8>,
    pub(crate) status: u16,
}

impl Message {
    fn first(&self, name: &str) -> Option<Vec<u8>> {
        self.headers.iter().find(|header| header.name == name).map(|header| header.value.clone())
    }

    fn all(&self, name: &str) -> Vec<Vec<u8>> {
        self.headers.iter().filter(|header| header.name == name).map(|header| header.value.clone()).collect()
    }

    fn head(&self, first_line: Vec<u8>) -> Vec<u8> {
        let mut head = first_line;
        head.push(b'\n');
        for header in &self.headers {
            head.extend_from_slice(header.name.as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(&header.value);
            head.push(b'\n');
        }
        head
    }

    fn body_length(&self) -> Option<u64> {
        String::from_utf8(self.first("content-length")?).ok()?.parse().ok()
    }

    fn remove(&mut self, name: &str) {
        self.headers.retain(|header| header.name != name);
    }
}

/// The fields the gateway alone writes.
pub(crate) const FORBIDDEN: [&str; 12] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
];

fn check_edit(name: &str, value: &[u8]) -> Result<(), EditError> {
    let token = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(token) {
        return Err(EditError::InvalidName);
    }
    if value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
        return Err(EditError::InvalidValue);
    }
    if FORBIDDEN.contains(&name) { Err(EditError::Forbidden) } else { Ok(()) }
}

/// A connection under test.
#[derive(Debug)]
pub struct Connection {
    pub(crate) client_ip: IpAddress,
    pub(crate) peer_ip: IpAddress,
    pub(crate) server_name: Option<String>,
    pub(crate) tls_version: Option<String>,
    pub(crate) ja4: Option<String>,
    pub(crate) message: RefCell<Message>,
}

/// A request under test.
#[derive(Debug)]
pub struct Request {
    pub(crate) connection: Connection,
    pub(crate) method: String,
    pub(crate) protocol: String,
    pub(crate) message: RefCell<Message>,
}

/// A response under test.
#[derive(Debug)]
pub struct Response {
    pub(crate) message: RefCell<Message>,
}

#[allow(clippy::missing_const_for_fn, reason = "the generated bindings have the same shape")]
impl Connection {
    pub(crate) fn client_ip(&self) -> IpAddress {
        self.client_ip
    }
    pub(crate) fn peer_ip(&self) -> IpAddress {
        self.peer_ip
    }
    pub(crate) fn listener(&self) -> String {
        "127.0.0.1:443".to_owned()
    }
    pub(crate) fn server_name(&self) -> Option<String> {
        self.server_name.clone()
    }
    pub(crate) fn tls_version(&self) -> Option<String> {
        self.tls_version.clone()
    }
    pub(crate) fn ja4(&self) -> Option<String> {
        self.ja4.clone()
    }
    pub(crate) fn site(&self) -> String {
        "test".to_owned()
    }
    pub(crate) fn set_tag(&self, key: &str, value: &str) {
        self.message.borrow_mut().tags.push((key.to_owned(), value.to_owned()));
    }
    pub(crate) fn report(&self, finding: &Finding) {
        self.message.borrow_mut().findings.push(finding.clone());
    }
}

impl Request {
    pub(crate) fn id(&self) -> String {
        "00000000000000000000000000000001".to_owned()
    }
    pub(crate) fn client_ip(&self) -> IpAddress {
        self.connection.client_ip()
    }
    pub(crate) fn peer_ip(&self) -> IpAddress {
        self.connection.peer_ip()
    }
    pub(crate) fn listener(&self) -> String {
        self.connection.listener()
    }
    pub(crate) fn server_name(&self) -> Option<String> {
        self.connection.server_name()
    }
    pub(crate) fn tls_version(&self) -> Option<String> {
        self.connection.tls_version()
    }
    pub(crate) fn ja4(&self) -> Option<String> {
        self.connection.ja4()
    }
    pub(crate) fn site(&self) -> String {
        self.connection.site()
    }
    pub(crate) fn scheme(&self) -> String {
        if self.connection.tls_version.is_some() { "https" } else { "http" }.to_owned()
    }
    pub(crate) fn protocol(&self) -> String {
        self.protocol.clone()
    }
    pub(crate) fn method(&self) -> String {
        self.method.clone()
    }
    pub(crate) fn authority(&self) -> String {
        self.message.borrow().authority.clone()
    }
    pub(crate) fn target(&self) -> Vec<u8> {
        self.message.borrow().target.clone()
    }
    pub(crate) fn path(&self) -> String {
        weir_path::normalise(&self.raw_path()).text.into_owned()
    }
    pub(crate) fn path_quirks(&self) -> u32 {
        weir_path::normalise(&self.raw_path()).quirks.0
    }
    pub(crate) fn query(&self) -> Option<Vec<u8>> {
        let message = self.message.borrow();
        let at = message.target.iter().position(|byte| *byte == b'?')?;
        message.target.get(at + 1..).map(<[u8]>::to_vec)
    }
    pub(crate) fn header(&self, name: &str) -> Option<Vec<u8>> {
        self.message.borrow().first(name)
    }
    pub(crate) fn header_values(&self, name: &str) -> Vec<Vec<u8>> {
        self.message.borrow().all(name)
    }
    pub(crate) fn headers(&self) -> Vec<Header> {
        self.message.borrow().headers.clone()
    }
    pub(crate) fn head(&self) -> Vec<u8> {
        let message = self.message.borrow();
        let mut line = self.method.clone().into_bytes();
        line.push(b' ');
        line.extend_from_slice(&message.target);
        message.head(line)
    }
    pub(crate) fn body_length(&self) -> Option<u64> {
        self.message.borrow().body_length()
    }
    pub(crate) fn tag(&self, key: &str) -> Option<String> {
        let message = self.message.borrow();
        message.tags.iter().rev().find(|(own, _)| own == key).map(|(_, value)| value.clone())
    }
    pub(crate) fn set_tag(&self, key: &str, value: &str) {
        self.message.borrow_mut().tags.push((key.to_owned(), value.to_owned()));
    }
    pub(crate) fn report(&self, finding: &Finding) {
        self.message.borrow_mut().findings.push(finding.clone());
    }
    pub(crate) fn state(&self) -> Vec<u8> {
        self.message.borrow().state.clone()
    }
    pub(crate) fn set_state(&self, state: &[u8]) -> Result<(), EditError> {
        if state.len() > 4096 {
            return Err(EditError::TooLarge);
        }
        self.message.borrow_mut().state = state.to_vec();
        Ok(())
    }
    pub(crate) fn set_header(&self, name: &str, value: &[u8]) -> Result<(), EditError> {
        set_header(&self.message, name, value)
    }
    pub(crate) fn append_header(&self, name: &str, value: &[u8]) -> Result<(), EditError> {
        append_header(&self.message, name, value)
    }
    pub(crate) fn remove_header(&self, name: &str) -> Result<(), EditError> {
        remove_header(&self.message, name)
    }
    pub(crate) fn set_authority(&self, authority: &str) -> Result<(), EditError> {
        if authority.is_empty() || !authority.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte)) {
            return Err(EditError::InvalidValue);
        }
        authority.clone_into(&mut self.message.borrow_mut().authority);
        Ok(())
    }
    pub(crate) fn set_target(&self, target: &[u8]) -> Result<(), EditError> {
        if target.first() != Some(&b'/') || !target.iter().all(u8::is_ascii_graphic) {
            return Err(EditError::InvalidValue);
        }
        self.message.borrow_mut().target = target.to_vec();
        Ok(())
    }
    fn raw_path(&self) -> Vec<u8> {
        let message = self.message.borrow();
        message.target.split(|byte| *byte == b'?').next().unwrap_or_default().to_vec()
    }
}

impl Response {
    pub(crate) fn status(&self) -> u16 {
        self.message.borrow().status
    }
    pub(crate) fn header(&self, name: &str) -> Option<Vec<u8>> {
        self.message.borrow().first(name)
    }
    pub(crate) fn header_values(&self, name: &str) -> Vec<Vec<u8>> {
        self.message.borrow().all(name)
    }
    pub(crate) fn headers(&self) -> Vec<Header> {
        self.message.borrow().headers.clone()
    }
    pub(crate) fn head(&self) -> Vec<u8> {
        let message = self.message.borrow();
        message.head(message.status.to_string().into_bytes())
    }
    pub(crate) fn body_length(&self) -> Option<u64> {
        self.message.borrow().body_length()
    }
    pub(crate) fn set_status(&self, status: u16) -> Result<(), EditError> {
        if !(200..600).contains(&status) {
            return Err(EditError::InvalidValue);
        }
        self.message.borrow_mut().status = status;
        Ok(())
    }
    pub(crate) fn set_header(&self, name: &str, value: &[u8]) -> Result<(), EditError> {
        set_header(&self.message, name, value)
    }
    pub(crate) fn append_header(&self, name: &str, value: &[u8]) -> Result<(), EditError> {
        append_header(&self.message, name, value)
    }
    pub(crate) fn remove_header(&self, name: &str) -> Result<(), EditError> {
        remove_header(&self.message, name)
    }
}

/// Replaces in place: the position of the first value is kept, as the gateway does.
fn set_header(message: &RefCell<Message>, name: &str, value: &[u8]) -> Result<(), EditError> {
    check_edit(name, value)?;
    let mut message = message.borrow_mut();
    message.remove(name);
    message.headers.push(Header { name: name.to_owned(), value: value.to_vec() });
    Ok(())
}

fn append_header(message: &RefCell<Message>, name: &str, value: &[u8]) -> Result<(), EditError> {
    check_edit(name, value)?;
    message.borrow_mut().headers.push(Header { name: name.to_owned(), value: value.to_vec() });
    Ok(())
}

fn remove_header(message: &RefCell<Message>, name: &str) -> Result<(), EditError> {
    check_edit(name, b"")?;
    message.borrow_mut().remove(name);
    Ok(())
}

thread_local! {
    /// What the capabilities of this test thread hold.
    pub(crate) static STATE: RefCell<State> = RefCell::default();
}

/// Capability state of one test thread.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) countries: Vec<(std::net::IpAddr, String)>,
    pub(crate) logs: Vec<(log::Level, String)>,
    pub(crate) values: std::collections::BTreeMap<String, Vec<u8>>,
    pub(crate) metrics: std::collections::BTreeMap<(String, String), u64>,
    pub(crate) upstreams: http_out::Upstreams,
    pub(crate) calls: Vec<crate::http::Call>,
}

/// As `log` in the contract.
pub mod log {
    /// How important a line is.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Level {
        /// Of interest while developing.
        Debug,
        /// Of interest in operation.
        Info,
        /// Something to look at.
        Warn,
        /// Something that does not work.
        Error,
    }

    pub(crate) fn write(level: Level, message: &str) {
        super::STATE.with_borrow_mut(|state| state.logs.push((level, message.to_owned())));
    }
}

/// As `geoip` in the contract.
pub(crate) mod geoip {
    pub(crate) fn country(ip: super::IpAddress) -> Option<String> {
        super::STATE.with_borrow(|state| {
            state.countries.iter().find(|(known, _)| crate::exchange::to_host(*known) == ip).map(|(_, country)| country.clone())
        })
    }
}

/// As `kv` in the contract; nothing expires.
pub(crate) mod kv {
    pub(crate) fn get(key: &str) -> Option<Vec<u8>> {
        super::STATE.with_borrow(|state| state.values.get(key).cloned())
    }
    pub(crate) fn set(key: &str, value: &[u8], _ttl_ms: u64) {
        super::STATE.with_borrow_mut(|state| state.values.insert(key.to_owned(), value.to_vec()));
    }
    pub(crate) fn delete(key: &str) {
        super::STATE.with_borrow_mut(|state| state.values.remove(key));
    }
    pub(crate) fn increment(key: &str, delta: i64, _ttl_ms: u64) -> i64 {
        super::STATE.with_borrow_mut(|state| {
            let value = state.values.entry(key.to_owned()).or_default();
            // Eight bytes, little endian, as in the gateway.
            let number = value.as_slice().try_into().map_or(0, i64::from_le_bytes).saturating_add(delta);
            *value = number.to_le_bytes().to_vec();
            number
        })
    }
}

/// As `kv-atomic` in the contract.
pub(crate) mod kv_atomic {
    pub(crate) fn compare_and_set(key: &str, expected: Option<&[u8]>, new: Option<&[u8]>, _ttl_ms: u64) -> bool {
        super::STATE.with_borrow_mut(|state| {
            if state.values.get(key).map(Vec::as_slice) != expected {
                return false;
            }
            match new {
                Some(value) => drop(state.values.insert(key.to_owned(), value.to_vec())),
                None => drop(state.values.remove(key)),
            }
            true
        })
    }
}

/// As `http-out` in the contract: tests script the upstreams.
pub(crate) mod http_out {
    use super::Header;
    use crate::http;

    pub(crate) struct Call {
        pub(crate) upstream: String,
        pub(crate) method: String,
        pub(crate) target: String,
        pub(crate) headers: Vec<Header>,
        pub(crate) body: Vec<u8>,
        pub(crate) timeout_ms: u32,
    }

    pub(crate) struct Answer {
        pub(crate) status: u16,
        pub(crate) headers: Vec<Header>,
        pub(crate) body: Vec<u8>,
    }

    pub(crate) use crate::http::Error as CallError;

    pub(crate) type Script = std::rc::Rc<dyn Fn(&http::Call) -> Result<http::Answer, http::Error>>;

    /// Upstreams by name. The last script of a name counts.
    #[derive(Default)]
    pub(crate) struct Upstreams(pub(crate) Vec<(String, Script)>);

    impl std::fmt::Debug for Upstreams {
        fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
        }
    }

    pub(crate) fn send(call: &Call) -> Result<Answer, CallError> {
        let timeout = Some(call.timeout_ms).filter(|millis| *millis > 0);
        let call = http::Call {
            upstream: call.upstream.clone(),
            method: call.method.clone(),
            target: call.target.clone(),
            headers: call.headers.iter().map(|header| (header.name.clone(), header.value.clone())).collect(),
            body: call.body.clone(),
            timeout: timeout.map(|millis| std::time::Duration::from_millis(millis.into())),
        };
        if call.headers.iter().any(|(name, value)| super::check_edit(name, value).is_err()) || !call.target.starts_with('/') {
            return Err(CallError::Invalid);
        }
        // The script runs without the state, which it may ask for itself.
        let script = super::STATE.with_borrow_mut(|state| {
            state.calls.push(call.clone());
            let named = state.upstreams.0.iter().rev().find(|(name, _)| *name == call.upstream);
            named.map(|(_, script)| std::rc::Rc::clone(script))
        });
        let answer = script.ok_or(CallError::NotGranted)?(&call)?;
        let headers = answer.headers.into_iter().map(|(name, value)| Header { name, value }).collect();
        Ok(Answer { status: answer.status, headers, body: answer.body })
    }
}

/// As `metrics` in the contract.
pub(crate) mod metrics {
    pub(crate) fn add(name: &str, label: &str, delta: u64) {
        super::STATE.with_borrow_mut(|state| *state.metrics.entry((name.to_owned(), label.to_owned())).or_default() += delta);
    }
}
