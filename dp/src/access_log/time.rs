//! Points in time as text, in UTC.

use sluice_schema::calendar::{self, DAY_SECONDS};
use std::time::{SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// A point in time, taken apart.
pub(crate) struct Date {
    day: calendar::Date,
    second: u64,
    millisecond: u32,
}

impl Date {
    pub(crate) fn of(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = since.as_secs();
        Self {
            day: calendar::date(seconds / DAY_SECONDS),
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
        let calendar::Date { year, month, day } = self.day;
        format!(
            "{year:04}-{month:02}-{day:02}T{}.{:03}Z",
            self.clock(),
            self.millisecond
        )
    }

    /// `20261123T080000Z`
    pub(crate) fn compact(&self) -> String {
        let calendar::Date { year, month, day } = self.day;
        format!(
            "{year:04}{month:02}{day:02}T{}Z",
            self.clock().replace(':', "")
        )
    }

    /// `Nov 23 08:00:00`
    pub(crate) fn bsd(&self) -> String {
        let day = self.day.day;
        format!("{} {day:>2} {}", self.month(), self.clock())
    }

    /// `23/Nov/2026:08:00:00 +0000`
    pub(crate) fn common(&self) -> String {
        let calendar::Date { year, day, .. } = self.day;
        format!("{day:02}/{}/{year:04}:{} +0000", self.month(), self.clock())
    }

    fn month(&self) -> &'static str {
        let month = usize::try_from(self.day.month - 1);
        month
            .ok()
            .and_then(|place| MONTHS.get(place))
            .unwrap_or(&"-")
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
