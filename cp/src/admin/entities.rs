//! Entities of every kind: one handler for all of them, told what to do by the descriptors.

use super::WORKSPACE;
use super::answer;
use super::endpoint::{Place, Verb};
use super::error::{Problem, nothing_to_match};
use super::event_view;
use super::list;
use super::members;
use super::request::{Call, IfMatch};
use crate::writer::Written;
use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use serde_json::{Map, Value};
use sluice_schema::check::fill_nulls;
use sluice_schema::decide::{Action, Command, Outcome, Selector, Write};
use sluice_schema::entity::{Entry, Id, Key};
use sluice_schema::kind::Kind;
use sluice_schema::state::{State, reference_id};

/// `/services`, `/services/:s/routes`.
pub(super) async fn collection(
    call: &Call<'_>,
    place: Place,
    verb: Verb,
    body: Body,
) -> Result<Response, Problem> {
    match verb {
        Verb::Get => list::list(call, place).await,
        Verb::Post => {
            let fields = call.fields(body, call.schema(place.kind), || None).await?;
            write(call, place, verb, Action::Create, fields).await
        }
        Verb::Put | Verb::Patch | Verb::Delete => Err(Problem::NotFound),
    }
}

/// `/services/:s`, `/services/:s/routes/:r`.
pub(super) async fn item(
    call: &Call<'_>,
    place: Place,
    selector: Selector,
    verb: Verb,
    body: Body,
) -> Result<Response, Problem> {
    let (action, merges) = match verb {
        Verb::Get => return read(call, &place, &selector).await,
        Verb::Delete => {
            return write(call, place, verb, Action::Delete(selector), Map::new()).await;
        }
        Verb::Put => (Action::Replace(selector.clone()), false),
        Verb::Patch => (Action::Update(selector.clone()), true),
        Verb::Post => return Err(Problem::NotFound),
    };
    let before = || {
        let id = find(&call.state, &place, &selector).filter(|_| merges)?;
        call.state
            .entity(place.kind, &WORKSPACE, id)?
            .body
            .fields()
            .ok()
    };
    let fields = call.fields(body, call.schema(place.kind), before).await?;
    write(call, place, verb, action, fields).await
}

/// The entity that `field` of another one refers to.
pub(super) fn parent(
    call: &Call<'_>,
    kind: Kind,
    selector: &Selector,
    field: &str,
) -> Result<Selector, Problem> {
    let id = selector
        .find(&call.state, kind, &WORKSPACE, None)
        .ok_or(Problem::NotFound)?;
    let entry = call
        .state
        .entity(kind, &WORKSPACE, id)
        .ok_or(Problem::NotFound)?;
    let fields = entry.body.fields().unwrap_or_default();
    let parent = fields.get(field).and_then(reference_id);
    parent.map(Selector::Id).ok_or(Problem::NotFound)
}

/// The entity that `selector` names at `place`.
fn find(state: &State, place: &Place, selector: &Selector) -> Option<Id> {
    let within = match &place.scope {
        Some(scope) => {
            let parent = scope.selector.find(state, scope.parent, &WORKSPACE, None)?;
            Some((scope.field, parent))
        }
        None => None,
    };
    selector.find(state, place.kind, &WORKSPACE, within)
}

async fn read(call: &Call<'_>, place: &Place, selector: &Selector) -> Result<Response, Problem> {
    let id = find(&call.state, place, selector).ok_or(Problem::NotFound)?;
    let entry = call
        .state
        .entity(place.kind, &WORKSPACE, id)
        .ok_or(Problem::NotFound)?;
    if place.kind == Kind::ConsumerGroup && place.scope.is_none() {
        return members::group(call, id, entry).await;
    }
    Ok(show(StatusCode::OK, &call.state, place.kind, id, entry))
}

fn show(status: StatusCode, state: &State, kind: Kind, id: Id, entry: &Entry) -> Response {
    let mut response = answer::json(status, &shown(state, kind, id, entry));
    answer::set_etag(&mut response, entry.version);
    response
}

/// An entity as the Admin API shows it. Of one whose body cannot be read there is at least the id, to delete it by.
pub(super) fn shown(state: &State, kind: Kind, id: Id, entry: &Entry) -> Value {
    let fields = entry.body.fields().unwrap_or_default();
    let mut shown = fill_nulls(kind.schema(), id, &fields);
    if let Some(names) = kind.schema().names {
        let known = state.names(names, kind, &WORKSPACE, id);
        let mut list: Vec<String> = known.map(|(name, _)| name).collect();
        list.sort_unstable();
        shown.insert(names.field.name.to_owned(), list.into());
    }
    Value::Object(shown)
}

async fn write(
    call: &Call<'_>,
    place: Place,
    verb: Verb,
    action: Action,
    body: Map<String, Value>,
) -> Result<Response, Problem> {
    let if_match = match (call.if_match()?, &action) {
        (IfMatch::Anything, _) => None,
        (IfMatch::Version(version), _) => Some(version),
        (IfMatch::Present, Action::Create) => return Err(nothing_to_match()),
        (
            IfMatch::Present,
            Action::Replace(selector) | Action::Update(selector) | Action::Delete(selector),
        ) => {
            find(&call.state, &place, selector).ok_or_else(nothing_to_match)?;
            None
        }
    };
    let Place { kind, scope } = place;
    let write = Write {
        kind,
        workspace: WORKSPACE,
        scope,
        action,
        body,
        if_match,
    };
    let command = Command::Write(Box::new(write));
    let (request, writer) = (call.request()?, &call.admin.control_plane.writer);
    if call.query.flag("dry_run")? {
        return Ok(event_view::preview(
            &writer.preview(command, request).await?,
        ));
    }
    answer_written(&writer.write(command, request).await?, verb)
}

fn answer_written(written: &Written, verb: Verb) -> Result<Response, Problem> {
    let response = match &written.outcome {
        Outcome::Created(key) | Outcome::Updated(key) => {
            let status = if verb == Verb::Post {
                StatusCode::CREATED
            } else {
                StatusCode::OK
            };
            show_key(status, key, &written.state)?
        }
        Outcome::Deleted | Outcome::Applied(_) => answer::no_content(),
    };
    Ok(answer_changed(response, written))
}

/// `response`, which speaks of what was written.
pub(super) fn answer_changed(mut response: Response, written: &Written) -> Response {
    answer::set_version(&mut response, written.version);
    response
}

fn show_key(status: StatusCode, key: &Key, state: &State) -> Result<Response, Problem> {
    // A repeated request may speak of an entity that is gone by now.
    let entry = state.get(key).ok_or(Problem::NotFound)?;
    let kind = Kind::from_name(key.kind.as_str()).ok_or(Problem::NotFound)?;
    Ok(show(status, state, kind, key.id, entry))
}
