//! Workspaces: which one a request is about, and what is special about their own endpoints.

use super::answer;
use super::endpoint::{Endpoint, Fixed};
use super::error::Problem;
use super::list::aside;
use super::request::Call;
use axum::response::Response;
use serde_json::{Map, Value, json};
use sluice_schema::decide::Selector;
use sluice_schema::entity::Workspace;
use sluice_schema::kind::Kind;
use std::sync::Arc;

/// Lets `call` see the workspace that its path begins with.
///
/// # Errors
/// If there is none of that name, or the endpoint cannot be reached through it.
pub(super) fn enter(
    call: &mut Call<'_>,
    name: Option<&str>,
    endpoint: &Endpoint,
) -> Result<(), Problem> {
    if let Some(name) = name {
        let known = |workspace: &Workspace| call.inside.state.has_workspace(workspace);
        call.inside.workspace = match Workspace::parse(name).filter(known) {
            Some(workspace) => workspace,
            // A single segment is any path that there is not.
            None if matches!(endpoint, Endpoint::Fixed(Fixed::Root, _)) => {
                return Err(Problem::NotFound);
            }
            None => {
                let message = format!("Workspace '{name}' not found");
                return Err(Problem::Missing(message));
            }
        };
    }
    match endpoint {
        Endpoint::Collection(place) if place.kind == Kind::Workspace => enter_default(call, None),
        Endpoint::Item(place, selector) if place.kind == Kind::Workspace => {
            enter_default(call, Some(selector))
        }
        Endpoint::Fixed(Fixed::WorkspaceMeta, variable) => {
            let selector = variable.first().map(|name| Selector::parse(name));
            enter_default(call, selector.as_ref())
        }
        Endpoint::Fixed(..)
        | Endpoint::Collection(_)
        | Endpoint::Item(..)
        | Endpoint::Members(..)
        | Endpoint::Member(..)
        | Endpoint::Parent { .. } => Ok(()),
    }
}

/// Workspaces are entities of `default`. Through another workspace only that one itself can be reached.
fn enter_default(call: &mut Call<'_>, own: Option<&Selector>) -> Result<(), Problem> {
    let through = std::mem::replace(&mut call.inside.workspace, Workspace::DEFAULT);
    call.inside.state = Arc::new(call.inside.state.with_default_workspace());
    if through == Workspace::DEFAULT {
        return Ok(());
    }
    let itself = Selector::Name(through.as_str().to_owned());
    let itself = call.inside.find(Kind::Workspace, &itself);
    let named = own.and_then(|own| call.inside.find(Kind::Workspace, own));
    match named.is_some() && named == itself {
        true => Ok(()),
        false => Err(Problem::NotFound),
    }
}

/// `GET /workspaces/:w/meta`: how many entities of each kind there are.
pub(super) async fn meta(call: &Call<'_>, name: &str) -> Result<Response, Problem> {
    let id = call.inside.find(Kind::Workspace, &Selector::parse(name));
    let shown = id.and_then(|id| call.inside.show(Kind::Workspace, id));
    let shown = shown.ok_or(Problem::NotFound)?;
    let workspace = shown["name"].as_str().and_then(Workspace::parse);
    let workspace = workspace.ok_or(Problem::NotFound)?;
    let state = call.inside.state.clone();
    let count = move || {
        let counted = Kind::ALL.iter().filter(|kind| kind.in_files()).map(|kind| {
            let count = state.list(*kind, &workspace, None).count();
            (kind.schema().entity.to_owned(), Value::from(count))
        });
        counted.collect::<Map<_, _>>()
    };
    Ok(answer::ok(&json!({ "counts": aside(count).await? })))
}
