//! Events as people and programs read them.

use super::answer;
use super::apply::counts;
use super::plan;
use crate::writer::Written;
use axum::response::Response;
use serde_json::{Map, Value, json};
use sluice_replica::log::Record;
use sluice_schema::decide::Outcome;
use sluice_schema::event::{Event, Mutation, Mutations};
use sluice_schema::version::{Time, Version};

/// How much of an event is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Detail {
    /// What it is about.
    Summary,
    /// What it says.
    Full,
}

/// A record of the log.
pub(super) fn record(record: &Record, detail: Detail) -> Value {
    let mut shown = match Event::decode(&record.event) {
        Ok(event) => event_object(&event, detail),
        Err(error) => Map::from_iter([("error".to_owned(), error.to_string().into())]),
    };
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

fn event_object(event: &Event, detail: Detail) -> Map<String, Value> {
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

fn mutation(mutation: &Mutation, detail: Detail) -> Value {
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
        if detail == Detail::Full {
            shown["body"] = fields.into();
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

/// As in `2026-02-28T23:59:59.000001Z`.
pub(super) fn rfc3339(time: Time) -> String {
    let (seconds, micros) = (time.0 / 1_000_000, time.0 % 1_000_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

/// The date of a day since 1970-01-01 (Howard Hinnant's `civil_from_days`, for days that are not negative).
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_in_rfc_3339() {
        for (micros, expected) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399_000_001, "2000-02-28T23:59:59.000001Z"),
            (951_868_799_999_999, "2000-02-29T23:59:59.999999Z"),
            (1_709_251_200_000_000, "2024-03-01T00:00:00.000000Z"),
            (4_102_444_799_000_000, "2099-12-31T23:59:59.000000Z"),
        ] {
            assert_eq!(rfc3339(Time(micros)), expected);
        }
    }
}
