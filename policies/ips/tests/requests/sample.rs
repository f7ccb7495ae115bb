//! A request, what it should lead to, and one `check` for both.

use ips::Ips;
use weir_sdk::prelude::*;
use weir_sdk::testing::{self, TestRequest};

/// A request with a body.
pub(crate) struct Sample {
    pub(crate) method: &'static str,
    pub(crate) target: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
}

/// What a policy made of a request.
pub(crate) struct Outcome {
    pub(crate) verdict: Verdict,
    pub(crate) findings: Vec<Finding>,
}

pub(crate) fn get(target: &str) -> Sample {
    Sample { method: "GET", target: target.to_owned(), headers: Vec::new(), body: Vec::new() }
}

pub(crate) fn post(target: &str, content_type: &str, body: impl AsRef<[u8]>) -> Sample {
    let body = body.as_ref().to_vec();
    let length = body.len().to_string();
    Sample { method: "POST", body, ..get(target) }.with("content-type", content_type).with("content-length", &length)
}

pub(crate) fn form(target: &str, body: &str) -> Sample {
    post(target, "application/x-www-form-urlencoded", body)
}

pub(crate) fn json(target: &str, body: &str) -> Sample {
    post(target, "application/json", body)
}

/// Percent-encodes everything but letters and digits.
pub(crate) fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// A GET whose query holds `text`.
pub(crate) fn query(text: &str) -> Sample {
    get(&format!("/WCC2/Search/search?q={}", encode(text)))
}

/// A GET with a User-Agent.
pub(crate) fn agent(text: &str) -> Sample {
    get("/automate/").with("user-agent", text)
}

impl Sample {
    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// Shows the request to a policy in both phases, as the gateway does.
    pub(crate) fn send(&self, policy: &Ips) -> Outcome {
        let mut request = TestRequest::new(self.method, &self.target);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let mut verdict = policy.request(request.view());
        if verdict == Verdict::Next && !self.body.is_empty() {
            let window = &self.body[..self.body.len().min(65536)];
            verdict = policy.request_body(request.view(), window, window.len() == self.body.len());
        }
        Outcome { verdict, findings: request.findings() }
    }
}

pub(crate) fn policy(config: &str) -> Ips {
    testing::configure(config).unwrap()
}

/// Denied by `reason`, with a rule of it among the findings.
pub(crate) fn check_denied(sample: &Sample, reason: &str) {
    let Outcome { verdict, findings } = sample.send(&policy("{}"));
    let shown: Vec<_> = findings.iter().map(|finding| (&finding.rule, &finding.target, &finding.evidence)).collect();
    let Verdict::Deny(denial) = verdict else {
        panic!("passed: {} {} {} {shown:?}", sample.method, sample.target, String::from_utf8_lossy(&sample.body))
    };
    let name = format!("{} {} {:?} {shown:?}", sample.method, sample.target, sample.headers);
    assert_eq!((denial.status, denial.reason.as_str()), (403, reason), "{name}");
    assert!(findings.iter().any(|finding| finding.rule == denial.rule && finding.category == reason), "{name}");
}

/// Passed with the default configuration.
pub(crate) fn check_passed(sample: &Sample) {
    let Outcome { verdict, findings } = sample.send(&policy("{}"));
    let shown: Vec<_> = findings.iter().map(|finding| (&finding.rule, &finding.target, &finding.evidence)).collect();
    let body = String::from_utf8_lossy(&sample.body);
    assert_eq!(verdict, Verdict::Next, "{} {} {:?} {body} {shown:?}", sample.method, sample.target, sample.headers);
}
