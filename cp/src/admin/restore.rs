//! `/log/rollback` and `/log/undo`: what was before is brought back by one further event. Nothing is ever taken out of the
//! log.

use super::answer;
use super::apply::counts;
use super::error::Problem;
use super::event_view;
use super::list::aside;
use super::moment;
use super::plan::{is_automatic, name};
use super::request::{BODY_BYTES_MAX, Call};
use crate::history::History;
use crate::time::rfc3339;
use crate::writer::{Request, WriteError, Written};
use axum::body::Body;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sluice_schema::decide::{
    Command, Conflict, ConflictReason, Former, Outcome, Refusal, Restoration, Restore,
};
use sluice_schema::entity::{self, Entry, Key, Workspace};
use sluice_schema::event::{Mutation, Mutations};
use sluice_schema::kind::Kind;
use sluice_schema::revert::take_back;
use sluice_schema::state::State;
use sluice_schema::version::Version;
use std::collections::BTreeSet;

/// How often it is looked again when somebody else was quicker.
const ATTEMPTS_MAX: usize = 8;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RollbackBody {
    /// A version or a time.
    to: Value,
    /// `service/checkout`, or `route` for all of a kind; everything if empty.
    #[serde(default)]
    only: Vec<String>,
    /// Only what is in this workspace.
    #[serde(default)]
    workspace: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UndoBody {
    version: u64,
}

/// What shall be brought back.
enum Task {
    Rollback { to: Version, only: Only },
    Undo(Version),
}

/// Which entities a rollback is about.
struct Only {
    workspace: Option<Workspace>,
    kinds: BTreeSet<String>,
    keys: BTreeSet<Key>,
}

impl Only {
    fn accepts(&self, key: &Key) -> bool {
        let all = self.kinds.is_empty() && self.keys.is_empty();
        self.workspace
            .as_ref()
            .is_none_or(|workspace| *workspace == key.workspace)
            && (all || self.kinds.contains(key.kind.as_str()) || self.keys.contains(key))
    }
}

/// `POST /log/rollback` with `{"to": V}`: everything, or what is named, becomes what it was then.
pub(super) async fn rollback(call: &Call<'_>, body: Body) -> Result<Response, Problem> {
    let bytes = call.read(body, BODY_BYTES_MAX).await?;
    let body: RollbackBody = serde_json::from_slice(&bytes).map_err(misread)?;
    let to = match &body.to {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => String::new(),
    };
    let to = moment::version(call, "to", &to).await?;
    if to == Version::ZERO {
        return Err(Problem::Argument("to", "a version from 1 on, or a time"));
    }
    let only = only(call, &body).await?;
    let reason = format!("roll back to version {to}");
    run(call, &Task::Rollback { to, only }, reason).await
}

/// `POST /log/undo` with `{"version": V}`: takes back what that event did.
pub(super) async fn undo(call: &Call<'_>, body: Body) -> Result<Response, Problem> {
    let bytes = call.read(body, BODY_BYTES_MAX).await?;
    let UndoBody { version } = serde_json::from_slice(&bytes).map_err(misread)?;
    let reason = format!("undo version {version}");
    run(call, &Task::Undo(Version(version)), reason).await
}

fn misread(error: serde_json::Error) -> Problem {
    match error.is_data() {
        true => Problem::Bad(error.to_string()),
        false => Problem::NotJson,
    }
}

async fn only(call: &Call<'_>, body: &RollbackBody) -> Result<Only, Problem> {
    let own = &call.inside.workspace;
    let workspace = match &body.workspace {
        None => (*own != Workspace::DEFAULT).then(|| own.clone()),
        Some(name) => {
            let unknown = || Problem::Missing(format!("Workspace '{name}' not found"));
            Some(Workspace::parse(name).ok_or_else(unknown)?)
        }
    };
    let mut only = Only {
        workspace,
        kinds: BTreeSet::new(),
        keys: BTreeSet::new(),
    };
    for text in &body.only {
        let bad = || {
            Problem::Bad(format!(
                "'{text}' is neither a kind nor a kind and a name, as in service/checkout"
            ))
        };
        if !text.contains('/') {
            let kind = moment::kind(text).ok_or_else(bad)?;
            only.kinds.insert(kind.as_str().to_owned());
            continue;
        }
        call.admin.control_plane.history.whole().await?;
        let (kind, name) = moment::kind_and_name(text).ok_or_else(bad)?;
        let keys = moment::entities(call, &kind, name);
        if keys.is_empty() {
            let message = format!("There is no {kind} '{name}', and the history knows of none");
            return Err(Problem::Missing(message));
        }
        // Of all that ever had the name, those that differ are brought back.
        only.keys.extend(keys);
    }
    Ok(only)
}

async fn run(call: &Call<'_>, task: &Task, reason: String) -> Result<Response, Problem> {
    let dry_run = call.query.flag("dry_run")?;
    let request = call.request()?;
    let request = Request {
        reason: request.reason.clone().or(Some(reason)),
        ..request
    };
    let writer = &call.admin.control_plane.writer;
    let history = &call.admin.control_plane.history;
    for _ in 0..ATTEMPTS_MAX {
        let now = history.whole().await?;
        let entities = plan(history, task, &now).await?;
        let command = Command::Restore(Box::new(Restore {
            workspace: Workspace::DEFAULT,
            entities,
        }));
        let done = match dry_run {
            true => writer.preview(command, request.clone()).await,
            false => writer.write(command, request.clone()).await,
        };
        match done {
            Ok(written) => return show(task, written, now.version(), dry_run).await,
            Err(WriteError::Refused(Refusal::Conflicting(conflicts))) => {
                let moved =
                    |conflict: &Conflict| matches!(conflict.reason, ConflictReason::Moved { .. });
                if !conflicts.iter().any(moved) {
                    let told = conflicts
                        .iter()
                        .map(|conflict| told(history, &now, conflict));
                    return Err(in_conflict(task, told.collect()));
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    let reason = "others changed the same entities each time; try again";
    Err(Problem::Unavailable(reason.to_owned()))
}

async fn plan(history: &History, task: &Task, now: &State) -> Result<Vec<Restoration>, Problem> {
    match task {
        Task::Rollback { to, only } => plan_rollback(history, *to, only, now).await,
        Task::Undo(version) => plan_undo(history, *version, now).await,
    }
}

async fn plan_rollback(
    history: &History,
    to: Version,
    only: &Only,
    now: &State,
) -> Result<Vec<Restoration>, Problem> {
    history.check(to)?;
    let touched = history.touched(to, now.version()).into_iter();
    let wanted: Vec<(Key, Version)> = touched
        .filter(|key| only.accepts(key))
        .map(|key| (key, to))
        .collect();
    let values = history.values(&wanted).await?;
    let mut entities = Vec::new();
    for ((key, _), before) in wanted.into_iter().zip(values) {
        let current = now.get(&key);
        let before = before.map(|entry| entry.body);
        if current.map(|entry| &entry.body) == before.as_ref() {
            continue;
        }
        entities.push(Restoration {
            expected: current.map(|entry| entry.version),
            to: before.map_or(Former::Absent, Former::Body),
            key,
        });
    }
    Ok(entities)
}

async fn plan_undo(
    history: &History,
    version: Version,
    now: &State,
) -> Result<Vec<Restoration>, Problem> {
    let previous = Version(version.0.saturating_sub(1));
    history.check(version)?;
    history.check(previous)?;
    let mut found = history.events([version], true).await?;
    let event = found.pop().ok_or(Problem::NotFound)?.event;
    let Mutations::Inline(mutations) = event.mutations else {
        return Err(Problem::Internal(format!("version {version} is not whole")));
    };
    if mutations.is_empty() {
        let message = format!("version {version} changed nothing that could be taken back");
        return Err(Problem::Bad(message));
    }
    let wanted: Vec<(Key, Version)> = mutations
        .iter()
        .map(|mutation| (mutation.key(), previous))
        .collect();
    let values = history.values(&wanted).await?;
    let mut entities = Vec::new();
    let mut conflicts = Vec::new();
    for ((mutation, (key, _)), before) in mutations.iter().zip(wanted).zip(values) {
        match take_back_one(now, &key, before.as_ref(), mutation) {
            Ok(None) => {}
            Ok(Some(to)) => entities.push(Restoration {
                expected: now.get(&key).map(|entry| entry.version),
                key,
                to,
            }),
            Err(fields) => conflicts.push(changed_since(history, now, &key, version, fields)),
        }
    }
    match conflicts.is_empty() {
        true => Ok(entities),
        false => Err(in_conflict(&Task::Undo(version), conflicts)),
    }
}

/// What an entity shall be without what an event did to it; nothing if it is that already. Otherwise the fields that have
/// been changed again since; none of them if it is the whole entity.
fn take_back_one(
    now: &State,
    key: &Key,
    before: Option<&Entry>,
    mutation: &Mutation,
) -> Result<Option<Former>, Vec<String>> {
    let current = now.get(key);
    let [before, current] = [before, current].map(|entry| entry.map(|entry| &entry.body));
    let after = mutation.body();
    // Also what has only been sealed anew since.
    let same = |one: Option<&entity::Body>, other: Option<&entity::Body>| {
        let shown = |body: Option<&entity::Body>| body.map(|body| now.shown(key, body));
        one == other || (one.is_some() && other.is_some() && shown(one) == shown(other))
    };
    if same(current, before) {
        return Ok(None);
    }
    if same(current, after) {
        return Ok(Some(before.cloned().map_or(Former::Absent, Former::Body)));
    }
    let (Some(before), Some(after), Some(current)) = (before, after, current) else {
        return Err(Vec::new());
    };
    let [Some(before), Some(after), Some(current)] =
        [before, after, current].map(|body| now.shown(key, body))
    else {
        return Err(Vec::new());
    };
    let kind = Kind::from_name(key.kind.as_str());
    let keep = |field: &str| is_automatic(kind, field);
    let fields = take_back(&before, &after, &current, &keep)?;
    Ok((fields != current).then_some(Former::Fields(fields)))
}

/// An entity that an event changed, and somebody else after it.
fn changed_since(
    history: &History,
    now: &State,
    key: &Key,
    version: Version,
    fields: Vec<String>,
) -> Value {
    let since = history.versions(key, now.version(), 1);
    let since = since.first().copied().filter(|since| *since > version);
    let what = match (fields.is_empty(), now.get(key)) {
        (false, _) => format!("changed again since: {}", fields.join(", ")),
        (true, None) => "deleted since".to_owned(),
        (true, Some(_)) => "changed again since".to_owned(),
    };
    let mut told = entity(now, key, &what);
    told["fields"] = fields.into();
    blame(history, &mut told, since);
    told
}

/// Names the event that stands in the way.
fn blame(history: &History, told: &mut Value, version: Option<Version>) {
    let Some(summary) = version.and_then(|version| history.summary(version)) else {
        return;
    };
    told["by"] = json!({
        "version": summary.version.0,
        "time": rfc3339(summary.time),
        "actor": summary.actor,
        "reason": summary.reason,
    });
}

fn entity(state: &State, key: &Key, message: &str) -> Value {
    let fields = state.get(key).and_then(|entry| entry.body.fields().ok());
    json!({
        "kind": key.kind.as_str(),
        "workspace": key.workspace.as_str(),
        "id": key.id.to_string(),
        "name": fields.as_ref().and_then(name),
        "message": message,
    })
}

/// A conflict that was found when it was decided.
fn told(history: &History, now: &State, conflict: &Conflict) -> Value {
    let key = &conflict.key;
    match &conflict.reason {
        ConflictReason::Moved { .. } => entity(now, key, "changed meanwhile"),
        ConflictReason::NoWorkspace => entity(now, key, "its workspace is gone"),
        ConflictReason::InUse => entity(now, key, "the workspace has entities"),
        ConflictReason::Rejected(rejection) => {
            let mut told = entity(now, key, &rejection.message);
            told["error"] = rejection.body();
            told
        }
        ConflictReason::Referred(child) => {
            let fields = now.get(child).and_then(|entry| entry.body.fields().ok());
            let fields = fields.unwrap_or_default();
            let id = child.id.to_string();
            let label = name(&fields).unwrap_or(&id);
            let message = format!("{} {label} refers to it and would stay", child.kind);
            let mut told = entity(now, key, &message);
            let last = history.versions(child, now.version(), 1);
            blame(history, &mut told, last.first().copied());
            told
        }
    }
}

fn in_conflict(task: &Task, conflicts: Vec<Value>) -> Problem {
    let what = match task {
        Task::Rollback { to, .. } => format!("rolling back to version {to}"),
        Task::Undo(version) => format!("taking back version {version}"),
    };
    let count = conflicts.len();
    let entities = if count == 1 { "entity" } else { "entities" };
    let message = format!(
        "{what} is in conflict with {count} {entities} as they are now; nothing was changed"
    );
    Problem::Conflicts(message, conflicts)
}

async fn show(
    task: &Task,
    written: Written,
    until: Version,
    dry_run: bool,
) -> Result<Response, Problem> {
    let version = written.version;
    let mut shown = match (&written.outcome, dry_run) {
        (_, true) => aside(move || event_view::previewed(&written)).await?,
        (Outcome::Applied(applied), false) => counts(*applied),
        (Outcome::Created(_) | Outcome::Updated(_) | Outcome::Deleted, false) => Map::new().into(),
    };
    match task {
        Task::Rollback { to, .. } => shown["to"] = to.0.into(),
        Task::Undo(version) => shown["undone"] = version.0.into(),
    }
    shown["until"] = until.0.into();
    if dry_run {
        return Ok(event_view::answer_preview(&shown));
    }
    shown["version"] = version.0.into();
    let mut response = answer::ok(&shown);
    answer::set_version(&mut response, version);
    Ok(response)
}
