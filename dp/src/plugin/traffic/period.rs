//! The periods limits are set for, and where their windows begin.

use sluice_schema::calendar::{DAY_SECONDS, Date, date, days_before};

/// The periods limits are set for, shortest first.
pub(crate) const PERIODS: [Period; 6] = [
    Period::Second,
    Period::Minute,
    Period::Hour,
    Period::Day,
    Period::Month,
    Period::Year,
];

/// How much is allowed in each of [`PERIODS`].
pub(crate) type Limits = [Option<u64>; PERIODS.len()];

/// A fixed window's length. Months and years follow the UTC calendar.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Period {
    Second,
    Minute,
    Hour,
    Day,
    Month,
    Year,
}

impl Period {
    /// Seconds; for months and years the length Kong counts with, which only decides how long a count is kept
    /// and what `RateLimit-Reset` says.
    pub(crate) fn seconds(self) -> u64 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3600,
            Self::Day => DAY_SECONDS,
            Self::Month => 2_592_000,
            Self::Year => 31_536_000,
        }
    }

    /// Kong's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Second => "second",
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
            Self::Year => "year",
        }
    }

    /// When a window is over for sure that began then: after the longest month or year.
    pub(crate) fn end_at_most(self, start: u64) -> u64 {
        let longest = match self {
            Self::Second | Self::Minute | Self::Hour | Self::Day => 0,
            Self::Month | Self::Year => 86_400,
        };
        start + self.seconds() + longest
    }

    /// The start of the window that holds `now`; both in seconds since the Unix epoch.
    pub(crate) fn start(self, now: u64) -> u64 {
        match self {
            Self::Second | Self::Minute | Self::Hour | Self::Day => now - now % self.seconds(),
            Self::Month => {
                let Date { year, month, .. } = date(now / DAY_SECONDS);
                days_before(year, month) * DAY_SECONDS
            }
            Self::Year => days_before(date(now / DAY_SECONDS).year, 1) * DAY_SECONDS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_aligned_to_the_utc_clock_and_calendar() {
        // 2024-02-29 13:14:15 UTC
        let now = 1_709_212_455;
        let starts = PERIODS.map(|period| now - period.start(now));
        let day = 13 * 3600 + 14 * 60 + 15;
        assert_eq!(
            starts,
            [
                0,
                15,
                14 * 60 + 15,
                day,
                28 * 86_400 + day,
                59 * 86_400 + day
            ]
        );
        assert_eq!(Period::Month.start(0), 0);
        // 2100-03-01 is the day after 2100-02-28.
        assert_eq!(Period::Month.start(4_107_542_400), 4_107_542_400);
        assert_eq!(
            Period::Month.start(4_107_542_399),
            4_107_542_400 - 28 * 86_400
        );
    }
}
