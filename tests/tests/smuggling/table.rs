//! The table of cases as a person writes it.

/// One case.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// The row of the catalogue, with the line of the file.
    pub(crate) name: String,
    /// What must become of it.
    pub(crate) verdict: Verdict,
    /// What is sent; `{host}` is still in it.
    bytes: Vec<u8>,
    /// Whether the client ends its direction afterwards.
    pub(crate) fin: bool,
}

/// See the head of the table.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    Refused { status: u16, reason: String },
    Accepted(Detail),
    Broken,
}

/// What the origin must have seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Detail {
    pub(crate) body: String,
    /// Another target than the one in the bytes.
    pub(crate) target: Option<String>,
    pub(crate) with: Vec<(String, String)>,
    pub(crate) without: Vec<String>,
}

const HOST: &str = "{host}";
const MACROS: [(&str, &str); 4] = [
    ("{chunked}", "{post}Transfer-Encoding: chunked\\r\\n\\r\\n"),
    ("{post}", "POST /case HTTP/1.1\\r\\nHost: {host}\\r\\n"),
    ("{get}", "GET /case HTTP/1.1\\r\\nHost: {host}\\r\\n"),
    ("{smuggled}", "GET /smuggled HTTP/1.1\\r\\nHost: {host}\\r\\n\\r\\n"),
];

/// The cases of the table.
pub(crate) fn cases() -> Vec<Case> {
    let text = include_str!("../../fixtures/smuggling/http1.txt");
    let rows = text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    rows.map(|(number, line)| case(&format!("line {}", number + 1), line)).collect()
}

/// A case from one line: row, verdict, detail, bytes.
pub(crate) fn case(place: &str, line: &str) -> Case {
    let mut words = line.splitn(2, char::is_whitespace);
    let word = |rest: &mut &str| {
        let trimmed = rest.trim_start();
        let end = trimmed.find(char::is_whitespace).unwrap_or(trimmed.len());
        let (word, behind) = trimmed.split_at(end);
        *rest = behind;
        word.to_owned()
    };
    let (row, mut rest) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (verdict, detail) = (word(&mut rest), word(&mut rest));
    let verdict = match verdict.split_at(1) {
        ("R", status) => Verdict::Refused { status: status.parse().expect("a status"), reason: detail },
        ("A", "") => Verdict::Accepted(self::detail(&detail)),
        ("X", "") => Verdict::Broken,
        _ => panic!("{place}: no verdict {verdict:?}"),
    };
    Case::new(format!("{row} ({place}): {line}"), verdict, rest.trim_start())
}

impl Case {
    /// A case from its parts; `text` has escapes and macros.
    pub(crate) fn new(name: String, verdict: Verdict, text: &str) -> Self {
        let (text, fin) = text.strip_suffix("{fin}").map_or((text, false), |text| (text, true));
        let text = MACROS.iter().fold(text.to_owned(), |text, (name, meaning)| text.replace(name, meaning));
        Self { name, verdict, bytes: unescape(&repeat(&text)), fin }
    }

    /// What to send to the site of this name.
    pub(crate) fn bytes(&self, host: &str) -> Vec<u8> {
        let (mut bytes, mut rest) = (Vec::new(), self.bytes.as_slice());
        while let Some(at) = rest.windows(HOST.len()).position(|window| window == HOST.as_bytes()) {
            bytes.extend_from_slice(&rest[..at]);
            bytes.extend_from_slice(host.as_bytes());
            rest = &rest[at + HOST.len()..];
        }
        bytes.extend_from_slice(rest);
        bytes
    }
}

fn detail(text: &str) -> Detail {
    let mut detail = Detail::default();
    for (place, part) in text.split(';').enumerate() {
        let pair = |text: &str| text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        match part.split_at_checked(1) {
            _ if place == 0 => detail.body = String::from_utf8(unescape(part)).expect("text"),
            Some(("+", field)) => detail.with.extend(pair(field)),
            Some(("!", name)) => detail.without.push(name.to_owned()),
            _ => detail.target = part.strip_prefix("to=").map(str::to_owned),
        }
    }
    detail
}

/// `{3*ab}` is `ababab`; repetitions may be nested.
fn repeat(text: &str) -> String {
    let Some(start) = text.rfind("{").filter(|start| text[start + 1..].starts_with(|char: char| char.is_ascii_digit())) else {
        // Another brace may come before one that is not a repetition.
        return match text.rfind('{') {
            Some(other) => repeat(&text[..other]) + &text[other..],
            None => text.to_owned(),
        };
    };
    let end = start + text[start..].find('}').expect("a closing brace");
    let (count, what) = text[start + 1..end].split_once('*').expect("a number and a text");
    repeat(&format!("{}{}{}", &text[..start], what.repeat(count.parse().expect("a number")), &text[end + 1..]))
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes().iter().copied();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match rest.next() {
            Some(b'r') => b'\r',
            Some(b'n') => b'\n',
            Some(b't') => b'\t',
            Some(b'\\') => b'\\',
            Some(b'x') => {
                let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16)).expect("two hex digits");
                (digit() << 4 | digit()) as u8
            }
            other => panic!("no escape {other:?} in {text}"),
        });
    }
    bytes
}
