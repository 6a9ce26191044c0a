//! Who belongs to which consumer group: several memberships in one event.

use super::draft::Draft;
use super::write::reference;
use super::{Inputs, Outcome};
use crate::check::{Base, complete};
use crate::declare::derive_id;
use crate::entity::{Id, Key, Workspace};
use crate::kind::Kind;
use crate::rejection::Rejection;
use serde_json::{Map, Value};

/// Consumers that join groups or leave them.
#[derive(Clone, Debug)]
pub struct Membership {
    /// Of all of them.
    pub workspace: Workspace,
    /// Each of these groups ...
    pub groups: Vec<Id>,
    /// ... with each of these consumers.
    pub consumers: Vec<Id>,
    /// What happens.
    pub change: MembershipChange,
}

/// What happens to memberships.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MembershipChange {
    /// They begin; none of them may be there yet.
    Join,
    /// They end, those that are there.
    Leave,
}

const KIND: Kind = Kind::ConsumerGroupConsumer;

pub(super) fn decide(
    draft: &mut Draft<'_>,
    membership: &Membership,
    mut inputs: Inputs,
) -> Result<(Outcome, String), Rejection> {
    let mut first = None;
    for group in &membership.groups {
        for consumer in &membership.consumers {
            let fields = Map::from_iter([
                ("consumer_group".to_owned(), reference(*group)),
                ("consumer".to_owned(), reference(*consumer)),
            ]);
            let changed = match membership.change {
                MembershipChange::Join => {
                    Some(join(draft, &membership.workspace, fields, &mut inputs)?)
                }
                MembershipChange::Leave => leave(draft, &membership.workspace, &fields)?,
            };
            first = first.or(changed);
        }
    }
    let subject = first
        .as_ref()
        .map(|key| format!("{}.{}.{}", key.workspace, KIND.name(), key.id));
    let outcome = match (membership.change, first) {
        (MembershipChange::Join, Some(key)) => Outcome::Created(key),
        (MembershipChange::Join, None) | (MembershipChange::Leave, _) => Outcome::Deleted,
    };
    Ok((outcome, subject.unwrap_or_default()))
}

fn join(
    draft: &mut Draft<'_>,
    workspace: &Workspace,
    fields: Map<String, Value>,
    inputs: &mut Inputs,
) -> Result<Key, Rejection> {
    // The same membership has the same id wherever it is made.
    let derived = derive_id(KIND, &fields, &fields);
    let taken = draft.state().entity(KIND, workspace, derived).is_some();
    let Inputs { now, entropy, .. } = inputs;
    let id = match taken {
        true => Id(entropy.uuid()),
        false => derived,
    };
    let key = Key {
        kind: KIND.key_name(),
        workspace: workspace.clone(),
        id,
    };
    let fields = complete(KIND.schema(), fields, Base::New, *now, entropy)?;
    draft.check_references(KIND, workspace, &fields)?;
    draft.check_unique(KIND, workspace, id, &fields)?;
    draft.put(KIND, &key, &fields)?;
    Ok(key)
}

fn leave(
    draft: &mut Draft<'_>,
    workspace: &Workspace,
    fields: &Map<String, Value>,
) -> Result<Option<Key>, Rejection> {
    let unique = &KIND.schema().unique[0];
    let Some(id) = draft.state().holder(KIND, workspace, unique, fields) else {
        return Ok(None);
    };
    let key = Key {
        kind: KIND.key_name(),
        workspace: workspace.clone(),
        id,
    };
    draft.delete(KIND, &key)?;
    Ok(Some(key))
}
