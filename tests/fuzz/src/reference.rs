//! Readers of HTTP/1 that share no code with the gateway's. They see everything at once and go by lines, where the gateway's go byte by
//! byte through a state.

/// What a chunked body is, as far as it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chunked {
    /// Its length on the wire and what it carries.
    Whole(usize, Vec<u8>),
    /// Nothing wrong so far.
    Partial,
    /// No chunked body, whatever follows.
    Bad,
}

/// A request and whether all of its body is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Method and target.
    pub asked: String,
    /// How many fields its head has.
    pub fields: usize,
    /// The body, when it is whole.
    pub body: Option<Vec<u8>>,
}

const MAX_EXTENSION: usize = 256;
const MAX_TOGETHER: usize = 16 * 1024;

/// A line up to its end, and what follows; nothing follows while the end is not there.
enum Line<'a> {
    Ended(&'a [u8], &'a [u8]),
    Open(&'a [u8]),
}

/// `None` when the line ends in any other way than CR LF.
fn line(bytes: &[u8]) -> Option<Line<'_>> {
    let Some(at) = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else { return Some(Line::Open(bytes)) };
    match &bytes[at..] {
        [b'\r', b'\n', rest @ ..] => Some(Line::Ended(&bytes[..at], rest)),
        [b'\r'] => Some(Line::Open(&bytes[..at])),
        _ => None,
    }
}

fn is_text(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == b'\t' || (*byte >= 0x20 && *byte != 0x7f))
}

fn is_token(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

/// Reads a chunked body at the start of the bytes.
#[must_use]
pub fn chunked(bytes: &[u8]) -> Chunked {
    let (mut rest, mut body, mut extensions) = (bytes, Vec::new(), 0);
    loop {
        let Some(size_line) = line(rest) else { return Chunked::Bad };
        let (text, ended) = match size_line {
            Line::Ended(text, _) => (text, true),
            // A CR at the end belongs to the line end.
            Line::Open(text) => (text, rest.ends_with(b"\r") && text.len() < rest.len()),
        };
        let semicolon = text.iter().position(|byte| *byte == b';');
        let digits = &text[..semicolon.unwrap_or(text.len())];
        if !digits.iter().all(u8::is_ascii_hexdigit) || digits.len() > 16 || (digits.is_empty() && (ended || semicolon.is_some()))
        {
            return Chunked::Bad;
        }
        let extension = &text[digits.len()..];
        extensions += extension.len();
        if !is_text(extension) || extension.len() > MAX_EXTENSION || extensions > MAX_TOGETHER {
            return Chunked::Bad;
        }
        let Line::Ended(_, behind) = size_line else { return Chunked::Partial };
        rest = behind;
        let size = u64::from_str_radix(&String::from_utf8_lossy(digits), 16).expect("hex digits");
        if size == 0 {
            return trailers(bytes.len() - rest.len(), rest, body);
        }
        let Some((data, behind)) = usize::try_from(size).ok().and_then(|size| rest.split_at_checked(size)) else {
            return Chunked::Partial;
        };
        body.extend_from_slice(data);
        match behind {
            [] | [b'\r'] => return Chunked::Partial,
            [b'\r', b'\n', behind @ ..] => rest = behind,
            _ => return Chunked::Bad,
        }
    }
}

fn trailers(before: usize, bytes: &[u8], body: Vec<u8>) -> Chunked {
    let (mut rest, mut together) = (bytes, 0);
    loop {
        let Some(field) = line(rest) else { return Chunked::Bad };
        let (text, ended) = match field {
            Line::Ended(text, _) => (text, true),
            Line::Open(text) => (text, rest.ends_with(b"\r") && text.len() < rest.len()),
        };
        together += text.len();
        let good = match text.iter().position(|byte| *byte == b':') {
            Some(colon) => colon > 0 && is_token(&text[..colon]) && is_text(&text[colon..]),
            None => is_token(text) && (!ended || text.is_empty()),
        };
        if !good || together > MAX_TOGETHER {
            return Chunked::Bad;
        }
        let Line::Ended(_, behind) = field else { return Chunked::Partial };
        rest = behind;
        if text.is_empty() {
            return Chunked::Whole(before + bytes.len() - rest.len(), body);
        }
    }
}

/// Reads requests one behind the other, heads with httparse.
///
/// # Panics
/// What is there is no beginning of HTTP/1 requests, or has two framings.
#[must_use]
pub fn requests(bytes: &[u8]) -> Vec<Request> {
    let (mut rest, mut requests) = (bytes, Vec::new());
    while !rest.is_empty() {
        let mut fields = [httparse::EMPTY_HEADER; 256];
        let mut head = httparse::Request::new(&mut fields);
        let parsed = head.parse(rest).unwrap_or_else(|error| panic!("{error}: {}", rest.escape_ascii()));
        let httparse::Status::Complete(length) = parsed else { panic!("half a head passed: {}", rest.escape_ascii()) };
        assert!(matches!(head.version, Some(0 | 1)));
        let asked = format!("{} {}", head.method.unwrap_or_default(), head.path.unwrap_or_default());
        let fields = head.headers.len();
        let all = |name: &str| -> Vec<&[u8]> {
            head.headers
                .iter()
                .filter(|field| field.name.eq_ignore_ascii_case(name))
                .map(|field| field.value.trim_ascii())
                .collect()
        };
        let (lengths, codings) = (all("content-length"), all("transfer-encoding"));
        assert!(all("host").len() <= 1, "{asked}: several hosts");
        let behind = &rest[length..];
        let (body, size) = match (lengths.as_slice(), codings.as_slice()) {
            ([], []) => (Some(Vec::new()), 0),
            ([first, others @ ..], []) => {
                assert!(others.iter().all(|other| other == first), "{asked}: several lengths");
                let text = std::str::from_utf8(first).expect("digits");
                let size: u64 = text.parse().expect("a length");
                assert_eq!(size.to_string(), text, "{asked}: a length of two spellings");
                let size = usize::try_from(size).unwrap_or(usize::MAX);
                (behind.get(..size).map(<[u8]>::to_vec), size.min(behind.len()))
            }
            ([], [coding]) => {
                assert!(coding.eq_ignore_ascii_case(b"chunked") && head.version == Some(1), "{asked}: {}", coding.escape_ascii());
                match chunked(behind) {
                    Chunked::Whole(size, body) => (Some(body), size),
                    Chunked::Partial => (None, behind.len()),
                    Chunked::Bad => panic!("{asked}: bad chunks passed: {}", behind.escape_ascii()),
                }
            }
            _ => panic!("{asked}: two kinds of length"),
        };
        rest = &behind[size..];
        requests.push(Request { asked, fields, body });
    }
    requests
}
