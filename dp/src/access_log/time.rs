//! Points in time as text, in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

const DAY_SECONDS: u64 = 86_400;
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// A point in time, taken apart.
pub(crate) struct Date {
    year: u64,
    month: u64,
    day: u64,
    second: u64,
    millisecond: u32,
}

impl Date {
    pub(crate) fn of(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = since.as_secs();
        // Years from March on, so that the leap day is the last (Howard Hinnant, chrono-compatible low-level date
        // algorithms).
        let days = seconds / DAY_SECONDS + 719_468;
        let (era, of_era) = (days / 146_097, days % 146_097);
        let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let shifted = (5 * of_year + 2) / 153;
        let month = if shifted < 10 {
            shifted + 3
        } else {
            shifted - 9
        };
        Self {
            year: era * 400 + year + u64::from(month <= 2),
            month,
            day: of_year - (153 * shifted + 2) / 5 + 1,
            second: seconds % DAY_SECONDS,
            millisecond: since.subsec_millis(),
        }
    }

    fn clock(&self) -> String {
        let (minutes, second) = (self.second / 60, self.second % 60);
        format!("{:02}:{:02}:{second:02}", minutes / 60, minutes % 60)
    }

    /// `2026-11-23T08:00:00.000Z`
    pub(crate) fn rfc3339(&self) -> String {
        let (year, month, day) = (self.year, self.month, self.day);
        format!(
            "{year:04}-{month:02}-{day:02}T{}.{:03}Z",
            self.clock(),
            self.millisecond
        )
    }

    /// `20261123T080000Z`
    pub(crate) fn compact(&self) -> String {
        let (year, month, day) = (self.year, self.month, self.day);
        format!(
            "{year:04}{month:02}{day:02}T{}Z",
            self.clock().replace(':', "")
        )
    }

    /// `Nov 23 08:00:00`
    pub(crate) fn bsd(&self) -> String {
        let month = usize::try_from(self.month - 1)
            .ok()
            .and_then(|place| MONTHS.get(place));
        format!("{} {:>2} {}", month.unwrap_or(&""), self.day, self.clock())
    }

    /// `23/Nov/2026:08:00:00 +0000`
    pub(crate) fn common(&self) -> String {
        let month = usize::try_from(self.month - 1)
            .ok()
            .and_then(|month| MONTHS.get(month));
        format!(
            "{:02}/{}/{:04}:{} +0000",
            self.day,
            month.unwrap_or(&"-"),
            self.year,
            self.clock()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let check = |seconds: u64, expected: &str| {
            let date = Date::of(UNIX_EPOCH + Duration::from_millis(seconds * 1000 + 7));
            assert_eq!(date.rfc3339(), expected);
        };
        check(0, "1970-01-01T00:00:00.007Z");
        check(951_782_400, "2000-02-29T00:00:00.007Z");
        check(951_868_799, "2000-02-29T23:59:59.007Z");
        check(1_709_251_199, "2024-02-29T23:59:59.007Z");
        check(4_107_542_400, "2100-03-01T00:00:00.007Z");
        let date = Date::of(UNIX_EPOCH + Duration::from_secs(1_795_420_805));
        assert_eq!(date.common(), "23/Nov/2026:08:00:05 +0000");
    }
}
