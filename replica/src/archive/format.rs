//! What the frames of an archive hold. The bytes are persisted: fields are only added.

use super::ArchiveError;
use crate::log::{Record, Signature, compress, decompress};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sluice_schema::codec::{self, Format};
use sluice_schema::hash::Hash32;
use sluice_schema::version::{Cursor, Epoch, Time, Version};

const HEADER_FORMAT: Format = Format {
    magic: *b"SlI",
    version: 1,
};
const END_FORMAT: Format = Format {
    magic: *b"SlZ",
    version: 1,
};
const SIGNATURE_BYTES: usize = 64;

/// What an archive is of.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Header {
    /// The cluster whose log it is.
    pub cluster: String,
    /// The log's life at the end of the archive.
    pub epoch: Epoch,
    /// The first version of its records.
    pub first: Version,
    /// The last; below `first` if there are no records.
    pub last: Version,
    /// When it was made.
    pub made: Time,
    /// By which software.
    pub software: String,
}

/// What an archive says at its end.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct End {
    /// How many records it has.
    pub records: u64,
    /// How many roots, signed or not, and keyrings.
    pub roots: u64,
    /// How many chunks of snapshots.
    pub chunks: u64,
    /// How many pieces of large transactions.
    pub pieces: u64,
    /// The cursor after the last record, or that of the snapshot if there are no records.
    pub cursor: Cursor,
    /// BLAKE3 over everything before this frame.
    pub hash: Hash32,
    /// The key that vouches for that hash, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) signature: Option<Bytes>,
}

impl End {
    /// Who vouches for the archive's bytes, if somebody does.
    pub fn signature(&self) -> Option<Signature> {
        let bytes = self.signature.as_ref()?.as_ref().try_into().ok()?;
        let key = self.key.clone()?;
        Some(Signature { key, bytes })
    }
}

pub(super) fn encode_header(header: &Header) -> Vec<u8> {
    codec::encode(HEADER_FORMAT, header)
}

pub(super) fn decode_header(payload: &[u8]) -> Result<Header, ArchiveError> {
    codec::decode(HEADER_FORMAT, payload).map_err(ArchiveError::Codec)
}

pub(super) fn encode_end(end: &End) -> Vec<u8> {
    codec::encode(END_FORMAT, end)
}

pub(super) fn decode_end(payload: &[u8]) -> Result<End, ArchiveError> {
    codec::decode(END_FORMAT, payload).map_err(ArchiveError::Codec)
}

/// Version, length of the key id (0: no signature), key id, signature, event.
pub(super) fn encode_record(record: &Record) -> Vec<u8> {
    let mut payload = record.version.0.to_le_bytes().to_vec();
    match &record.signature {
        Some(Signature { key, bytes }) => {
            // A key id that nobody of ours writes: the record is kept as if it had none, which it is as good as.
            let length = u8::try_from(key.len()).unwrap_or(0);
            payload.push(length);
            if length > 0 {
                payload.extend_from_slice(key.as_bytes());
                payload.extend_from_slice(bytes);
            }
        }
        None => payload.push(0),
    }
    payload.extend_from_slice(&record.event);
    payload
}

pub(super) fn decode_record(payload: &Bytes) -> Option<Record> {
    let (version, rest) = payload.split_first_chunk::<8>()?;
    let version = Version(u64::from_le_bytes(*version));
    let (length, rest) = rest.split_first()?;
    if *length == 0 {
        let event = payload.slice_ref(rest);
        return Some(Record {
            version,
            event,
            signature: None,
        });
    }
    let (key, rest) = rest.split_at_checked(usize::from(*length))?;
    let (bytes, event) = rest.split_first_chunk::<SIGNATURE_BYTES>()?;
    let key = std::str::from_utf8(key).ok()?.to_owned();
    let signature = Some(Signature { key, bytes: *bytes });
    Some(Record {
        version,
        event: payload.slice_ref(event),
        signature,
    })
}

/// The content's hash, and the content compressed.
pub(super) fn encode_chunk(hash: Hash32, content: &[u8]) -> Vec<u8> {
    let mut payload = hash.0.to_vec();
    payload.extend(compress(content));
    payload
}

pub(super) fn chunk_hash(payload: &[u8]) -> Option<Hash32> {
    payload.first_chunk::<32>().copied().map(Hash32)
}

pub(super) fn decode_chunk(payload: &[u8]) -> Option<Bytes> {
    let (hash, stored) = payload.split_first_chunk::<32>()?;
    decompress(Hash32(*hash), stored).ok()
}
