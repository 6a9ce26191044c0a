//! What a path names. The paths of entities follow from the descriptors of their kinds; the rest is one table.

use super::members::Side;
use http::Method;
use percent_encoding::percent_decode_str;
use sluice_schema::decide::{Scope, Selector};
use sluice_schema::kind::Kind;

/// What may be done with an endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verb {
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

impl Verb {
    /// HEAD is a GET whose body the server leaves out.
    pub(super) fn parse(method: &Method) -> Option<Self> {
        match method.as_str() {
            "GET" | "HEAD" => Some(Self::Get),
            "POST" => Some(Self::Post),
            "PUT" => Some(Self::Put),
            "PATCH" => Some(Self::Patch),
            "DELETE" => Some(Self::Delete),
            _ => None,
        }
    }

    /// As it stands in `Allow`.
    pub(super) fn names(self) -> &'static str {
        match self {
            Self::Get => "GET, HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// A collection: a kind, and the parent if the path is nested.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) kind: Kind,
    pub(super) scope: Option<Scope>,
}

/// What a path names.
#[derive(Debug)]
pub(super) enum Endpoint {
    Root,
    Status,
    Endpoints,
    PluginsEnabled,
    Metrics,
    /// All tags, or the entities with one.
    Tags(Option<String>),
    Schema(String),
    PluginSchema(String),
    VaultSchema(String),
    Validate(String),
    Nodes,
    DataPlanes,
    Apply,
    Dump,
    LogHead,
    LogKeyring,
    LogEvents,
    LogEvent(String),
    Snapshots,
    Trim,
    Collection(Place),
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

/// The paths that do not follow from descriptors.
const FIXED: &[&str] = &[
    "/",
    "/apply",
    "/clustering/data-planes",
    "/consumer_groups/:consumer_groups/consumers",
    "/consumer_groups/:consumer_groups/consumers/:consumers",
    "/consumers/:consumers/consumer_groups",
    "/consumers/:consumers/consumer_groups/:consumer_groups",
    "/dump",
    "/endpoints",
    "/log/events",
    "/log/events/:version",
    "/log/head",
    "/log/keyring",
    "/log/snapshots",
    "/log/trim",
    "/metrics",
    "/nodes",
    "/plugins/enabled",
    "/schemas/:entity",
    "/schemas/:entity/validate",
    "/schemas/plugins/:plugin",
    "/schemas/plugins/validate",
    "/schemas/vaults/:vault",
    "/status",
    "/tags",
    "/tags/:tag",
];

impl Endpoint {
    /// What `path` names. A slash at the end and the workspace `default` at the beginning mean nothing.
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
            ["default", rest @ ..] => Self::find_segments(rest),
            all => Self::find_segments(all),
        }
    }

    fn find_segments(names: &[&str]) -> Option<Self> {
        Some(match names {
            [] => Self::Root,
            ["status"] => Self::Status,
            ["endpoints"] => Self::Endpoints,
            ["metrics"] => Self::Metrics,
            ["plugins", "enabled"] => Self::PluginsEnabled,
            ["tags"] => Self::Tags(None),
            ["tags", tag] => Self::Tags(Some((*tag).to_owned())),
            ["schemas", entity] => Self::Schema((*entity).to_owned()),
            ["schemas", entity, "validate"] => Self::Validate((*entity).to_owned()),
            ["schemas", "plugins", plugin] => Self::PluginSchema((*plugin).to_owned()),
            ["schemas", "vaults", vault] => Self::VaultSchema((*vault).to_owned()),
            ["consumer_groups", own, "consumers", rest @ ..] => {
                return Self::find_member(Side::Group, own, rest);
            }
            ["consumers", own, "consumer_groups", rest @ ..] => {
                return Self::find_member(Side::Consumer, own, rest);
            }
            ["nodes"] => Self::Nodes,
            ["clustering", "data-planes"] => Self::DataPlanes,
            ["apply"] => Self::Apply,
            ["dump"] => Self::Dump,
            ["log", "snapshots"] => Self::Snapshots,
            ["log", "trim"] => Self::Trim,
            ["log", "head"] => Self::LogHead,
            ["log", "keyring"] => Self::LogKeyring,
            ["log", "events"] => Self::LogEvents,
            ["log", "events", version] => Self::LogEvent((*version).to_owned()),
            _ => return Self::find_entity(names),
        })
    }

    fn find_member(side: Side, own: &str, rest: &[&str]) -> Option<Self> {
        let own = Selector::parse(own);
        match rest {
            [] => Some(Self::Members(side, own)),
            [other] => Some(Self::Member(side, own, Selector::parse(other))),
            [_, _, ..] => None,
        }
    }

    fn find_entity(names: &[&str]) -> Option<Self> {
        let (path, rest) = names.split_first()?;
        let kind = Kind::ALL
            .iter()
            .copied()
            .find(|kind| kind.schema().path == Some(*path))?;
        match rest {
            [] => Some(Self::Collection(Place { kind, scope: None })),
            [key] => Some(Self::Item(
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
                    return Some(Self::Collection(Place { kind: child, scope }));
                }
                let (field, foreign) = kind.schema().foreign().find(|(field, _)| field == below)?;
                if HIDDEN_PARENTS.contains(&(kind, field)) {
                    return None;
                }
                Some(Self::Parent {
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
                Some(Self::Item(
                    Place { kind: child, scope },
                    Selector::parse(child_key),
                ))
            }
            _ => None,
        }
    }

    /// What may be done with it, besides asking what may be done.
    pub(super) fn verbs(&self) -> &'static [Verb] {
        match self {
            Self::Root
            | Self::Status
            | Self::Endpoints
            | Self::PluginsEnabled
            | Self::Metrics
            | Self::Tags(_)
            | Self::Schema(_)
            | Self::PluginSchema(_)
            | Self::VaultSchema(_)
            | Self::Nodes
            | Self::DataPlanes
            | Self::Dump
            | Self::LogHead
            | Self::LogEvents
            | Self::LogEvent(_) => &[Verb::Get],
            Self::Validate(_) | Self::Apply | Self::Trim => &[Verb::Post],
            Self::Collection(_) | Self::Snapshots | Self::LogKeyring => &[Verb::Get, Verb::Post],
            Self::Item(..) => &[Verb::Get, Verb::Put, Verb::Patch, Verb::Delete],
            Self::Members(..) => &[Verb::Get, Verb::Post, Verb::Delete],
            Self::Member(..) => &[Verb::Get, Verb::Delete],
            Self::Parent { .. } => &[Verb::Get, Verb::Put, Verb::Patch],
        }
    }
}

/// The references that Kong gives no path of their own.
const HIDDEN_PARENTS: &[(Kind, &str)] = &[(Kind::Sni, "certificate")];

impl Endpoint {
    /// Whether it is about entities of this kind.
    pub(super) fn is_about(&self, kind: Kind) -> bool {
        match self {
            Self::Collection(place) | Self::Item(place, _) => place.kind == kind,
            Self::Parent { kind: own, .. } => *own == kind,
            Self::Members(side, _) | Self::Member(side, _, _) => side.kind() == kind,
            Self::Root
            | Self::Status
            | Self::Endpoints
            | Self::PluginsEnabled
            | Self::Metrics
            | Self::Tags(_)
            | Self::Schema(_)
            | Self::PluginSchema(_)
            | Self::VaultSchema(_)
            | Self::Validate(_)
            | Self::Nodes
            | Self::DataPlanes
            | Self::Apply
            | Self::Dump
            | Self::LogHead
            | Self::LogKeyring
            | Self::LogEvents
            | Self::LogEvent(_)
            | Self::Snapshots
            | Self::Trim => false,
        }
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

/// Every path there is, with `:name` where something is to be filled in, sorted.
pub(super) fn paths() -> Vec<String> {
    let mut paths: Vec<String> = FIXED.iter().map(|path| (*path).to_owned()).collect();
    for kind in Kind::ALL {
        let schema = kind.schema();
        if let Some(path) = schema.path {
            paths.push(format!("/{path}"));
            paths.push(format!("/{path}/:{path}"));
            paths.extend(
                schema
                    .foreign()
                    .filter(|(field, _)| !HIDDEN_PARENTS.contains(&(*kind, *field)))
                    .map(|(field, _)| format!("/{path}/:{path}/{field}")),
            );
        }
        for (_, foreign) in schema.foreign() {
            let (Some(parent), Some(nested)) = (foreign.kind.schema().path, schema.nested_path)
            else {
                continue;
            };
            paths.push(format!("/{parent}/:{parent}/{nested}"));
            paths.push(format!("/{parent}/:{parent}/{nested}/:{nested}"));
        }
    }
    paths.sort_unstable();
    paths
}
