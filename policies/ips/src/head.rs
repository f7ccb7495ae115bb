//! The request head: path, query, method and headers.

use weir_path::Quirks;
use weir_sdk::Head;

use crate::body::odd_charset;
use crate::bytes::{Classes, find};
use crate::decode::Reading;
use crate::inspect::{Engine, Inspection, Target};
use crate::rules;
use crate::score::Tally;

/// The path agents talk to, in lower case.
const AGENT_PATH: &str = "/labtech/agent.aspx";

/// The installer page, in lower case.
const DEPLOYMENT_PATH: &str = "/labtech/deployment.aspx";

/// How many parameters a request may have without notice.
pub(crate) const PARAMETERS_MAX: usize = 255;

/// How many ranges a request may ask for without notice.
const RANGES_MAX: usize = 10;

/// A view state in a query is an attempt to pass it around the page's form; one in a form is large beyond this, in bytes.
pub(crate) const VIEWSTATE_MAX: usize = 16 * 1024;

impl Engine {
    /// Inspects the request head.
    #[must_use]
    pub fn inspect_head(&self, head: &Head) -> Tally {
        let (path, query) = split_target(head.target());
        let normal = weir_path::normalise(path);
        let mut inspection = self.begin(normal.text, Tally::default());
        inspect_method(&mut inspection, head.method());
        inspect_path(&mut inspection, path, normal.quirks);
        inspect_query(&mut inspection, query);
        inspect_headers(&mut inspection, head);
        inspection.finish()
    }
}

/// Path and query (empty when there is none) of a request target.
pub(crate) fn split_target(target: &[u8]) -> (&[u8], &[u8]) {
    let mut parts = target.splitn(2, |byte| *byte == b'?');
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}

fn inspect_method(inspection: &mut Inspection<'_>, method: &[u8]) {
    let rule = match method {
        b"GET" | b"POST" | b"HEAD" | b"PUT" | b"DELETE" | b"OPTIONS" | b"PATCH" => return,
        b"TRACE" | b"TRACK" | b"DEBUG" => rules::TRACE_METHOD,
        b"PROPFIND" | b"PROPPATCH" | b"MKCOL" | b"COPY" | b"MOVE" | b"LOCK" | b"UNLOCK" | b"SEARCH" => rules::WEBDAV_METHOD,
        _ => return,
    };
    inspection.message(rule, Target::Message, method);
}

fn inspect_path(inspection: &mut Inspection<'_>, raw: &[u8], quirks: Quirks) {
    inspection.value(Target::Path, raw, Reading::Percent);
    if quirks.is_empty() {
        return;
    }
    let ambiguous = Quirks::BACKSLASH
        .union(Quirks::DOT_SEGMENT)
        .union(Quirks::TRAILING_DOT)
        .union(Quirks::ENCODED_SLASH)
        .union(Quirks::ABOVE_ROOT)
        .union(Quirks::CONTROL);
    if quirks.intersects(ambiguous) {
        inspection.message(rules::AMBIGUOUS_PATH, Target::Path, raw);
    }
    inspection.decoded(Target::Path, raw, Reading::Percent);
    let text = inspection.last_text();
    let climbs = leaves_a_directory(text);
    let hides = quirks.intersects(Quirks::ENCODED_SLASH.union(Quirks::DOUBLE_ENCODING).union(Quirks::NOT_UTF8))
        || find(raw, b"%2e", 0).is_some()
        || find(raw, b"%2E", 0).is_some();
    if climbs && hides {
        inspection.message(rules::HIDDEN_TRAVERSAL, Target::Path, raw);
    }
    let resolved = inspection.path.clone();
    inspection.decoded(Target::Path, resolved.as_bytes(), Reading::Plain);
}

/// Whether a dot segment leaves a directory. One that only takes back a file name (`page.aspx/../other.aspx`) stays where it was: an
/// odd way to write a path, which is the access policy's to judge.
fn leaves_a_directory(decoded: &[u8]) -> bool {
    let mut open: Vec<&[u8]> = Vec::new();
    for segment in decoded.split(|byte| matches!(byte, b'/' | b'\\')).filter(|segment| !segment.is_empty()) {
        if segment != b".." {
            open.push(segment);
        } else if open.pop().is_none_or(|left| !left.contains(&b'.')) {
            return true;
        }
    }
    false
}

fn inspect_query(inspection: &mut Inspection<'_>, query: &[u8]) {
    if inspection.path.eq_ignore_ascii_case(DEPLOYMENT_PATH) {
        inspect_deployment(inspection, query);
    }
    let mut count = 0;
    for (name, value) in parameters(query) {
        count += 1;
        if name.eq_ignore_ascii_case(b"__viewstate") {
            inspection.message(rules::VIEWSTATE_SIZE, Target::Query(name), value);
        }
        inspection.value(Target::QueryName, name, Reading::Form);
        inspection.value(Target::Query(name), value, Reading::Form);
    }
    if count > PARAMETERS_MAX {
        inspection.message(rules::MANY_PARAMETERS, Target::Message, b"");
    }
}

/// Name and value of each pair of a query or form; the value is empty when there is no `=`.
pub(crate) fn parameters(text: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    text.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).map(|pair| {
        let mut parts = pair.splitn(2, |byte| *byte == b'=');
        (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
    })
}

fn inspect_deployment(inspection: &mut Inspection<'_>, query: &[u8]) {
    if query.is_empty() {
        inspection.message(rules::DEPLOYMENT_BARE, Target::Path, b"");
    }
    let mut tokens = parameters(query).filter(|(name, _)| name.eq_ignore_ascii_case(b"installertoken"));
    let Some((name, token)) = tokens.next() else { return };
    let well_formed = (16..=64).contains(&token.len()) && token.iter().all(u8::is_ascii_alphanumeric);
    if !well_formed || tokens.next().is_some() {
        inspection.message(rules::DEPLOYMENT_TOKEN, Target::Query(name), token);
    }
}

/// What the headers say about the length of the body.
#[derive(Default)]
struct Lengths<'a> {
    declared: Option<&'a [u8]>,
    agent: Option<&'a [u8]>,
    chunked: bool,
}

fn inspect_headers(inspection: &mut Inspection<'_>, head: &Head) {
    let mut lengths = Lengths::default();
    for (name, value) in head.headers() {
        match name {
            "cookie" => inspect_cookies(inspection, value),
            "content-length" => lengths.declared = Some(value),
            "contentlength" => lengths.agent = Some(value),
            "transfer-encoding" => lengths.chunked = true,
            "range" | "request-range" => inspect_range(inspection, name, value),
            "content-type" => {
                if odd_charset(value) {
                    inspection.message(rules::ODD_CHARSET, Target::Header(name), value);
                }
                inspection.value(Target::Header(name), value, Reading::Percent);
            }
            _ => inspection.value(Target::Header(name), value, Reading::Percent),
        }
    }
    if let (Some(declared), Some(agent)) = (lengths.declared, lengths.agent)
        && declared.trim_ascii() != agent.trim_ascii()
    {
        inspection.message(rules::AGENT_LENGTH, Target::Header("contentlength"), agent);
    }
    if lengths.chunked && lengths.declared.is_none() && inspection.path.eq_ignore_ascii_case(AGENT_PATH) {
        inspection.message(rules::UNKNOWN_LENGTH, Target::Header("transfer-encoding"), b"");
    }
}

fn inspect_cookies(inspection: &mut Inspection<'_>, cookies: &[u8]) {
    let ordinary = Classes::SEMICOLON.union(Classes::SPACE);
    if !inspection.engine.classes(cookies).intersects(Classes::ALL.without(ordinary)) {
        return;
    }
    for cookie in cookies.split(|byte| *byte == b';') {
        let mut parts = cookie.trim_ascii().splitn(2, |byte| *byte == b'=');
        let (name, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        inspection.value(Target::Cookie(name), value, Reading::Percent);
        if inspection.engine.classes(name) != Classes::NONE {
            inspection.value(Target::Cookie(b""), name, Reading::Percent);
        }
    }
}

fn inspect_range(inspection: &mut Inspection<'_>, name: &str, value: &[u8]) {
    if value.iter().filter(|byte| **byte == b',').count() >= RANGES_MAX {
        inspection.message(rules::MANY_RANGES, Target::Header(name), value);
    }
    let number = |digits: &[u8]| digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if value.split(|byte| !byte.is_ascii_digit()).any(|digits| number(digits) >= 18) {
        inspection.message(rules::RANGE_OVERFLOW, Target::Header(name), value);
    }
    inspection.value(Target::Header(name), value, Reading::Percent);
}
