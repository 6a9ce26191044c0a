//! The paths of entities, as their descriptors give them.

use super::operation::{AT, Argument, DRY_RUN, Gives, OFFSET, Operation, SIZE, Takes, Verb};
use super::{Described, Endpoint};
use crate::admin::members::Side;
use sluice_schema::decide::{Scope, Selector};
use sluice_schema::kind::Kind;

/// A collection: a kind, and the parent if the path is nested.
#[derive(Clone, Debug)]
pub(in crate::admin) struct Place {
    pub(in crate::admin) kind: Kind,
    pub(in crate::admin) scope: Option<Scope>,
}

const TAGS: Argument = Argument::text("tags", "Only those with all of `a,b`, or one of `a/b`");
const ITEM_PROBLEMS: &[u16] = &[304, 400, 403, 404, 410, 412, 503];
const LIST_PROBLEMS: &[u16] = &[400, 403, 404, 410, 503];

const GET_ITEM: Operation = Operation::get("Read one")
    .query(&[AT])
    .gives(200, Gives::Entity)
    .others(ITEM_PROBLEMS);
const PUT_ITEM: Operation = Operation::change(Verb::Put, "Create or replace one")
    .query(&[DRY_RUN])
    .takes(Takes::Entity)
    .gives(200, Gives::Entity);
const PATCH_ITEM: Operation = Operation::change(Verb::Patch, "Change fields of one")
    .query(&[DRY_RUN])
    .takes(Takes::Fields)
    .gives(200, Gives::Entity);
const LEAVE: Operation = Operation::change(Verb::Delete, "Leave")
    .query(&[DRY_RUN])
    .gives(204, Gives::Nothing)
    .others(&[200, 400, 403, 404, 409, 422, 503]);

pub(super) const COLLECTION: &[Operation] = &[
    Operation::get("List")
        .query(&[SIZE, OFFSET, TAGS, AT])
        .gives(200, Gives::Page)
        .others(LIST_PROBLEMS),
    Operation::change(Verb::Post, "Create")
        .query(&[DRY_RUN])
        .takes(Takes::Entity)
        .gives(201, Gives::Entity)
        .others(&[200, 400, 403, 404, 408, 409, 412, 413, 415, 422, 503]),
];
pub(super) const ITEM: &[Operation] = &[
    GET_ITEM,
    PUT_ITEM,
    PATCH_ITEM,
    Operation::change(Verb::Delete, "Delete one")
        .query(&[DRY_RUN])
        .gives(204, Gives::Nothing)
        .others(&[200, 400, 403, 404, 409, 412, 422, 503]),
];
pub(super) const PARENT: &[Operation] = &[GET_ITEM, PUT_ITEM, PATCH_ITEM];
pub(super) const MEMBERS: &[Operation] = &[
    Operation::get("List who belongs together")
        .query(&[SIZE, OFFSET, AT])
        .gives(200, Gives::Page)
        .others(LIST_PROBLEMS),
    Operation::change(Verb::Post, "Join")
        .query(&[DRY_RUN])
        .takes(Takes::Object)
        .gives(201, Gives::Object)
        .others(&[200, 400, 403, 404, 408, 409, 413, 415, 422, 503]),
    LEAVE,
];
pub(super) const MEMBER: &[Operation] = &[Operation::get("Read one that belongs"), LEAVE];

/// The references that Kong gives no path of their own.
const HIDDEN_PARENTS: &[(Kind, &str)] = &[(Kind::Sni, "certificate")];

pub(super) fn find(names: &[&str]) -> Option<Endpoint> {
    match names {
        ["consumer_groups", own, "consumers", rest @ ..] => find_member(Side::Group, own, rest),
        ["consumers", own, "consumer_groups", rest @ ..] => find_member(Side::Consumer, own, rest),
        _ => find_entity(names),
    }
}

fn find_member(side: Side, own: &str, rest: &[&str]) -> Option<Endpoint> {
    let own = Selector::parse(own);
    match rest {
        [] => Some(Endpoint::Members(side, own)),
        [other] => Some(Endpoint::Member(side, own, Selector::parse(other))),
        [_, _, ..] => None,
    }
}

fn find_entity(names: &[&str]) -> Option<Endpoint> {
    let (path, rest) = names.split_first()?;
    let mut kinds = Kind::ALL.iter().copied();
    let kind = kinds.find(|kind| kind.schema().path == Some(*path))?;
    match rest {
        [] => Some(Endpoint::Collection(Place { kind, scope: None })),
        [key] => Some(Endpoint::Item(
            Place { kind, scope: None },
            Selector::parse(key),
        )),
        [key, below] => {
            let selector = Selector::parse(key);
            if let Some((child, field)) = child(kind, below) {
                let scope = Some(Scope {
                    field,
                    parent: kind,
                    selector,
                });
                return Some(Endpoint::Collection(Place { kind: child, scope }));
            }
            let (field, foreign) = kind.schema().foreign().find(|(field, _)| field == below)?;
            if HIDDEN_PARENTS.contains(&(kind, field)) {
                return None;
            }
            Some(Endpoint::Parent {
                kind,
                selector,
                field,
                parent: foreign.kind,
            })
        }
        [key, below, child_key] => {
            let (child, field) = child(kind, below)?;
            let scope = Some(Scope {
                field,
                parent: kind,
                selector: Selector::parse(key),
            });
            Some(Endpoint::Item(
                Place { kind: child, scope },
                Selector::parse(child_key),
            ))
        }
        _ => None,
    }
}

/// The kind whose collection is at `nested_path` below `parent`, and its field that refers to the parent.
fn child(parent: Kind, nested_path: &str) -> Option<(Kind, &'static str)> {
    let named = Kind::ALL
        .iter()
        .filter(|kind| kind.schema().nested_path == Some(nested_path));
    named
        .flat_map(|kind| {
            kind.schema()
                .foreign()
                .map(|(field, foreign)| (*kind, field, foreign))
        })
        .find(|(_, _, foreign)| foreign.kind == parent)
        .map(|(kind, field, _)| (kind, field))
}

/// Every path of entities, with what may be done there.
pub(super) fn all() -> impl Iterator<Item = Described> {
    let mut all = Vec::new();
    let mut add = |path: String, kind: Kind, operations: &'static [Operation]| {
        all.push(Described {
            path,
            kind: Some(kind),
            operations,
        });
    };
    for (own, other) in [(Side::Group, Side::Consumer), (Side::Consumer, Side::Group)] {
        let (own, other) = (own.kind().schema().entity, other.kind());
        let other_name = other.schema().entity;
        add(format!("/{own}/{{{own}}}/{other_name}"), other, MEMBERS);
        let path = format!("/{own}/{{{own}}}/{other_name}/{{{other_name}}}");
        add(path, other, MEMBER);
    }
    for kind in Kind::ALL.iter().copied() {
        let schema = kind.schema();
        if let Some(path) = schema.path {
            add(format!("/{path}"), kind, COLLECTION);
            add(format!("/{path}/{{{path}}}"), kind, ITEM);
            let shown = |field: &str| !HIDDEN_PARENTS.contains(&(kind, field));
            for (field, foreign) in schema.foreign().filter(|(field, _)| shown(field)) {
                add(format!("/{path}/{{{path}}}/{field}"), foreign.kind, PARENT);
            }
        }
        for (_, foreign) in schema.foreign() {
            let (Some(parent), Some(nested)) = (foreign.kind.schema().path, schema.nested_path)
            else {
                continue;
            };
            add(format!("/{parent}/{{{parent}}}/{nested}"), kind, COLLECTION);
            let path = format!("/{parent}/{{{parent}}}/{nested}/{{{nested}}}");
            add(path, kind, ITEM);
        }
    }
    all.into_iter()
}
