//! What a policy sees of a connection and of an exchange. The gateway owns it; it moves into an instance for the time of one call.

use std::net::IpAddr;
use std::sync::Arc;

use http::{Method, Version};
use weir_path::Quirks;

use crate::candidate::Memory;
use crate::capability::http_out::CallOut;
use crate::decision::{Decision, Finding};
use crate::fields::{Fields, Known};
use crate::isolated::Held;
use crate::limits::{PolicyLimits, Usages};

/// What is known of the client's connection.
#[derive(Clone, Debug)]
pub struct ConnectionFacts {
    /// The client after the trust rules.
    pub client_ip: IpAddr,
    /// The socket's peer.
    pub peer_ip: IpAddr,
    /// The listener's address as configured.
    pub listener: Arc<str>,
    /// TLS server name, lower case.
    pub server_name: Option<Arc<str>>,
    /// `1.2`, `1.3`.
    pub tls_version: Option<&'static str>,
    /// JA4 fingerprint.
    pub ja4: Option<Arc<str>>,
}

/// How an exchange ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The status the client saw.
    pub status: u16,
    /// `upstream`, `gateway`, or a policy.
    pub decided_by: String,
    /// Bytes of the request body.
    pub bytes_in: u64,
    /// Bytes of the response body.
    pub bytes_out: u64,
    /// Microseconds.
    pub duration_us: u64,
}

/// One exchange as policies see and edit it.
#[derive(Debug)]
pub struct Exchange {
    /// The connection.
    pub connection: ConnectionFacts,
    /// The site's name.
    pub site: Arc<str>,
    /// The request id.
    pub id: u128,
    /// The method as sent.
    pub method: Method,
    /// The protocol as spoken.
    pub version: Version,
    /// Path and query as received; an edit replaces it.
    pub target: String,
    /// Host and optional port, lower case; an edit replaces it.
    pub authority: String,
    /// Request headers.
    pub headers: Fields,
    /// The response head, once there is one.
    pub response: Option<ResponseHead>,
    /// Facts published by policies.
    pub tags: Vec<(String, String)>,
    /// Rules that matched.
    pub findings: Vec<Finding>,
    /// Every call so far.
    pub decisions: Vec<Decision>,
    /// Calls of policies to upstreams.
    pub calls: Vec<CallOut>,
    /// What calls to upstreams tell of the trace; absent before there is a request.
    pub trace: Option<TraceContext>,
    /// Whether a policy replaced the target or the authority.
    pub rewritten: Rewritten,
    pub(crate) normalised: Option<(String, Quirks)>,
    /// The head as text, until an edit: most policies of a chain read the same one.
    pub(crate) head_text: Option<Vec<u8>>,
    pub(crate) states: Vec<(u32, Vec<u8>)>,
    /// What each policy has used of its limits.
    pub(crate) usages: Usages,
    /// Instances that belong to this exchange alone.
    pub(crate) instances: Vec<Held>,
    pub(crate) dropped: u32,
    pub(crate) trials: Memory,
}

/// The trace of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// 16 bytes, big endian.
    pub trace_id: u128,
    /// The SERVER span's id.
    pub span_id: u64,
    /// Whether its spans are exported whatever the outcome.
    pub sampled: bool,
}

/// Which parts of the request line a policy replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rewritten {
    /// Path and query.
    pub target: bool,
    /// Host.
    pub authority: bool,
}

/// A response head as policies see and edit it.
#[derive(Debug)]
pub struct ResponseHead {
    /// The status code.
    pub status: u16,
    /// Response headers.
    pub headers: Fields,
}

/// Decisions one exchange may carry: a body phase is called for every piece.
pub(crate) const MAX_DECISIONS: usize = 256;

impl Exchange {
    /// A new exchange.
    #[must_use]
    pub fn new(
        connection: ConnectionFacts,
        site: Arc<str>,
        id: u128,
        head: (Method, Version, String, String),
        headers: Fields,
    ) -> Self {
        let (method, version, target, authority) = head;
        Self {
            connection,
            site,
            id,
            method,
            version,
            target,
            authority,
            headers,
            response: None,
            tags: Vec::new(),
            findings: Vec::new(),
            decisions: Vec::with_capacity(8),
            calls: Vec::new(),
            trace: None,
            rewritten: Rewritten::default(),
            normalised: None,
            head_text: None,
            states: Vec::new(),
            usages: Usages::default(),
            instances: Vec::new(),
            dropped: 0,
            trials: Memory::default(),
        }
    }

    /// An exchange that is a connection only: what the connection phase sees.
    #[must_use]
    pub fn connection(connection: ConnectionFacts, site: Arc<str>) -> Self {
        Self::new(connection, site, 0, (Method::GET, Version::HTTP_11, String::new(), String::new()), Fields::new())
    }

    /// The last value of a tag.
    #[must_use]
    pub fn tag(&self, key: &str) -> Option<&str> {
        self.tags.iter().rev().find(|(own, _)| own == key).map(|(_, value)| value.as_str())
    }

    /// Sets a tag of a policy; answers whether it could.
    pub(crate) fn set_tag(&mut self, policy: u32, limits: &PolicyLimits, key: &str, value: &str) -> bool {
        let value: String = value.chars().take(256).collect();
        if let Some(tag) = self.tags.iter_mut().find(|(own, _)| own == key) {
            tag.1 = value;
            return true;
        }
        let fits = key.len() <= 64 && self.usages.of(policy).tag(limits);
        if fits {
            self.tags.push((key.to_owned(), value));
        }
        fits
    }

    /// Whether the policy in this place of the chain kept anything for a later phase.
    pub(crate) fn has_state(&self, index: usize) -> bool {
        self.states.iter().any(|(own, state)| *own as usize == index && !state.is_empty())
    }

    pub(crate) fn path(&mut self) -> &(String, Quirks) {
        let target = &self.target;
        self.normalised.get_or_insert_with(|| {
            let raw = target.split('?').next().unwrap_or_default();
            let path = weir_path::normalise(raw.as_bytes());
            (path.text.into_owned(), path.quirks)
        })
    }

    pub(crate) fn query(&self) -> Option<&str> {
        self.target.split_once('?').map(|(_, query)| query)
    }

    pub(crate) fn body_length(&self) -> Option<u64> {
        content_length(&self.headers)
    }

    pub(crate) fn head(&mut self) -> Vec<u8> {
        if let Some(text) = &self.head_text {
            return text.clone();
        }
        let mut head = Vec::with_capacity(self.target.len() + 768);
        head.extend_from_slice(self.method.as_str().as_bytes());
        head.push(b' ');
        head.extend_from_slice(self.target.as_bytes());
        head.push(b'\n');
        write_headers(&mut head, &self.headers);
        self.head_text = Some(head.clone());
        head
    }
}

impl ResponseHead {
    pub(crate) fn body_length(&self) -> Option<u64> {
        content_length(&self.headers)
    }

    pub(crate) fn head(&self) -> Vec<u8> {
        let mut head = Vec::with_capacity(512);
        head.extend_from_slice(self.status.to_string().as_bytes());
        head.push(b'\n');
        write_headers(&mut head, &self.headers);
        head
    }
}

fn content_length(headers: &Fields) -> Option<u64> {
    headers.text(Known::ContentLength)?.parse().ok()
}

fn write_headers(head: &mut Vec<u8>, headers: &Fields) {
    for (name, value) in headers.iter() {
        head.extend_from_slice(name);
        head.extend_from_slice(b": ");
        head.extend_from_slice(value);
        head.push(b'\n');
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Of a GET from the loopback.
    pub(crate) fn exchange() -> Exchange {
        let local = IpAddr::from([127, 0, 0, 1]);
        let connection = ConnectionFacts {
            client_ip: local,
            peer_ip: local,
            listener: "test".into(),
            server_name: None,
            tls_version: None,
            ja4: None,
        };
        let head = (Method::GET, Version::HTTP_11, "/".to_owned(), "site.test".to_owned());
        Exchange::new(connection, "site".into(), 0, head, Fields::new())
    }
}
