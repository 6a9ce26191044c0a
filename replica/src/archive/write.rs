//! Writing an archive: frame by frame, with the memory of one.

use super::ArchiveError;
use super::format::{End, Header, encode_chunk, encode_end, encode_header, encode_record};
use super::frame::{self, Kind, MAGIC};
use crate::keys::SigningKey;
use crate::log::{ChunkUse, Record};
use crate::snapshot::Root;
use bytes::Bytes;
use sluice_schema::hash::Hash32;
use sluice_schema::version::Cursor;
use std::io::{self, Write};

/// An archive being written. It is none before [`Writer::end`].
pub struct Writer<W> {
    out: Hashing<W>,
    frames: u64,
    counts: Counts,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    records: u64,
    roots: u64,
    chunks: u64,
    pieces: u64,
}

impl<W> std::fmt::Debug for Writer<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("frames", &self.frames)
            .finish_non_exhaustive()
    }
}

impl<W: Write> Writer<W> {
    /// Begins an archive.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn begin(out: W, header: &Header) -> Result<Self, ArchiveError> {
        let mut out = Hashing {
            out,
            hasher: blake3::Hasher::new(),
            bytes: 0,
        };
        out.write_all(&MAGIC).map_err(ArchiveError::Write)?;
        let mut writer = Self {
            out,
            frames: 0,
            counts: Counts::default(),
        };
        writer.frame(Kind::Header, &encode_header(header))?;
        Ok(writer)
    }

    /// Writes a snapshot's root, or the keyring, as it was signed.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn root(&mut self, sealed: &[u8]) -> Result<(), ArchiveError> {
        self.counts.roots += 1;
        self.frame(Kind::Root, sealed)
    }

    /// Writes a snapshot's root that nobody has signed.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn unsigned_root(&mut self, root: &Root) -> Result<(), ArchiveError> {
        self.counts.roots += 1;
        self.frame(Kind::UnsignedRoot, &root.encode())
    }

    /// Writes a chunk or a piece, whose hash has been checked.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn chunk(
        &mut self,
        part: ChunkUse,
        hash: Hash32,
        content: &[u8],
    ) -> Result<(), ArchiveError> {
        let kind = match part {
            ChunkUse::Transaction => {
                self.counts.pieces += 1;
                Kind::Piece
            }
            ChunkUse::Snapshot => {
                self.counts.chunks += 1;
                Kind::Chunk
            }
        };
        self.frame(kind, &encode_chunk(hash, content))
    }

    /// Writes a record; its pieces have been written before.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn record(&mut self, record: &Record) -> Result<(), ArchiveError> {
        self.counts.records += 1;
        self.frame(Kind::Record, &encode_record(record))
    }

    /// Writes the end, signed if there is a key, and gives it back with what was written to.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn end(
        mut self,
        cursor: Cursor,
        key: Option<&SigningKey>,
    ) -> Result<(End, W), ArchiveError> {
        let Counts {
            records,
            roots,
            chunks,
            pieces,
        } = self.counts;
        let hash = Hash32(*self.out.hasher.finalize().as_bytes());
        let signature = key.map(|key| key.sign_archive(hash));
        let end = End {
            records,
            roots,
            chunks,
            pieces,
            cursor,
            hash,
            key: signature.as_ref().map(|signature| signature.key.clone()),
            signature: signature.map(|signature| Bytes::copy_from_slice(&signature.bytes)),
        };
        self.frame(Kind::End, &encode_end(&end))?;
        self.out.flush().map_err(ArchiveError::Write)?;
        Ok((end, self.out.out))
    }

    /// Bytes written so far.
    pub fn bytes(&self) -> u64 {
        self.out.bytes
    }

    fn frame(&mut self, kind: Kind, payload: &[u8]) -> Result<(), ArchiveError> {
        frame::write(&mut self.out, self.frames, kind, payload).map_err(ArchiveError::Write)?;
        self.frames += 1;
        Ok(())
    }
}

/// Hashes what passes.
struct Hashing<W> {
    out: W,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
