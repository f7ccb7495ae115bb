//! Gateways with and without policies, reached by the names that programs resolve.

use weir_tests::tls::{Authority, Kind};
use weir_tests::{Connection, Gateway, Setup, tool};

/// A gateway, and what its clients believe.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) gateway: Gateway,
    pub(crate) authority: Authority,
    /// The authority's certificate as a file.
    pub(crate) ca: String,
}

impl Stage {
    /// An empty chain before the server at this URL.
    pub(crate) fn plain(url: &str) -> Self {
        Self::with(url, |setup| setup)
    }

    /// All four policies before the server at this URL.
    pub(crate) fn guarded(url: &str) -> Self {
        Self::with(url, |setup| {
            setup
                .countries()
                .policy("acl", "agent-acl", "config = { model = \"all-traffic\" }")
                .policy("geo", "geoip", "config = { deny = [\"KP\"] }")
                .policy("ips", "ips", "")
                .policy("sso", "sso-cors", "config = { public = \"site.test\", origin = \"automate.internal\" }")
        })
    }

    fn with(url: &str, chain: impl FnOnce(Setup) -> Setup) -> Self {
        let authority = Authority::new();
        let setup = Setup::before_servers(&[(url, 0)])
            .replace("hosts = [\"site.test\"]", "hosts = [\"site.test\", \"localhost\"]")
            // One worker: whatever one client leaves behind, the next one meets.
            .replace("workers = 2", "workers = 1")
            .certificate(&authority.issue(Kind::Ecdsa, &["site.test", "localhost"]));
        let gateway = chain(setup).start();
        let ca = gateway.directory().write("ca.pem", &authority.pem).display().to_string();
        Self { gateway, authority, ca }
    }

    /// Where curl and browsers find the gateway over TLS.
    pub(crate) fn https(&self, path: &str) -> String {
        format!("https://site.test:{}{path}", self.gateway.tls().port())
    }

    /// The same without TLS.
    pub(crate) fn http(&self, path: &str) -> String {
        format!("http://site.test:{}{path}", self.gateway.plain().port())
    }

    /// Where programs that cannot be told addresses find it over TLS.
    pub(crate) fn localhost(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.gateway.tls().port())
    }

    /// A connection for HTTP/1 over TLS.
    pub(crate) fn secure(&self) -> Connection {
        self.authority.connect(self.gateway.tls(), "site.test").unwrap()
    }

    /// What curl answers on standard output; `None` when there is no curl.
    pub(crate) fn curl(&self, arguments: &[&str]) -> Vec<u8> {
        let resolve = |port: u16| format!("site.test:{port}:127.0.0.1");
        let (plain, tls) = (resolve(self.gateway.plain().port()), resolve(self.gateway.tls().port()));
        let fixed =
            ["--silent", "--show-error", "--max-time", "20", "--cacert", &self.ca, "--resolve", &plain, "--resolve", &tls];
        let output = tool::run("curl", &[&fixed, arguments].concat());
        assert!(output.status.success(), "curl {arguments:?}: {}", tool::text(&output));
        output.stdout
    }

    /// The same as text.
    pub(crate) fn curl_text(&self, arguments: &[&str]) -> String {
        String::from_utf8_lossy(&self.curl(arguments)).into_owned()
    }
}

/// Everything until the other side ends the connection.
pub(crate) fn rest(client: &mut Connection) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        match client.next_within(weir_tests::LONG) {
            Ok(piece) if piece.is_empty() => return bytes,
            Ok(piece) => bytes.extend_from_slice(&piece),
            Err(error) => panic!("{error} after {}", String::from_utf8_lossy(&bytes)),
        }
    }
}

/// Bytes that look like nothing else and do not compress.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    std::iter::repeat_with(|| next().to_le_bytes()).flatten().take(length).collect()
}
