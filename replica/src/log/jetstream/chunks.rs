//! Chunks and roots: one message for each, the last under a subject that names its hash or its name.

use super::link::Link;
use super::names::Names;
use super::read::{self, Batch, NO_MESSAGE_FOUND};
use super::setup::{api, error_code, refusal};
use super::{ChunkUse, LogError, REQUEST_TIMEOUT, StoredRoot};
use crate::log::{check_chunk, check_root, check_root_name, compress, decompress, is_fresh};
use crate::process::now;
use async_nats::datetime::parse_rfc3339;
use async_nats::{HeaderMap, Message};
use bytes::Bytes;
use serde_json::{Value, json};
use sluice_schema::hash::Hash32;
use sluice_schema::version::Time;
use std::collections::BTreeSet;
use std::time::Duration;

/// The broker refuses to look for more (status 413).
const ROOTS_MAX: usize = 1024;
/// More than the headers of one of our chunks take; the broker counts them as payload.
const HEADER_BYTES_MAX: usize = 512;
/// Answers to one listing, of 100,000 subjects each.
const LIST_ANSWERS_MAX: usize = 100;
/// Deleting a message failed: it is not there, or the stream does not allow it.
const NOT_DELETED: u64 = 10057;

/// Stores `content`, unless it is there, intact and fresh.
pub(super) async fn put(
    link: &Link,
    names: &Names,
    refresh_after: Duration,
    part: ChunkUse,
    hash: Hash32,
    content: &[u8],
) -> Result<(), LogError> {
    check_chunk(hash, content)?;
    let subject = names.chunk(part, hash);
    // What is there but damaged or old is replaced: the stream keeps the last message of a subject. A copy that is
    // behind does no harm: what it calls fresh is too young to have been removed since.
    if let Ok(Some(message)) = last(link, names, &subject).await
        && let Some(stored) = stored(&message)
        && is_fresh(stored, now(), refresh_after)
        && decompress(hash, &message.payload).is_ok()
    {
        return Ok(());
    }
    let what = format!("chunk {hash}");
    store(link, names, subject, compress(content).into(), &what).await
}

pub(super) async fn get(
    link: &Link,
    names: &Names,
    part: ChunkUse,
    hash: Hash32,
) -> Result<Option<Bytes>, LogError> {
    let found = last(link, names, &names.chunk(part, hash)).await?;
    found
        .map(|message| decompress(hash, &message.payload))
        .transpose()
}

pub(super) async fn put_root(
    link: &Link,
    names: &Names,
    name: &str,
    root: &[u8],
) -> Result<(), LogError> {
    check_root(name, root)?;
    let payload = Bytes::copy_from_slice(root);
    let what = format!("root '{name}'");
    store(link, names, names.root(name), payload, &what).await
}

/// All roots, by sequence: the order in which they were stored.
pub(super) async fn roots(link: &Link, names: &Names) -> Result<Vec<StoredRoot>, LogError> {
    let question = json!({ "multi_last": [names.root_all] });
    let what = "read the roots";
    let Batch { messages, pending } =
        read::batch(link, &names.chunk_stream, &question, ROOTS_MAX, what).await?;
    if pending > 0 {
        return Err(LogError::Unusable(format!(
            "the roots do not fit one answer of the broker, {pending} are left out: remove old ones"
        )));
    }
    let root = |message: Message| {
        Some(StoredRoot {
            name: names.root_in(subject(&message)?)?.to_owned(),
            stored: stored(&message)?,
            root: message.payload,
        })
    };
    messages
        .into_iter()
        .map(root)
        .collect::<Option<_>>()
        .ok_or_else(|| LogError::Unavailable("the broker's answer about roots is garbled".into()))
}

pub(super) async fn remove_root(link: &Link, names: &Names, name: &str) -> Result<(), LogError> {
    check_root_name(name)?;
    // Whether it was there, or one was stored meanwhile, is all the same.
    delete(link, names, &names.root(name), None).await.map(drop)
}

pub(super) async fn remove(
    link: &Link,
    names: &Names,
    part: ChunkUse,
    hash: Hash32,
    stored_before: Time,
) -> Result<bool, LogError> {
    delete(link, names, &names.chunk(part, hash), Some(stored_before)).await
}

/// The hashes under the subjects of a use: from the stream's leader, 100,000 an answer, sorted.
pub(super) async fn list(
    link: &Link,
    names: &Names,
    part: ChunkUse,
) -> Result<BTreeSet<Hash32>, LogError> {
    let stream = &names.chunk_stream;
    let mut hashes = BTreeSet::new();
    let mut seen = 0;
    for _ in 0..LIST_ANSWERS_MAX {
        let question = json!({ "subjects_filter": names.chunks_of(part), "offset": seen });
        let answer = api(link, format!("STREAM.INFO.{stream}"), &question).await?;
        if error_code(&answer).is_some() {
            let what = format!("could not list the chunks in '{stream}'");
            return Err(refusal(&answer, &what));
        }
        let total = answer["total"].as_u64().ok_or_else(|| {
            LogError::Unavailable(format!("the broker does not say what '{stream}' holds"))
        })?;
        let subjects = answer["state"]["subjects"].as_object();
        let found = subjects.map_or(0, serde_json::Map::len);
        // A subject that ends in no hash is not ours.
        hashes.extend(
            subjects
                .into_iter()
                .flat_map(serde_json::Map::keys)
                .filter_map(|subject| names.hash_in(part, subject)),
        );
        seen += found as u64;
        if found == 0 || seen >= total {
            return Ok(hashes);
        }
    }
    Err(LogError::Unusable(format!(
        "'{stream}' holds more chunks than can be listed ({seen} have been)"
    )))
}

/// Stores the one message of a subject, instead of what was there.
async fn store(
    link: &Link,
    names: &Names,
    subject: String,
    payload: Bytes,
    what: &str,
) -> Result<(), LogError> {
    let bytes = payload.len() + HEADER_BYTES_MAX;
    if let Some(most) = link.payload_bytes_max().filter(|most| bytes > *most) {
        return Err(LogError::Unusable(format!(
            "{what} takes {bytes} bytes, and the broker's max_payload is {most}: set max_payload to 1MB or more"
        )));
    }
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Expected-Stream", names.chunk_stream.as_str());
    let answer = link
        .request(subject, headers, payload, REQUEST_TIMEOUT)
        .await?;
    let answer: Value = serde_json::from_slice(&answer.payload).map_err(|error| {
        LogError::Unavailable(format!("the answer for {what} is no JSON: {error}"))
    })?;
    match error_code(&answer) {
        None => Ok(()),
        Some(_) => Err(refusal(&answer, &format!("could not store {what}"))),
    }
}

/// Deletes the message of a subject, if it was stored before a time; says whether it did. It is named by its sequence,
/// so that one that replaces it meanwhile stays.
async fn delete(
    link: &Link,
    names: &Names,
    subject: &str,
    stored_before: Option<Time>,
) -> Result<bool, LogError> {
    let Some((sequence, stored)) = last_at_leader(link, names, subject).await? else {
        return Ok(false);
    };
    if stored_before.is_some_and(|before| stored >= before) {
        return Ok(false);
    }
    let operation = format!("STREAM.MSG.DELETE.{}", names.chunk_stream);
    // Overwriting what is deleted would cost ten times as much, and hide nothing: what was replaced is not overwritten.
    let question = json!({ "seq": sequence, "no_erase": true });
    let answer = api(link, operation, &question).await?;
    match error_code(&answer) {
        None => return Ok(true),
        Some(NOT_DELETED) => {}
        Some(_) => return Err(refusal(&answer, &format!("could not delete '{subject}'"))),
    }
    // One number means both "not there any more" and "not permitted".
    match last_at_leader(link, names, subject).await? {
        Some((now, _)) if now == sequence => Err(LogError::Unusable(format!(
            "could not delete '{subject}': {}",
            answer["error"]["description"]
        ))),
        Some(_) | None => Ok(false),
    }
}

/// Sequence and time of a subject's last message, from the stream's leader.
async fn last_at_leader(
    link: &Link,
    names: &Names,
    subject: &str,
) -> Result<Option<(u64, Time)>, LogError> {
    let operation = format!("STREAM.MSG.GET.{}", names.chunk_stream);
    let answer = api(link, operation, &json!({ "last_by_subj": subject })).await?;
    match error_code(&answer) {
        Some(NO_MESSAGE_FOUND) => return Ok(None),
        Some(_) => return Err(refusal(&answer, &format!("could not look at '{subject}'"))),
        None => {}
    }
    let message = &answer["message"];
    match (
        message["seq"].as_u64(),
        message["time"].as_str().and_then(time),
    ) {
        (Some(sequence), Some(time)) => Ok(Some((sequence, time))),
        _ => Err(LogError::Unavailable(format!(
            "the broker's answer for '{subject}' is garbled"
        ))),
    }
}

/// The last message of a subject, from whichever copy answers: may be stale.
async fn last(link: &Link, names: &Names, subject: &str) -> Result<Option<Message>, LogError> {
    let question = json!({ "last_by_subj": subject });
    read::direct(link, &names.chunk_stream, &question).await
}

/// Where a message was stored. Its own subject is the inbox it came to.
fn subject(message: &Message) -> Option<&str> {
    Some(message.headers.as_ref()?.get("Nats-Subject")?.as_str())
}

/// When a message was stored.
fn stored(message: &Message) -> Option<Time> {
    time(message.headers.as_ref()?.get("Nats-Time-Stamp")?.as_str())
}

/// RFC 3339, with up to nine digits of a second.
fn time(text: &str) -> Option<Time> {
    let nanos = parse_rfc3339(text).ok()?.unix_timestamp_nanos();
    u64::try_from(nanos / 1_000).ok().map(Time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_brokers_times_are_understood_to_the_microsecond() {
        let whole = 1_795_392_840;
        for (text, expected) in [
            ("2026-11-23T00:14:00.749594195Z", Some(749_594)),
            ("2026-11-23T00:14:00.7508681Z", Some(750_868)),
            ("2026-11-23T00:14:00Z", Some(0)),
            ("2026-11-23T01:14:00.5+01:00", Some(500_000)),
            ("1969-12-31T23:59:58Z", None),
            ("2026-11-23 00:14", None),
            ("0", None),
            ("", None),
        ] {
            let expected = expected.map(|micros| Time(whole * 1_000_000 + micros));
            assert_eq!(time(text), expected, "{text}");
        }
    }
}
