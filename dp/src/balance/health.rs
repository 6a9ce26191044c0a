//! The health of one address: counts of results in a row, and what they have come to. One word, so that reporting a
//! result is one read where nothing changes, and never waits.

use crate::table::{Limits, Passive};
use std::sync::atomic::{AtomicU64, Ordering};

/// What came of a request or a check.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// A good answer.
    Success,
    /// A bad answer.
    HttpFailure,
    /// No connection, or a broken one.
    TcpFailure,
    /// No answer in time.
    Timeout,
}

impl Outcome {
    /// What a status says; `None` if it is in neither list.
    pub(crate) fn of(status: u16, judge: &Passive) -> Option<Self> {
        if judge.healthy.contains(status) {
            Some(Self::Success)
        } else if judge.unhealthy.contains(status) {
            Some(Self::HttpFailure)
        } else {
            None
        }
    }

    /// The place of its count in the word.
    fn shift(self) -> u32 {
        match self {
            Self::Success => 0,
            Self::HttpFailure => 8,
            Self::TcpFailure => 16,
            Self::Timeout => 24,
        }
    }

    fn limit(self, limits: Limits) -> u8 {
        match self {
            Self::Success => limits.successes,
            Self::HttpFailure => limits.http_failures,
            Self::TcpFailure => limits.tcp_failures,
            Self::Timeout => limits.timeouts,
        }
    }
}

/// Whether an address is well. Healthy at first.
#[derive(Debug, Default)]
pub(crate) struct Health(AtomicU64);

const COUNT: u64 = 0xff;
const UNHEALTHY: u64 = 1 << 32;

impl Health {
    pub(crate) fn is_healthy(&self) -> bool {
        self.0.load(Ordering::Relaxed) & UNHEALTHY == 0
    }

    /// Takes a result in. Says whether the address is now in another state than before.
    pub(crate) fn report(&self, outcome: Outcome, limits: Limits) -> bool {
        let mut before = self.0.load(Ordering::Relaxed);
        loop {
            let after = next(before, outcome, limits);
            if after == before {
                return false;
            }
            let swapped =
                self.0
                    .compare_exchange_weak(before, after, Ordering::Relaxed, Ordering::Relaxed);
            match swapped {
                Ok(_) => return (before ^ after) & UNHEALTHY != 0,
                Err(seen) => before = seen,
            }
        }
    }

    /// Sets it by hand; counting starts anew. Says whether it was otherwise.
    pub(crate) fn set(&self, healthy: bool) -> bool {
        let after = if healthy { 0 } else { UNHEALTHY };
        let before = self.0.swap(after, Ordering::Relaxed);
        (before ^ after) & UNHEALTHY != 0
    }
}

/// Counts begin at zero after each change of health, and a success ends a row of failures and the other way round.
fn next(word: u64, outcome: Outcome, limits: Limits) -> u64 {
    let limit = u64::from(outcome.limit(limits));
    let (unhealthy, good) = (word & UNHEALTHY != 0, outcome == Outcome::Success);
    if !unhealthy && good {
        // Whether or not successes are counted: rare failures must not add up over days.
        return 0;
    }
    if limit == 0 || (unhealthy && !good) {
        return word;
    }
    let count = (word >> outcome.shift() & COUNT) + 1;
    if count >= limit {
        return if good { 0 } else { UNHEALTHY };
    }
    let others = if good { UNHEALTHY } else { word & !COUNT };
    others & !(COUNT << outcome.shift()) | count << outcome.shift()
}

#[cfg(test)]
mod tests {
    use super::Outcome::{HttpFailure, Success, TcpFailure, Timeout};
    use super::*;

    const LIMITS: Limits = Limits {
        successes: 2,
        tcp_failures: 2,
        timeouts: 0,
        http_failures: 3,
    };

    fn check(outcomes: &[Outcome], healthy: bool) {
        let health = Health::default();
        let turns = outcomes
            .iter()
            .filter(|outcome| health.report(**outcome, LIMITS));
        assert_eq!(turns.count() % 2 == 0, healthy, "{outcomes:?}");
        assert_eq!(health.is_healthy(), healthy, "{outcomes:?}");
    }

    #[test]
    fn results_in_a_row_change_the_health() {
        check(&[], true);
        check(&[HttpFailure, HttpFailure], true);
        check(&[HttpFailure, HttpFailure, HttpFailure], false);
        check(&[TcpFailure, TcpFailure], false);
        check(&[TcpFailure, HttpFailure, HttpFailure], true);
        check(&[TcpFailure, HttpFailure, TcpFailure], false);
        check(&[Timeout; 10], true);
        check(
            &[HttpFailure, HttpFailure, Success, HttpFailure, HttpFailure],
            true,
        );
        check(&[TcpFailure, TcpFailure, Success], false);
        check(
            &[TcpFailure, TcpFailure, Success, TcpFailure, Success],
            true,
        );
        check(&[TcpFailure, TcpFailure, Success, Success], true);
        check(
            &[TcpFailure, TcpFailure, Success, Success, TcpFailure],
            true,
        );
    }

    #[test]
    fn without_a_limit_of_successes_nothing_heals_but_rows_still_end() {
        let limits = Limits {
            successes: 0,
            ..LIMITS
        };
        let health = Health::default();
        for _ in 0..10 {
            assert!(!health.report(TcpFailure, limits) && !health.report(Success, limits));
        }
        assert!(!health.report(TcpFailure, limits) && health.report(TcpFailure, limits));
        assert!(!health.report(Success, limits) && !health.is_healthy());
    }

    #[test]
    fn health_set_by_hand_stays_until_results_change_it() {
        let health = Health::default();
        assert!(health.set(false) && !health.set(false) && !health.is_healthy());
        assert!(!health.report(Success, LIMITS) && health.report(Success, LIMITS));
        assert!(health.is_healthy());
    }
}
