//! What is special about workspaces: `default` is always there, none is renamed, and only an empty one can be deleted.

use super::draft::Draft;
use super::write::Action;
use crate::entity::{Id, Workspace};
use crate::kind::{Kind, workspace};
use crate::rejection::{Code, Rejection};
use crate::state::State;
use serde_json::{Map, Value};

/// Checks that a workspace is there.
///
/// # Errors
/// If it is not.
pub(super) fn find(state: &State, workspace: &Workspace) -> Result<(), Rejection> {
    match state.has_workspace(workspace) {
        true => Ok(()),
        false => {
            let message = format!("Workspace '{workspace}' not found");
            Err(Rejection::new(Code::InvalidWorkspace, message))
        }
    }
}

/// Checks a write of a workspace that is made in the workspace `within`.
///
/// # Errors
/// If the workspace must stay as it is.
pub(super) fn check(
    draft: &mut Draft<'_>,
    within: &Workspace,
    action: &Action,
    body: &Map<String, Value>,
) -> Result<(), Rejection> {
    let invalid = |message: &str| Err(Rejection::new(Code::InvalidWorkspace, message));
    if *within != Workspace::DEFAULT {
        return invalid("workspaces are changed in the workspace default");
    }
    draft.assume(workspace::default_entity());
    let (Action::Replace(selector) | Action::Update(selector) | Action::Delete(selector)) = action
    else {
        return Ok(());
    };
    let Some(id) = selector.find(draft.state(), Kind::Workspace, within, None) else {
        return Ok(());
    };
    let Some(name) = name_of(draft.state(), id) else {
        return Ok(());
    };
    if !matches!(action, Action::Delete(_)) {
        return match body.get("name") {
            None => Ok(()),
            Some(given) if given == name.as_str() => Ok(()),
            Some(_) => invalid("Cannot rename a workspace"),
        };
    }
    if name == *Workspace::DEFAULT.as_str() {
        return invalid("Cannot delete default workspace");
    }
    match Workspace::parse(&name).is_some_and(|own| draft.state().is_in_use(&own)) {
        true => invalid("Workspace is not empty"),
        false => Ok(()),
    }
}

fn name_of(state: &State, id: Id) -> Option<String> {
    let entry = state.entity(Kind::Workspace, &Workspace::DEFAULT, id)?;
    let fields = entry.body.fields().ok()?;
    fields.get("name")?.as_str().map(str::to_owned)
}
