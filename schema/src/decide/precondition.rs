//! What a caller asks of an entity before it is written: `If-Match` and `If-None-Match`. They are looked at where the write
//! is decided, so that no other write comes in between.

use crate::entity::{Id, Workspace};
use crate::kind::Kind;
use crate::rejection::{Code, Rejection};
use crate::state::State;
use crate::version::Version;

/// Digits of the hash in a tag.
const HASH_LENGTH: usize = 16;

/// What must hold of an entity before it is written. The default asks for nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Precondition {
    /// It is there and has one of these tags.
    pub if_match: Option<Tags>,
    /// It is not there, or has none of these tags.
    pub if_none_match: Option<Tags>,
}

/// The tags a caller names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Tags {
    /// `*`: any.
    Any,
    /// One of these.
    Of(Vec<String>),
}

impl Tags {
    /// Whether an entity with this tag, or none at all, is among them.
    pub fn hold(&self, tag: Option<&str>) -> bool {
        match (self, tag) {
            (_, None) => false,
            (Self::Any, Some(_)) => true,
            (Self::Of(tags), Some(tag)) => tags.iter().any(|known| known == tag),
        }
    }
}

impl Precondition {
    /// That the entity was last written at `version`. For kinds without names.
    pub fn at(version: Version) -> Self {
        Self {
            if_match: Some(Tags::Of(vec![version.to_string()])),
            if_none_match: None,
        }
    }

    /// Checks them on an entity with this tag, or on none.
    ///
    /// # Errors
    /// If one does not hold.
    pub(super) fn check(&self, tag: Option<&str>) -> Result<(), Rejection> {
        let failed = |message: &str| Err(Rejection::new(Code::PreconditionFailed, message));
        if let Some(tags) = &self.if_match
            && !tags.hold(tag)
        {
            return failed(match tag {
                Some(_) => "the entity is not at the version in If-Match",
                None => "there is no entity for If-Match to match",
            });
        }
        if let Some(tags) = &self.if_none_match
            && tags.hold(tag)
        {
            return failed(match tags {
                Tags::Any => "the entity is already there (If-None-Match: *)",
                Tags::Of(_) => "the entity is at a version in If-None-Match",
            });
        }
        Ok(())
    }
}

/// The tag of an entity: the version that last wrote it, and for one that is shown with its names a hash of those. `None`
/// if it is not there.
pub fn entity_tag(state: &State, kind: Kind, workspace: &Workspace, id: Id) -> Option<String> {
    let version = state.entity(kind, workspace, id)?.version;
    let Some(names) = kind.schema().names else {
        return Some(version.to_string());
    };
    let mut known: Vec<(String, Id)> = state.names(names, kind, workspace, id).collect();
    known.sort_unstable();
    let mut hasher = blake3::Hasher::new();
    for (name, holder) in known {
        hasher.update(holder.0.as_bytes());
        hasher.update(name.as_bytes());
        hasher.update(&[0]);
    }
    let hash = hasher.finalize().to_hex();
    Some(format!("{version}-{}", &hash[..HASH_LENGTH]))
}
