//! What happens in a run: a profile says which kinds of faults it has and how often, and each step draws one action.

use super::dice::Dice;
use super::network::Weather;
use sluice_replica::planted::Bug;

/// One thing that happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    /// A client writes.
    Write,
    /// A client repeats a write with the same idempotency key.
    Repeat,
    /// Nothing for a while.
    Wait,
    /// A process is killed.
    Kill,
    /// A machine loses power.
    PowerCut,
    /// A process is asked to stop.
    Stop,
    /// A node is started again.
    Start,
    /// A client loses its connection.
    Cut,
    /// A client loses its connection and does not notice.
    CutSilently,
    /// The broker is killed.
    BrokerDown,
    /// The network gets worse.
    Weather,
    /// The broker's copies lag.
    Lag,
    /// A disk is full.
    DiskFull,
    /// A disk does not answer to reads.
    DiskUnreadable,
    /// A snapshot is cut.
    Snapshot,
    /// The log is trimmed, if a snapshot stands for what goes.
    Trim,
    /// A process crashes at one of its next writes to disk.
    DiskCrash,
    /// A bit flips on a node's disk.
    DiskFlip,
    /// An old copy of a disk is kept.
    DiskCopy,
    /// It is put back.
    DiskRestore,
    /// A node's disk is replaced by an empty one.
    DiskWipe,
    /// An old copy of the broker's disk is kept.
    BrokerCopy,
    /// The broker's disk is damaged.
    BrokerDamage,
    /// Somebody without a trusted key sends a live event.
    ForgeEvent,
    /// Somebody without a trusted key announces a head.
    ForgeHead,
    /// Somebody sends an old message again.
    Replay,
    /// Somebody without a trusted key appends to the log.
    ForgeAppend,
}

/// Which actions a run has, and how often, relative to each other.
#[derive(Clone, Debug)]
pub(crate) struct Profile {
    weights: Vec<(Action, u64)>,
    /// How many steps.
    pub(crate) steps: usize,
    /// The most a step takes, in milliseconds.
    pub(crate) pace_max_ms: u64,
    /// Whether there are many entities from the beginning, so that they do not fit into one chunk.
    pub(crate) wide: bool,
    /// Out of 10,000 writes, so many are sent to another control plane as well.
    pub(crate) twice: u32,
    /// Out of 10,000 times that clients write, so often several write at once.
    pub(crate) burst: u32,
    /// Whether one transaction is larger than fits into an event.
    pub(crate) large: bool,
}

impl Profile {
    /// Many runs have few kinds of faults, and reach deep states with them.
    pub(crate) fn draw(dice: &mut Dice) -> Self {
        use Action::{
            BrokerCopy, BrokerDamage, BrokerDown, Cut, CutSilently, DiskCopy, DiskCrash, DiskFlip,
            DiskFull, DiskRestore, DiskUnreadable, DiskWipe, ForgeAppend, ForgeEvent, ForgeHead,
            Kill, Lag, PowerCut, Repeat, Replay, Snapshot, Start, Stop, Trim, Wait,
        };
        /// Kinds of faults: out of 10,000 runs so many have them, and how often they come then.
        const CLASSES: &[(u32, &[(Action, u64)])] = &[
            (4500, &[(Kill, 6), (Start, 8)]),
            (2500, &[(PowerCut, 5), (Start, 6)]),
            (2500, &[(Stop, 3), (Start, 4)]),
            (4000, &[(Cut, 4)]),
            (2000, &[(CutSilently, 3)]),
            (3000, &[(BrokerDown, 3)]),
            (5000, &[(Action::Weather, 4)]),
            (3500, &[(Lag, 3)]),
            (5000, &[(Repeat, 12)]),
            (1500, &[(DiskFull, 3)]),
            (1000, &[(DiskUnreadable, 3)]),
            (2500, &[(Snapshot, 4)]),
            (2500, &[(Snapshot, 3), (Trim, 3)]),
            (2000, &[(DiskCrash, 5), (Start, 6)]),
            (1800, &[(DiskFlip, 5), (Start, 3)]),
            (700, &[(DiskCopy, 3), (DiskRestore, 2), (Start, 2)]),
            (1000, &[(DiskWipe, 2), (Start, 3)]),
            (2500, &[(ForgeEvent, 3), (ForgeHead, 2), (Replay, 5)]),
            (1000, &[(BrokerCopy, 2), (BrokerDamage, 2)]),
            (200, &[(ForgeAppend, 1)]),
        ];
        let mut weights = vec![
            (Action::Write, dice.between(30, 80)),
            (Wait, dice.between(5, 30)),
        ];
        for (runs, actions) in CLASSES {
            if dice.chance(*runs) {
                weights.extend_from_slice(actions);
            }
        }
        Self {
            weights,
            steps: usize::try_from(dice.between(120, 260)).unwrap_or(200),
            pace_max_ms: *dice.pick(&[4, 20, 60, 150]).unwrap_or(&60),
            twice: 1500,
            burst: 1000,
            wide: dice.chance(400),
            large: dice.chance(200),
        }
    }

    /// Adds what shows a bug that is rare otherwise.
    pub(crate) fn focus(&mut self, bug: Bug) {
        let more: &[(Action, u64)] = match bug {
            Bug::HalfLoadVisible => {
                self.wide = true;
                &[
                    (Action::Snapshot, 8),
                    (Action::Trim, 8),
                    (Action::DiskWipe, 5),
                    (Action::Start, 8),
                ]
            }
            Bug::SnapshotBackwards | Bug::LoadKeepsDeleted | Bug::TrimmedAhead => &[
                (Action::Snapshot, 6),
                (Action::Trim, 6),
                (Action::Kill, 4),
                (Action::Start, 4),
            ],
            Bug::CleanedWithoutGrace => &[(Action::Snapshot, 25), (Action::Weather, 4)],
            Bug::GoodUnverified => &[(Action::DiskFlip, 25), (Action::Start, 10)],
            Bug::ChecksumIgnored => &[(Action::DiskFlip, 10), (Action::Start, 5)],
            Bug::DurableTooEarly | Bug::SyncClaimed => &[(Action::PowerCut, 8), (Action::Start, 8)],
            Bug::BatchKnownById => {
                (self.twice, self.burst) = (4000, 6000);
                &[(Action::Weather, 40)]
            }
            Bug::UnknownTakenForDone => &[(Action::Weather, 15), (Action::Repeat, 20)],
            Bug::HoleIgnored | Bug::ReadNotRepeated | Bug::CursorUnconfirmed => {
                &[(Action::BrokerDamage, 2), (Action::Weather, 6)]
            }
            Bug::HeadUnverified => &[(Action::ForgeHead, 8)],
            Bug::SignatureUnchecked => &[(Action::ForgeEvent, 8)],
            Bug::ChainUnchecked
            | Bug::GapApplied
            | Bug::ForkBelievedAtOnce
            | Bug::ForkNeverBelieved
            | Bug::CursorBeforeStore
            | Bug::JournalSkipped
            | Bug::AnswerBeforeFold
            | Bug::ExpectedVersionIgnored
            | Bug::RepeatForgotten
            | Bug::BatchCutShort
            | Bug::DecidedOnStale => &[],
        };
        self.weights.extend_from_slice(more);
    }

    /// The next action.
    pub(crate) fn next(&self, dice: &mut Dice) -> Action {
        let all = self.weights.iter().map(|(_, weight)| weight).sum();
        let mut at = dice.below(all);
        for (action, weight) in &self.weights {
            if at < *weight {
                return *action;
            }
            at -= weight;
        }
        Action::Wait
    }
}

/// The weather when nothing is wrong.
pub(crate) const CALM: Weather = Weather {
    latency_max_ms: 1,
    request_lost: 0,
    answer_lost: 0,
    request_twice: 0,
    request_late: 0,
    tail_lost: 0,
    tail_twice: 0,
    tail_late: 0,
    tail_late_max_ms: 0,
};

/// Weather that is bad in some ways.
pub(crate) fn storm(dice: &mut Dice) -> Weather {
    let mut sometimes = |worst: u64| match dice.chance(4000) {
        true => u32::try_from(dice.between(100, worst)).unwrap_or(0),
        false => 0,
    };
    Weather {
        request_lost: sometimes(1500),
        answer_lost: sometimes(2500),
        request_twice: sometimes(4000),
        request_late: sometimes(1500),
        tail_lost: sometimes(9000),
        tail_twice: sometimes(5000),
        tail_late: sometimes(6000),
        latency_max_ms: dice.between(0, 30),
        tail_late_max_ms: dice.between(5, 1500),
    }
}
