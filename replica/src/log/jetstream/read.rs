//! Reading: pages by batched DIRECT.GET from any copy, single records and the log's ends from the leader.

use super::link::Link;
use super::names::Names;
use super::setup::{api, error_code, refusal};
use super::{Bounds, LogError, Page, REQUEST_TIMEOUT, Record, append};
use crate::log::{PAGE_BYTES_MAX, PAGE_RECORDS_MAX};
use async_nats::{HeaderMap, Message};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::StreamExt;
use serde_json::{Value, json};
use sluice_schema::version::Version;

const SEQUENCE: &str = "Nats-Sequence";
const PENDING: &str = "Nats-Num-Pending";
const LAST: &str = "Nats-Last-Sequence";
pub(super) const NO_MESSAGE_FOUND: u64 = 10037;
const END_OF_BATCH: u16 = 204;
const NOT_FOUND: u16 = 404;
const NO_RESPONDERS: u16 = 503;

/// The records from `from` on, as many as make a page.
pub(super) async fn page(link: &Link, names: &Names, from: Version) -> Result<Page, LogError> {
    let question = json!({
        // Sequence 0 would mean "from the time given".
        "seq": from.0.max(1),
        "batch": PAGE_RECORDS_MAX,
        "max_bytes": PAGE_BYTES_MAX,
        "next_by_subj": names.log_all,
    });
    let what = format!("read from version {from}");
    let batch = batch(link, &names.log_stream, &question, PAGE_RECORDS_MAX, &what).await?;
    let more = batch.pending > 0;
    let records = batch.messages.into_iter().filter_map(record).collect();
    let mut page = Page {
        records,
        more,
        first: None,
    };
    if page.begins_late(from) {
        page.first = first(link, names).await?;
    }
    Ok(page)
}

/// The first version a copy of the log holds. Data planes may ask for this, but not for [`bounds`].
async fn first(link: &Link, names: &Names) -> Result<Option<Version>, LogError> {
    let question = json!({ "seq": 1, "next_by_subj": names.log_all });
    let message = direct(link, &names.log_stream, &question).await?;
    Ok(message.and_then(record).map(|record| record.version))
}

/// The answer to one DIRECT.GET that asked for many messages.
pub(super) struct Batch {
    /// In the order of their sequences.
    pub(super) messages: Vec<Message>,
    /// How many more there are.
    pub(super) pending: u64,
}

/// Asks any copy of a stream for many messages, at most `most`; `what` says what for, in errors.
pub(super) async fn batch(
    link: &Link,
    stream: &str,
    question: &Value,
    most: usize,
    what: &str,
) -> Result<Batch, LogError> {
    let unavailable = |reason| LogError::Unavailable(format!("could not {what}: {reason}"));
    let inbox = link.new_inbox();
    let mut answers = link.subscribe(inbox.clone()).await?;
    let payload = question.to_string().into();
    let subject = direct_get(stream);
    let mut denials = link.denials();
    link.send(subject.clone(), Some(inbox), HeaderMap::new(), payload)
        .await?;

    let mut messages = Vec::new();
    // Each answer names the sequence of the one before it. If ours is another, part of the answer was lost on the way
    // (a reconnect), and must not be taken for a hole in the stream.
    let mut before = 0;
    loop {
        let answer = tokio::select! {
            answer = tokio::time::timeout(REQUEST_TIMEOUT, answers.next()) => answer,
            error = denials.of(&subject) => return Err(error),
        };
        let message = answer
            .map_err(|_| unavailable("the answer stopped coming"))?
            .ok_or_else(|| unavailable("the connection was closed"))?;
        let told = |name| number(message.headers.as_ref()?, name);
        let is_sequel = told(LAST) == Some(before);
        match message.status.map(|status| status.as_u16()) {
            None => {}
            Some(END_OF_BATCH) if is_sequel => {
                let pending = told(PENDING).unwrap_or(0);
                return Ok(Batch { messages, pending });
            }
            Some(END_OF_BATCH) => return Err(unavailable("part of the answer was lost")),
            Some(NOT_FOUND) if messages.is_empty() => {
                return Ok(Batch {
                    messages,
                    pending: 0,
                });
            }
            Some(NO_RESPONDERS) => return Err(unavailable("nobody keeps the stream")),
            Some(status) => {
                let said = message.description.unwrap_or_default();
                let reason = format!("could not {what}: status {status} {said}");
                return Err(LogError::Unusable(reason));
            }
        }
        if !is_sequel {
            return Err(unavailable("part of the answer was lost"));
        }
        before =
            told(SEQUENCE).ok_or_else(|| unavailable("a message came without its sequence"))?;
        messages.push(message);
        if messages.len() > most {
            return Err(unavailable("more came than was asked for"));
        }
    }
}

fn direct_get(stream: &str) -> String {
    format!("$JS.API.DIRECT.GET.{stream}")
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.as_str().parse().ok()
}

/// A message that carries its own position: answers to DIRECT.GET, and what the broker republishes.
pub(super) fn record(message: Message) -> Option<Record> {
    let headers = message.headers?;
    Some(Record {
        version: Version(number(&headers, SEQUENCE)?),
        signature: append::signature(&headers),
        event: message.payload,
    })
}

/// One message by DIRECT.GET, from whichever copy answers.
pub(super) async fn direct(
    link: &Link,
    stream: &str,
    question: &Value,
) -> Result<Option<Message>, LogError> {
    let payload = Bytes::from(question.to_string());
    let answer = link
        .request(
            direct_get(stream),
            HeaderMap::new(),
            payload,
            REQUEST_TIMEOUT,
        )
        .await?;
    match answer.status.map(|status| status.as_u16()) {
        None => Ok(Some(answer)),
        Some(NOT_FOUND) => Ok(None),
        Some(status) => {
            let said = answer.description.unwrap_or_default();
            Err(LogError::Unavailable(format!(
                "stream '{stream}' answered {status} {said}"
            )))
        }
    }
}

/// One record, from whichever copy answers: may be stale.
pub(super) async fn from_any(
    link: &Link,
    names: &Names,
    version: Version,
) -> Result<Option<Record>, LogError> {
    if version == Version::ZERO {
        return Ok(None);
    }
    let found = direct(link, &names.log_stream, &json!({ "seq": version.0 })).await?;
    Ok(found.and_then(record))
}

/// One record, from the stream's leader.
pub(super) async fn from_leader(
    link: &Link,
    names: &Names,
    version: Version,
) -> Result<Option<Record>, LogError> {
    if version == Version::ZERO {
        return Ok(None);
    }
    let operation = format!("STREAM.MSG.GET.{}", names.log_stream);
    let answer = api(link, operation, &json!({ "seq": version.0 })).await?;
    match error_code(&answer) {
        Some(NO_MESSAGE_FOUND) => Ok(None),
        Some(_) => Err(refusal(
            &answer,
            &format!("could not get version {version}"),
        )),
        None => open_stored(&answer["message"]).map(Some).ok_or_else(|| {
            LogError::Unavailable(format!(
                "the broker's answer for version {version} is garbled"
            ))
        }),
    }
}

/// A message as STREAM.MSG.GET shows it: JSON, with the payload and the raw headers in base64.
fn open_stored(message: &Value) -> Option<Record> {
    let decode = |field: &str| match message.get(field) {
        Some(text) => STANDARD.decode(text.as_str()?).ok(),
        None => Some(Vec::new()),
    };
    let mut headers = HeaderMap::new();
    let raw = decode("hdrs")?;
    for line in std::str::from_utf8(&raw).ok()?.split("\r\n").skip(1) {
        if let Some((name, value)) = line.split_once(':') {
            headers.append(name.trim(), value.trim());
        }
    }
    Some(Record {
        version: Version(message["seq"].as_u64()?),
        event: decode("data")?.into(),
        signature: append::signature(&headers),
    })
}

/// The log's ends, from the stream's leader.
pub(super) async fn bounds(link: &Link, names: &Names) -> Result<Bounds, LogError> {
    let stream = &names.log_stream;
    let answer = api(link, format!("STREAM.INFO.{stream}"), &Value::Null).await?;
    if error_code(&answer).is_some() {
        return Err(refusal(
            &answer,
            &format!("could not look at stream '{stream}'"),
        ));
    }
    let state = &answer["state"];
    match (state["first_seq"].as_u64(), state["last_seq"].as_u64()) {
        (Some(first), Some(last)) => Ok(Bounds {
            first: Version(first),
            last: Version(last),
        }),
        _ => Err(LogError::Unavailable(format!(
            "the broker does not say where '{stream}' ends"
        ))),
    }
}
