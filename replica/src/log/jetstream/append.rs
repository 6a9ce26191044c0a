//! Appending: one message, or an atomic batch, each against the last sequence of the whole stream.
//!
//! No message ids: the expected sequence alone decides, so that the broker's dedupe window plays no part.
//! Nats-Expected-Last-Msg-Id is never sent: a replicated stream does not survive refusing it (docs/decisions/0002).

use super::link::{Link, NoAnswer};
use super::names::Names;
use super::setup::{error_code, refusal};
use super::{Append, AppendError, LogError};
use crate::log::{BATCH_EVENTS_MAX, Signature};
use async_nats::HeaderMap;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use sluice_schema::version::Version;
use std::time::Duration;
use uuid::Uuid;

const KEY: &str = "Sluice-Key";
const SIGNATURE: &str = "Sluice-Signature";

/// The last sequence is another. The second number comes from clustered streams.
const WRONG_LAST_SEQUENCE: [u64; 2] = [10071, 10164];
/// The broker checks these before it stores anything: no resources (10023, 10047), message or header too large
/// (10054, 10097), another stream (10060), and a batch that is not allowed, incomplete, too large or one too many
/// (10174, 10176, 10199, 10210, 10211).
const NOT_STORED: [u64; 10] = [
    10023, 10047, 10054, 10060, 10097, 10174, 10176, 10199, 10210, 10211,
];

pub(super) async fn append(
    link: &Link,
    names: &Names,
    timeout: Duration,
    expected: Version,
    events: Vec<Append>,
) -> Result<(), AppendError> {
    let count = events.len();
    if count == 0 || count > BATCH_EVENTS_MAX {
        let reason = format!("{count} events in one append; 1 to {BATCH_EVENTS_MAX} are possible");
        return Err(AppendError::Refused(LogError::Unusable(reason)));
    }
    let mut messages = Vec::with_capacity(count);
    for event in events {
        let subject = names.event(&event.subject).map_err(AppendError::Refused)?;
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Expected-Stream", names.log_stream.as_str());
        sign(&mut headers, &event.signature);
        messages.push((subject, headers, event.event));
    }
    messages[0]
        .1
        .insert("Nats-Expected-Last-Sequence", expected.to_string().as_str());
    if count > 1 {
        let id = Uuid::new_v4().simple().to_string();
        for (position, (_, headers, _)) in (1_usize..).zip(&mut messages) {
            headers.insert("Nats-Batch-Id", id.as_str());
            headers.insert("Nats-Batch-Sequence", position.to_string().as_str());
        }
        messages[count - 1].1.insert("Nats-Batch-Commit", "1");
    }
    let last = messages.pop();
    // Until the last message commits them, the others are nothing.
    for (subject, headers, payload) in messages {
        link.send(subject, None, headers, payload)
            .await
            .map_err(AppendError::Refused)?;
    }
    let Some((subject, headers, payload)) = last else {
        return Ok(());
    };
    let answer = match link.request(subject, headers, payload, timeout).await {
        Ok(answer) => answer,
        Err(NoAnswer::NotTaken(error)) => return Err(AppendError::Refused(error)),
        Err(NoAnswer::Unknown(source)) => return Err(AppendError::Unknown { expected, source }),
    };
    judge(&answer.payload, names, expected, count)
}

/// What the broker's answer means.
fn judge(
    payload: &[u8],
    names: &Names,
    expected: Version,
    count: usize,
) -> Result<(), AppendError> {
    let unknown = |reason: String| AppendError::Unknown {
        expected,
        source: LogError::Unavailable(reason),
    };
    let answer: Value = serde_json::from_slice(payload)
        .map_err(|error| unknown(format!("the answer to an append is no JSON: {error}")))?;
    match error_code(&answer) {
        None => {
            let due = expected.0 + count as u64;
            let stream = answer["stream"].as_str();
            if answer["seq"].as_u64() == Some(due) && stream == Some(names.log_stream.as_str()) {
                return Ok(());
            }
            Err(unknown(format!(
                "the broker acknowledged {answer}, where sequence {due} was due"
            )))
        }
        Some(code) if WRONG_LAST_SEQUENCE.contains(&code) => {
            Err(AppendError::Conflict { expected })
        }
        Some(code) => {
            let error = refusal(&answer, "the broker refused an append");
            if NOT_STORED.contains(&code) {
                return Err(AppendError::Refused(error));
            }
            Err(AppendError::Unknown {
                expected,
                source: error,
            })
        }
    }
}

fn sign(headers: &mut HeaderMap, signature: &Signature) {
    headers.insert(KEY, signature.key.as_str());
    headers.insert(SIGNATURE, URL_SAFE_NO_PAD.encode(signature.bytes).as_str());
}

/// The signature in a message's headers, if it has one that can be read.
pub(super) fn signature(headers: &HeaderMap) -> Option<Signature> {
    let key = headers.get(KEY)?.as_str().to_owned();
    let bytes = URL_SAFE_NO_PAD
        .decode(headers.get(SIGNATURE)?.as_str())
        .ok()?;
    Some(Signature {
        key,
        bytes: bytes.try_into().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(answer: &str, expected: &str) {
        let names = Names::new("a").unwrap();
        let found = match judge(answer.as_bytes(), &names, Version(7), 2) {
            Ok(()) => "ok",
            Err(AppendError::Conflict { .. }) => "conflict",
            Err(AppendError::Unknown { .. }) => "unknown",
            Err(AppendError::Refused(_)) => "refused",
        };
        assert_eq!(found, expected, "{answer}");
    }

    #[test]
    fn an_answer_means_no_more_than_it_proves() {
        let error = |code: u16, number: u64| {
            format!(
                r#"{{"error":{{"code":{code},"err_code":{number},"description":"x"}},"seq":0}}"#
            )
        };
        check(
            r#"{"stream":"SLUICE_a","seq":9,"batch":"b","count":2}"#,
            "ok",
        );
        check(r#"{"stream":"SLUICE_a","seq":10}"#, "unknown");
        check(
            r#"{"stream":"SLUICE_a","seq":4,"duplicate":true}"#,
            "unknown",
        );
        check(r#"{"stream":"other","seq":9}"#, "unknown");
        check(&error(400, 10071), "conflict");
        check(&error(400, 10164), "conflict");
        check(&error(503, 10023), "refused");
        check(&error(400, 10060), "refused");
        check(&error(503, 10077), "unknown");
        check(&error(503, 10008), "unknown");
        check("not json", "unknown");
    }

    #[test]
    fn a_signature_survives_its_headers_and_a_broken_one_is_none() {
        let signature_in = Signature {
            key: "0123456789abcdef".into(),
            bytes: [9; 64],
        };
        let mut headers = HeaderMap::new();
        assert_eq!(signature(&headers), None);
        sign(&mut headers, &signature_in);
        assert_eq!(signature(&headers), Some(signature_in));
        headers.insert(SIGNATURE, "AAAA");
        assert_eq!(signature(&headers), None);
    }
}
