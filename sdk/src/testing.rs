//! The mock host: build what a policy sees, call the policy, look at what it did. Native targets only.
//!
//! ```
//! use weir_sdk::prelude::*;
//! use weir_sdk::testing::{self, TestRequest};
//!
//! struct DenyCountry;
//! impl Policy for DenyCountry {
//!     type Config = NoConfig;
//!     fn configure(_: NoConfig) -> Result<Self, String> {
//!         Ok(Self)
//!     }
//!     fn request(&self, request: Request<'_>) -> Verdict {
//!         match geoip::country(request.client_ip()).as_deref() {
//!             Some("KP") => Verdict::deny("country", "country_blocked"),
//!             _ => Verdict::Next,
//!         }
//!     }
//! }
//!
//! testing::country("203.0.113.9", "KP");
//! let policy = testing::configure::<DenyCountry>("{}").unwrap();
//! let request = TestRequest::get("/").client("203.0.113.9");
//! assert_eq!(policy.request(request.view()), Verdict::deny("country", "country_blocked"));
//! ```
//!
//! [`run_cases`] runs case files, which the gateway's `weir plugin test` runs as well.
//!
//! Builders panic on values that are no addresses: they are for tests.

mod cases;

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;

use crate::exchange::{Connection, Request, Response, to_host};
use crate::host::mock::{self, Header, Message, STATE};
use crate::{Finding, Policy, http};

pub use crate::host::mock::log::Level;
pub use cases::run_cases;

/// Builds a policy from its configuration as JSON, as the gateway does.
///
/// # Errors
/// What serde or [`Policy::configure`] says.
pub fn configure<P: Policy>(config: &str) -> Result<P, String> {
    crate::export::configure(config)
}

/// Lets the mock country database of this thread know an address.
///
/// # Panics
/// When `ip` is no address.
pub fn country(ip: &str, country: &str) {
    STATE.with_borrow_mut(|state| state.countries.push((parse(ip), country.to_owned())));
}

/// The lines this thread's policies wrote to the log.
#[must_use]
pub fn logs() -> Vec<(Level, String)> {
    STATE.with_borrow(|state| state.logs.clone())
}

/// Lets this thread's policies ask an upstream, which answers as the script says.
pub fn upstream(name: &str, script: impl Fn(&http::Call) -> Result<http::Answer, http::Error> + 'static) {
    STATE.with_borrow_mut(|state| state.upstreams.0.push((name.to_owned(), Rc::new(script))));
}

/// What this thread's policies asked upstreams, in order.
#[must_use]
pub fn calls() -> Vec<http::Call> {
    STATE.with_borrow(|state| state.calls.clone())
}

/// A counter of this thread's policies.
#[must_use]
pub fn metric(name: &str, label: &str) -> u64 {
    STATE.with_borrow(|state| state.metrics.get(&(name.to_owned(), label.to_owned())).copied().unwrap_or(0))
}

/// A connection to show to [`Policy::connection`].
#[derive(Debug)]
pub struct TestConnection(mock::Connection);

/// A request to show to a policy; keeps what the policy did to it.
#[derive(Debug)]
pub struct TestRequest(mock::Request);

/// A response to show to [`Policy::response`]; keeps what the policy did to it.
#[derive(Debug)]
pub struct TestResponse(mock::Response);

impl TestConnection {
    /// A TLS 1.3 connection from an address.
    ///
    /// # Panics
    /// When `ip` is no address.
    #[must_use]
    pub fn from(ip: &str) -> Self {
        Self(connection(ip))
    }

    /// Sets the TLS server name.
    #[must_use]
    pub fn server_name(mut self, name: &str) -> Self {
        self.0.server_name = Some(name.to_owned());
        self
    }

    /// What the policy is given.
    #[must_use]
    pub fn view(&self) -> Connection<'_> {
        Connection(&self.0)
    }

    /// The findings reported so far.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        self.0.message.borrow().findings.clone()
    }

    /// The value of a tag.
    #[must_use]
    pub fn tag(&self, key: &str) -> Option<String> {
        tag(&self.0.message, key)
    }
}

impl TestRequest {
    /// A request over TLS 1.3 and HTTP/1.1 from 192.0.2.1 to `gateway.example`.
    #[must_use]
    pub fn new(method: &str, target: &str) -> Self {
        let message =
            Message { target: target.as_bytes().to_vec(), authority: "gateway.example".to_owned(), ..Message::default() };
        Self(mock::Request {
            connection: connection("192.0.2.1"),
            method: method.to_owned(),
            protocol: "HTTP/1.1".to_owned(),
            message: RefCell::new(message),
        })
    }

    /// A GET.
    #[must_use]
    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    /// A POST with a declared body length.
    #[must_use]
    pub fn post(target: &str, content_type: &str, length: usize) -> Self {
        Self::new("POST", target).header("content-type", content_type).header("content-length", length.to_string())
    }

    /// Adds a header; the name is made lower case.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let header = Header { name: name.to_ascii_lowercase(), value: value.as_ref().to_vec() };
        self.0.message.get_mut().headers.push(header);
        self
    }

    /// Sets the client's (and the peer's) address.
    ///
    /// # Panics
    /// When `ip` is no address.
    #[must_use]
    pub fn client(mut self, ip: &str) -> Self {
        self.0.connection.client_ip = to_host(parse(ip));
        self.0.connection.peer_ip = self.0.connection.client_ip;
        self
    }

    /// Sets the host the client asked for.
    #[must_use]
    pub fn authority(mut self, authority: &str) -> Self {
        self.0.message.get_mut().authority = authority.to_ascii_lowercase();
        self
    }

    /// Makes it a plain HTTP request.
    #[must_use]
    pub fn plaintext(mut self) -> Self {
        self.0.connection.tls_version = None;
        self
    }

    /// Sets a tag, as an earlier policy would.
    #[must_use]
    pub fn with_tag(self, key: &str, value: &str) -> Self {
        self.0.set_tag(key, value);
        self
    }

    /// What the policy is given.
    #[must_use]
    pub fn view(&self) -> Request<'_> {
        Request(&self.0)
    }

    /// The findings reported so far.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        self.0.message.borrow().findings.clone()
    }

    /// The value of a tag.
    #[must_use]
    pub fn tag(&self, key: &str) -> Option<String> {
        tag(&self.0.message, key)
    }

    /// Every value of a header as text, after the policy's edits.
    #[must_use]
    pub fn values(&self, name: &str) -> Vec<String> {
        values(&self.0.message, name)
    }
}

impl TestResponse {
    /// A response without headers.
    #[must_use]
    pub fn new(status: u16) -> Self {
        Self(mock::Response { message: RefCell::new(Message { status, ..Message::default() }) })
    }

    /// Adds a header; the name is made lower case.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let header = Header { name: name.to_ascii_lowercase(), value: value.as_ref().to_vec() };
        self.0.message.get_mut().headers.push(header);
        self
    }

    /// What the policy is given.
    #[must_use]
    pub fn view(&self) -> Response<'_> {
        Response(&self.0)
    }

    /// The status, after the policy's edits.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.0.message.borrow().status
    }

    /// Every value of a header as text, after the policy's edits.
    #[must_use]
    pub fn values(&self, name: &str) -> Vec<String> {
        values(&self.0.message, name)
    }
}

fn connection(ip: &str) -> mock::Connection {
    let ip = to_host(parse(ip));
    mock::Connection {
        client_ip: ip,
        peer_ip: ip,
        server_name: None,
        tls_version: Some("1.3".to_owned()),
        ja4: None,
        message: RefCell::default(),
    }
}

fn tag(message: &RefCell<Message>, key: &str) -> Option<String> {
    message.borrow().tags.iter().rev().find(|(own, _)| own == key).map(|(_, value)| value.clone())
}

fn values(message: &RefCell<Message>, name: &str) -> Vec<String> {
    let message = message.borrow();
    message
        .headers
        .iter()
        .filter(|header| header.name == name)
        .map(|header| String::from_utf8_lossy(&header.value).into_owned())
        .collect()
}

fn parse(ip: &str) -> IpAddr {
    ip.parse().unwrap_or_else(|_| panic!("{ip} is not an IP address"))
}
