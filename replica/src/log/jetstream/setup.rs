//! The two streams: made if they are missing, and compared with what we rely on, once a connection.

use super::link::Link;
use super::names::Names;
use super::{LogError, REQUEST_TIMEOUT, Role};
use async_nats::HeaderMap;
use serde_json::{Map, Value, json};
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Mutex;

const STREAM_NOT_FOUND: u64 = 10059;
const STREAM_NAME_IN_USE: u64 = 10058;
const NO_LIMIT: i64 = -1;

/// Which connection has been checked.
pub(super) struct Setup {
    /// How many copies the streams are to have.
    pub(super) replicas: usize,
    checked: AtomicU64,
    checking: Mutex<()>,
}

impl Setup {
    pub(super) fn new(replicas: usize) -> Self {
        Self {
            replicas,
            checked: AtomicU64::new(0),
            checking: Mutex::new(()),
        }
    }

    /// Checks the broker, unless this connection has passed already.
    pub(super) async fn ensure(
        &self,
        link: &Link,
        names: &Names,
        role: Role,
    ) -> Result<(), LogError> {
        if self.has_passed(link) {
            return Ok(());
        }
        let _alone = self.checking.lock().await;
        if self.has_passed(link) {
            return Ok(());
        }
        let connection = link.connection();
        let (version, _) = link
            .server()
            .filter(|_| connection > 0 && link.is_connected())
            .ok_or_else(|| LogError::Unavailable("there is no connection to a broker".into()))?;
        check_version(&version)?;
        if role == Role::ControlPlane {
            let copies = self.replicas;
            ensure_stream(link, &names.log_stream, &log_config(names, copies)).await?;
            ensure_stream(link, &names.chunk_stream, &chunk_config(names, copies)).await?;
        }
        self.checked.store(connection, Ordering::Release);
        Ok(())
    }

    fn has_passed(&self, link: &Link) -> bool {
        let connection = link.connection();
        connection > 0 && self.checked.load(Ordering::Acquire) == connection
    }
}

/// Older brokers lack what we use or have known holes (reference/reliability.md, 1.5 and 1.6).
fn check_version(version: &str) -> Result<(), LogError> {
    let mut parts = version
        .split(['.', '-', '+'])
        .map(|part| part.parse::<u64>().ok());
    let mut next = || parts.next().flatten();
    let usable = match (next(), next(), next()) {
        (Some(2), Some(12), Some(patch)) => patch >= 7,
        (Some(2), Some(minor), Some(_)) => minor >= 14,
        (Some(major), Some(_), Some(_)) => major > 2,
        _ => false,
    };
    if usable {
        return Ok(());
    }
    Err(LogError::Unusable(format!(
        "nats-server {version} is not supported: 2.12.7 or later of 2.12, or 2.14 or later, is needed"
    )))
}

/// Every field we rely on; what the broker adds on its own is not compared.
fn log_config(names: &Names, replicas: usize) -> Value {
    let mut config = common_config(&names.log_stream, &names.log_all, replicas);
    config.extend(fields(json!({
        "max_msgs_per_subject": NO_LIMIT,
        "deny_delete": true,
        "allow_atomic": true,
        "republish": { "src": names.log_all, "dest": names.tail_all },
    })));
    Value::Object(config)
}

/// Chunks that no snapshot needs are removed, so deleting is allowed here.
fn chunk_config(names: &Names, replicas: usize) -> Value {
    let mut config = common_config(&names.chunk_stream, &names.chunk_all, replicas);
    config.extend(fields(json!({ "max_msgs_per_subject": 1 })));
    Value::Object(config)
}

fn common_config(name: &str, subjects: &str, replicas: usize) -> Map<String, Value> {
    fields(json!({
        "name": name,
        "subjects": [subjects],
        "storage": "file",
        "retention": "limits",
        "discard": "new",
        "max_msgs": NO_LIMIT,
        "max_bytes": NO_LIMIT,
        "max_msg_size": NO_LIMIT,
        "max_age": 0,
        "num_replicas": replicas,
        "allow_direct": true,
    }))
}

/// What must not be there: each would drop, add or alter messages, or acknowledge them unsynced.
const ABSENT: [&str; 12] = [
    "mirror",
    "sources",
    "subject_transform",
    "sealed",
    "no_ack",
    "first_seq",
    "allow_rollup_hdrs",
    "allow_msg_ttl",
    "allow_msg_counter",
    "allow_msg_schedules",
    "discard_new_per_subject",
    "template_owner",
];

fn fields(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Map::new()
        }
    }
}

/// Makes the stream if it is missing and compares it with `wanted`.
async fn ensure_stream(link: &Link, stream: &str, wanted: &Value) -> Result<(), LogError> {
    let found = match config_of(link, stream).await? {
        Some(found) => found,
        None => {
            create(link, stream, wanted).await?;
            let missing =
                || LogError::Unavailable(format!("the new stream '{stream}' is not there yet"));
            config_of(link, stream).await?.ok_or_else(missing)?
        }
    };
    let Some(difference) = difference(wanted, &found) else {
        return Ok(());
    };
    Err(LogError::Unusable(format!(
        "stream '{stream}' is not configured as it must be: {difference}; correct it with 'nats stream edit {stream}'"
    )))
}

async fn create(link: &Link, stream: &str, wanted: &Value) -> Result<(), LogError> {
    let answer = api(link, format!("STREAM.CREATE.{stream}"), wanted).await?;
    match error_code(&answer) {
        None => {
            tracing::info!(stream, "made a stream");
            Ok(())
        }
        // Another control plane was faster, with another configuration: comparing will name the difference.
        Some(STREAM_NAME_IN_USE) => Ok(()),
        Some(_) => Err(refusal(
            &answer,
            &format!("could not make stream '{stream}'"),
        )),
    }
}

async fn config_of(link: &Link, stream: &str) -> Result<Option<Value>, LogError> {
    let mut answer = api(link, format!("STREAM.INFO.{stream}"), &Value::Null).await?;
    match error_code(&answer) {
        None => Ok(Some(answer["config"].take())),
        Some(STREAM_NOT_FOUND) => Ok(None),
        Some(_) => Err(refusal(
            &answer,
            &format!("could not look at stream '{stream}'"),
        )),
    }
}

/// The first field that differs, in words.
fn difference(wanted: &Value, found: &Value) -> Option<String> {
    let wanted = fields(wanted.clone());
    let unlike = wanted.iter().find(|(name, value)| {
        let actual = &found[name.as_str()];
        match value.as_object() {
            // The broker may say more about a republish than was asked for.
            Some(parts) => parts
                .iter()
                .any(|(part, value)| &actual[part.as_str()] != value),
            None => actual != *value,
        }
    });
    if let Some((name, value)) = unlike {
        return Some(format!(
            "'{name}' is {}, and must be {value}",
            found[name.as_str()]
        ));
    }
    let extra = ABSENT.into_iter().find(|name| !is_unset(&found[*name]));
    if let Some(name) = extra {
        return Some(format!("'{name}' is {}, and must not be set", found[name]));
    }
    let mode = &found["persist_mode"];
    (!is_unset(mode) && mode != "default")
        .then(|| format!("'persist_mode' is {mode}, and must be \"default\""))
}

fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_u64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Bool(true) | Value::Object(_) => false,
    }
}

/// Asks the JetStream API; the answer may be an error in JSON.
pub(super) async fn api(link: &Link, operation: String, body: &Value) -> Result<Value, LogError> {
    let payload = if body.is_null() {
        Vec::new()
    } else {
        body.to_string().into_bytes()
    };
    let subject = format!("$JS.API.{operation}");
    let answer = link
        .request(subject, HeaderMap::new(), payload.into(), REQUEST_TIMEOUT)
        .await?;
    serde_json::from_slice(&answer.payload)
        .map_err(|error| LogError::Unavailable(format!("'{operation}' answered no JSON: {error}")))
}

/// The error number in an answer, if it is an error.
pub(super) fn error_code(answer: &Value) -> Option<u64> {
    let error = answer.get("error")?;
    Some(
        error["err_code"]
            .as_u64()
            .or(error["code"].as_u64())
            .unwrap_or(0),
    )
}

/// An answer's error: 5xx passes, anything else needs an operator.
pub(super) fn refusal(answer: &Value, what: &str) -> LogError {
    let error = &answer["error"];
    let said = error["description"].as_str().unwrap_or("no reason given");
    let text = format!("{what}: {said} ({})", error["err_code"]);
    match error["code"].as_u64() {
        Some(500..=599) => LogError::Unavailable(text),
        _ => LogError::Unusable(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_brokers_without_known_holes_will_do() {
        for version in [
            "2.12.7",
            "2.12.8",
            "2.14.0",
            "2.14.6",
            "2.15.1",
            "3.0.0",
            "2.14.0-RC.1",
        ] {
            assert!(check_version(version).is_ok(), "{version}");
        }
        for version in [
            "2.12.6", "2.11.20", "2.13.0", "2.13.9", "2.9.10", "1.4.1", "", "two",
        ] {
            assert!(check_version(version).is_err(), "{version}");
        }
    }

    #[test]
    fn a_difference_is_named() {
        let names = Names::new("a").unwrap();
        let wanted = log_config(&names, 1);
        assert_eq!(difference(&wanted, &wanted), None);
        let check = |field: &str, value: Value, expected: &str| {
            let mut found = wanted.clone();
            found[field] = value;
            let difference = difference(&wanted, &found).unwrap_or_default();
            assert!(difference.contains(expected), "{difference}");
        };
        check(
            "discard",
            json!("old"),
            r#"'discard' is "old", and must be "new""#,
        );
        check("max_age", json!(1_000), "'max_age' is 1000");
        check("republish", Value::Null, "'republish' is null");
        check("sources", json!([{ "name": "b" }]), "'sources' is");
        check("persist_mode", json!("async"), "'persist_mode'");
    }
}
