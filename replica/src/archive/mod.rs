//! Archives: a log's history in one file, for backups and for auditors.
//!
//! A file is a header, snapshots with their chunks, records with the pieces they need before them, and an end with a
//! hash over everything; the bytes are described in the log format, "Archive". It carries the signatures of every record
//! and root, so that it proves as much as the log does.
//!
//! [`Writer`] writes one frame by frame; [`export()`] fills it from a log, [`export_store()`] from a local store;
//! [`Archive`] reads one, and is a log and a chunk store that can only be read: what works on those works on it. None of
//! them needs more memory than a frame and an index of the chunks.

mod export;
mod format;
mod frame;
mod open;
mod source;
mod write;

pub use export::{About, Extent, Progress, export, export_store};
pub use format::{End, Header};
pub use open::Archive;
pub use write::Writer;

use crate::log::LogError;
use crate::snapshot::LoadError;
use crate::store::StoreError;
use sluice_schema::codec::CodecError;
use sluice_schema::version::Version;
use std::io;
use std::path::PathBuf;

/// Why an archive cannot be written or used.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The file cannot be read.
    #[error("could not read '{path}'")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The archive cannot be written.
    #[error("could not write the archive")]
    Write(#[source] io::Error),
    /// Another kind of file.
    #[error("'{0}' is not an archive of a log")]
    Foreign(PathBuf),
    /// Written by newer software.
    #[error("the archive has something this program does not know; update it")]
    Newer,
    /// It ends before its end.
    #[error(
        "the archive is cut off in frame {frame}, after version {after}; nothing of it is used"
    )]
    Truncated {
        /// The frame that is not whole, from 0.
        frame: u64,
        /// The last version before it.
        after: Version,
    },
    /// It is not what was written.
    #[error(
        "the archive is damaged or edited at frame {frame}, after version {after}: {reason}; nothing of it is used"
    )]
    Damaged {
        /// The frame, from 0.
        frame: u64,
        /// The last version before it.
        after: Version,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A frame whose content cannot be read.
    #[error("could not decode a frame of the archive")]
    Codec(#[source] CodecError),
    /// The log cannot be read now.
    #[error("could not read the log")]
    Log(#[from] LogError),
    /// A large transaction or a snapshot is not complete.
    #[error(
        "{0} is missing from the chunk store; what is there can be exported with --from or --snapshot-only"
    )]
    Missing(String),
    /// A snapshot cannot be read.
    #[error("could not read a snapshot")]
    Snapshot(#[from] LoadError),
    /// Nothing to write.
    #[error("there is nothing to export: {0}")]
    Nothing(String),
    /// The local store cannot be used.
    #[error("could not use the local store")]
    Store(#[from] StoreError),
}
