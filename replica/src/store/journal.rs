//! What has been applied since the last save, in a file: a process that is killed between two saves loses nothing.
//!
//! Two files that take turns. A record is appended with one write when a change is staged, which costs a fraction of
//! what a batch costs sled. When a save is about to be synced, writing goes on in the other file, whose records the sync
//! before has covered. Power loss may cut the end off; the records say so themselves, and the log has the rest.

use serde::{Deserialize, Serialize};
use sluice_schema::codec::{self, Format};
use sluice_schema::event::Event;
use sluice_schema::hash::Hash32;
use sluice_schema::version::Cursor;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

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
    files: [File; 2],
    current: usize,
}

impl Journal {
    /// Opens the journal in the store's directory, and gives back what it holds, ordered by version.
    pub(super) fn open(directory: &Path) -> io::Result<(Self, Vec<Applied>)> {
        let mut applied = Vec::new();
        let mut open = |name: &str| {
            let path = directory.join(name);
            let mut file = File::options()
                .read(true)
                .append(true)
                .create(true)
                .open(path)?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            read(&bytes, &mut applied);
            Ok::<_, io::Error>(file)
        };
        let files = [open("journal.0")?, open("journal.1")?];
        applied.sort_by_key(|applied: &Applied| applied.cursor.version);
        Ok((Self { files, current: 0 }, applied))
    }

    /// Appends events.
    pub(super) fn append(&mut self, events: &[(&Event, Cursor)]) -> io::Result<()> {
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
        self.files[self.current].write_all(&bytes)
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.files.iter().try_for_each(|file| file.set_len(0))
    }

    /// Goes on in the other file, from its beginning.
    pub(super) fn rotate(&mut self) -> io::Result<()> {
        self.current = 1 - self.current;
        self.files[self.current].set_len(0)
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
