//! Events as people and programs read them.

use super::answer;
use super::apply::counts;
use super::plan;
use crate::time::rfc3339;
use crate::writer::Written;
use axum::response::Response;
use serde_json::{Map, Value, json};
use sluice_replica::log::Record;
use sluice_schema::decide::Outcome;
use sluice_schema::event::{Event, Mutation, Mutations};
use sluice_schema::kind::Kind;
use sluice_schema::mask::mask;
use sluice_schema::seal::Seals;
use sluice_schema::version::Version;

/// How much of an event is shown.
#[derive(Clone, Copy, Debug)]
pub(super) enum Detail<'a> {
    /// What it is about.
    Summary,
    /// What it says, without secrets.
    Full,
    /// What it says, with secrets, which these open.
    Open(&'a Seals),
}

/// A record of the log.
pub(super) fn record(record: &Record, detail: Detail<'_>) -> Value {
    match Event::decode(&record.event) {
        Ok(event) => decoded(record, &event, detail),
        Err(error) => {
            let error = Map::from_iter([("error".to_owned(), error.to_string().into())]);
            with_place(record, error)
        }
    }
}

/// A record of the log that holds this event.
pub(super) fn decoded(record: &Record, event: &Event, detail: Detail<'_>) -> Value {
    with_place(record, event_object(event, detail))
}

fn with_place(record: &Record, mut shown: Map<String, Value>) -> Value {
    shown.insert("version".to_owned(), record.version.0.into());
    let key = record
        .signature
        .as_ref()
        .map(|signature| signature.key.as_str());
    shown.insert("key".to_owned(), key.into());
    shown.into()
}

/// The answer to a command that was only asked for: what it would append, and the entity it would leave.
pub(super) fn preview(written: &Written, entity: Option<Value>) -> Response {
    let mut shown = previewed(written);
    if let Some(entity) = entity {
        shown["entity"] = entity;
    }
    answer_preview(&shown)
}

/// The answer with this body, marked as that of a dry run.
pub(super) fn answer_preview(shown: &Value) -> Response {
    let mut response = answer::ok(shown);
    answer::set(response.headers_mut(), answer::SLUICE_DRY_RUN, "true");
    response
}

/// What a command would append.
pub(super) fn previewed(written: &Written) -> Value {
    let mut shown = match &written.outcome {
        Outcome::Created(key) => json!({ "outcome": "created", "id": key.id.to_string() }),
        Outcome::Updated(key) => json!({ "outcome": "updated", "id": key.id.to_string() }),
        Outcome::Deleted => json!({ "outcome": "deleted" }),
        Outcome::Applied(applied) => {
            let mut counts = counts(*applied);
            counts["outcome"] = "applied".into();
            counts
        }
    };
    shown["dry_run"] = true.into();
    let event = written.event.as_ref();
    shown["event"] = event
        .map(|event| {
            let mut shown = event_object(event, Detail::Summary);
            if let Some(mutations) = plan::mutations(event, written) {
                shown.insert("mutations".to_owned(), mutations);
            }
            Value::Object(shown)
        })
        .into();
    shown
}

fn event_object(event: &Event, detail: Detail<'_>) -> Map<String, Value> {
    let (mutations, count) = match &event.mutations {
        Mutations::Inline(list) => {
            let shown = list.iter().map(|one| mutation(one, detail)).collect();
            (Value::Array(shown), list.len() as u64)
        }
        // They lie in the chunk store.
        Mutations::Stored(stored) => (Value::Null, stored.count),
    };
    let shown = json!({
        "version": event.version().0,
        "epoch": event.epoch.to_string(),
        "previous_chain": event.previous_chain.to_string(),
        "id": event.id.to_string(),
        "time": rfc3339(event.time),
        "actor": {
            "name": event.actor.name,
            "via": event.actor.via,
            "address": event.actor.address,
        },
        "reason": event.reason,
        "request_id": event.request_id,
        "trace_id": event.trace.map(|trace| trace.trace.to_string()),
        "mutations": mutations,
        "mutations_count": count,
        "digest": event.digest.to_string(),
    });
    match shown {
        Value::Object(shown) => shown,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Map::new()
        }
    }
}

fn mutation(mutation: &Mutation, detail: Detail<'_>) -> Value {
    let key = mutation.key();
    let operation = match mutation {
        Mutation::Put(_) => "put",
        Mutation::Delete(_) => "delete",
    };
    let mut shown = json!({
        "op": operation,
        "kind": key.kind.as_str(),
        "workspace": key.workspace.as_str(),
        "id": key.id.to_string(),
    });
    let fields = mutation.body().and_then(|body| body.fields().ok());
    if let Some(fields) = fields {
        if let Some(name) = plan::name(&fields) {
            shown["name"] = name.into();
        }
        match detail {
            Detail::Summary => {}
            Detail::Full => {
                let kind = Kind::from_name(key.kind.as_str());
                shown["body"] = mask(kind, &fields, None).into();
            }
            Detail::Open(seals) => {
                let opened = mutation.body().and_then(|body| seals.shown(&key, body));
                shown["body"] = opened.into();
            }
        }
    }
    shown
}

/// A version that may be asked for.
pub(super) fn version(text: &str) -> Option<Version> {
    text.parse()
        .ok()
        .map(Version)
        .filter(|version| *version > Version::ZERO)
}
