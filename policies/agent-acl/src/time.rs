//! The clock, and RFC 3339 timestamps.

use std::time::{SystemTime, UNIX_EPOCH};

/// Days of 1969 years before the epoch, in the Gregorian calendar.
const DAYS_TO_EPOCH: u64 = 719_162;

/// Seconds since 1970. A clock that stands before 1970 is read as the end of time, which closes every window.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(u64::MAX, |elapsed| elapsed.as_secs())
}

/// Seconds since 1970 of an RFC 3339 timestamp such as `2026-11-30T18:00:00Z` or `2026-11-30T18:00:00+01:00`.
///
/// Fractions of a second are dropped. `None` for anything else, and for times before 1970.
pub(crate) fn parse(text: &str) -> Option<u64> {
    let (date, rest) = text.split_at_checked(10)?;
    let (separator, rest) = rest.split_at_checked(1)?;
    let (time, rest) = rest.split_at_checked(8)?;
    if !matches!(separator, "T" | "t" | " ") {
        return None;
    }
    let [hours, minutes, seconds] = fields(time, ':', [2, 2, 2])?;
    if hours > 23 || minutes > 59 || seconds > 60 {
        return None;
    }
    let local = days(date)? * 86_400 + hours * 3600 + minutes * 60 + seconds;
    let zone = without_fraction(rest)?;
    if matches!(zone, "Z" | "z") {
        return Some(local);
    }
    let (sign, zone) = zone.split_at_checked(1)?;
    let [hours, minutes] = fields(zone, ':', [2, 2])?;
    let offset = hours * 3600 + minutes * 60;
    match sign {
        _ if hours > 23 || minutes > 59 => None,
        "+" => local.checked_sub(offset),
        "-" => local.checked_add(offset),
        _ => None,
    }
}

/// Days since 1970 of `2026-11-30`.
fn days(date: &str) -> Option<u64> {
    let [year, month, day] = fields(date, '-', [4, 2, 2])?;
    let leap = u64::from(year % 4 == 0 && (year % 100 != 0 || year % 400 == 0));
    let lengths = [31, 28 + leap, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let before = usize::try_from(month.checked_sub(1)?).ok()?;
    if day == 0 || day > *lengths.get(before)? {
        return None;
    }
    let past = year.checked_sub(1)?;
    let to_year = past * 365 + past / 4 - past / 100 + past / 400;
    (to_year + lengths.iter().take(before).sum::<u64>() + day - 1).checked_sub(DAYS_TO_EPOCH)
}

/// What follows an optional `.123`.
fn without_fraction(rest: &str) -> Option<&str> {
    let Some(fraction) = rest.strip_prefix('.') else { return Some(rest) };
    let zone = fraction.trim_start_matches(|digit: char| digit.is_ascii_digit());
    (zone.len() < fraction.len()).then_some(zone)
}

/// Numbers of fixed width between separators.
fn fields<const N: usize>(text: &str, separator: char, widths: [usize; N]) -> Option<[u64; N]> {
    let mut values = [0; N];
    let mut parts = text.split(separator);
    for (value, width) in values.iter_mut().zip(widths) {
        let part = parts.next().filter(|part| part.len() == width && part.bytes().all(|byte| byte.is_ascii_digit()))?;
        *value = part.parse().ok()?;
    }
    parts.next().is_none().then_some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_read() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T12:34:56Z", Some(951_827_696)),
            ("2026-11-30T18:00:00Z", Some(1_796_061_600)),
            ("2026-11-30T19:00:00+01:00", Some(1_796_061_600)),
            ("2026-11-30 12:30:00.250-05:30", Some(1_796_061_600)),
            ("2100-03-01t00:00:00z", Some(4_107_542_400)),
            ("2100-02-29T00:00:00Z", None),
            ("1969-12-31T23:59:59Z", None),
            ("2026-13-01T00:00:00Z", None),
            ("2026-00-01T00:00:00Z", None),
            ("2026-11-31T00:00:00Z", None),
            ("2026-11-30T24:00:00Z", None),
            ("2026-11-30T18:00:00", None),
            ("2026-11-30T18:00:00.Z", None),
            ("2026-11-30T18:00:00+1:00", None),
            ("2026-11-30T18:00:00+24:00", None),
            ("2026-11-30", None),
            ("2026-11-3éT18:00:00Z", None),
            ("tomorrow", None),
            ("", None),
        ] {
            assert_eq!(parse(text), seconds, "{text}");
        }
    }
}
