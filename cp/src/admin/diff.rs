//! `/log/diff`: what differs between two versions, and `/log/state`: everything at one.

use super::answer;
use super::error::Problem;
use super::list::aside;
use super::moment;
use super::plan::describe;
use super::request::Call;
use axum::body::{Body, Bytes};
use axum::response::Response;
use futures::stream;
use http::StatusCode;
use serde_json::{Value, json};
use sluice_schema::entity::Workspace;
use sluice_schema::state::State;
use std::convert::Infallible;
use std::sync::Arc;

/// The most entities of which it is told what differs.
const SHOWN_MAX: usize = 10_000;
/// Entities in one piece of an answer.
const PIECE_ENTITIES: usize = 256;

/// `GET /log/diff?from=&to=`, each a version or a time.
pub(super) async fn show(call: &Call<'_>) -> Result<Response, Problem> {
    let from = call
        .query
        .get("from")
        .ok_or(Problem::Argument("from", "a version or a time"))?;
    let to = call.query.get("to").unwrap_or("latest");
    let from = moment::version(call, "from", from).await?;
    let to = moment::version(call, "to", to).await?;
    let history = &call.admin.control_plane.history;
    let (before, after) = (history.state_at(from).await?, history.state_at(to).await?);
    let own = call.inside.workspace.clone();
    let only = call.query.get("workspace").map(str::to_owned);
    let only = only.or_else(|| (own != Workspace::DEFAULT).then(|| own.as_str().to_owned()));
    let shown = aside(move || compare(&before, &after, only.as_deref())).await?;
    Ok(answer::ok(&shown))
}

fn compare(before: &State, after: &State, workspace: Option<&str>) -> Value {
    let (mut created, mut updated, mut deleted) = (0_u64, 0_u64, 0_u64);
    let mut shown = Vec::new();
    for key in after.changed_since(before) {
        if workspace.is_some_and(|workspace| workspace != key.workspace.as_str()) {
            continue;
        }
        let [old, new] = [before, after].map(|state| state.get(&key).map(|entry| &entry.body));
        match (old, new) {
            // Written again with the same content.
            (old, new) if old == new => continue,
            (None, _) => created += 1,
            (_, None) => deleted += 1,
            (Some(_), Some(_)) => updated += 1,
        }
        if shown.len() < SHOWN_MAX {
            shown.push(describe(&key, old, new, [after, before]));
        }
    }
    let truncated = created + updated + deleted > shown.len() as u64;
    json!({
        "from": before.version().0,
        "to": after.version().0,
        "created": created,
        "updated": updated,
        "deleted": deleted,
        "changes": shown,
        "truncated": truncated,
    })
}

/// `GET /log/state?at=`: one line of JSON per entity of all workspaces, with its secrets.
pub(super) fn state(call: &Call<'_>) -> Response {
    let state = call.inside.state.clone();
    let pieces = stream::unfold((state, None), |(state, after)| async move {
        let (piece, last) = piece(&state, after);
        last.map(|last| (Ok::<_, Infallible>(piece), (state, Some(last))))
    });
    let mut response = answer::with_body(
        StatusCode::OK,
        "application/x-ndjson",
        Body::from_stream(pieces),
    );
    answer::set_version(&mut response, call.inside.state.version());
    response
}

type Last = sluice_schema::entity::Key;

fn piece(state: &Arc<State>, after: Option<Last>) -> (Bytes, Option<Last>) {
    let mut text = String::new();
    let mut last = None;
    let entities = state.iter_from(after.as_ref());
    let entities = entities.filter(|(key, _)| after.as_ref() != Some(*key));
    for (key, entry) in entities.take(PIECE_ENTITIES) {
        let line = json!({
            "kind": key.kind.as_str(),
            "workspace": key.workspace.as_str(),
            "id": key.id.to_string(),
            "version": entry.version.0,
            "body": state.shown(key, &entry.body).unwrap_or_default(),
        });
        text += &line.to_string();
        text.push('\n');
        last = Some(key.clone());
    }
    (text.into(), last)
}
