//! `/log/history/{kind}/{name or id}`: what has happened to one entity, and to whom each of its fields is owed.

use super::answer;
use super::error::{Problem, size_not_a_number, size_out_of_range};
use super::moment;
use super::plan::{changes, is_automatic, name};
use super::request::Call;
use crate::history::{Found, History};
use crate::time::rfc3339;
use axum::response::Response;
use serde_json::{Map, Value, json};
use sluice_schema::entity::Key;
use sluice_schema::kind::Kind;
use sluice_schema::mask::mask;
use sluice_schema::state::State;
use sluice_schema::version::Version;
use std::collections::{BTreeMap, BTreeSet};

const SIZE_DEFAULT: usize = 20;
const SIZE_MAX: usize = 1000;
/// Versions of an entity that are read at a time to find whom its fields are owed to.
const BLAME_STEP: usize = 64;
/// Versions of an entity that are looked at for that.
const BLAME_VERSIONS_MAX: usize = 4096;

/// An entity of a kind, and others that have been called the same.
struct Subject {
    key: Key,
    others: Vec<Key>,
}

/// Finds the entity that a path names, also one that is gone.
async fn subject(call: &Call<'_>, kind: &str, text: &str) -> Result<Subject, Problem> {
    let history = &call.admin.control_plane.history;
    history.whole().await?;
    let kind = moment::kind(kind).ok_or(Problem::NotFound)?;
    let known = |key: &Key| !history.versions(key, Version(u64::MAX), 1).is_empty();
    let state = call.admin.control_plane.view.state();
    let keys = moment::entities(call, &kind, text).into_iter();
    let mut keys = keys.filter(|key| known(key) || state.get(key).is_some());
    let never = || {
        Problem::Missing(format!(
            "There is no {kind} '{text}', and the history knows of none"
        ))
    };
    let key = keys.next().ok_or_else(never)?;
    Ok(Subject {
        key,
        others: keys.collect(),
    })
}

/// `GET /log/history/:kind/:entity?size=&to=`: newest first.
pub(super) async fn show(call: &Call<'_>, kind: &str, text: &str) -> Result<Response, Problem> {
    let size = match call.query.get("size") {
        None => SIZE_DEFAULT,
        Some(text) => text.parse().map_err(|_| size_not_a_number())?,
    };
    if !(1..=SIZE_MAX).contains(&size) {
        return Err(size_out_of_range(SIZE_MAX));
    }
    let until = call.query.number("to")?.map_or(Version(u64::MAX), Version);
    let Subject { key, others } = subject(call, kind, text).await?;
    let history = &call.admin.control_plane.history;
    let versions = history.versions(&key, until, size + 1);
    let state = call.admin.control_plane.view.state();
    let steps = steps(history, &key, &versions, &state).await?;
    let next = versions.get(size).map(|next| {
        let path = call.head.uri.path();
        format!("{path}?size={size}&to={next}")
    });
    let newest = steps.first().and_then(Step::fields);
    let live = state.get(&key).and_then(|entry| entry.body.fields().ok());
    let shown = live.as_ref().or(newest);
    let data: Vec<Value> = steps
        .iter()
        .take(size)
        .map(|step| step.show(&key))
        .collect();
    let mut entity = identity(&key, shown.and_then(name));
    entity["deleted"] = state.get(&key).is_none().into();
    Ok(answer::ok(&json!({
        "entity": entity,
        "others": others.iter().map(|key| key.id.to_string()).collect::<Vec<_>>(),
        "data": data,
        "next": next,
        "history": moment::reach(history.reach()),
    })))
}

/// Which entity an answer is about.
fn identity(key: &Key, name: Option<&str>) -> Value {
    json!({
        "kind": key.kind.as_str(),
        "workspace": key.workspace.as_str(),
        "id": key.id.to_string(),
        "name": name,
    })
}

/// One version of an entity.
struct Step {
    found: Found,
    before: Option<Map<String, Value>>,
    after: Option<Map<String, Value>>,
}

/// What each of these versions, newest first, did to an entity. `state` opens its secrets: they are compared.
async fn steps(
    history: &History,
    key: &Key,
    versions: &[Version],
    state: &State,
) -> Result<Vec<Step>, Problem> {
    let found = history.events(versions.iter().copied(), false).await?;
    let Some(oldest) = versions.last() else {
        return Ok(Vec::new());
    };
    let previous = Version(oldest.0.saturating_sub(1));
    let first = history.values(&[(key.clone(), previous)]).await;
    // The state before the first event of a trimmed log may be lost: then it began there as far as anybody knows.
    let first = first.ok().and_then(|mut values| values.pop().flatten());
    let mut before = first.and_then(|entry| state.shown(key, &entry.body));
    let mut steps = Vec::with_capacity(found.len());
    let own = BTreeSet::from([key.clone()]);
    for found in found {
        let after = history.bodies(&found.event, &own).await?.remove(key);
        let after = after.and_then(|body| state.shown(key, &body));
        steps.push(Step {
            before: std::mem::replace(&mut before, after.clone()),
            after,
            found,
        });
    }
    steps.reverse();
    Ok(steps)
}

impl Step {
    fn fields(&self) -> Option<&Map<String, Value>> {
        self.after.as_ref().or(self.before.as_ref())
    }

    fn show(&self, key: &Key) -> Value {
        let kind = Kind::from_name(key.kind.as_str());
        let mut shown = who(&self.found);
        let op = match (&self.before, &self.after) {
            (None, Some(_)) => "created",
            (Some(_), Some(_)) => "updated",
            (_, None) => "deleted",
        };
        shown.insert("op".to_owned(), op.into());
        let nothing = Map::new();
        let (old, new) = (self.before.as_ref(), self.after.as_ref());
        let list = changes(kind, old.unwrap_or(&nothing), new.unwrap_or(&nothing));
        shown.insert("changes".to_owned(), list);
        shown.into()
    }
}

/// Which event it was, by whom, when and why.
fn who(found: &Found) -> Map<String, Value> {
    let event = &found.event;
    let reason = event.reason.as_deref();
    Map::from_iter([
        ("version".to_owned(), found.record.version.0.into()),
        ("time".to_owned(), rfc3339(event.time).into()),
        ("actor".to_owned(), event.actor.name.as_str().into()),
        ("via".to_owned(), event.actor.via.as_str().into()),
        ("reason".to_owned(), reason.into()),
        ("request_id".to_owned(), event.request_id.as_deref().into()),
    ])
}

/// `GET /log/history/:kind/:entity/blame[?at=]`: for each field its value and the event that gave it.
pub(super) async fn blame(call: &Call<'_>, kind: &str, text: &str) -> Result<Response, Problem> {
    let Subject { key, .. } = subject(call, kind, text).await?;
    let entry = call.inside.state.get(&key).ok_or_else(|| {
        let at = call.inside.state.version();
        Problem::Missing(format!(
            "{} '{text}' is not there at version {at}",
            key.kind
        ))
    })?;
    let fields = call.inside.state.shown(&key, &entry.body);
    let fields = fields.unwrap_or_default();
    let owed = owed(call, &key, &fields).await?;
    let known = Kind::from_name(key.kind.as_str());
    let masked = leaves(&mask(known, &fields, None));
    let list: Vec<Value> = masked
        .into_iter()
        .filter(|(path, _)| !is_automatic(known, path))
        .map(|(path, value)| {
            let mut shown = owed.get(&path).cloned().unwrap_or_default();
            shown.insert("path".to_owned(), path.into());
            shown.insert("value".to_owned(), value);
            shown.into()
        })
        .collect();
    Ok(answer::ok(&json!({
        "entity": identity(&key, name(&fields)),
        "version": call.inside.state.version().0,
        "fields": list,
        "history": moment::reach(call.admin.control_plane.history.reach()),
    })))
}

type Owed = BTreeMap<String, Map<String, Value>>;

/// For each field that `fields` has the newest event that changed it. Those that it does not reach are absent.
async fn owed(call: &Call<'_>, key: &Key, fields: &Map<String, Value>) -> Result<Owed, Problem> {
    let (history, state) = (&call.admin.control_plane.history, &call.inside.state);
    let mut open = leaves(fields);
    let mut owed = Owed::new();
    let mut until = state.version();
    let mut looked_at = 0;
    while !open.is_empty() && looked_at < BLAME_VERSIONS_MAX {
        let versions = history.versions(key, until, BLAME_STEP);
        let Some(oldest) = versions.last().copied() else {
            break;
        };
        looked_at += versions.len();
        until = Version(oldest.0.saturating_sub(1));
        for step in steps(history, key, &versions, state).await? {
            let before = step.before.as_ref().map(leaves).unwrap_or_default();
            let event = who(&step.found);
            open.retain(|path, value| {
                let same = before.get(path) == Some(value);
                if !same {
                    owed.insert(path.clone(), event.clone());
                }
                same
            });
        }
    }
    Ok(owed)
}

type Leaves = BTreeMap<String, Value>;

/// The fields of a body by their paths (`config.minute`). Lists are one value, and so are empty records.
fn leaves(fields: &Map<String, Value>) -> Leaves {
    fn walk(path: &str, fields: &Map<String, Value>, into: &mut Leaves) {
        for (name, value) in fields {
            let path = match path {
                "" => name.clone(),
                path => format!("{path}.{name}"),
            };
            match value {
                Value::Null => {}
                Value::Object(record) if !record.is_empty() => walk(&path, record, into),
                Value::Object(_)
                | Value::Bool(_)
                | Value::Number(_)
                | Value::String(_)
                | Value::Array(_) => {
                    into.insert(path, value.clone());
                }
            }
        }
    }
    let mut found = Leaves::new();
    walk("", fields, &mut found);
    found
}
