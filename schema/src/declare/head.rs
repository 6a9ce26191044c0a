//! What a file says of itself and of all its entities: its format, tags, defaults, shared configurations.

use super::Mistake;
use super::tree::{Content, Node, Position};
use crate::check::Values;
use crate::entity::Workspace;
use crate::kind::Kind;
use serde_json::Value;
use std::collections::BTreeMap;

/// The formats that are understood.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Format {
    V1,
    V2,
    V3,
}

/// Fields with their places.
pub(super) type Fields = Vec<(String, Node)>;

/// What several documents say together.
#[derive(Default)]
pub(super) struct Head {
    /// From `_info.select_tags`.
    pub(super) select_tags: Vec<String>,
    /// From `_workspace`.
    pub(super) workspace: Option<(Workspace, Position)>,
    /// From `_transform`.
    pub(super) values: Option<Values>,
    /// From `_info.defaults`.
    pub(super) defaults: BTreeMap<Kind, Fields>,
    /// From `_plugin_configs`.
    pub(super) configs: BTreeMap<String, (Position, Fields)>,
    pub(super) mistakes: Vec<Mistake>,
}

/// Sections that only Kong's other editions have.
const OTHER_EDITIONS: [&str; 8] = [
    "_konnect",
    "custom_entities",
    "licenses",
    "partials",
    "rbac_endpoint_permissions",
    "rbac_roles",
    "service_packages",
    "mtls_auth_credentials",
];

impl Head {
    fn mistake(&mut self, at: Position, path: &str, message: impl Into<String>) {
        self.mistakes.push(Mistake::new(at, path, message));
    }

    /// Reads the head of a document, and its format.
    pub(super) fn read(&mut self, fields: &[(String, Node)], at: Position) -> Format {
        for (name, node) in fields {
            match name.as_str() {
                "_transform" => self.read_transform(node),
                "_workspace" => self.read_workspace(node),
                "_info" => self.read_info(node),
                "_plugin_configs" => self.read_configs(node),
                _ => {}
            }
        }
        self.read_format(fields, at)
    }

    fn read_format(&mut self, fields: &[(String, Node)], at: Position) -> Format {
        let name = "_format_version";
        let Some((_, node)) = fields.iter().find(|(field, _)| field == name) else {
            let message = "required field missing: add _format_version: \"3.0\"";
            self.mistake(at, name, message);
            return Format::V3;
        };
        // Unquoted versions are numbers in YAML.
        let text = match node.to_value() {
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => String::new(),
        };
        match text.as_str() {
            "1.1" => Format::V1,
            "2.1" => Format::V2,
            "3.0" | "3" => Format::V3,
            _ => {
                self.mistake(node.at, name, "expected one of: 1.1, 2.1, 3.0");
                Format::V3
            }
        }
    }

    fn read_transform(&mut self, node: &Node) {
        let values = match node.to_value() {
            Value::Bool(true) | Value::Null => Values::Plain,
            Value::Bool(false) => Values::Stored,
            Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
                return self.mistake(node.at, "_transform", "expected a boolean");
            }
        };
        if self.values.is_some_and(|known| known != values) {
            let message = "differs from what an earlier document says";
            return self.mistake(node.at, "_transform", message);
        }
        self.values = Some(values);
    }

    fn read_workspace(&mut self, node: &Node) {
        let name = match node.to_value() {
            Value::Null => return,
            Value::String(name) => name,
            Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                return self.mistake(node.at, "_workspace", "expected a string");
            }
        };
        match (Workspace::parse(&name), &self.workspace) {
            (None, _) => self.mistake(node.at, "_workspace", "is no name of a workspace"),
            (Some(workspace), Some((first, _))) if workspace != *first => {
                let message = format!("differs from '{first}', which an earlier document says");
                self.mistake(node.at, "_workspace", message);
            }
            (Some(_), Some(_)) => {}
            (Some(workspace), None) => self.workspace = Some((workspace, node.at)),
        }
    }

    fn read_info(&mut self, node: &Node) {
        let Some(fields) = self.map(node, "_info") else {
            return;
        };
        for (name, node) in fields {
            let path = format!("_info.{name}");
            match name.as_str() {
                "select_tags" => self.read_select_tags(node, &path),
                "defaults" => self.read_defaults(node),
                // Names are looked up in all that there is.
                "default_lookup_tags" | "_comment" | "_ignore" => {}
                _ => self.mistake(node.at, &path, "unknown field"),
            }
        }
    }

    fn read_select_tags(&mut self, node: &Node, path: &str) {
        match node.to_value() {
            Value::Null => {}
            Value::Array(tags) if tags.iter().all(Value::is_string) => {
                for tag in tags.iter().filter_map(Value::as_str) {
                    if !self.select_tags.iter().any(|known| known == tag) {
                        self.select_tags.push(tag.to_owned());
                    }
                }
            }
            Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Object(_) => self.mistake(node.at, path, "expected an array of strings"),
        }
    }

    fn read_defaults(&mut self, node: &Node) {
        let Some(kinds) = self.map(node, "_info.defaults") else {
            return;
        };
        for (name, node) in kinds {
            let path = format!("_info.defaults.{name}");
            let Some(kind) = Kind::from_name(name) else {
                let message = "unknown kind: expected service, route, upstream, target, ...";
                self.mistake(node.at, &path, message);
                continue;
            };
            if let Some(fields) = self.map(node, &path) {
                // Of several documents the first has the say.
                fill(self.defaults.entry(kind).or_default(), fields);
            }
        }
    }

    fn read_configs(&mut self, node: &Node) {
        let Some(configs) = self.map(node, "_plugin_configs") else {
            return;
        };
        for (name, node) in configs {
            let path = format!("_plugin_configs.{name}");
            let Some(fields) = self.map(node, &path) else {
                continue;
            };
            match self.configs.get(name) {
                Some((first, _)) => {
                    let message = format!("is given twice, first on line {}", first.line);
                    self.mistake(node.at, &path, message);
                }
                None => {
                    self.configs
                        .insert(name.clone(), (node.at, fields.to_vec()));
                }
            }
        }
    }

    /// The fields of a map; `None` if it is null, or none.
    fn map<'a>(&mut self, node: &'a Node, path: &str) -> Option<&'a [(String, Node)]> {
        match &node.content {
            Content::Map(fields) => Some(fields),
            Content::Scalar(Value::Null) => None,
            Content::Scalar(_) | Content::List(_) => {
                self.mistake(node.at, path, "expected a map");
                None
            }
        }
    }
}

/// What to say of a section that is not there.
pub(super) fn unknown(name: &str) -> String {
    let singular = name.replace('-', "_");
    if OTHER_EDITIONS.contains(&name) {
        return "belongs to another edition of Kong and is not supported; remove it".to_owned();
    }
    match Kind::from_name(&singular).or_else(|| Kind::from_entity(&singular)) {
        Some(kind) => format!("unknown field; is it '{}'?", kind.schema().entity),
        None => "unknown field; what is only there for its anchors can stand below _ignore".into(),
    }
}

/// Gives `fields` what they do not have, or have as null, from `defaults`; also inside maps.
pub(super) fn fill(fields: &mut Fields, defaults: &[(String, Node)]) {
    for (name, default) in defaults {
        let known = fields.iter_mut().find(|(field, _)| field == name);
        match known {
            None => fields.push((name.clone(), default.clone())),
            Some((_, node)) => match (&mut node.content, &default.content) {
                (Content::Scalar(Value::Null), _) => *node = default.clone(),
                (Content::Map(own), Content::Map(defaults)) => fill(own, defaults),
                (Content::Scalar(_) | Content::List(_) | Content::Map(_), _) => {}
            },
        }
    }
}
