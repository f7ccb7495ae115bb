//! The contract `weir:policy` on the host's side, in its newest version: generated bindings, and the view of the exchange they read.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use http::{HeaderName, HeaderValue, header};
use wasmtime::component::{HasSelf, Linker, Resource};

use crate::capability::log::Level;
use crate::decision::{Finding, Mode};
use crate::exchange::Exchange;
use crate::fields::Fields;
use crate::pool::GuestState;

/// What this host supports, as shown in errors.
pub const SUPPORTED: &str = "0.1";
/// The newest version of it that the bindings below are generated from. Plugins of all earlier ones load too: a version adds interfaces
/// and changes none, and wasmtime takes any version that is compatible for any other, in imports and exports.
pub const NEWEST: &str = "0.1.2";

/// Marks a connection handle; the data is in the store.
#[derive(Debug)]
#[allow(unreachable_pub, reason = "the generated bindings re-export it")]
pub enum ConnectionHandle {}
/// Marks a request handle; the data is in the store.
#[derive(Debug)]
#[allow(unreachable_pub, reason = "the generated bindings re-export it")]
pub enum RequestHandle {}
/// Marks a response handle; the data is in the store.
#[derive(Debug)]
#[allow(unreachable_pub, reason = "the generated bindings re-export it")]
pub enum ResponseHandle {}

/// Generated from `sdk/wit`.
#[allow(missing_docs, clippy::all, clippy::pedantic, unused_qualifications, unreachable_pub)]
pub(crate) mod bindings {
    wasmtime::component::bindgen!({
        path: "../sdk/wit/0.1.2",
        world: "lean-policy",
        imports: { "weir:policy/http-out.send": async | trappable },
        exports: { default: async },
        with: {
            "weir:policy/types.connection": super::ConnectionHandle,
            "weir:policy/types.request": super::RequestHandle,
            "weir:policy/types.response": super::ResponseHandle,
        },
    });
}

use bindings::weir::policy::types::{self, EditError, Header, IpAddress};
use bindings::weir::policy::{current, geoip, kv, kv_atomic, log, metrics};

/// Links the contract's imports; WASI is linked by the engine.
pub(crate) fn link(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    bindings::LeanPolicy::add_to_linker::<_, HasSelf<_>>(linker, |state| {
        // Runs once for every call into the contract's interfaces.
        state.host_calls = state.host_calls.wrapping_add(1);
        state
    })
}

impl types::Host for GuestState {}

impl current::Host for GuestState {
    fn this_request(&mut self) -> Resource<RequestHandle> {
        Resource::new_own(0)
    }
    fn this_response(&mut self) -> Resource<ResponseHandle> {
        Resource::new_own(0)
    }
}

impl types::HostConnection for GuestState {
    fn client_ip(&mut self, _: Resource<ConnectionHandle>) -> IpAddress {
        self.address(|exchange| exchange.connection.client_ip)
    }
    fn peer_ip(&mut self, _: Resource<ConnectionHandle>) -> IpAddress {
        self.address(|exchange| exchange.connection.peer_ip)
    }
    fn listener(&mut self, _: Resource<ConnectionHandle>) -> String {
        self.read(|exchange| exchange.connection.listener.to_string())
    }
    fn server_name(&mut self, _: Resource<ConnectionHandle>) -> Option<String> {
        self.read(|exchange| exchange.connection.server_name.as_deref().map(str::to_owned))
    }
    fn tls_version(&mut self, _: Resource<ConnectionHandle>) -> Option<String> {
        self.read(|exchange| exchange.connection.tls_version.map(str::to_owned))
    }
    fn ja4(&mut self, _: Resource<ConnectionHandle>) -> Option<String> {
        self.read(|exchange| exchange.connection.ja4.as_deref().map(str::to_owned))
    }
    fn site(&mut self, _: Resource<ConnectionHandle>) -> String {
        self.read(|exchange| exchange.site.to_string())
    }
    fn set_tag(&mut self, _: Resource<ConnectionHandle>, key: String, value: String) {
        self.publish(&key, &value);
    }
    fn report(&mut self, _: Resource<ConnectionHandle>, finding: types::Finding) {
        self.report_finding(finding);
    }
    fn drop(&mut self, _: Resource<ConnectionHandle>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl types::HostRequest for GuestState {
    fn id(&mut self, _: Resource<RequestHandle>) -> String {
        self.read(|exchange| format!("{:032x}", exchange.id))
    }
    fn client_ip(&mut self, _: Resource<RequestHandle>) -> IpAddress {
        self.address(|exchange| exchange.connection.client_ip)
    }
    fn peer_ip(&mut self, _: Resource<RequestHandle>) -> IpAddress {
        self.address(|exchange| exchange.connection.peer_ip)
    }
    fn listener(&mut self, _: Resource<RequestHandle>) -> String {
        self.read(|exchange| exchange.connection.listener.to_string())
    }
    fn server_name(&mut self, _: Resource<RequestHandle>) -> Option<String> {
        self.read(|exchange| exchange.connection.server_name.as_deref().map(str::to_owned))
    }
    fn tls_version(&mut self, _: Resource<RequestHandle>) -> Option<String> {
        self.read(|exchange| exchange.connection.tls_version.map(str::to_owned))
    }
    fn ja4(&mut self, _: Resource<RequestHandle>) -> Option<String> {
        self.read(|exchange| exchange.connection.ja4.as_deref().map(str::to_owned))
    }
    fn site(&mut self, _: Resource<RequestHandle>) -> String {
        self.read(|exchange| exchange.site.to_string())
    }
    fn scheme(&mut self, _: Resource<RequestHandle>) -> String {
        self.read(|exchange| if exchange.connection.tls_version.is_some() { "https" } else { "http" }.to_owned())
    }
    fn protocol(&mut self, _: Resource<RequestHandle>) -> String {
        self.read(|exchange| {
            match exchange.version {
                http::Version::HTTP_10 => "HTTP/1.0",
                http::Version::HTTP_2 => "HTTP/2",
                _ => "HTTP/1.1",
            }
            .to_owned()
        })
    }
    fn method(&mut self, _: Resource<RequestHandle>) -> String {
        self.read(|exchange| exchange.method.as_str().to_owned())
    }
    fn authority(&mut self, _: Resource<RequestHandle>) -> String {
        self.read(|exchange| exchange.authority.clone())
    }
    fn target(&mut self, _: Resource<RequestHandle>) -> Vec<u8> {
        self.read(|exchange| exchange.target.clone().into_bytes())
    }
    fn path(&mut self, _: Resource<RequestHandle>) -> String {
        self.change(|exchange| exchange.path().0.clone())
    }
    fn path_quirks(&mut self, _: Resource<RequestHandle>) -> u32 {
        self.change(|exchange| exchange.path().1.0)
    }
    fn query(&mut self, _: Resource<RequestHandle>) -> Option<Vec<u8>> {
        self.read(|exchange| exchange.query().map(|query| query.as_bytes().to_vec()))
    }
    fn header(&mut self, _: Resource<RequestHandle>, name: String) -> Option<Vec<u8>> {
        self.read(|exchange| first(&exchange.headers, &name))
    }
    fn header_values(&mut self, _: Resource<RequestHandle>, name: String) -> Vec<Vec<u8>> {
        self.read(|exchange| all(&exchange.headers, &name))
    }
    fn headers(&mut self, _: Resource<RequestHandle>) -> Vec<Header> {
        self.read(|exchange| every(&exchange.headers))
    }
    fn head(&mut self, _: Resource<RequestHandle>) -> Vec<u8> {
        self.change(Exchange::head)
    }
    fn body_length(&mut self, _: Resource<RequestHandle>) -> Option<u64> {
        self.read(Exchange::body_length)
    }
    fn tag(&mut self, _: Resource<RequestHandle>, key: String) -> Option<String> {
        self.read(|exchange| exchange.tag(&key).map(str::to_owned))
    }
    fn set_tag(&mut self, _: Resource<RequestHandle>, key: String, value: String) {
        self.publish(&key, &value);
    }
    fn report(&mut self, _: Resource<RequestHandle>, finding: types::Finding) {
        self.report_finding(finding);
    }
    fn state(&mut self, _: Resource<RequestHandle>) -> Vec<u8> {
        let own = self.policy_index;
        self.read(|exchange| {
            exchange.states.iter().find(|(policy, _)| *policy == own).map(|(_, state)| state.clone()).unwrap_or_default()
        })
    }
    fn set_state(&mut self, _: Resource<RequestHandle>, state: Vec<u8>) -> Result<(), EditError> {
        const MAX_STATE: usize = 4096;
        if state.len() > MAX_STATE {
            return Err(EditError::TooLarge);
        }
        let own = self.policy_index;
        self.change(|exchange| match exchange.states.iter_mut().find(|(policy, _)| *policy == own) {
            Some(entry) => entry.1 = state,
            None => exchange.states.push((own, state)),
        });
        Ok(())
    }
    fn set_header(&mut self, _: Resource<RequestHandle>, name: String, value: Vec<u8>) -> Result<(), EditError> {
        self.edit_request(name.len() + value.len(), |exchange| edit(&mut exchange.headers, &name, Some(&value), Edit::Set))
    }
    fn append_header(&mut self, _: Resource<RequestHandle>, name: String, value: Vec<u8>) -> Result<(), EditError> {
        self.edit_request(name.len() + value.len(), |exchange| edit(&mut exchange.headers, &name, Some(&value), Edit::Append))
    }
    fn remove_header(&mut self, _: Resource<RequestHandle>, name: String) -> Result<(), EditError> {
        self.edit_request(0, |exchange| edit(&mut exchange.headers, &name, None, Edit::Remove))
    }
    fn set_authority(&mut self, _: Resource<RequestHandle>, authority: String) -> Result<(), EditError> {
        let valid = !authority.is_empty()
            && authority.len() <= 255
            && authority.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte))
            && authority.parse::<http::uri::Authority>().is_ok();
        if !valid {
            return Err(EditError::InvalidValue);
        }
        self.edit_request(authority.len(), |exchange| {
            exchange.authority = authority;
            exchange.rewritten.authority = true;
            Ok(())
        })
    }
    fn set_target(&mut self, _: Resource<RequestHandle>, target: Vec<u8>) -> Result<(), EditError> {
        const MAX_TARGET: usize = 8192;
        if target.len() > MAX_TARGET {
            return Err(EditError::TooLarge);
        }
        let text = String::from_utf8(target).map_err(|_| EditError::InvalidValue)?;
        let valid = text.starts_with('/') && !text.contains('#') && text.bytes().all(|byte| byte.is_ascii_graphic());
        if !valid || text.parse::<http::uri::PathAndQuery>().is_err() {
            return Err(EditError::InvalidValue);
        }
        self.edit_request(text.len(), |exchange| {
            exchange.target = text;
            exchange.normalised = None;
            exchange.rewritten.target = true;
            Ok(())
        })
    }
    fn drop(&mut self, _: Resource<RequestHandle>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl types::HostResponse for GuestState {
    fn status(&mut self, _: Resource<ResponseHandle>) -> u16 {
        self.read(|exchange| exchange.response.as_ref().map_or(0, |response| response.status))
    }
    fn header(&mut self, _: Resource<ResponseHandle>, name: String) -> Option<Vec<u8>> {
        self.read(|exchange| first(&exchange.response.as_ref()?.headers, &name))
    }
    fn header_values(&mut self, _: Resource<ResponseHandle>, name: String) -> Vec<Vec<u8>> {
        self.read(|exchange| exchange.response.as_ref().map(|response| all(&response.headers, &name)).unwrap_or_default())
    }
    fn headers(&mut self, _: Resource<ResponseHandle>) -> Vec<Header> {
        self.read(|exchange| exchange.response.as_ref().map(|response| every(&response.headers)).unwrap_or_default())
    }
    fn head(&mut self, _: Resource<ResponseHandle>) -> Vec<u8> {
        self.read(|exchange| exchange.response.as_ref().map(crate::exchange::ResponseHead::head).unwrap_or_default())
    }
    fn body_length(&mut self, _: Resource<ResponseHandle>) -> Option<u64> {
        self.read(|exchange| exchange.response.as_ref()?.body_length())
    }
    fn set_status(&mut self, _: Resource<ResponseHandle>, status: u16) -> Result<(), EditError> {
        if !(200..600).contains(&status) {
            return Err(EditError::InvalidValue);
        }
        self.edit_response(0, |response| {
            response.status = status;
            Ok(())
        })
    }
    fn set_header(&mut self, _: Resource<ResponseHandle>, name: String, value: Vec<u8>) -> Result<(), EditError> {
        self.edit_response(name.len() + value.len(), |response| edit(&mut response.headers, &name, Some(&value), Edit::Set))
    }
    fn append_header(&mut self, _: Resource<ResponseHandle>, name: String, value: Vec<u8>) -> Result<(), EditError> {
        self.edit_response(name.len() + value.len(), |response| edit(&mut response.headers, &name, Some(&value), Edit::Append))
    }
    fn remove_header(&mut self, _: Resource<ResponseHandle>, name: String) -> Result<(), EditError> {
        self.edit_response(0, |response| edit(&mut response.headers, &name, None, Edit::Remove))
    }
    fn drop(&mut self, _: Resource<ResponseHandle>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl log::Host for GuestState {
    fn write(&mut self, level: log::Level, message: String) {
        let level = match level {
            log::Level::Debug => Level::Debug,
            log::Level::Info => Level::Info,
            log::Level::Warn => Level::Warn,
            log::Level::Error => Level::Error,
        };
        self.log(level, &message);
    }
}

impl geoip::Host for GuestState {
    fn country(&mut self, ip: IpAddress) -> Option<String> {
        let bits = (u128::from(ip.high) << 64) | u128::from(ip.low);
        let ip = std::net::Ipv6Addr::from_bits(bits).to_canonical();
        self.shared.countries.country(ip).map(|country| country.to_string())
    }
}

impl kv::Host for GuestState {
    fn get(&mut self, key: String) -> Option<Vec<u8>> {
        self.shared.kv.get(&key)
    }
    fn set(&mut self, key: String, value: Vec<u8>, ttl_ms: u64) {
        self.shared.kv.set(key, value, ttl_ms);
    }
    fn delete(&mut self, key: String) {
        self.shared.kv.delete(&key);
    }
    fn increment(&mut self, key: String, delta: i64, ttl_ms: u64) -> i64 {
        self.shared.kv.increment(key, delta, ttl_ms)
    }
}

impl kv_atomic::Host for GuestState {
    fn compare_and_set(&mut self, key: String, expected: Option<Vec<u8>>, new: Option<Vec<u8>>, ttl_ms: u64) -> bool {
        self.shared.kv.compare_and_set(key, expected.as_deref(), new, ttl_ms)
    }
}

impl metrics::Host for GuestState {
    fn add(&mut self, name: String, label: String, delta: u64) {
        self.shared.counters.add(&name, &label, delta);
    }
}

impl GuestState {
    /// Reads the exchange of the running call; outside a call there is none, and the default is all a guest can learn.
    fn read<T: Default>(&mut self, read: impl FnOnce(&Exchange) -> T) -> T {
        self.exchange.as_deref().map(read).unwrap_or_default()
    }

    fn address(&self, read: impl FnOnce(&Exchange) -> IpAddr) -> IpAddress {
        ip_address(self.exchange.as_deref().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), read))
    }

    fn change<T: Default>(&mut self, change: impl FnOnce(&mut Exchange) -> T) -> T {
        self.exchange.as_deref_mut().map(change).unwrap_or_default()
    }

    /// An edit of a policy that only observes is checked like any other, on nothing.
    fn edit_request(&mut self, bytes: usize, edit: impl FnOnce(&mut Exchange) -> Result<(), EditError>) -> Result<(), EditError> {
        let observes = self.mode != Mode::Enforce;
        match self.exchange.as_deref_mut() {
            Some(exchange) if exchange.response.is_none() && !self.ended => {
                if !exchange.usages.of(self.policy_index).edit(bytes, &self.limits) {
                    Err(EditError::TooLarge)
                } else if observes {
                    Ok(())
                } else {
                    exchange.head_text = None;
                    edit(exchange)
                }
            }
            _ => Err(EditError::WrongPhase),
        }
    }

    fn edit_response(
        &mut self,
        bytes: usize,
        edit: impl FnOnce(&mut crate::exchange::ResponseHead) -> Result<(), EditError>,
    ) -> Result<(), EditError> {
        let observes = self.mode != Mode::Enforce;
        let Some(exchange) = self.exchange.as_deref_mut() else { return Err(EditError::WrongPhase) };
        match exchange.response.as_mut() {
            Some(response) if !self.ended => {
                if !exchange.usages.of(self.policy_index).edit(bytes, &self.limits) {
                    Err(EditError::TooLarge)
                } else if observes {
                    Ok(())
                } else {
                    edit(response)
                }
            }
            _ => Err(EditError::WrongPhase),
        }
    }

    fn report_finding(&mut self, finding: types::Finding) {
        let Some(exchange) = self.exchange.as_deref_mut() else { return };
        if !exchange.usages.of(self.policy_index).finding(&self.limits) {
            self.shared.cuts.finding();
            return;
        }
        exchange.findings.push(Finding {
            policy: Arc::clone(&self.policy),
            rule: cut(finding.rule, 64),
            category: cut(finding.category, 64),
            target: cut(finding.target, 128),
            // What scores is taken for an attack.
            evidence: if finding.score > 0 { mask(&finding.evidence) } else { cut(finding.evidence, 128) },
            score: finding.score,
        });
    }

    fn publish(&mut self, key: &str, value: &str) {
        let Some(exchange) = self.exchange.as_deref_mut() else { return };
        if !exchange.set_tag(self.policy_index, &self.limits, key, value) {
            self.shared.cuts.tag();
        }
    }
}

#[derive(Clone, Copy)]
enum Edit {
    Set,
    Append,
    Remove,
}

/// Header bytes a message may hold after a policy's edits.
const MAX_FIELDS: usize = 200;
const MAX_VALUE: usize = 16 * 1024;

fn edit(headers: &mut Fields, name: &str, value: Option<&[u8]>, edit: Edit) -> Result<(), EditError> {
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| EditError::InvalidName)?;
    if is_gateways(&name) {
        return Err(EditError::Forbidden);
    }
    let value = value.unwrap_or_default();
    if value.len() > MAX_VALUE {
        return Err(EditError::TooLarge);
    }
    let value = HeaderValue::from_bytes(value).map_err(|_| EditError::InvalidValue)?;
    match edit {
        Edit::Remove => headers.remove(&name),
        Edit::Set | Edit::Append if headers.len() >= MAX_FIELDS => return Err(EditError::TooLarge),
        Edit::Set => headers.insert(&name, value.as_bytes()),
        Edit::Append => headers.append(&name, value.as_bytes()),
    }
    Ok(())
}

/// Fields that only the gateway writes: framing, hop-by-hop, Host (see `set-authority`) and the forwarding headers.
pub(crate) fn is_gateways(name: &HeaderName) -> bool {
    const OTHERS: [&str; 5] = ["keep-alive", "proxy-connection", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"];
    [
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::HOST,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ]
    .contains(name)
        || OTHERS.contains(&name.as_str())
}

fn first(headers: &Fields, name: &str) -> Option<Vec<u8>> {
    headers.get(name).map(<[u8]>::to_vec)
}

fn all(headers: &Fields, name: &str) -> Vec<Vec<u8>> {
    headers.get_all(name).map(<[u8]>::to_vec).collect()
}

fn every(headers: &Fields) -> Vec<Header> {
    headers
        .iter()
        .map(|(name, value)| Header { name: String::from_utf8_lossy(name).into_owned(), value: value.to_vec() })
        .collect()
}

fn ip_address(ip: IpAddr) -> IpAddress {
    let bits = match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits(),
    };
    let low = bits & u128::from(u64::MAX);
    IpAddress { high: (bits >> 64) as u64, low: low as u64 }
}

/// At most `max` characters.
pub(crate) fn cut(text: String, max: usize) -> String {
    if text.len() <= max { text } else { text.chars().take(max).collect() }
}

/// Attack data in a log is itself an attack on whoever reads it, and may hold a password: only its ends and its length are kept.
fn mask(evidence: &str) -> String {
    let count = evidence.chars().count();
    let clean = |c: char| if c.is_control() { '.' } else { c };
    if count <= 8 {
        return evidence.chars().map(clean).collect();
    }
    let head: String = evidence.chars().take(3).map(clean).collect();
    let tail: String = evidence.chars().skip(count - 3).map(clean).collect();
    format!("{head}…{tail} ({count})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_checked() {
        let mut headers = Fields::new();
        let mut check = |name: &str, value: &str, want: Result<(), EditError>| {
            assert_eq!(
                format!("{:?}", edit(&mut headers, name, Some(value.as_bytes()), Edit::Set)),
                format!("{want:?}"),
                "{name}: {value}"
            );
        };
        check("x-a", "1", Ok(()));
        check("x a", "1", Err(EditError::InvalidName));
        check("", "1", Err(EditError::InvalidName));
        check("x-a", "1\r\nx-b: 2", Err(EditError::InvalidValue));
        for name in ["content-length", "transfer-encoding", "host", "connection", "x-forwarded-for", "upgrade"] {
            check(name, "1", Err(EditError::Forbidden));
        }
        check("x-a", &"a".repeat(MAX_VALUE + 1), Err(EditError::TooLarge));
    }

    #[test]
    fn evidence_is_masked() {
        assert_eq!(mask("' or 1=1"), "' or 1=1");
        assert_eq!(mask("' or password='hunter2'"), "' o…r2' (23)");
        assert_eq!(mask("a\nb"), "a.b");
    }
}
