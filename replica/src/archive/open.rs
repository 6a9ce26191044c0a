//! Reading an archive: all of it is checked before anything of it is used, then it is read in place.

use super::ArchiveError;
use super::format::{End, Header, chunk_hash, decode_end, decode_header, decode_record};
use super::frame::{self, Frame, FrameError, HEAD_BYTES, Kind, MAGIC};
use crate::keys::{Keyring, RING_NAME};
use crate::log::{ChunkUse, Record, Source, StoredRoot};
use crate::snapshot::Root;
use bytes::Bytes;
use sluice_schema::hash::Hash32;
use sluice_schema::version::Version;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Records between two whose places are remembered.
const RECORDS_PER_MARK: u64 = 256;
const BUFFER_BYTES: usize = 1 << 20;

/// An archive whose frames are all whole and in their places. What is in them is for an auditor to judge.
#[derive(Debug)]
pub struct Archive {
    path: PathBuf,
    file: File,
    header: Header,
    end: End,
    roots: Vec<StoredRoot>,
    unsigned: Vec<Root>,
    pub(super) chunks: BTreeMap<(ChunkUse, Hash32), Place>,
    /// Where some of the records are.
    marks: BTreeMap<Version, Place>,
}

/// Where a frame is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    offset: u64,
    number: u64,
}

impl Archive {
    /// Opens an archive after reading all of it.
    ///
    /// # Errors
    /// If it cannot be read, is cut off, or a byte of it is not what was written.
    pub fn open(path: &Path) -> Result<Self, ArchiveError> {
        let file = File::open(path).map_err(|source| ArchiveError::Read {
            path: path.into(),
            source,
        })?;
        Scan::new(path, &file)?.run(&file)
    }

    /// What it is of.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What it says at its end.
    pub fn end(&self) -> &End {
        &self.end
    }

    /// Snapshots' roots as they were signed, and the keyring.
    pub fn roots(&self) -> &[StoredRoot] {
        &self.roots
    }

    /// Snapshots that nobody has signed.
    pub fn unsigned(&self) -> &[Root] {
        &self.unsigned
    }

    /// The archive as a log and its chunks, which can only be read.
    pub fn source(self: &Arc<Self>) -> Source {
        Source {
            log: self.clone(),
            chunks: self.clone(),
        }
    }

    /// The frame at a place.
    pub(super) fn frame(&self, place: Place) -> io::Result<Frame> {
        let mut input = At {
            file: &self.file,
            offset: place.offset,
        };
        frame::read(&mut input, place.number).map_err(|error| self.gone(error))
    }

    /// Gives records from `from` on to `each` until it has enough (gives `false`).
    pub(super) fn records_from(
        &self,
        from: Version,
        mut each: impl FnMut(Record) -> bool,
    ) -> io::Result<()> {
        let before = self.marks.range(..=from).next_back();
        let Some((_, place)) = before.or_else(|| self.marks.iter().next()) else {
            return Ok(());
        };
        let at = At {
            file: &self.file,
            offset: place.offset,
        };
        let mut input = BufReader::with_capacity(BUFFER_BYTES, at);
        for number in place.number.. {
            let frame = frame::read(&mut input, number).map_err(|error| self.gone(error))?;
            match frame.kind {
                Kind::End => return Ok(()),
                Kind::Record => {
                    let record = decode_record(&Bytes::from(frame.payload));
                    let record = record.ok_or_else(|| self.gone(FrameError::Damaged))?;
                    if record.version >= from && !each(record) {
                        return Ok(());
                    }
                }
                Kind::Header | Kind::Root | Kind::UnsignedRoot | Kind::Chunk | Kind::Piece => {}
            }
        }
        Ok(())
    }

    /// The file was whole when it was opened.
    fn gone(&self, error: FrameError) -> io::Error {
        match error {
            FrameError::Io(error) => error,
            FrameError::Ends | FrameError::Damaged | FrameError::Kind => io::Error::other(format!(
                "'{}' has changed since it was opened",
                self.path.display()
            )),
        }
    }
}

/// Reads a file from a place on, without moving anybody else.
struct At<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for At<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(into, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

/// The first reading of a file.
struct Scan {
    path: PathBuf,
    header: Header,
    roots: Vec<StoredRoot>,
    unsigned: Vec<Root>,
    chunks: BTreeMap<(ChunkUse, Hash32), Place>,
    marks: BTreeMap<Version, Place>,
    /// The frame that is read, and the last version before it.
    number: u64,
    last: Version,
    records: u64,
    pieces: u64,
    snapshot_chunks: u64,
    hasher: blake3::Hasher,
    offset: u64,
}

impl Scan {
    /// Reads magic and header.
    fn new(path: &Path, file: &File) -> Result<Self, ArchiveError> {
        let mut input = At { file, offset: 0 };
        let mut magic = [0; MAGIC.len()];
        let read = input.read_exact(&mut magic);
        if read.is_err() || magic[..3] != MAGIC[..3] {
            return Err(ArchiveError::Foreign(path.into()));
        }
        if magic != MAGIC {
            return Err(ArchiveError::Newer);
        }
        let none = Version::ZERO;
        let frame = frame::read(&mut input, 0).map_err(|error| refusal(path, 0, none, error))?;
        if frame.kind != Kind::Header {
            return Err(ArchiveError::Foreign(path.into()));
        }
        Ok(Self {
            path: path.into(),
            header: decode_header(&frame.payload)?,
            roots: Vec::new(),
            unsigned: Vec::new(),
            chunks: BTreeMap::new(),
            marks: BTreeMap::new(),
            number: 0,
            last: none,
            records: 0,
            pieces: 0,
            snapshot_chunks: 0,
            hasher: blake3::Hasher::new(),
            offset: 0,
        })
    }

    fn run(mut self, file: &File) -> Result<Archive, ArchiveError> {
        let mut input = BufReader::with_capacity(BUFFER_BYTES, At { file, offset: 0 });
        self.pass(&mut input, MAGIC.len())?;
        loop {
            let place = Place {
                offset: self.offset,
                number: self.number,
            };
            let hash = Hash32(*self.hasher.finalize().as_bytes());
            let frame = self.read_frame(&mut input)?;
            match frame.kind {
                Kind::Header if self.number == 0 => {}
                Kind::Header => return Err(self.damaged("a second header")),
                Kind::End => return self.finish(&frame, hash, &mut input, file),
                Kind::Root => self.take_root(frame.payload),
                Kind::UnsignedRoot => {
                    let root = Root::decode(&frame.payload);
                    let root = root.map_err(|_| self.damaged("an unreadable snapshot root"))?;
                    self.unsigned.push(root);
                }
                Kind::Chunk => {
                    self.snapshot_chunks += 1;
                    self.take_chunk(ChunkUse::Snapshot, &frame, place)?;
                }
                Kind::Piece => {
                    self.pieces += 1;
                    self.take_chunk(ChunkUse::Transaction, &frame, place)?;
                }
                Kind::Record => self.take_record(frame, place)?,
            }
            self.number += 1;
        }
    }

    fn read_frame(&mut self, input: &mut impl Read) -> Result<Frame, ArchiveError> {
        let mut passing = Passing {
            input,
            hasher: &mut self.hasher,
        };
        let read = frame::read(&mut passing, self.number);
        let frame = read.map_err(|error| self.refusal(error))?;
        self.offset += (HEAD_BYTES + frame.payload.len()) as u64;
        Ok(frame)
    }

    fn pass(&mut self, input: &mut impl Read, bytes: usize) -> Result<(), ArchiveError> {
        let mut passed = vec![0; bytes];
        let read = input.read_exact(&mut passed);
        read.map_err(|error| self.refusal(error.into()))?;
        self.hasher.update(&passed);
        self.offset += bytes as u64;
        Ok(())
    }

    fn take_root(&mut self, sealed: Vec<u8>) {
        let name = match Root::read(&sealed) {
            Ok((root, _)) => root.name(),
            Err(_) if Keyring::peek(&sealed).is_ok() => RING_NAME.to_owned(),
            Err(_) => format!("unreadable-{}", self.number),
        };
        self.roots.push(StoredRoot {
            name,
            root: sealed.into(),
            stored: self.header.made,
        });
    }

    fn take_chunk(
        &mut self,
        part: ChunkUse,
        frame: &Frame,
        place: Place,
    ) -> Result<(), ArchiveError> {
        let hash =
            chunk_hash(&frame.payload).ok_or_else(|| self.damaged("a chunk without a hash"))?;
        self.chunks.insert((part, hash), place);
        Ok(())
    }

    fn take_record(&mut self, frame: Frame, place: Place) -> Result<(), ArchiveError> {
        let record = decode_record(&Bytes::from(frame.payload));
        let record = record.ok_or_else(|| self.damaged("an unreadable record"))?;
        if record.version <= self.last {
            return Err(self.damaged("a record out of order"));
        }
        if self.records.is_multiple_of(RECORDS_PER_MARK) {
            self.marks.insert(record.version, place);
        }
        self.records += 1;
        self.last = record.version;
        Ok(())
    }

    fn finish(
        self,
        frame: &Frame,
        hash: Hash32,
        input: &mut impl BufRead,
        file: &File,
    ) -> Result<Archive, ArchiveError> {
        let end = decode_end(&frame.payload)?;
        let counts = [end.records, end.roots, end.chunks, end.pieces];
        let roots = (self.roots.len() + self.unsigned.len()) as u64;
        if end.hash != hash || counts != [self.records, roots, self.snapshot_chunks, self.pieces] {
            return Err(self.damaged("the end does not agree with what is before it"));
        }
        let rest = input.fill_buf().map_err(|source| ArchiveError::Read {
            path: self.path.clone(),
            source,
        })?;
        if !rest.is_empty() {
            return Err(self.damaged("something follows the end"));
        }
        let file = file.try_clone().map_err(|source| ArchiveError::Read {
            path: self.path.clone(),
            source,
        })?;
        Ok(Archive {
            path: self.path,
            file,
            header: self.header,
            end,
            roots: self.roots,
            unsigned: self.unsigned,
            chunks: self.chunks,
            marks: self.marks,
        })
    }

    fn damaged(&self, reason: &'static str) -> ArchiveError {
        ArchiveError::Damaged {
            frame: self.number,
            after: self.last,
            reason,
        }
    }

    fn refusal(&self, error: FrameError) -> ArchiveError {
        refusal(&self.path, self.number, self.last, error)
    }
}

fn refusal(path: &Path, frame: u64, after: Version, error: FrameError) -> ArchiveError {
    match error {
        FrameError::Io(source) => ArchiveError::Read {
            path: path.into(),
            source,
        },
        FrameError::Ends => ArchiveError::Truncated { frame, after },
        FrameError::Damaged => ArchiveError::Damaged {
            frame,
            after,
            reason: "its checksum is wrong",
        },
        FrameError::Kind => ArchiveError::Newer,
    }
}

/// Hashes what is read.
struct Passing<'a, R> {
    input: &'a mut R,
    hasher: &'a mut blake3::Hasher,
}

impl<R: Read> Read for Passing<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(into)?;
        self.hasher.update(&into[..read]);
        Ok(read)
    }
}
