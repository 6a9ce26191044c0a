//! Chunks: one compressed message per content, under a subject that names its hash.

use super::link::Link;
use super::names::Names;
use super::setup::{error_code, refusal};
use super::{LogError, REQUEST_TIMEOUT, read};
use crate::log::{compress, decompress};
use async_nats::HeaderMap;
use bytes::Bytes;
use serde_json::{Value, json};
use sluice_schema::hash::Hash32;

/// Stores `content`, unless it is there and intact.
pub(super) async fn put(
    link: &Link,
    names: &Names,
    hash: Hash32,
    content: &[u8],
) -> Result<(), LogError> {
    if Hash32::of(content) != hash {
        return Err(LogError::Unusable(format!(
            "chunk {hash} has content with another hash"
        )));
    }
    // What is there but damaged is replaced: the stream keeps the last message of a subject.
    if let Ok(Some(_)) = get(link, names, hash).await {
        return Ok(());
    }
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Expected-Stream", names.chunk_stream.as_str());
    let answer = link
        .request(
            names.chunk(hash),
            headers,
            compress(content).into(),
            REQUEST_TIMEOUT,
        )
        .await?;
    let answer: Value = serde_json::from_slice(&answer.payload).map_err(|error| {
        LogError::Unavailable(format!("the answer for chunk {hash} is no JSON: {error}"))
    })?;
    match error_code(&answer) {
        None => Ok(()),
        Some(_) => Err(refusal(&answer, &format!("could not store chunk {hash}"))),
    }
}

pub(super) async fn get(
    link: &Link,
    names: &Names,
    hash: Hash32,
) -> Result<Option<Bytes>, LogError> {
    let question = json!({ "last_by_subj": names.chunk(hash) });
    match read::direct(link, &names.chunk_stream, &question).await? {
        Some(message) => decompress(hash, &message.payload).map(Some),
        None => Ok(None),
    }
}
