//! What a policy reads and edits: connections, requests, responses.

use std::net::{IpAddr, Ipv6Addr};

use weir_path::Quirks;

use crate::host::{self, EditError, Finding, IpAddress};

/// A client connection, before any byte of HTTP was parsed.
#[derive(Clone, Copy)]
pub struct Connection<'a>(pub(crate) &'a host::Connection);

/// One exchange, from its request head to its end.
#[derive(Clone, Copy)]
pub struct Request<'a>(pub(crate) &'a host::Request);

/// The upstream's answer, before its head is sent to the client.
#[derive(Clone, Copy)]
pub struct Response<'a>(pub(crate) &'a host::Response);

impl Connection<'_> {
    /// The client after the trust rules (PROXY protocol, trusted proxies).
    #[must_use]
    pub fn client_ip(&self) -> IpAddr {
        from_host(&self.0.client_ip())
    }

    /// The other end of the socket.
    #[must_use]
    pub fn peer_ip(&self) -> IpAddr {
        from_host(&self.0.peer_ip())
    }

    /// The listener's address as configured.
    #[must_use]
    pub fn listener(&self) -> String {
        self.0.listener()
    }

    /// The TLS server name, lower case.
    #[must_use]
    pub fn server_name(&self) -> Option<String> {
        self.0.server_name()
    }

    /// `1.2`, `1.3`; `None` on plain connections.
    #[must_use]
    pub fn tls_version(&self) -> Option<String> {
        self.0.tls_version()
    }

    /// The JA4 fingerprint of the ClientHello.
    #[must_use]
    pub fn ja4(&self) -> Option<String> {
        self.0.ja4()
    }

    /// The site's name in `weir.toml`.
    #[must_use]
    pub fn site(&self) -> String {
        self.0.site()
    }

    /// Publishes a fact to later policies, the log and the span of every exchange of this connection.
    pub fn set_tag(&self, key: &str, value: &str) {
        self.0.set_tag(key, value);
    }

    /// Records a rule that matched without deciding.
    pub fn report(&self, finding: &Finding) {
        self.0.report(finding);
    }
}

impl Request<'_> {
    /// The request id that the client, the log and the upstream see.
    #[must_use]
    pub fn id(&self) -> String {
        self.0.id()
    }

    /// The client after the trust rules (PROXY protocol, trusted proxies).
    #[must_use]
    pub fn client_ip(&self) -> IpAddr {
        from_host(&self.0.client_ip())
    }

    /// The other end of the socket.
    #[must_use]
    pub fn peer_ip(&self) -> IpAddr {
        from_host(&self.0.peer_ip())
    }

    /// The listener's address as configured.
    #[must_use]
    pub fn listener(&self) -> String {
        self.0.listener()
    }

    /// The TLS server name, lower case.
    #[must_use]
    pub fn server_name(&self) -> Option<String> {
        self.0.server_name()
    }

    /// `1.2`, `1.3`; `None` on plain connections.
    #[must_use]
    pub fn tls_version(&self) -> Option<String> {
        self.0.tls_version()
    }

    /// The JA4 fingerprint of the ClientHello.
    #[must_use]
    pub fn ja4(&self) -> Option<String> {
        self.0.ja4()
    }

    /// The site's name in `weir.toml`.
    #[must_use]
    pub fn site(&self) -> String {
        self.0.site()
    }

    /// `http` or `https`, as the client spoke it.
    #[must_use]
    pub fn scheme(&self) -> String {
        self.0.scheme()
    }

    /// `HTTP/1.0`, `HTTP/1.1`, `HTTP/2`.
    #[must_use]
    pub fn protocol(&self) -> String {
        self.0.protocol()
    }

    /// The method as sent.
    #[must_use]
    pub fn method(&self) -> String {
        self.0.method()
    }

    /// Host name and optional port, lower case.
    #[must_use]
    pub fn authority(&self) -> String {
        self.0.authority()
    }

    /// Path and query exactly as received.
    #[must_use]
    pub fn target(&self) -> Vec<u8> {
        self.0.target()
    }

    /// The one normalised path, case kept; see [`Request::quirks`] for what was ambiguous about it.
    #[must_use]
    pub fn path(&self) -> String {
        self.0.path()
    }

    /// What another server might read differently in the raw path.
    #[must_use]
    pub fn quirks(&self) -> Quirks {
        Quirks(self.0.path_quirks())
    }

    /// The query without `?`, as received.
    #[must_use]
    pub fn query(&self) -> Option<Vec<u8>> {
        self.0.query()
    }

    /// The first value of a header; the name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<Vec<u8>> {
        self.0.header(name)
    }

    /// The first value of a header as text; bytes that are not UTF-8 are replaced.
    #[must_use]
    pub fn header_text(&self, name: &str) -> Option<String> {
        self.0.header(name).map(into_text)
    }

    /// Every value of a header, in order.
    #[must_use]
    pub fn header_values(&self, name: &str) -> Vec<Vec<u8>> {
        self.0.header_values(name)
    }

    /// Every header, in order.
    #[must_use]
    pub fn headers(&self) -> Vec<(String, Vec<u8>)> {
        self.0.headers().into_iter().map(|header| (header.name, header.value)).collect()
    }

    /// The whole head in one host call: the cheapest way to read more than two or three fields.
    #[must_use]
    pub fn head(&self) -> Head {
        Head(self.0.head())
    }

    /// The declared length of the body in bytes.
    #[must_use]
    pub fn body_length(&self) -> Option<u64> {
        self.0.body_length()
    }

    /// A tag set by an earlier policy of this exchange or by the connection phase.
    #[must_use]
    pub fn tag(&self, key: &str) -> Option<String> {
        self.0.tag(key)
    }

    /// Publishes a fact to later policies, the log and the span.
    pub fn set_tag(&self, key: &str, value: &str) {
        self.0.set_tag(key, value);
    }

    /// Records a rule that matched without deciding.
    pub fn report(&self, finding: &Finding) {
        self.0.report(finding);
    }

    /// Bytes this policy kept for this exchange in an earlier phase.
    #[must_use]
    pub fn state(&self) -> Vec<u8> {
        self.0.state()
    }

    /// Keeps up to 4 KiB for a later phase of this exchange.
    ///
    /// # Errors
    /// [`EditError::TooLarge`].
    pub fn set_state(&self, state: &[u8]) -> Result<(), EditError> {
        self.0.set_state(state)
    }

    /// Replaces every value of a header.
    ///
    /// # Errors
    /// A field only the gateway may write, an invalid name or value, or a phase after the request was sent.
    pub fn set_header(&self, name: &str, value: &[u8]) -> Result<(), EditError> {
        self.0.set_header(name, value)
    }

    /// Adds a value of a header.
    ///
    /// # Errors
    /// As [`Request::set_header`].
    pub fn append_header(&self, name: &str, value: &[u8]) -> Result<(), EditError> {
        self.0.append_header(name, value)
    }

    /// Removes every value of a header.
    ///
    /// # Errors
    /// As [`Request::set_header`].
    pub fn remove_header(&self, name: &str) -> Result<(), EditError> {
        self.0.remove_header(name)
    }

    /// Replaces the Host that the upstream sees; routing is not repeated.
    ///
    /// # Errors
    /// As [`Request::set_header`].
    pub fn set_authority(&self, authority: &str) -> Result<(), EditError> {
        self.0.set_authority(authority)
    }

    /// Replaces path and query as the upstream sees them.
    ///
    /// # Errors
    /// As [`Request::set_header`].
    pub fn set_target(&self, target: &[u8]) -> Result<(), EditError> {
        self.0.set_target(target)
    }
}

impl Response<'_> {
    /// The status code.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.0.status()
    }

    /// The first value of a header; the name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<Vec<u8>> {
        self.0.header(name)
    }

    /// The first value of a header as text; bytes that are not UTF-8 are replaced.
    #[must_use]
    pub fn header_text(&self, name: &str) -> Option<String> {
        self.0.header(name).map(into_text)
    }

    /// Every value of a header, in order.
    #[must_use]
    pub fn header_values(&self, name: &str) -> Vec<Vec<u8>> {
        self.0.header_values(name)
    }

    /// Every header, in order.
    #[must_use]
    pub fn headers(&self) -> Vec<(String, Vec<u8>)> {
        self.0.headers().into_iter().map(|header| (header.name, header.value)).collect()
    }

    /// The whole head in one host call.
    #[must_use]
    pub fn head(&self) -> Head {
        Head(self.0.head())
    }

    /// The declared length of the body in bytes.
    #[must_use]
    pub fn body_length(&self) -> Option<u64> {
        self.0.body_length()
    }

    /// Replaces the status.
    ///
    /// # Errors
    /// A status outside 200 to 599.
    pub fn set_status(&self, status: u16) -> Result<(), EditError> {
        self.0.set_status(status)
    }

    /// Replaces every value of a header.
    ///
    /// # Errors
    /// A field only the gateway may write, or an invalid name or value.
    pub fn set_header(&self, name: &str, value: &[u8]) -> Result<(), EditError> {
        self.0.set_header(name, value)
    }

    /// Adds a value of a header.
    ///
    /// # Errors
    /// As [`Response::set_header`].
    pub fn append_header(&self, name: &str, value: &[u8]) -> Result<(), EditError> {
        self.0.append_header(name, value)
    }

    /// Removes every value of a header.
    ///
    /// # Errors
    /// As [`Response::set_header`].
    pub fn remove_header(&self, name: &str) -> Result<(), EditError> {
        self.0.remove_header(name)
    }
}

/// A whole head, read in place.
#[derive(Clone, Debug)]
pub struct Head(Vec<u8>);

impl Head {
    /// `METHOD target` of a request, the status of a response.
    #[must_use]
    pub fn first_line(&self) -> &[u8] {
        cut(&self.0, b'\n').0
    }

    /// The method of a request.
    #[must_use]
    pub fn method(&self) -> &[u8] {
        cut(self.first_line(), b' ').0
    }

    /// The target of a request as received.
    #[must_use]
    pub fn target(&self) -> &[u8] {
        cut(self.first_line(), b' ').1
    }

    /// Name (lower case) and value of every header, in order.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let mut rest = cut(&self.0, b'\n').1;
        std::iter::from_fn(move || {
            while !rest.is_empty() {
                let (line, behind) = cut(rest, b'\n');
                rest = behind;
                let (name, value) = cut(line, b':');
                if let (Ok(name), [b' ', value @ ..]) = (std::str::from_utf8(name), value) {
                    return Some((name, value));
                }
            }
            None
        })
    }

    /// The first value of a header; the name in lower case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.headers().find(|(own, _)| *own == name).map(|(_, value)| value)
    }
}

impl Finding {
    /// A finding without evidence.
    #[must_use]
    pub fn new(rule: &str, category: &str, target: &str, score: u32) -> Self {
        Self { rule: rule.to_owned(), category: category.to_owned(), target: target.to_owned(), evidence: String::new(), score }
    }

    /// Adds what matched; the gateway cuts it, and masks it when the score is above 0, before logging.
    #[must_use]
    pub fn evidence(mut self, evidence: &[u8]) -> Self {
        self.evidence = String::from_utf8_lossy(evidence).into_owned();
        self
    }
}

/// What stands before the first such byte, and what behind it. Looks at eight bytes at a time: a guest pays for every turn of a loop.
fn cut(text: &[u8], at: u8) -> (&[u8], &[u8]) {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = LOW << 7;
    let wanted = LOW * u64::from(at);
    let mut rest = text;
    let mut place = None;
    while let Some((word, behind)) = rest.split_first_chunk::<8>() {
        let differing = u64::from_le_bytes(*word) ^ wanted;
        // Marks the bytes that are zero; the lowest mark is right.
        let zeros = differing.wrapping_sub(LOW) & !differing & HIGH;
        if zeros != 0 {
            place = Some(text.len() - rest.len() + (zeros.trailing_zeros() / 8) as usize);
            break;
        }
        rest = behind;
    }
    let place = place.or_else(|| rest.iter().position(|byte| *byte == at).map(|place| text.len() - rest.len() + place));
    let Some(place) = place else { return (text, &[]) };
    (text.get(..place).unwrap_or_default(), text.get(place + 1..).unwrap_or_default())
}

fn from_host(ip: &IpAddress) -> IpAddr {
    Ipv6Addr::from_bits((u128::from(ip.high) << 64) | u128::from(ip.low)).to_canonical()
}

pub(crate) fn to_host(ip: IpAddr) -> IpAddress {
    let bits = match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits(),
    };
    let low = bits & u128::from(u64::MAX);
    IpAddress { high: (bits >> 64) as u64, low: low as u64 }
}

fn into_text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_in_place() {
        let head = Head(b"GET /a b HTTP\nhost: a.example:80\nx-empty: \nx: 1: 2\nno-colon\n\x80: x\nlast: y\n".to_vec());
        assert_eq!((head.method(), head.target()), (&b"GET"[..], &b"/a b HTTP"[..]));
        let fields: Vec<_> = head.headers().collect();
        let want: [(&str, &[u8]); 4] = [("host", b"a.example:80"), ("x-empty", b""), ("x", b"1: 2"), ("last", b"y")];
        assert_eq!(fields, want);
        assert_eq!(Head(Vec::new()).headers().count(), 0);
    }

    #[test]
    fn a_text_is_cut_at_the_first_of_many_places() {
        for length in 1..40 {
            for place in 0..length {
                let mut text = vec![b'a'; length];
                text[place] = b':';
                text[length - 1] = b':';
                assert_eq!(cut(&text, b':'), (&text[..place], &text[place + 1..]), "{place} of {length}");
            }
            let text = vec![0x3b; length];
            assert_eq!(cut(&text, b':'), (text.as_slice(), &b""[..]));
        }
    }
}
