//! Times as people write them: RFC 3339, in UTC when we write, with any offset when we read.

use sluice_schema::calendar::{DAY_SECONDS, Date, date, days_before};
use sluice_schema::version::Time;

const SECOND: u64 = 1_000_000;
/// Years that are read: what fits four digits and is not before 1970.
const YEARS: std::ops::RangeInclusive<u64> = 1970..=9999;

/// As in `2026-02-28T23:59:59.000001Z`.
pub(crate) fn rfc3339(time: Time) -> String {
    let (seconds, micros) = (time.0 / SECOND, time.0 % SECOND);
    let (days, second) = (seconds / DAY_SECONDS, seconds % DAY_SECONDS);
    let Date { year, month, day } = date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

/// Reads `2026-02-28T23:59:59Z`, with a fraction and with any offset; the date alone is its first moment. `None` if it is
/// not that.
pub(crate) fn parse_rfc3339(text: &str) -> Option<Time> {
    let (written, rest) = text.split_at_checked(10)?;
    let [year, month, day] = numbers(written, '-', [4, 2, 2])?;
    if !YEARS.contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let days = days_before(year, month) + day - 1;
    if date(days) != (Date { year, month, day }) {
        // That month is shorter.
        return None;
    }
    let midnight = days * DAY_SECONDS * SECOND;
    if rest.is_empty() {
        return Some(Time(midnight));
    }
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let (clock, rest) = rest.split_at_checked(8)?;
    let [hour, minute, second] = numbers(clock, ':', [2, 2, 2])?;
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (micros, offset) = fraction(rest)?;
    let seconds = hour * 3600 + minute * 60 + second;
    let local = midnight + seconds * SECOND + micros;
    match offset {
        "Z" | "z" => Some(Time(local)),
        offset => {
            let [hours, minutes] = numbers(offset.get(1..)?, ':', [2, 2])?;
            if hours > 23 || minutes > 59 {
                return None;
            }
            let offset_micros = (hours * 3600 + minutes * 60) * SECOND;
            match offset.as_bytes().first() {
                Some(b'+') => local.checked_sub(offset_micros).map(Time),
                Some(b'-') => Some(Time(local + offset_micros)),
                Some(_) | None => None,
            }
        }
    }
}

/// Numbers of as many digits each.
fn numbers<const N: usize>(text: &str, separator: char, digits: [usize; N]) -> Option<[u64; N]> {
    let mut parts = text.split(separator);
    let mut found = [0; N];
    for (place, digits) in found.iter_mut().zip(digits) {
        let part = parts.next()?;
        if part.len() != digits || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *place = part.parse().ok()?;
    }
    parts.next().is_none().then_some(found)
}

/// The microseconds at the beginning of a text, cut off behind the sixth digit, and the rest of it.
fn fraction(text: &str) -> Option<(u64, &str)> {
    let Some(fraction) = text.strip_prefix('.') else {
        return Some((0, text));
    };
    let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = fraction.split_at(digits);
    if digits.is_empty() {
        return None;
    }
    let micros: String = digits.chars().chain("000000".chars()).take(6).collect();
    Some((micros.parse().ok()?, rest))
}

/// Reads `90s`, `10m`, `2h`, `7d` as so many microseconds. `None` if it is not that.
pub(crate) fn parse_duration(text: &str) -> Option<u64> {
    let unit = text.chars().last()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => DAY_SECONDS,
        _ => return None,
    };
    let count: u64 = text.strip_suffix(unit)?.parse().ok()?;
    count.checked_mul(seconds)?.checked_mul(SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_in_rfc_3339_and_read_back() {
        for (micros, expected) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399_000_001, "2000-02-28T23:59:59.000001Z"),
            (951_868_799_999_999, "2000-02-29T23:59:59.999999Z"),
            (1_709_251_200_000_000, "2024-03-01T00:00:00.000000Z"),
            (4_102_444_799_000_000, "2099-12-31T23:59:59.000000Z"),
        ] {
            assert_eq!(rfc3339(Time(micros)), expected);
            assert_eq!(parse_rfc3339(expected), Some(Time(micros)));
        }
    }

    #[test]
    fn times_are_read_in_every_form_that_rfc_3339_allows_and_no_other() {
        let base = 1_709_251_200_000_000;
        for (text, expected) in [
            ("2024-03-01", Some(base)),
            ("2024-03-01 00:00:00Z", Some(base)),
            ("2024-03-01t00:00:00.5z", Some(base + 500_000)),
            ("2024-03-01T00:00:00.1234567Z", Some(base + 123_456)),
            ("2024-03-01T02:30:00+02:30", Some(base)),
            ("2024-02-29T23:00:00-01:00", Some(base)),
            ("2024-02-30", None),
            ("2023-02-29", None),
            ("2024-13-01", None),
            ("2024-00-01", None),
            ("2024-03-00", None),
            ("1969-12-31T23:59:59Z", None),
            ("2024-03-01T24:00:00Z", None),
            ("2024-03-01T00:00:00", None),
            ("2024-03-01T00:00:00.Z", None),
            ("2024-03-01T00:00:00+0100", None),
            ("2024-3-1", None),
            ("20é4-03-01", None),
            ("", None),
        ] {
            assert_eq!(parse_rfc3339(text), expected.map(Time), "{text}");
        }
    }

    #[test]
    fn durations_are_a_number_and_a_unit() {
        for (text, expected) in [
            ("90s", Some(90)),
            ("10m", Some(600)),
            ("2h", Some(7200)),
            ("1d", Some(86_400)),
            ("m", None),
            ("10", None),
            ("-1s", None),
            ("99999999999999999999d", None),
        ] {
            let micros = expected.map(|seconds| seconds * SECOND);
            assert_eq!(parse_duration(text), micros, "{text}");
        }
    }
}
