//! Entities of every kind: one handler for all of them, told what to do by the descriptors.

use super::answer;
use super::endpoint::{Place, Verb};
use super::error::Problem;
use super::event_view;
use super::inside::Inside;
use super::list;
use super::members;
use super::request::Call;
use super::warnings;
use crate::writer::Written;
use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use serde_json::{Map, Value};
use sluice_schema::decide::{Action, Command, Outcome, Selector, Write};
use sluice_schema::entity::{Entry, Id, Key};
use sluice_schema::kind::Kind;
use sluice_schema::state::reference_id;

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
        let id = call.inside.find_at(&place, &selector).filter(|_| merges)?;
        call.inside.entity(place.kind, id)?.body.fields().ok()
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
    let id = call.inside.find(kind, selector).ok_or(Problem::NotFound)?;
    let entry = call.inside.entity(kind, id).ok_or(Problem::NotFound)?;
    let fields = entry.body.fields().unwrap_or_default();
    let parent = fields.get(field).and_then(reference_id);
    parent.map(Selector::Id).ok_or(Problem::NotFound)
}

async fn read(call: &Call<'_>, place: &Place, selector: &Selector) -> Result<Response, Problem> {
    let inside = &call.inside;
    let id = inside.find_at(place, selector).ok_or(Problem::NotFound)?;
    let entry = inside.entity(place.kind, id).ok_or(Problem::NotFound)?;
    if place.kind == Kind::ConsumerGroup && place.scope.is_none() {
        // Shown with its members, which its tag says nothing about.
        return members::group(call, id, entry).await;
    }
    let tag = inside.tag(place.kind, id);
    let known = call.precondition()?.if_none_match;
    if known.is_some_and(|tags| tags.hold(tag.as_deref())) {
        return Ok(answer::not_modified(tag));
    }
    Ok(show(StatusCode::OK, inside, place.kind, id, entry))
}

fn show(status: StatusCode, inside: &Inside, kind: Kind, id: Id, entry: &Entry) -> Response {
    let mut response = answer::json(status, &inside.shown(kind, id, entry));
    answer::set_etag(&mut response, inside.tag(kind, id));
    response
}

async fn write(
    call: &Call<'_>,
    place: Place,
    verb: Verb,
    action: Action,
    body: Map<String, Value>,
) -> Result<Response, Problem> {
    let Place { kind, scope } = place;
    let write = Write {
        kind,
        workspace: call.inside.workspace.clone(),
        scope,
        action,
        body,
        precondition: call.precondition()?,
    };
    let command = Command::Write(Box::new(write));
    let (request, writer) = (call.request()?, &call.admin.control_plane.writer);
    if call.query.flag("dry_run")? {
        return Ok(preview(call, &writer.preview(command, request).await?));
    }
    let written = writer.write(command, request).await?;
    let mut response = answer_written(call, &written, verb)?;
    if let Outcome::Created(key) | Outcome::Updated(key) = &written.outcome {
        warnings::about(&call.inside.of(&written.state), key, call, &mut response);
    }
    Ok(response)
}

fn answer_written(call: &Call<'_>, written: &Written, verb: Verb) -> Result<Response, Problem> {
    let response = match &written.outcome {
        Outcome::Created(key) | Outcome::Updated(key) => {
            let status = match verb {
                Verb::Post => StatusCode::CREATED,
                Verb::Get | Verb::Put | Verb::Patch | Verb::Delete => StatusCode::OK,
            };
            show_key(status, key, &call.inside.of(&written.state))?
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

/// What a command would come to.
pub(super) fn preview(call: &Call<'_>, written: &Written) -> Response {
    let inside = call.inside.of(&written.state);
    let key = match &written.outcome {
        Outcome::Created(key) | Outcome::Updated(key) => Some(key),
        Outcome::Deleted | Outcome::Applied(_) => None,
    };
    let entity = key.and_then(|key| inside.show(Kind::from_name(key.kind.as_str())?, key.id));
    let mut response = event_view::preview(written, entity);
    if let Some(key) = key {
        warnings::about(&inside, key, call, &mut response);
    }
    response
}

fn show_key(status: StatusCode, key: &Key, inside: &Inside) -> Result<Response, Problem> {
    // A repeated request may speak of an entity that is gone by now.
    let entry = inside.state.get(key).ok_or(Problem::NotFound)?;
    let kind = Kind::from_name(key.kind.as_str()).ok_or(Problem::NotFound)?;
    Ok(show(status, inside, kind, key.id, entry))
}
