//! The log: where events are appended and read, and the chunk store beside it.
//!
//! A [`Log`] moves bytes; it does not know what an event says beyond what it needs to place it. Whether a record
//! belongs to the history a replica knows is decided by `follow`.

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use sluice_schema::event::EventId;
use sluice_schema::version::Version;
use std::fmt;
use std::sync::Arc;

mod chunks;
pub mod embedded;
pub mod jetstream;

pub use chunks::{CHUNK_BYTES_MAX, ChunkUse, Chunks, REFRESH_AFTER, ROOT_BYTES_MAX, StoredRoot};
use chunks::{check_chunk, check_root, check_root_name, is_fresh};
pub(crate) use chunks::{compress, decompress};

/// The most records one [`Log::read`] returns.
pub const PAGE_RECORDS_MAX: usize = 1000;
/// About the most bytes of events one [`Log::read`] returns.
pub const PAGE_BYTES_MAX: usize = 16 << 20;

/// What the log has from a version on.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Page {
    /// In order; empty if the log ends before the version asked for.
    pub records: Vec<Record>,
    /// Whether there is more after them.
    pub more: bool,
    /// If they begin later than asked for: the first version the log holds. Whoever asked can tell a log that was
    /// trimmed from one that lost something on the way.
    pub first: Option<Version>,
}

impl Page {
    /// Whether the records begin later than at `from`.
    pub fn begins_late(&self, from: Version) -> bool {
        let begin = self.records.first().map(|record| record.version);
        begin.is_some_and(|begin| begin > from.max(Version::GENESIS))
    }
}

/// One message of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Its position.
    pub version: Version,
    /// The encoded event.
    pub event: Bytes,
    /// Who signed it and how. Absent if the message carried none: the reader refuses it then.
    pub signature: Option<Signature>,
}

/// A detached signature and the name of the key that made it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Signature {
    /// The key's id: the first 16 hexadecimal digits of the BLAKE3 hash of the public key.
    pub key: String,
    /// ed25519, 64 bytes.
    pub bytes: [u8; 64],
}

/// The most events one [`Log::append`] may carry: the broker's limit on an atomic batch is 1,000.
pub const BATCH_EVENTS_MAX: usize = 256;

/// One event to append.
#[derive(Clone, Debug)]
pub struct Append {
    /// The entity (or batch) the caller named, for the subject: `<workspace>.<kind>.<id>`.
    pub subject: String,
    /// The event's own name, to recognise it again.
    pub id: EventId,
    /// The encoded event.
    pub event: Bytes,
    /// Its signature.
    pub signature: Signature,
}

/// Why an append has no version.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The log does not end where the caller thought. This call stored nothing; an earlier one with the same events, whose
    /// outcome was unknown, may have. Catch up, decide again.
    #[error("the log has moved past version {expected}")]
    Conflict {
        /// What the caller expected the last version to be.
        expected: Version,
    },
    /// No answer: all or none may have been stored, or the first few: a broker that loses power while it stores an atomic
    /// batch comes back with a part of it. Read from `expected + 1` on and compare event ids.
    #[error("the outcome of the append at version {expected} is unknown")]
    Unknown {
        /// What the caller expected the last version to be.
        expected: Version,
        /// What happened to the answer.
        #[source]
        source: LogError,
    },
    /// Nothing was stored and trying again at once will not help (no broker, no space, refused).
    #[error("could not append to the log")]
    Refused(#[source] LogError),
}

/// A failure of the log's transport or storage.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Not reachable or no answer now; it is worth trying again.
    #[error("the log is not reachable: {0}")]
    Unavailable(String),
    /// Reachable, but the stream is missing, misconfigured or refuses us. An operator must act.
    #[error("the log cannot be used: {0}")]
    Unusable(String),
}

/// The two ends of what the log holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// The first version kept.
    pub first: Version,
    /// The last version; [`Version::ZERO`] if the log is empty.
    pub last: Version,
}

/// What a subscription yields.
#[derive(Clone, Debug)]
pub enum TailItem {
    /// An event, as soon as it is stored. May be lost, repeated or late: only a hint with content.
    Record(Record),
    /// The signed head a control plane announces every second.
    Head(Bytes),
    /// A node's status report (control planes only).
    Report(Bytes),
    /// The connection is up (again); anything may have been missed.
    Connected,
    /// The connection is lost; reconnecting goes on by itself.
    Disconnected,
    /// The broker said something the operator should know: a permission violation, a slow consumer.
    Warning(String),
}

/// What data planes tell each other about what they have counted.
#[derive(Clone, Debug)]
pub enum CountsItem {
    /// A message.
    Counts {
        /// The node that sent it: on a broker with permissions nobody else can.
        node: String,
        /// What it says.
        counts: Bytes,
    },
    /// The connection is up (again); anything may have been missed.
    Connected,
}

/// What a [`Log::tail`] should deliver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interest {
    /// Events and heads: a data plane.
    Follow,
    /// Events, heads and node reports: a control plane.
    FollowAndReports,
}

/// The log. Implementations: JetStream, embedded.
#[async_trait]
pub trait Log: Send + Sync + fmt::Debug + 'static {
    /// Appends `events` (1 to [`BATCH_EVENTS_MAX`]), in order, right after version `expected`: all of them or none
    /// (a log that loses power before it acknowledges may keep the first ones: docs/decisions/0014). Writes that wait at the same time go together, so that a shared log costs them one round trip. Single appends
    /// sent one behind the other would not be safe: see docs/decisions/0002.
    ///
    /// # Errors
    /// If they are not stored, or not known to be.
    async fn append(&self, expected: Version, events: Vec<Append>) -> Result<(), AppendError>;

    /// The records from `from` on, in order, up to [`PAGE_RECORDS_MAX`]. Records that the log no longer has, or has lost, are
    /// simply absent: the caller sees the hole.
    ///
    /// # Errors
    /// If the log cannot be read now.
    async fn read(&self, from: Version) -> Result<Page, LogError>;

    /// One record, from the log's leader: never stale.
    ///
    /// # Errors
    /// If the leader cannot be asked now.
    async fn get(&self, version: Version) -> Result<Option<Record>, LogError>;

    /// The log's ends, from its leader. Control planes only: a data plane may not ask.
    ///
    /// # Errors
    /// If the leader cannot be asked now.
    async fn bounds(&self) -> Result<Bounds, LogError>;

    /// Removes everything before `first`, which stays. The next append follows the same last version as before. Nothing
    /// happens if the log begins there or later. The caller has checked that nobody needs what goes (that a signed
    /// snapshot at `first - 1` or later is there). Control planes only.
    ///
    /// # Errors
    /// If `first` is not in the log (beyond its last version, or lost), or the log cannot do it now. It may have happened
    /// in part or in whole then: [`bounds`](Self::bounds) tells, and asking again is harmless.
    async fn trim(&self, first: Version) -> Result<(), LogError>;

    /// Subscribes. The stream ends only when the log is closed.
    ///
    /// # Errors
    /// If the subscription cannot be made.
    async fn tail(&self, interest: Interest) -> Result<BoxStream<'static, TailItem>, LogError>;

    /// Announces the signed head to everybody who follows (control planes only).
    ///
    /// # Errors
    /// If it cannot be sent now.
    async fn announce(&self, head: Bytes) -> Result<(), LogError>;

    /// Sends a node's status report to the control planes.
    ///
    /// # Errors
    /// If it cannot be sent now.
    async fn report(&self, node: &str, report: Bytes) -> Result<(), LogError>;

    /// Sends to the other data planes what this one has counted. Nothing happens where there can be no others.
    ///
    /// # Errors
    /// If it cannot be sent now.
    async fn tell_counts(&self, _node: &str, _counts: Bytes) -> Result<(), LogError> {
        Ok(())
    }

    /// What data planes tell of what they have counted, this one too. The stream ends only when the log is closed; where there
    /// can be no others it holds nothing.
    ///
    /// # Errors
    /// If it cannot be listened to now.
    async fn counts(&self) -> Result<BoxStream<'static, CountsItem>, LogError> {
        Ok(futures::stream::pending().boxed())
    }

    /// Whether an acknowledged append has been synced to disk, as far as the log can tell.
    async fn durability(&self) -> Durability;
}

/// Whether an acknowledged append survives power loss.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Durability {
    /// Synced before the acknowledgement.
    Synced,
    /// Synced some time after the acknowledgement.
    Delayed,
    /// Not known, and why.
    Unknown(String),
}

/// A log together with its chunk store.
#[derive(Clone, Debug)]
pub struct Source {
    /// The log.
    pub log: Arc<dyn Log>,
    /// Its chunks.
    pub chunks: Arc<dyn Chunks>,
}
