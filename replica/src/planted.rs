//! Bugs to order, so that the simulator can show that it would find them.
//!
//! Each is a question at the very place where the bug would be. In programs that are shipped the answer is always no,
//! and the compiler removes the question.

/// A bug.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bug {
    /// The chain of an event is not compared with what it follows.
    ChainUnchecked,
    /// Signatures of events are not verified.
    SignatureUnchecked,
    /// An event is applied although others before it are missing.
    GapApplied,
    /// The first sign of a fork is believed, though the copy that answered may lag.
    ForkBelievedAtOnce,
    /// A fork is never believed.
    ForkNeverBelieved,
    /// A hole in the log is waited for.
    HoleIgnored,
    /// After a connection nobody looks whether the log still holds what is here.
    CursorUnconfirmed,
    /// A read that failed is not tried again.
    ReadNotRepeated,
    /// The cursor moves although the store did not take the events.
    CursorBeforeStore,
    /// What is staged is not written to the journal.
    JournalSkipped,
    /// A sync that was not done is claimed.
    SyncClaimed,
    /// What is to be synced is reported as durable before it is.
    DurableTooEarly,
    /// A record's checksum is not compared.
    ChecksumIgnored,
    /// The last known good copy is not verified.
    GoodUnverified,
    /// A snapshot older than what is active is taken up.
    SnapshotBackwards,
    /// Entities that a snapshot no longer has stay.
    LoadKeepsDeleted,
    /// A load shows before it is complete.
    HalfLoadVisible,
    /// A head is believed whoever signed it.
    HeadUnverified,
    /// A write is acknowledged before the own state has it.
    AnswerBeforeFold,
    /// An append without an answer is taken for done.
    UnknownTakenForDone,
    /// An append without an answer is sent again wherever the log ends now.
    ExpectedVersionIgnored,
    /// A repeated request is not recognised.
    RepeatForgotten,
    /// Only the first event of a batch is sent.
    BatchCutShort,
    /// An event that lost a race is sent again as it was decided.
    DecidedOnStale,
    /// The log is trimmed although no snapshot stands for what goes.
    TrimmedAhead,
    /// A batch of unknown outcome is taken for stored when its first event's id is.
    BatchKnownById,
    /// Chunks are removed while somebody may rely on them.
    CleanedWithoutGrace,
}

impl Bug {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::ChainUnchecked,
        Self::SignatureUnchecked,
        Self::GapApplied,
        Self::ForkBelievedAtOnce,
        Self::ForkNeverBelieved,
        Self::HoleIgnored,
        Self::CursorUnconfirmed,
        Self::ReadNotRepeated,
        Self::CursorBeforeStore,
        Self::JournalSkipped,
        Self::SyncClaimed,
        Self::DurableTooEarly,
        Self::ChecksumIgnored,
        Self::GoodUnverified,
        Self::SnapshotBackwards,
        Self::LoadKeepsDeleted,
        Self::HalfLoadVisible,
        Self::HeadUnverified,
        Self::AnswerBeforeFold,
        Self::UnknownTakenForDone,
        Self::ExpectedVersionIgnored,
        Self::RepeatForgotten,
        Self::BatchCutShort,
        Self::DecidedOnStale,
        Self::TrimmedAhead,
        Self::BatchKnownById,
        Self::CleanedWithoutGrace,
    ];
}

#[cfg(debug_assertions)]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Whether this bug is planted in this thread.
#[cfg(debug_assertions)]
pub fn planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Whether this bug is planted: never in what is shipped.
#[cfg(not(debug_assertions))]
pub const fn planted(_: Bug) -> bool {
    false
}

/// Plants a bug in this thread, or none.
#[cfg(debug_assertions)]
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}
