//! Workspaces: namespaces for entities. They are entities of the workspace `default`, which is always there.

use super::common::{CREATED_AT, UPDATED_AT};
use super::{Kind, Schema, Unique};
use crate::entity::{Body, Entry, Id, Key, Workspace};
use crate::field::Field;
use crate::version::Version;
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// The id of the workspace `default`: Kong's.
pub const DEFAULT_ID: Id = Id(Uuid::from_u128(0x0dc6_f45b_8f8d_40d2_a504_4735_44ee_190b));

/// First segments of paths that are no workspace's, besides those of kinds.
const RESERVED: &[&str] = &[
    "apply",
    "cache",
    "clustering",
    "config",
    "debug",
    "diff",
    "dump",
    "endpoints",
    "event-hooks",
    "kong",
    "license",
    "licenses",
    "log",
    "metrics",
    "nodes",
    "openapi.json",
    "portal",
    "rbac",
    "ready",
    "schemas",
    "search",
    "status",
    "tags",
    "targets",
    "timers",
    "userinfo",
];

pub(super) static SCHEMA: Schema = Schema {
    nested_path: None,
    unique: &[Unique::field("name", &["name"])],
    ..Schema::new(Kind::Workspace, "workspaces", FIELDS)
};

const FIELDS: &[Field] = &[
    CREATED_AT,
    UPDATED_AT,
    Field::string("name").required().unique().text(name),
    Field::string("comment"),
    Field::record(
        "meta",
        &[Field::string("color"), Field::string("thumbnail")],
    ),
    Field::record("config", &[]),
];

/// Whether `name` begins paths that have nothing to do with a workspace.
pub fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name)
        || Kind::ALL
            .iter()
            .any(|kind| kind.schema().path == Some(name))
}

fn name(text: &str) -> Result<(), String> {
    if Workspace::parse(text).is_none() {
        return Err(format!(
            "invalid value '{text}': expected 1 to 64 letters, digits, '-' or '_'"
        ));
    }
    match is_reserved(text) {
        true => Err(format!("'{text}' is reserved")),
        false => Ok(()),
    }
}

/// The workspace `default` of a log in which nobody has written it.
pub fn default_entity() -> (Key, Entry) {
    let key = Key {
        kind: Kind::Workspace.key_name(),
        workspace: Workspace::DEFAULT,
        id: DEFAULT_ID,
    };
    let fields: Map<String, Value> = [("name", json!("default"))]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    let entry = Entry {
        version: Version::GENESIS,
        body: Body::encode(&fields),
    };
    (key, entry)
}
