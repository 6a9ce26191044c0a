//! Frames: what an archive is made of. Each says its kind and length and has a checksum, which also covers its place in
//! the file. The bytes are persisted: kinds are only added.

use std::io::{self, Read, Write};

/// What an archive begins with: magic and format version.
pub(super) const MAGIC: [u8; 4] = *b"SlA\x01";
/// The longest frame: a chunk of the largest size that does not compress, with room.
pub(super) const PAYLOAD_BYTES_MAX: usize = 8 << 20;
const CHECKSUM_BYTES: usize = 16;
/// Before each payload: kind, length, checksum.
pub(super) const HEAD_BYTES: usize = 1 + 4 + CHECKSUM_BYTES;

/// What a frame holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// What the archive is of. Always the first.
    Header,
    /// A snapshot's root, or the keyring, as it was signed.
    Root,
    /// A snapshot's root that nobody has signed.
    UnsignedRoot,
    /// A chunk of a snapshot.
    Chunk,
    /// A piece of a large transaction.
    Piece,
    /// A record of the log.
    Record,
    /// What has been written. Always the last.
    End,
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Self::Header => 1,
            Self::Root => 2,
            Self::UnsignedRoot => 3,
            Self::Chunk => 4,
            Self::Piece => 5,
            Self::Record => 6,
            Self::End => 7,
        }
    }

    fn of(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Header,
            2 => Self::Root,
            3 => Self::UnsignedRoot,
            4 => Self::Chunk,
            5 => Self::Piece,
            6 => Self::Record,
            7 => Self::End,
            _ => return None,
        })
    }
}

/// Why a frame cannot be read.
#[derive(Debug)]
pub(super) enum FrameError {
    /// The file cannot be read.
    Io(io::Error),
    /// The file ends here.
    Ends,
    /// The bytes are not a frame, or not the one that was written here.
    Damaged,
    /// Written by newer software.
    Kind,
}

impl From<io::Error> for FrameError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            Self::Ends
        } else {
            Self::Io(error)
        }
    }
}

/// A frame in a file.
pub(super) struct Frame {
    pub(super) kind: Kind,
    pub(super) payload: Vec<u8>,
}

pub(super) fn write(
    out: &mut dyn Write,
    number: u64,
    kind: Kind,
    payload: &[u8],
) -> io::Result<()> {
    let length = u32::try_from(payload.len()).ok();
    let length = length.filter(|_| payload.len() <= PAYLOAD_BYTES_MAX);
    let length =
        length.ok_or_else(|| io::Error::other(format!("{} bytes are too many", payload.len())))?;
    let mut head = [0; HEAD_BYTES];
    head[0] = kind.code();
    head[1..5].copy_from_slice(&length.to_le_bytes());
    let checksum = checksum(number, &head[..5], payload);
    head[5..].copy_from_slice(&checksum);
    out.write_all(&head)?;
    out.write_all(payload)
}

pub(super) fn read(input: &mut dyn Read, number: u64) -> Result<Frame, FrameError> {
    let mut head = [0; HEAD_BYTES];
    input.read_exact(&mut head)?;
    let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]);
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > PAYLOAD_BYTES_MAX {
        return Err(FrameError::Damaged);
    }
    let mut payload = vec![0; length];
    input.read_exact(&mut payload)?;
    if head[5..] != checksum(number, &head[..5], &payload) {
        return Err(FrameError::Damaged);
    }
    let kind = Kind::of(head[0]).ok_or(FrameError::Kind)?;
    Ok(Frame { kind, payload })
}

/// The first 16 bytes of BLAKE3 over the frame's number from 0 (8 bytes, little-endian), kind, length and payload.
fn checksum(number: u64, head: &[u8], payload: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&number.to_le_bytes());
    hasher.update(head);
    hasher.update(payload);
    let mut checksum = [0; CHECKSUM_BYTES];
    hasher.finalize_xof().fill(&mut checksum);
    checksum
}
