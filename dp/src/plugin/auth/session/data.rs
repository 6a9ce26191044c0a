//! A session: who it is of, and when it ends.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The most seconds between two notes of when a session was last used.
const TOUCH_SECONDS_MAX: u64 = 60;

/// What a cookie holds. Times are in seconds since the Unix epoch.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Session {
    /// Of the session, new each time it is rolled.
    pub(super) id: String,
    pub(super) consumer: Uuid,
    pub(super) credential: Uuid,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) groups: Vec<String>,
    /// The consumer's name.
    pub(super) subject: String,
    pub(super) created: u64,
    pub(super) rolled: u64,
    pub(super) touched: u64,
}

/// How long sessions last, in seconds; 0 is for ever.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Timeouts {
    /// Without being used.
    pub(super) idling: u64,
    /// Without being renewed.
    pub(super) rolling: u64,
    /// Whatever happens.
    pub(super) absolute: u64,
}

/// What is to be done about a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Due {
    /// It is over.
    End,
    /// It goes on under a new id.
    Roll,
    /// That it was used is noted.
    Touch,
    Nothing,
}

impl Session {
    pub(super) fn due(&self, timeouts: Timeouts, now: u64) -> Due {
        let since = |then: u64| now.saturating_sub(then);
        let over = |timeout: u64, then| timeout > 0 && since(then) >= timeout;
        if over(timeouts.absolute, self.created)
            || over(timeouts.rolling, self.rolled)
            || over(timeouts.idling, self.touched)
        {
            return Due::End;
        }
        if timeouts.rolling > 0 && since(self.rolled) >= timeouts.rolling.saturating_mul(3) / 4 {
            return Due::Roll;
        }
        let touch = (timeouts.idling / 4).min(TOUCH_SECONDS_MAX);
        if timeouts.idling > 0 && since(self.touched) >= touch.max(1) {
            return Due::Touch;
        }
        Due::Nothing
    }

    /// Seconds left by each timeout: idling, rolling and absolute; 0 if it has none.
    pub(super) fn left(&self, timeouts: Timeouts, now: u64) -> [u64; 3] {
        let left = |timeout: u64, then: u64| match timeout {
            0 => 0,
            timeout => timeout.saturating_sub(now.saturating_sub(then)),
        };
        [
            left(timeouts.idling, self.touched),
            left(timeouts.rolling, self.rolled),
            left(timeouts.absolute, self.created),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_touched_and_rolled_in_time_and_ends() {
        let session = |rolled, touched| Session {
            id: String::new(),
            consumer: Uuid::nil(),
            credential: Uuid::nil(),
            groups: Vec::new(),
            subject: String::new(),
            created: 1000,
            rolled,
            touched,
        };
        let timeouts = Timeouts {
            idling: 900,
            rolling: 3600,
            absolute: 86_400,
        };
        let check = |rolled, touched, now, expected| {
            let due = session(rolled, touched).due(timeouts, now);
            assert_eq!(due, expected, "{rolled} {touched} {now}");
        };
        check(1000, 1000, 1059, Due::Nothing);
        check(1000, 1000, 1060, Due::Touch);
        check(1000, 1000, 1899, Due::Touch);
        check(1000, 1000, 1900, Due::End);
        check(1000, 3600, 3699, Due::Touch);
        check(1000, 3600, 3700, Due::Roll);
        check(1000, 4500, 4600, Due::End);
        check(87_000, 87_000, 87_399, Due::Touch);
        check(87_000, 87_000, 87_400, Due::End);
        // The clock went back.
        check(1000, 1000, 0, Due::Nothing);
        let never = Timeouts {
            idling: 0,
            rolling: 0,
            absolute: 0,
        };
        assert_eq!(session(0, 0).due(never, u64::MAX), Due::Nothing);
        assert_eq!(
            session(1000, 1000).left(timeouts, 1100),
            [800, 3500, 86_300]
        );
        assert_eq!(session(1000, 1000).left(never, 1100), [0, 0, 0]);
    }
}
