//! Single values: what is written, checked and in units.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::{Map, Number, Value};
use toml::de::{DeArray, DeInteger, DeTable, DeValue};

use super::error::Invalid;
use super::suggest;

pub(super) type Parsed<T> = Result<T, Invalid>;

/// No wait is longer: adding it to a clock never overflows, and a longer one is a slip of the unit.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

pub(super) fn string<'v>(value: &'v DeValue<'_>) -> Parsed<&'v str> {
    value.as_str().ok_or_else(|| wrong_type("a string", value))
}

/// Non-empty text as it stands.
pub(super) fn text(value: &DeValue<'_>) -> Parsed<String> {
    match string(value)? {
        "" => Err(Invalid::new("is empty")),
        text => Ok(text.to_owned()),
    }
}

pub(super) fn path(value: &DeValue<'_>) -> Parsed<String> {
    let path = text(value)?;
    if path.contains('\0') {
        return Err(Invalid::new(format!("not a path ({})", shown(value))));
    }
    Ok(path)
}

pub(super) fn boolean(value: &DeValue<'_>) -> Parsed<bool> {
    value.as_bool().ok_or_else(|| wrong_type("true or false", value))
}

/// A whole number within `range`.
pub(super) fn count<T: TryFrom<u64>>(range: RangeInclusive<u64>) -> impl Fn(&DeValue<'_>) -> Parsed<T> {
    move |value| {
        let integer = value.as_integer().ok_or_else(|| wrong_type("a whole number", value))?;
        let number = to_u64(integer).filter(|number| range.contains(number));
        let number = number.and_then(|number| T::try_from(number).ok());
        number.ok_or_else(|| Invalid::new(format!("must be from {} to {} ({integer})", range.start(), range.end())))
    }
}

/// A share from 0 to 1.
pub(super) fn ratio(value: &DeValue<'_>) -> Parsed<f64> {
    let number = match value {
        DeValue::Integer(integer) => integer.to_string().parse().ok(),
        DeValue::Float(float) => float.as_str().parse().ok(),
        other => return Err(wrong_type("a number from 0.0 to 1.0", other)),
    };
    let share = number.filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| Invalid::new(format!("must be from 0.0 to 1.0 ({})", shown(value))))
}

/// `250ms`, `5s`, `30m`, `2h`; at least one millisecond, at most 30 days.
pub(super) fn duration(value: &DeValue<'_>) -> Parsed<Duration> {
    const HINT: &str = "write a whole number with ms, s, m or h: \"250ms\", \"5s\", \"30m\", \"2h\"";
    let wrong = || Invalid::new(format!("not a duration ({})", shown(value))).hint(HINT);
    let text = value.as_str().ok_or_else(wrong)?;
    let (number, unit) = number_and_unit(text).ok_or_else(wrong)?;
    let milliseconds = match unit {
        "ms" => Some(number),
        "s" => number.checked_mul(1000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        _ => return Err(wrong()),
    };
    if number == 0 {
        return Err(Invalid::new(format!("must be more than zero ({text:?})"))
            .hint("every wait has a deadline: write a long one instead"));
    }
    let duration = milliseconds.map(Duration::from_millis).filter(|duration| *duration <= LONGEST);
    duration.ok_or_else(|| Invalid::new(format!("longer than 30 days ({})", shown(value))))
}

/// Bytes within `range`: `32KiB`, `1MiB`, `64MB`, or a plain whole number.
pub(super) fn size(range: RangeInclusive<u64>) -> impl Fn(&DeValue<'_>) -> Parsed<usize> {
    move |value| {
        let bytes = bytes(value)?;
        let size = Some(bytes).filter(|bytes| range.contains(bytes)).and_then(|bytes| usize::try_from(bytes).ok());
        size.ok_or_else(|| {
            let (least, most) = (in_bytes(*range.start()), in_bytes(*range.end()));
            Invalid::new(format!("must be from {least} to {most} ({})", shown(value)))
        })
    }
}

fn bytes(value: &DeValue<'_>) -> Parsed<u64> {
    const HINT: &str = "write a whole number with B, KB, MB, GB, KiB, MiB or GiB (\"32KiB\"), or bytes without a unit";
    let wrong = || Invalid::new(format!("not a size ({})", shown(value))).hint(HINT);
    if let Some(integer) = value.as_integer() {
        return to_u64(integer).ok_or_else(wrong);
    }
    let (number, unit) = value.as_str().and_then(number_and_unit).ok_or_else(wrong)?;
    let scale = match unit {
        "B" => 1,
        "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(wrong()),
    };
    number.checked_mul(scale).ok_or_else(wrong)
}

fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    Some((number.parse().ok()?, unit.trim_start()))
}

fn in_bytes(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let unit = units.into_iter().find(|(scale, _)| bytes >= *scale && bytes.is_multiple_of(*scale));
    unit.map_or_else(|| format!("{bytes} bytes"), |(scale, unit)| format!("{} {unit}", bytes / scale))
}

/// One of a few words.
pub(super) fn choice<T: Clone>(choices: &[(&'static str, T)]) -> impl Fn(&DeValue<'_>) -> Parsed<T> {
    move |value| {
        let word = string(value)?;
        let found = choices.iter().find(|(choice, _)| *choice == word).map(|(_, meaning)| meaning.clone());
        found.ok_or_else(|| {
            let words = choices.iter().map(|(choice, _)| *choice);
            Invalid::new(format!("unknown value ({})", shown(value))).maybe_hint(suggest::hint(word, "one of", words))
        })
    }
}

pub(super) fn ip(value: &DeValue<'_>) -> Parsed<IpAddr> {
    let address = string(value)?.parse();
    address.map_err(|_| Invalid::new(format!("not an IP address ({})", shown(value))))
}

/// The name of a site, policy, upstream or plugin: it appears in commands, metrics and logs.
pub(super) fn name(value: &DeValue<'_>) -> Parsed<String> {
    let name = string(value)?;
    check_name(name).map(|()| name.to_owned())
}

pub(super) fn check_name(name: &str) -> Parsed<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let starts_well = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if starts_well && name.len() <= 64 && name.bytes().all(allowed) {
        return Ok(());
    }
    Err(Invalid::new(format!("not a name ({})", quoted(name)))
        .hint("use 1 to 64 letters, digits, `-`, `_` and `.`, beginning with a letter or digit"))
}

/// A free-form table, as JSON: dates become strings. TOML's `inf` and `nan` have no JSON form and are refused.
pub(super) fn json_object(value: &DeValue<'_>) -> Parsed<Value> {
    value.as_table().map_or_else(|| Err(wrong_type("a table", value)), json_table)
}

fn json(value: &DeValue<'_>) -> Parsed<Value> {
    let unfit = || Invalid::new(format!("holds a number that JSON cannot hold ({})", shown(value)));
    match value {
        DeValue::String(text) => Ok(Value::String(text.to_string())),
        DeValue::Boolean(boolean) => Ok(Value::Bool(*boolean)),
        DeValue::Datetime(datetime) => Ok(Value::String(datetime.to_string())),
        DeValue::Integer(integer) => {
            let signed = i64::from_str_radix(integer.as_str(), integer.radix()).ok().map(Value::from);
            signed.or_else(|| to_u64(integer).map(Value::from)).ok_or_else(unfit)
        }
        DeValue::Float(float) => float.as_str().parse().ok().and_then(Number::from_f64).map(Value::Number).ok_or_else(unfit),
        DeValue::Array(array) => json_array(array),
        DeValue::Table(table) => json_table(table),
    }
}

fn json_array(array: &DeArray<'_>) -> Parsed<Value> {
    array.iter().map(|item| json(item.get_ref())).collect::<Parsed<Vec<_>>>().map(Value::Array)
}

fn json_table(table: &DeTable<'_>) -> Parsed<Value> {
    let entry = |(key, value): (&toml::Spanned<toml::de::DeString<'_>>, &toml::Spanned<DeValue<'_>>)| {
        json(value.get_ref()).map(|value| (key.get_ref().to_string(), value))
    };
    table.iter().map(entry).collect::<Parsed<Map<_, _>>>().map(Value::Object)
}

fn to_u64(integer: &DeInteger<'_>) -> Option<u64> {
    u64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

pub(super) fn wrong_type(expected: &str, found: &DeValue<'_>) -> Invalid {
    Invalid::new(format!("must be {expected} ({})", shown(found)))
}

/// A value as an error shows it: on one line, and cut when long.
pub(super) fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => quoted(text),
        DeValue::Integer(integer) => integer.to_string(),
        DeValue::Float(float) => float.to_string(),
        DeValue::Boolean(boolean) => boolean.to_string(),
        DeValue::Datetime(datetime) => datetime.to_string(),
        DeValue::Array(_) => "an array".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// Text in quotes, escaped, cut after 60 characters.
pub(super) fn quoted(text: &str) -> String {
    const SHOWN: usize = 60;
    text.char_indices()
        .nth(SHOWN)
        .map_or_else(|| format!("{text:?}"), |(cut, _)| format!("{:?}…", text.get(..cut).unwrap_or_default()))
}

/// A key as TOML would write it, cut when long.
pub(super) fn shown_key(key: &str) -> String {
    let bare =
        !key.is_empty() && key.len() <= 64 && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if bare { key.to_owned() } else { quoted(key) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toml(text: &str) -> DeValue<'_> {
        DeValue::parse(text).unwrap().into_inner()
    }

    #[test]
    fn durations_have_units_and_bounds() {
        let cases = [
            ("'250ms'", Some(250)),
            ("'5s'", Some(5_000)),
            ("'30m'", Some(1_800_000)),
            ("'2h'", Some(7_200_000)),
            ("'720h'", Some(2_592_000_000)),
            ("'721h'", None),
            ("'0s'", None),
            ("'5'", None),
            ("5", None),
            ("'-5s'", None),
            ("'1.5s'", None),
            ("'5d'", None),
            ("'s'", None),
            ("''", None),
            ("'99999999999999999999s'", None),
            ("'9999999999999999h'", None),
        ];
        for (text, milliseconds) in cases {
            assert_eq!(duration(&toml(text)).ok(), milliseconds.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn sizes_have_units_and_bounds() {
        let cases = [
            ("'32KiB'", Some(32 << 10)),
            ("'1MiB'", Some(1 << 20)),
            ("'64MB'", Some(64_000_000)),
            ("'2 KiB'", Some(2048)),
            ("4096", Some(4096)),
            ("0x1000", Some(4096)),
            ("'1KB'", None),
            ("'2GiB'", None),
            ("'32kib'", None),
            ("'32'", None),
            ("-1", None),
            ("1.5", None),
            ("'99999999999GiB'", None),
        ];
        for (text, bytes) in cases {
            assert_eq!(size(1024..=1 << 30)(&toml(text)).ok(), bytes, "{text}");
        }
    }

    #[test]
    fn numbers_keep_to_their_range() {
        assert_eq!(count::<u32>(1..=10)(&toml("1_0")).ok(), Some(10));
        for text in ["0", "11", "-1", "1.0", "'5'", "99999999999999999999999"] {
            assert!(count::<u32>(1..=10)(&toml(text)).is_err(), "{text}");
        }
        for (text, share) in
            [("0", Some(0.0)), ("1", Some(1.0)), ("0.25", Some(0.25)), ("1.1", None), ("nan", None), ("'1'", None)]
        {
            assert_eq!(ratio(&toml(text)).ok(), share, "{text}");
        }
    }

    #[test]
    fn tables_become_json() {
        let value = toml("{ a = [1, 2.5, true], b.c = 'x', d = 2027-06-30, e = -3, f = 0xff }");
        let expected = serde_json::json!({"a": [1, 2.5, true], "b": {"c": "x"}, "d": "2027-06-30", "e": -3, "f": 255});
        assert_eq!(json_object(&value), Ok(expected));
        for text in ["{ a = nan }", "{ a = [-inf] }", "{ a = 99999999999999999999 }", "[1]"] {
            assert!(json_object(&toml(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn names_are_plain() {
        for good in ["geoip", "052d3c3287c38201", "a.b-c_d"] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        for bad in ["", "a b", "-a", "a/b", "ü", "..", &"a".repeat(65)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn shown_values_fit_on_a_line() {
        let long = "x".repeat(200) + "\n";
        assert_eq!(quoted(&long).chars().count(), 63);
        assert_eq!(quoted("a\nb"), "\"a\\nb\"");
        assert_eq!(shown_key("a b"), "\"a b\"");
    }
}
