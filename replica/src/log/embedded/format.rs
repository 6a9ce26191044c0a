//! How records, chunks and roots lie in the database: keys and values, each value with a checksum over it and its key.
//! The formats are persisted: only added to.

use crate::log::{ChunkUse, LogError, Record, Signature};
use crate::store::{seal, unseal};
use bytes::Bytes;
use sluice_schema::hash::Hash32;
use sluice_schema::version::{Time, Version};

pub(super) const RECORD_PREFIX: u8 = b'l';
pub(super) const ROOT_PREFIX: u8 = b'r';
const TRANSACTION_PREFIX: u8 = b't';
const SNAPSHOT_PREFIX: u8 = b's';

pub(super) fn record_key(version: Version) -> [u8; 9] {
    let mut key = [RECORD_PREFIX; 9];
    key[1..].copy_from_slice(&version.0.to_be_bytes());
    key
}

pub(super) fn parse_record_key(key: &[u8]) -> Option<Version> {
    let version = key.strip_prefix(&[RECORD_PREFIX])?.try_into().ok()?;
    Some(Version(u64::from_be_bytes(version)))
}

pub(super) fn chunk_prefix(part: ChunkUse) -> u8 {
    match part {
        ChunkUse::Transaction => TRANSACTION_PREFIX,
        ChunkUse::Snapshot => SNAPSHOT_PREFIX,
    }
}

pub(super) fn chunk_key(part: ChunkUse, hash: Hash32) -> [u8; 33] {
    let mut key = [chunk_prefix(part); 33];
    key[1..].copy_from_slice(&hash.0);
    key
}

pub(super) fn parse_chunk_key(key: &[u8]) -> Option<Hash32> {
    key.get(1..)?.try_into().ok().map(Hash32)
}

pub(super) fn root_key(name: &str) -> Vec<u8> {
    [&[ROOT_PREFIX], name.as_bytes()].concat()
}

pub(super) fn parse_root_key(key: &[u8]) -> Option<&str> {
    std::str::from_utf8(key.strip_prefix(&[ROOT_PREFIX])?).ok()
}

pub(super) fn encode_record(record: &Record) -> Vec<u8> {
    let mut signed = Vec::with_capacity(96);
    match &record.signature {
        Some(Signature { key, bytes }) => {
            signed.push(u8::try_from(key.len()).expect("a key id has 16 characters"));
            signed.extend_from_slice(key.as_bytes());
            signed.extend_from_slice(bytes);
        }
        None => signed.push(0),
    }
    seal(&record_key(record.version), [&signed, &record.event[..]])
}

pub(super) fn decode_record(version: Version, stored: &[u8]) -> Result<Record, LogError> {
    let damaged = || LogError::Unusable(format!("version {version} is damaged on disk"));
    let value = unseal(&record_key(version), stored).map_err(|_| damaged())?;
    let (length, rest) = value.split_first().ok_or_else(damaged)?;
    if *length == 0 {
        return Ok(Record {
            version,
            event: Bytes::copy_from_slice(rest),
            signature: None,
        });
    }
    let (key, rest) = rest
        .split_at_checked(usize::from(*length))
        .ok_or_else(damaged)?;
    let (bytes, event) = rest.split_first_chunk::<64>().ok_or_else(damaged)?;
    let key = std::str::from_utf8(key).map_err(|_| damaged())?.to_owned();
    let signature = Some(Signature { key, bytes: *bytes });
    Ok(Record {
        version,
        event: Bytes::copy_from_slice(event),
        signature,
    })
}

/// A chunk or a root with the time it was stored at.
pub(super) fn encode_stored(key: &[u8], stored: Time, content: &[u8]) -> Vec<u8> {
    seal(key, [&stored.0.to_be_bytes(), content])
}

/// `None` if it is damaged.
pub(super) fn decode_stored<'a>(key: &[u8], value: &'a [u8]) -> Option<(Time, &'a [u8])> {
    let (stored, content) = unseal(key, value).ok()?.split_first_chunk::<8>()?;
    Some((Time(u64::from_be_bytes(*stored)), content))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_anywhere_is_an_error_that_names_the_version() {
        let signature = Some(Signature {
            key: "00112233aabbccdd".into(),
            bytes: [9; 64],
        });
        for signature in [signature, None] {
            let record = Record {
                version: Version(812),
                event: Bytes::from_static(b"event"),
                signature,
            };
            let stored = encode_record(&record);
            assert_eq!(decode_record(Version(812), &stored).unwrap(), record);
            for bit in 0..stored.len() * 8 {
                let mut flipped = stored.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                let error = decode_record(Version(812), &flipped).unwrap_err();
                assert!(error.to_string().contains("version 812 is damaged"));
            }
            for length in 0..stored.len() {
                assert!(decode_record(Version(812), &stored[..length]).is_err());
            }
            // A whole record at another version's place is not that version.
            assert!(decode_record(Version(813), &stored).is_err());
        }
    }

    #[test]
    fn a_chunks_time_is_not_believed_once_a_bit_of_it_is_flipped() {
        let key = chunk_key(ChunkUse::Snapshot, Hash32::of(b"x"));
        let stored = encode_stored(&key, Time(7), b"content");
        let whole: (Time, &[u8]) = (Time(7), b"content");
        assert_eq!(decode_stored(&key, &stored), Some(whole));
        for bit in 0..stored.len() * 8 {
            let mut flipped = stored.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode_stored(&key, &flipped), None);
        }
        let other = chunk_key(ChunkUse::Transaction, Hash32::of(b"x"));
        assert_eq!(decode_stored(&other, &stored), None);
    }
}
