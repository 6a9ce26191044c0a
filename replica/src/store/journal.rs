//! What has been applied since the last save, in a file: a process that is killed between two saves loses nothing.
//!
//! Two files that take turns. A record is appended with one write when a change is staged, which costs a fraction of
//! what a batch costs sled. When a save is about to be synced, writing goes on in the other file, whose records a sync
//! before has covered. Power loss may cut the end off, or bring back what was emptied; the records say so themselves,
//! and the log has the rest.

use super::disk::Disk;
use serde::{Deserialize, Serialize};
use sluice_schema::codec::{self, Format};
use sluice_schema::event::Event;
use sluice_schema::hash::Hash32;
use sluice_schema::version::Cursor;
use std::io;
use std::sync::Arc;

/// The files' names.
pub(super) const FILES: [&str; 2] = ["journal.0", "journal.1"];
const FORMAT: Format = Format {
    magic: *b"SlJ",
    version: 1,
};
const HASH_BYTES: usize = 32;
const HEADER_BYTES: usize = 4 + HASH_BYTES;

/// An applied event with its mutations, and the cursor after it.
#[derive(Serialize, Deserialize)]
pub(super) struct Applied {
    pub(super) event: Event,
    pub(super) cursor: Cursor,
}

#[derive(Serialize)]
struct Applying<'a> {
    event: &'a Event,
    cursor: Cursor,
}

#[derive(Debug)]
pub(super) struct Journal {
    disk: Arc<dyn Disk>,
    current: usize,
    /// A write has failed, so what follows it in the file is lost to a reader: nothing is appended before the next turn.
    torn: bool,
}

impl Journal {
    pub(super) fn new(disk: Arc<dyn Disk>) -> Self {
        Self {
            disk,
            current: 0,
            torn: false,
        }
    }

    /// What the files hold, ordered by version.
    pub(super) fn read(&self) -> io::Result<Vec<Applied>> {
        let mut applied = Vec::new();
        for file in FILES {
            if let Some(bytes) = self.disk.read(file)? {
                read(&bytes, &mut applied);
            }
        }
        applied.sort_by_key(|applied: &Applied| applied.cursor.version);
        Ok(applied)
    }

    /// Appends events.
    pub(super) fn append(&mut self, events: &[(&Event, Cursor)]) -> io::Result<()> {
        if self.torn {
            return Err(io::Error::other("an earlier write has failed"));
        }
        let mut bytes = Vec::with_capacity(2048);
        for (event, cursor) in events {
            let body = codec::encode(
                FORMAT,
                &Applying {
                    event,
                    cursor: *cursor,
                },
            );
            let length = u32::try_from(body.len()).map_err(io::Error::other)?;
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(&Hash32::of(&body).0);
            bytes.extend_from_slice(&body);
        }
        let written = self.disk.append(FILES[self.current], &bytes);
        self.torn = written.is_err();
        written
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        FILES.iter().try_for_each(|file| self.disk.truncate(file))?;
        self.torn = false;
        Ok(())
    }

    /// Goes on in the other file, from its beginning.
    pub(super) fn turn(&mut self) -> io::Result<()> {
        let next = 1 - self.current;
        self.disk.truncate(FILES[next])?;
        (self.current, self.torn) = (next, false);
        Ok(())
    }
}

/// Reads records up to the end, or to the first that is not whole.
fn read(mut bytes: &[u8], into: &mut Vec<Applied>) {
    while let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() {
        let (length, hash) = header.split_at(4);
        let length = length
            .try_into()
            .map(u32::from_le_bytes)
            .unwrap_or(u32::MAX);
        let Some((body, rest)) = rest.split_at_checked(length as usize) else {
            return;
        };
        if Hash32::of(body).0 != hash {
            return;
        }
        let Ok(applied) = codec::decode(FORMAT, body) else {
            return;
        };
        into.push(applied);
        bytes = rest;
    }
}
