//! The calendar of UTC: days and the dates they have (Howard Hinnant, chrono-compatible low-level date algorithms). Years
//! begin in March here, so that the leap day is the last.

/// Seconds of a day.
pub const DAY_SECONDS: u64 = 86_400;
/// Days from 0000-03-01 to 1970-01-01.
const EPOCH_DAYS: u64 = 719_468;

/// A day's date; months and days count from 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Date {
    /// From 1970 on.
    pub year: u64,
    /// 1 to 12.
    pub month: u64,
    /// 1 to 31.
    pub day: u64,
}

/// The date of a day, counted since 1970-01-01.
pub fn date(days: u64) -> Date {
    let days = days + EPOCH_DAYS;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    Date {
        year: era * 400 + year + u64::from(month <= 2),
        month,
        day: of_year - (153 * shifted + 2) / 5 + 1,
    }
}

/// Days from 1970-01-01 to the first of a month.
pub fn days_before(year: u64, month: u64) -> u64 {
    let year = year - u64::from(month <= 2);
    let (era, of_era) = (year / 400, year % 400);
    let shifted = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * shifted + 2) / 5;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - EPOCH_DAYS
}
