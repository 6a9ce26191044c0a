//! Secrets sealed anew, with the key that seals now. Nothing else of an entity changes.

use super::Applied;
use super::draft::Draft;
use crate::entity::{Key, Workspace};
use crate::kind::Kind;
use crate::rejection::Rejection;

/// Entities whose secrets are to be sealed anew.
#[derive(Clone, Debug)]
pub struct Reseal {
    /// Where the caller is; the entities may be anywhere.
    pub workspace: Workspace,
    /// Which.
    pub entities: Vec<Key>,
}

pub(super) fn decide(draft: &mut Draft<'_>, reseal: &Reseal) -> Result<Applied, Rejection> {
    let mut applied = Applied::default();
    for key in &reseal.entities {
        let (Some(kind), Some(entry)) = (
            Kind::from_name(key.kind.as_str()),
            draft.base().get(key).cloned(),
        ) else {
            continue;
        };
        let fields = draft.opened(kind, key, &entry.body)?;
        let body = draft.sealed(kind, key, &fields)?;
        match body == entry.body {
            true => applied.unchanged += 1,
            false => applied.updated += 1,
        }
        draft.put_body(key, body);
    }
    Ok(applied)
}
