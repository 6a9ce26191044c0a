//! How entities and the cursor lie in the database: keys, checksums, bytes. The formats are persisted: only added to.

use super::StoreError;
use crate::planted::{Bug, planted};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sluice_schema::codec::{self, Format};
use sluice_schema::digest::Accumulator;
use sluice_schema::entity::{Body, Entry, Id, Key, KindName, Workspace};
use sluice_schema::hash::Hash32;
use sluice_schema::version::{Cursor, Version};
use uuid::Uuid;

pub(super) const FORMAT: u8 = 1;
pub(super) const META_KEY: &[u8] = b"m";
pub(super) const ENTITY_PREFIX: u8 = b'e';
pub(super) const CHECKSUM_BYTES: usize = 16;
const HEADER_BYTES: usize = 1 + CHECKSUM_BYTES + 8;

/// What is stored beside the entities.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Meta {
    pub(super) cursor: Cursor,
    pub(super) sum: Accumulator,
    pub(super) entities: u64,
}

pub(super) fn entity_key(key: &Key) -> Vec<u8> {
    let (kind, workspace) = (
        key.kind.as_str().as_bytes(),
        key.workspace.as_str().as_bytes(),
    );
    let mut bytes = Vec::with_capacity(kind.len() + workspace.len() + 19);
    bytes.push(ENTITY_PREFIX);
    bytes.extend_from_slice(kind);
    bytes.push(0);
    bytes.extend_from_slice(workspace);
    bytes.push(0);
    bytes.extend_from_slice(key.id.0.as_bytes());
    bytes
}

pub(super) fn parse_entity_key(bytes: &[u8]) -> Option<Key> {
    let rest = bytes.strip_prefix(&[ENTITY_PREFIX])?;
    let (names, id) = rest.split_at_checked(rest.len().checked_sub(16)?)?;
    let names = names.strip_suffix(&[0])?;
    let at = names.iter().position(|byte| *byte == 0)?;
    Some(Key {
        kind: KindName::parse(std::str::from_utf8(&names[..at]).ok()?)?,
        workspace: Workspace::parse(std::str::from_utf8(&names[at + 1..]).ok()?)?,
        id: Id(Uuid::from_slice(id).ok()?),
    })
}

pub(super) fn checksum(key: &[u8], value: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(value);
    let mut short = [0; CHECKSUM_BYTES];
    short.copy_from_slice(&hasher.finalize().as_bytes()[..CHECKSUM_BYTES]);
    short
}

pub(crate) fn seal(key: &[u8], parts: [&[u8]; 2]) -> Vec<u8> {
    let value = parts.concat();
    let mut bytes = Vec::with_capacity(value.len() + 1 + CHECKSUM_BYTES);
    bytes.push(FORMAT);
    bytes.extend_from_slice(&checksum(key, &value));
    bytes.extend_from_slice(&value);
    bytes
}

pub(crate) fn unseal<'a>(key: &[u8], bytes: &'a [u8]) -> Result<&'a [u8], StoreError> {
    let damaged = |what: &str| StoreError::Damaged(format!("{what} at key {}", hex(key)));
    let (header, value) = bytes
        .split_at_checked(1 + CHECKSUM_BYTES)
        .ok_or_else(|| damaged("a record is too short"))?;
    if header[0] != FORMAT {
        return Err(damaged("a record has an unknown format"));
    }
    match checksum(key, value) == header[1..] || planted(Bug::ChecksumIgnored) {
        true => Ok(value),
        false => Err(damaged("a checksum does not match")),
    }
}

pub(super) fn encode_entry(key: &[u8], entry: &Entry) -> Vec<u8> {
    seal(key, [&entry.version.0.to_be_bytes(), entry.body.as_bytes()])
}

pub(super) fn decode_entry(key: &[u8], bytes: &[u8]) -> Result<Entry, StoreError> {
    let value = unseal(key, bytes)?;
    let (version, body) = value.split_first_chunk::<8>().ok_or_else(|| {
        StoreError::Damaged(format!(
            "{} bytes are too short for an entity",
            HEADER_BYTES
        ))
    })?;
    Ok(Entry {
        version: Version(u64::from_be_bytes(*version)),
        body: Body::from_bytes(body),
    })
}

/// An entity as a database holds it.
pub(super) fn decode_record(stored: &[u8], value: &[u8]) -> Result<(Key, Entry), StoreError> {
    let entry = decode_entry(stored, value)?;
    let key = parse_entity_key(stored)
        .ok_or_else(|| StoreError::Damaged("a key is not an entity's".into()))?;
    Ok((key, entry))
}

pub(super) fn encode_meta(meta: &Meta) -> Vec<u8> {
    let body = rmp_serde::to_vec_named(meta).expect("a cursor and a sum encode into memory");
    seal(META_KEY, [&body, &[]])
}

pub(super) fn decode_meta(bytes: &[u8]) -> Result<Meta, StoreError> {
    rmp_serde::from_slice(unseal(META_KEY, bytes)?)
        .map_err(|error| StoreError::Damaged(format!("the cursor does not decode: {error}")))
}

/// Bytes an entity takes up in the database, about.
pub(super) fn stored_bytes(key: &Key, entry: &Entry) -> u64 {
    let names = key.kind.as_str().len() + key.workspace.as_str().len();
    (names + 19 + HEADER_BYTES + entry.body.as_bytes().len()) as u64
}

/// A file with one value: the BLAKE3 of the value's bytes, and those.
pub(super) fn seal_file<T: Serialize>(format: Format, value: &T) -> Vec<u8> {
    let body = codec::encode(format, value);
    [&Hash32::of(&body).0, &body[..]].concat()
}

/// The value in a file.
///
/// # Errors
/// If it is not what was written.
pub(super) fn open_file<T: DeserializeOwned>(
    format: Format,
    file: &str,
    bytes: &[u8],
) -> Result<T, StoreError> {
    let damaged = |what: &str| StoreError::Damaged(format!("file '{file}' {what}"));
    let (hash, body) = bytes
        .split_first_chunk::<32>()
        .ok_or_else(|| damaged("is too short"))?;
    if Hash32::of(body).0 != *hash {
        return Err(damaged("does not match its checksum"));
    }
    codec::decode(format, body).map_err(|error| damaged(&format!("does not decode: {error}")))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
