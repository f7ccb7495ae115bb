//! JSON written straight into a byte buffer: no tree, no formatter.

use std::io::Write;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::trace::write_hex;

/// An object being written. Members appear in the order of the calls; keys are trusted constants and are not escaped.
pub(super) struct Object<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

impl<'a> Object<'a> {
    pub(super) fn begin(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, empty: true }
    }

    pub(super) fn end(self) {
        self.out.push(b'}');
    }

    pub(super) fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        string(self.out, value);
    }

    pub(super) fn optional(&mut self, key: &str, value: Option<&str>) {
        match value {
            Some(value) => self.text(key, value),
            None => self.null(key),
        }
    }

    pub(super) fn address(&mut self, key: &str, value: IpAddr) {
        self.key(key);
        // Writing to a Vec cannot fail.
        let _ = write!(self.out, "\"{value}\"");
    }

    /// A member whose key is data too.
    pub(super) fn pair(&mut self, key: &str, value: &str) {
        self.comma();
        string(self.out, key);
        self.out.push(b':');
        string(self.out, value);
    }

    pub(super) fn null(&mut self, key: &str) {
        self.key(key);
        self.out.extend_from_slice(b"null");
    }

    pub(super) fn boolean(&mut self, key: &str, value: bool) {
        self.key(key);
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
    }

    pub(super) fn number(&mut self, key: &str, value: u64) {
        self.key(key);
        decimal(self.out, value);
    }

    /// 32 hex digits.
    pub(super) fn hex(&mut self, key: &str, value: u128) {
        self.key(key);
        let mut digits = [0; 32];
        write_hex(&mut digits, value);
        self.out.push(b'"');
        self.out.extend_from_slice(&digits);
        self.out.push(b'"');
    }

    /// Milliseconds with three decimals.
    pub(super) fn millis(&mut self, key: &str, value: Duration) {
        self.key(key);
        thousandths(self.out, value.as_micros());
    }

    /// Microseconds with three decimals.
    pub(super) fn micros(&mut self, key: &str, value: Duration) {
        self.key(key);
        thousandths(self.out, value.as_nanos());
    }

    /// RFC 3339 in UTC with milliseconds; a time before 1970 is written as 1970.
    pub(super) fn time(&mut self, key: &str, value: SystemTime) {
        self.key(key);
        self.out.push(b'"');
        timestamp(self.out, value.duration_since(UNIX_EPOCH).unwrap_or_default());
        self.out.push(b'"');
    }

    pub(super) fn object(&mut self, key: &str, members: impl FnOnce(&mut Object<'_>)) {
        self.key(key);
        let mut object = Object::begin(self.out);
        members(&mut object);
        object.end();
    }

    /// An array of objects, one per item.
    pub(super) fn objects<T>(&mut self, key: &str, items: &[T], mut members: impl FnMut(&mut Object<'_>, &T)) {
        self.key(key);
        self.out.push(b'[');
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                self.out.push(b',');
            }
            let mut object = Object::begin(self.out);
            members(&mut object, item);
            object.end();
        }
        self.out.push(b']');
    }

    fn key(&mut self, key: &str) {
        self.comma();
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn comma(&mut self) {
        if !std::mem::take(&mut self.empty) {
            self.out.push(b',');
        }
    }
}

/// Escapes what JSON demands, and DEL and the C1 controls too: a line may be shown on a terminal, which obeys them.
fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text;
    while let Some(at) = rest.bytes().position(is_suspect) {
        let (clean, suspect) = rest.split_at_checked(at).unwrap_or((rest, ""));
        out.extend_from_slice(clean.as_bytes());
        let mut chars = suspect.chars();
        if let Some(char) = chars.next() {
            escape(out, char);
        }
        rest = chars.as_str();
    }
    out.extend_from_slice(rest.as_bytes());
    out.push(b'"');
}

/// C2 begins the two bytes of U+0080 to U+00BF, among them the C1 controls.
const fn is_suspect(byte: u8) -> bool {
    byte < 0x20 || matches!(byte, b'"' | b'\\' | 0x7f | 0xc2)
}

fn escape(out: &mut Vec<u8>, char: char) {
    match char {
        '"' => out.extend_from_slice(b"\\\""),
        '\\' => out.extend_from_slice(b"\\\\"),
        '\n' => out.extend_from_slice(b"\\n"),
        '\r' => out.extend_from_slice(b"\\r"),
        '\t' => out.extend_from_slice(b"\\t"),
        _ if char.is_control() => {
            let mut digits = [0; 4];
            write_hex(&mut digits, u128::from(u32::from(char)));
            out.extend_from_slice(b"\\u");
            out.extend_from_slice(&digits);
        }
        _ => out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

fn decimal(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// `value` / 1000, with all three decimals.
fn thousandths(out: &mut Vec<u8>, value: u128) {
    let value = u64::try_from(value).unwrap_or(u64::MAX);
    decimal(out, value / 1000);
    out.push(b'.');
    padded(out, value % 1000, 3);
}

fn timestamp(out: &mut Vec<u8>, since_epoch: Duration) {
    let seconds = since_epoch.as_secs();
    let (year, month, day) = civil(seconds / 86_400);
    let parts = [
        (year, 4, b'-'),
        (month, 2, b'-'),
        (day, 2, b'T'),
        (seconds / 3600 % 24, 2, b':'),
        (seconds / 60 % 60, 2, b':'),
        (seconds % 60, 2, b'.'),
        (u64::from(since_epoch.subsec_millis()), 3, b'Z'),
    ];
    for (value, width, after) in parts {
        padded(out, value, width);
        out.push(after);
    }
}

fn padded(out: &mut Vec<u8>, value: u64, width: usize) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(value);
    out.extend(std::iter::repeat_n(b'0', width.saturating_sub(digits.len())));
    out.extend_from_slice(digits.as_bytes());
}

/// Year, month and day of a number of days since 1970-01-01, in years that begin on the first of March so that the leap day comes last.
const fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_IN_400_YEARS: u64 = 146_097;
    // From 0000-03-01 to 1970-01-01.
    let days = days + 719_468;
    let (cycle, day_of_cycle) = (days / DAYS_IN_400_YEARS, days % DAYS_IN_400_YEARS);
    let year_of_cycle = (day_of_cycle - day_of_cycle / 1_460 + day_of_cycle / 36_524 - day_of_cycle / 146_096) / 365;
    let day_of_year = day_of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    // Five months from March, and five from August, have 153 days each.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = 400 * cycle + year_of_cycle + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(members: impl FnOnce(&mut Object<'_>)) -> String {
        let mut out = Vec::new();
        let mut object = Object::begin(&mut out);
        members(&mut object);
        object.end();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_text_survives_a_json_parser() {
        let all: String = (0..0x2100).filter_map(char::from_u32).chain("😀\u{fffd}".chars()).collect();
        for text in ["", "plain", "\"\\\r\n\t\0\u{1b}[31m", "Â£é£", &all] {
            let line = written(|object| object.text("a", text));
            assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap()["a"], text);
            assert!(!line.chars().any(char::is_control), "{line}");
        }
    }

    #[test]
    fn times_are_rfc3339_with_milliseconds() {
        // Expected values from `date -u -d @SECONDS`.
        let cases = [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_210_096_007, "2024-02-29T12:34:56.007Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (1_795_391_999_120, "2026-11-22T23:59:59.120Z"),
        ];
        for (millis, expected) in cases {
            let line = written(|object| object.time("t", UNIX_EPOCH + Duration::from_millis(millis)));
            assert_eq!(line, format!("{{\"t\":\"{expected}\"}}"));
        }
    }

    #[test]
    fn durations_keep_three_decimals() {
        let line = written(|object| {
            object.millis("a", Duration::from_micros(12_005));
            object.micros("b", Duration::from_nanos(175));
            object.millis("c", Duration::ZERO);
        });
        assert_eq!(line, r#"{"a":12.005,"b":0.175,"c":0.000}"#);
    }
}
