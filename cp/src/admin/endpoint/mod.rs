//! What a path names, and what may be done with it. The paths of entities follow from the descriptors of their kinds
//! (`entity`); the rest is one table (`table`). `/endpoints`, `Allow` and the OpenAPI document are made from both.

pub(super) mod entity;
mod operation;
mod table;

pub(super) use entity::Place;
pub(super) use operation::{Gives, Operation, Takes, Verb};
pub(super) use table::Fixed;

use super::members::Side;
use crate::access::Act;
use percent_encoding::percent_decode_str;
use sluice_schema::decide::Selector;
use sluice_schema::kind::Kind;
use std::collections::BTreeMap;

/// What a path names.
#[derive(Clone, Debug)]
pub(super) enum Endpoint {
    /// One of the table, and what stands in the path's variable segments.
    Fixed(Fixed, Vec<String>),
    /// All entities of a kind, or those of a parent.
    Collection(Place),
    /// One of them.
    Item(Place, Selector),
    /// Who belongs to a group, or the groups that somebody belongs to.
    Members(Side, Selector),
    /// One of them.
    Member(Side, Selector, Selector),
    /// The entity that a field of another one refers to.
    Parent {
        kind: Kind,
        selector: Selector,
        field: &'static str,
        parent: Kind,
    },
}

/// A path taken apart.
#[derive(Clone, Debug)]
pub(super) struct Location {
    /// The workspace the path begins with, if it does.
    pub(super) workspace: Option<String>,
    /// What the rest names.
    pub(super) endpoint: Endpoint,
}

impl Location {
    /// What `path` names. A slash at the end means nothing.
    pub(super) fn find(path: &str) -> Option<Self> {
        let path = path.strip_prefix('/')?;
        let path = path.strip_suffix('/').unwrap_or(path);
        let mut segments = Vec::new();
        if !path.is_empty() {
            for segment in path.split('/') {
                segments.push(percent_decode_str(segment).decode_utf8().ok()?);
            }
        }
        let names: Vec<&str> = segments.iter().map(AsRef::as_ref).collect();
        match names.as_slice() {
            // What no workspace may be called is the beginning of a path of its own.
            [first, rest @ ..] if !sluice_schema::kind::workspace::is_reserved(first) => {
                Some(Self {
                    workspace: Some((*first).to_owned()),
                    endpoint: Endpoint::find(rest)?,
                })
            }
            all => Some(Self {
                workspace: None,
                endpoint: Endpoint::find(all)?,
            }),
        }
    }
}

impl Location {
    /// The path that `path` is one of, with `{name}` for what varies.
    pub(super) fn template(path: &str) -> Option<String> {
        let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
        let names = match names.as_slice() {
            [first, rest @ ..] if !sluice_schema::kind::workspace::is_reserved(first) => rest,
            all => all,
        };
        let mut described = table::all().chain(entity::all());
        let found = described.find(|described| table::fits(&described.path, names).is_some());
        found.map(|described| described.path)
    }
}

impl Endpoint {
    fn find(names: &[&str]) -> Option<Self> {
        table::find(names).or_else(|| entity::find(names))
    }

    /// What may be done with it, besides asking what may be done.
    pub(super) fn operations(&self) -> &'static [Operation] {
        match self {
            Self::Fixed(fixed, _) => fixed.operations(),
            Self::Collection(_) => entity::COLLECTION,
            Self::Item(..) => entity::ITEM,
            Self::Members(..) => entity::MEMBERS,
            Self::Member(..) => entity::MEMBER,
            Self::Parent { .. } => entity::PARENT,
        }
    }

    /// The methods, in the order of `Allow`.
    pub(super) fn verbs(&self) -> Vec<Verb> {
        self.operations()
            .iter()
            .map(|operation| operation.verb)
            .collect()
    }

    /// What somebody must be granted to do it, and where.
    pub(super) fn need(&self, verb: Verb) -> Need {
        match self {
            Self::Fixed(fixed, _) => fixed.need(verb),
            Self::Collection(_)
            | Self::Item(..)
            | Self::Members(..)
            | Self::Member(..)
            | Self::Parent { .. } => match (verb, self.is_about(Kind::Workspace)) {
                (Verb::Get, _) => Need::Inside(Act::See),
                (_, false) => Need::Inside(Act::Change),
                (_, true) => Need::Above(Act::Govern),
            },
        }
    }

    /// Whether it is about entities of this kind.
    pub(super) fn is_about(&self, kind: Kind) -> bool {
        match self {
            Self::Collection(place) | Self::Item(place, _) => place.kind == kind,
            Self::Parent { kind: own, .. } => *own == kind,
            Self::Members(side, _) | Self::Member(side, _, _) => side.kind() == kind,
            Self::Fixed(..) => false,
        }
    }
}

/// What somebody must be granted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Need {
    /// Nothing.
    Nothing,
    /// This, in whatever workspace.
    Anywhere(Act),
    /// This, in the workspace of the request.
    Inside(Act),
    /// This, in all workspaces.
    Above(Act),
}

/// A path with `{name}` where something is to be filled in, and what may be done with it.
#[derive(Clone, Debug)]
pub(super) struct Described {
    pub(super) path: String,
    /// The kind it is about, for bodies and names.
    pub(super) kind: Option<Kind>,
    pub(super) operations: &'static [Operation],
}

/// Every path there is, sorted.
pub(super) fn all() -> Vec<Described> {
    let mut paths: BTreeMap<String, Described> = BTreeMap::new();
    for described in table::all().chain(entity::all()) {
        // The first one is the one that is found.
        paths.entry(described.path.clone()).or_insert(described);
    }
    paths.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_schema::kind::workspace::is_reserved;

    fn filled(path: &str) -> String {
        let fill = |segment: &str| match segment.starts_with('{') {
            true => "x".to_owned(),
            false => segment.to_owned(),
        };
        path.split('/').map(fill).collect::<Vec<_>>().join("/")
    }

    #[test]
    fn every_described_path_is_found_with_the_methods_it_is_described_with() {
        for described in all() {
            let location = Location::find(&filled(&described.path));
            let location = location.unwrap_or_else(|| panic!("{} leads nowhere", described.path));
            assert!(location.workspace.is_none(), "{}", described.path);
            let template = Location::template(&format!("/west{}", filled(&described.path)));
            assert_eq!(template.as_ref(), Some(&described.path));
            let verbs = |operations: &[Operation]| {
                let verbs = operations.iter().map(|operation| operation.verb);
                verbs.collect::<Vec<_>>()
            };
            let found = location.endpoint.operations();
            assert_eq!(
                verbs(found),
                verbs(described.operations),
                "{}",
                described.path
            );
        }
    }

    #[test]
    fn no_workspace_can_be_called_like_the_beginning_of_a_path() {
        for described in all() {
            let first = described.path.split('/').nth(1).unwrap();
            assert!(first.is_empty() || is_reserved(first), "{first}");
        }
    }
}
