//! The windows of one identity: what this node has counted, and what it knows of others.

use super::period::{Limits, PERIODS};
use crate::plugin::bounded::Ends;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How far ahead of ours another node's clock may be: counts of windows that begin later are not kept.
const AHEAD_SECONDS: u64 = 60;

/// How far behind another's the clock of a worker may be. Further is a clock that was put back.
const BEHIND_SECONDS: u64 = 2;

/// The count of each period before the request asked about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// Whether the request was within all limits, and so was counted.
    pub(crate) allowed: bool,
    /// In the order of [`PERIODS`]; zero where there is no limit.
    pub(crate) before: [u64; PERIODS.len()],
}

impl Default for Usage {
    fn default() -> Self {
        Self {
            allowed: true,
            before: [0; PERIODS.len()],
        }
    }
}

/// What this node has counted, in the order of [`PERIODS`].
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Own {
    /// When each window began: seconds since the Unix epoch.
    pub(crate) start: [u32; PERIODS.len()],
    pub(crate) count: [u32; PERIODS.len()],
    /// How much of it Redis has been told.
    pub(crate) told: [u32; PERIODS.len()],
}

/// One window, as it is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Counted {
    /// Which of [`PERIODS`].
    pub(crate) period: usize,
    pub(crate) start: u32,
    pub(crate) count: u32,
}

impl Counted {
    /// Whether the window can be one of now.
    fn is_of(&self, now: u64) -> bool {
        let start = u64::from(self.start);
        PERIODS.get(self.period).is_some_and(|period| {
            period.start(start) == start
                && start <= now + AHEAD_SECONDS
                && period.end_at_most(start) > now
        })
    }
}

/// How many counts of others there are in all windows, and how many there may be.
#[derive(Debug)]
pub(crate) struct Room {
    pub(crate) taken: AtomicUsize,
    pub(crate) max: usize,
}

impl Room {
    fn take(&self) -> bool {
        let free = self.taken.load(Ordering::Relaxed) < self.max;
        if free {
            self.taken.fetch_add(1, Ordering::Relaxed);
        }
        free
    }

    fn give_back(&self, count: usize) {
        if count > 0 {
            self.taken.fetch_sub(count, Ordering::Relaxed);
        }
    }
}

/// What another node says that it has counted.
#[derive(Clone, Copy, Debug)]
struct Other {
    /// The node, from one start to the next.
    life: u64,
    counted: Counted,
}

impl Other {
    fn place(&self) -> (usize, u64, u32) {
        (self.counted.period, self.life, self.counted.start)
    }
}

/// The windows of one identity.
#[derive(Default, Debug)]
pub(crate) struct Windows {
    own: Own,
    /// What others have counted in the same windows, as far as this node knows.
    foreign: [u32; PERIODS.len()],
    /// Of which nodes that is, by their [`place`](Other::place). Empty if it is what Redis says.
    others: Vec<Other>,
    /// Whether somebody has been told to tell others.
    marked: bool,
    /// Whether other data planes are to know.
    shared: bool,
}

impl Ends for Windows {
    fn ends(&self) -> u64 {
        let own = (0..PERIODS.len()).filter(|index| self.own.count[*index] > 0);
        let own = own.map(|index| (index, self.own.start[index]));
        let foreign = (0..PERIODS.len()).filter(|index| self.foreign[*index] > 0);
        let foreign = foreign.map(|index| (index, self.own.start[index]));
        let others = self.others.iter().map(|other| other.counted);
        let others = others.map(|counted| (counted.period, counted.start));
        let all = own.chain(foreign).chain(others);
        all.map(|(index, start)| PERIODS[index].end_at_most(u64::from(start)))
            .max()
            .unwrap_or_default()
    }
}

impl Windows {
    /// Begins the windows anew that are over.
    pub(super) fn turn(&mut self, limits: &Limits, now: u64, room: &Room) {
        for (index, period) in PERIODS.iter().enumerate() {
            let start = u32::try_from(period.start(now)).unwrap_or(u32::MAX);
            let begun = self.own.start[index];
            // A worker that is a moment behind must not take a window back that another has begun.
            let forward = begun < start || u64::from(begun) > now + BEHIND_SECONDS;
            if limits[index].is_some() && forward {
                self.own.start[index] = start;
                self.own.count[index] = 0;
                self.own.told[index] = 0;
                self.foreign[index] = 0;
                if !self.others.is_empty() {
                    self.turn_others(index, start, room);
                }
            }
        }
    }

    /// Others may have begun the window before.
    fn turn_others(&mut self, index: usize, start: u32, room: &Room) {
        let before = self.others.len();
        self.others
            .retain(|other| other.counted.period != index || other.counted.start >= start);
        room.give_back(before - self.others.len());
        let counts = self.others.iter().map(|other| other.counted);
        let counts = counts.filter(|counted| (counted.period, counted.start) == (index, start));
        self.foreign[index] = counts.fold(0, |sum, counted| sum.saturating_add(counted.count));
    }

    pub(super) fn usage(&self, limits: &Limits) -> Usage {
        let mut usage = Usage::default();
        for (index, limit) in limits.iter().enumerate() {
            let Some(limit) = limit else { continue };
            usage.before[index] = u64::from(self.own.count[index]) + u64::from(self.foreign[index]);
            usage.allowed &= usage.before[index] < *limit;
        }
        usage
    }

    pub(super) fn add(&mut self, limits: &Limits, amount: u64) {
        let amount = u32::try_from(amount).unwrap_or(u32::MAX);
        for (count, limit) in self.own.count.iter_mut().zip(limits) {
            if limit.is_some() {
                *count = count.saturating_add(amount);
            }
        }
    }

    /// Marks it; whether it was not yet.
    pub(super) fn mark(&mut self) -> bool {
        !std::mem::replace(&mut self.marked, true)
    }

    /// The same for other data planes.
    pub(super) fn mark_shared(&mut self) -> bool {
        self.shared = true;
        self.mark()
    }

    /// Takes the mark away.
    pub(super) fn unmark(&mut self) -> Own {
        self.marked = false;
        self.own
    }

    /// Whether other data planes are to know of it, and there is something to know.
    pub(super) fn is_shared(&self) -> bool {
        self.shared && self.own.count.iter().any(|count| *count > 0)
    }

    /// Notes that Redis knows of so much more, and what all have counted.
    pub(super) fn told(&mut self, (index, start): (usize, u32), more: u32, all: u64) {
        if self.own.start[index] == start {
            let told = self.own.told[index].saturating_add(more);
            self.own.told[index] = told;
            let foreign = all.saturating_sub(u64::from(told));
            self.foreign[index] = u32::try_from(foreign).unwrap_or(u32::MAX);
        }
    }

    /// Takes up what another node has counted. Counts only grow, so that one heard twice or late changes nothing. Whether
    /// it could be kept.
    pub(super) fn learn(&mut self, life: u64, counted: Counted, now: u64, room: &Room) -> bool {
        if !counted.is_of(now) {
            return true;
        }
        let other = Other { life, counted };
        let found = self
            .others
            .binary_search_by_key(&other.place(), Other::place);
        let more = match found {
            Ok(index) => {
                let known = &mut self.others[index].counted.count;
                let more = counted.count.saturating_sub(*known);
                *known += more;
                more
            }
            Err(index) if room.take() => {
                self.others.insert(index, other);
                counted.count
            }
            Err(_) => return false,
        };
        if self.own.start[counted.period] == counted.start {
            let foreign = &mut self.foreign[counted.period];
            *foreign = foreign.saturating_add(more);
        }
        true
    }

    /// What another node has counted.
    pub(super) fn of(&self, life: u64) -> impl Iterator<Item = Counted> {
        let others = self.others.iter().filter(move |other| other.life == life);
        others.map(|other| other.counted)
    }

    /// Drops what others have counted in windows that are over.
    pub(super) fn prune(&mut self, now: u64, room: &Room) {
        let before = self.others.len();
        self.others.retain(|other| other.counted.is_of(now));
        room.give_back(before - self.others.len());
    }

    /// It is forgotten.
    pub(super) fn leave(&self, room: &Room) {
        room.give_back(self.others.len());
    }
}

impl Own {
    /// The windows of now in which something was counted.
    pub(super) fn counted(&self, now: u64) -> impl Iterator<Item = Counted> {
        let counted = (0..PERIODS.len()).map(|period| Counted {
            period,
            start: self.start[period],
            count: self.count[period],
        });
        counted.filter(move |counted| counted.count > 0 && counted.is_of(now))
    }
}
