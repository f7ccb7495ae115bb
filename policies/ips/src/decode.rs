//! From bytes on the wire to the text a rule reads, decoded the way servers and browsers would.

/// How the receiver reads a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Percent-encoding, and `+` is a space: queries and forms.
    Form,
    /// Percent-encoding: paths, cookies, headers.
    Percent,
    /// Taken as it is: JSON strings, XML text, file names.
    Plain,
}

/// What was odd about a value's encoding, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Oddities(u8);

impl Oddities {
    /// A NUL byte.
    pub const NUL: Self = Self(1);
    /// UTF-8 that is longer than it has to be, e.g. `%c0%af` for `/`.
    pub const OVERLONG: Self = Self(2);
    /// Percent-encoded more than once.
    pub const DOUBLED: Self = Self(4);
    /// `%uXXXX`, which only IIS reads.
    pub const PERCENT_U: Self = Self(8);
    /// `%` without two hexadecimal digits.
    pub const MALFORMED: Self = Self(16);
    /// A `/* */` between words.
    pub const COMMENT: Self = Self(32);

    /// Whether any bit of `other` is set.
    #[must_use]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// Two buffers that are used over and over.
#[derive(Debug, Default)]
pub struct Buffers {
    /// The text after [`normalise`].
    pub text: Vec<u8>,
    spare: Vec<u8>,
}

/// More rounds than any server decodes; a longer nest is no longer an attack on one.
const ROUNDS: usize = 3;

/// What a comment may hold to be dropped; a longer one may be the attack itself and is kept.
const COMMENT_MAX: usize = 64;

/// Decodes `value` into `buffers.text`: percent-encoding (repeatedly), HTML entities, `\u` and `\x` escapes, overlong UTF-8
/// and full-width letters; in lower case, with NUL dropped, white space folded and SQL comments read as a space.
///
/// Runs of white space with a line break become one `\n`, others one space.
pub fn normalise(value: &[u8], reading: Reading, buffers: &mut Buffers) -> Oddities {
    let Buffers { text, spare } = buffers;
    let mut odd = Oddities::default();
    text.clear();
    text.extend_from_slice(value);
    for round in 0..ROUNDS {
        let plus = round == 0 && reading == Reading::Form;
        let mut changed = false;
        if (reading != Reading::Plain && text.contains(&b'%')) || (plus && text.contains(&b'+')) {
            changed = percent(text, spare, plus, round, &mut odd);
            std::mem::swap(text, spare);
        }
        if text.contains(&b'&') {
            changed |= entities(text, spare);
            std::mem::swap(text, spare);
        }
        if text.contains(&b'\\') {
            changed |= escapes(text, spare);
            std::mem::swap(text, spare);
        }
        if !changed {
            break;
        }
    }
    fold(text, spare, &mut odd);
    std::mem::swap(text, spare);
    odd
}

fn percent(text: &[u8], out: &mut Vec<u8>, plus: bool, round: usize, odd: &mut Oddities) -> bool {
    out.clear();
    let mut changed = false;
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'+' if plus => out.push(b' '),
            b'%' => {
                let unicode = tail.strip_prefix(b"u").or_else(|| tail.strip_prefix(b"U")).and_then(|tail| hex(tail, 4));
                if let Some((value, tail)) = hex(tail, 2) {
                    push(out, value);
                    rest = tail;
                    changed = true;
                } else if let Some((value, tail)) = unicode {
                    odd.add(Oddities::PERCENT_U);
                    push_char(out, value);
                    rest = tail;
                    changed = true;
                } else {
                    out.push(byte);
                    if round == 0 {
                        odd.add(Oddities::MALFORMED);
                    }
                }
            }
            _ => out.push(byte),
        }
    }
    if changed && round > 0 {
        odd.add(Oddities::DOUBLED);
    }
    changed
}

/// The entities that hide what a rule looks for.
const ENTITIES: [(&[u8], u8); 16] = [
    (b"lt", b'<'),
    (b"gt", b'>'),
    (b"quot", b'"'),
    (b"apos", b'\''),
    (b"amp", b'&'),
    (b"nbsp", b' '),
    (b"tab", b' '),
    (b"newline", b'\n'),
    (b"colon", b':'),
    (b"semi", b';'),
    (b"lpar", b'('),
    (b"rpar", b')'),
    (b"sol", b'/'),
    (b"bsol", b'\\'),
    (b"grave", b'`'),
    (b"dollar", b'$'),
];

fn entities(text: &[u8], out: &mut Vec<u8>) -> bool {
    out.clear();
    let mut changed = false;
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte == b'&'
            && let Some((value, tail)) = numeric_entity(tail).or_else(|| named_entity(tail))
        {
            push_char(out, value);
            rest = tail;
            changed = true;
        } else {
            out.push(byte);
        }
    }
    changed
}

fn numeric_entity(tail: &[u8]) -> Option<(u32, &[u8])> {
    let tail = tail.strip_prefix(b"#")?;
    let (digits, radix) = match tail.strip_prefix(b"x").or_else(|| tail.strip_prefix(b"X")) {
        Some(digits) => (digits, 16),
        None => (tail, 10),
    };
    let length = digits.iter().take(10).take_while(|byte| char::from(**byte).is_digit(radix)).count();
    let (number, tail) = digits.split_at_checked(length)?;
    let value = u32::from_str_radix(std::str::from_utf8(number).ok()?, radix).ok()?;
    Some((value, tail.strip_prefix(b";").unwrap_or(tail)))
}

fn named_entity(tail: &[u8]) -> Option<(u32, &[u8])> {
    let (_, value, tail) = ENTITIES.iter().find_map(|(name, value)| {
        let (own, tail) = tail.split_at_checked(name.len())?;
        own.eq_ignore_ascii_case(name).then_some((name, value, tail.strip_prefix(b";")?))
    })?;
    Some((u32::from(*value), tail))
}

fn escapes(text: &[u8], out: &mut Vec<u8>) -> bool {
    out.clear();
    let mut changed = false;
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        let escape = (byte == b'\\').then(|| tail.split_first()).flatten().and_then(|(kind, tail)| match kind {
            b'u' => hex(tail, 4),
            b'x' => hex(tail, 2),
            _ => None,
        });
        if let Some((value, tail)) = escape {
            push_char(out, value);
            rest = tail;
            changed = true;
        } else {
            out.push(byte);
        }
    }
    changed
}

fn fold(text: &[u8], out: &mut Vec<u8>, odd: &mut Oddities) {
    out.clear();
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            0 => odd.add(Oddities::NUL),
            b'\t'..=b'\r' | b' ' => push_space(out, byte),
            b'/' if tail.first() == Some(&b'*') => match comment(tail) {
                Some((kept, tail)) => {
                    odd.add(Oddities::COMMENT);
                    push_space(out, b' ');
                    out.extend(kept.iter().map(u8::to_ascii_lowercase));
                    if !kept.is_empty() {
                        out.push(b' ');
                    }
                    rest = tail;
                }
                None => out.push(byte),
            },
            0x80.. => rest = wide(byte, tail, out, odd),
            _ => out.push(byte.to_ascii_lowercase()),
        }
    }
}

fn push_space(out: &mut Vec<u8>, byte: u8) {
    let is_break = matches!(byte, b'\n' | b'\r');
    match out.last_mut() {
        Some(last) if matches!(last, b' ' | b'\n') => {
            if is_break {
                *last = b'\n';
            }
        }
        _ => out.push(if is_break { b'\n' } else { b' ' }),
    }
}

/// What remains of a comment after `/`, and the text behind it. MySQL runs what stands in `/*! */`, so that is kept.
fn comment(tail: &[u8]) -> Option<(&[u8], &[u8])> {
    let inner = tail.get(1..)?;
    let end = inner.iter().take(COMMENT_MAX).zip(inner.iter().skip(1)).position(|pair| pair == (&b'*', &b'/'))?;
    let (content, rest) = (inner.get(..end)?, inner.get(end + 2..)?);
    if let Some(run) = content.strip_prefix(b"!") {
        let digits = run.iter().take_while(|byte| byte.is_ascii_digit()).count();
        return Some((run.get(digits..)?, rest));
    }
    content.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b' ' | b'_' | b'*')).then_some((b"", rest))
}

/// Overlong UTF-8 and full-width forms as the ASCII that lenient servers make of them; other bytes as they are.
fn wide<'a>(byte: u8, tail: &'a [u8], out: &mut Vec<u8>, odd: &mut Oddities) -> &'a [u8] {
    let continuation = |at: usize| tail.get(at).filter(|byte| (0x80..0xc0).contains(*byte)).map(|byte| byte & 0x3f);
    match (byte, continuation(0), continuation(1)) {
        (0xc0 | 0xc1, low, _) => {
            odd.add(Oddities::OVERLONG);
            let Some(low) = low else { return tail };
            out.push((((byte & 1) << 6) | low).to_ascii_lowercase());
            tail.get(1..).unwrap_or_default()
        }
        (0xe0, Some(middle @ 0..=1), Some(low)) => {
            odd.add(Oddities::OVERLONG);
            out.push(((middle << 6) | low).to_ascii_lowercase());
            tail.get(2..).unwrap_or_default()
        }
        (0xef, Some(middle @ 0x3c..=0x3d), Some(low)) => {
            let offset = (u32::from(middle) << 6 | u32::from(low)).wrapping_sub(0xf00);
            match u8::try_from(offset + 0x20) {
                Ok(ascii @ 0x21..=0x7e) => out.push(ascii.to_ascii_lowercase()),
                _ => out.extend_from_slice(&[byte, middle | 0x80, low | 0x80]),
            }
            tail.get(2..).unwrap_or_default()
        }
        (0xc2, Some(0x20), _) => {
            push_space(out, b' ');
            tail.get(1..).unwrap_or_default()
        }
        _ => {
            out.push(byte);
            tail
        }
    }
}

fn hex(text: &[u8], digits: usize) -> Option<(u32, &[u8])> {
    let (number, rest) = text.split_at_checked(digits)?;
    let value = number.iter().try_fold(0, |value, byte| Some(value * 16 + char::from(*byte).to_digit(16)?))?;
    Some((value, rest))
}

fn push(out: &mut Vec<u8>, value: u32) {
    out.push(u8::try_from(value).unwrap_or(b'?'));
}

fn push_char(out: &mut Vec<u8>, value: u32) {
    let character = char::from_u32(value).unwrap_or(char::REPLACEMENT_CHARACTER);
    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: &str, reading: Reading, text: &str, odd: u8) {
        let mut buffers = Buffers::default();
        let got = normalise(value.as_bytes(), reading, &mut buffers);
        assert_eq!(String::from_utf8_lossy(&buffers.text), text, "text of {value}");
        assert_eq!(got.0, odd, "oddities of {value}");
    }

    #[test]
    fn values_are_decoded_the_way_servers_do() {
        check("A+b%20C", Reading::Form, "a b c", 0);
        check("a+b", Reading::Percent, "a+b", 0);
        check("100%25+a%zz", Reading::Form, "100% a%zz", 16);
        check("..%252f..%255c", Reading::Percent, "../..\\", 4);
        check("%u003cscript%u003e", Reading::Form, "<script>", 8);
        check("..%c0%af..%c1%9c", Reading::Percent, "../..\\", 2);
        check("%e0%80%af", Reading::Percent, "/", 2);
        check("\u{ff1c}Script\u{ff1e}", Reading::Plain, "<script>", 0);
        check("&lt;b&gt; &#x27;&#39; &unknown; a&b", Reading::Plain, "<b> '' &unknown; a&b", 0);
        check("\\u0027 \\x3c C:\\users", Reading::Plain, "' < c:\\users", 0);
        check("union/**/select/*x y*/1", Reading::Plain, "union select 1", 32);
        check("/*!50000UNION*/ select", Reading::Plain, " union select", 32);
        check("/*<script>*/", Reading::Plain, "/*<script>*/", 0);
        check("a \t\u{a0} b \r\n c", Reading::Plain, "a b\nc", 0);
        check("se\0lect", Reading::Plain, "select", 1);
        check("caf\u{e9}", Reading::Plain, "caf\u{e9}", 0);
    }

    #[test]
    fn no_input_is_too_short() {
        for value in ["%", "%2", "%u", "%u00", "&", "&#", "&#x", "\\", "\\u", "/*", "/*!", "\u{e0}", ""] {
            for reading in [Reading::Form, Reading::Percent, Reading::Plain] {
                normalise(value.as_bytes(), reading, &mut Buffers::default());
            }
        }
        for byte in 0..=255 {
            normalise(&[byte], Reading::Form, &mut Buffers::default());
        }
    }
}
