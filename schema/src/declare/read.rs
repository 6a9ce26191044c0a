//! From a tree to the entities it asks for: formats 1.1, 2.1 and 3.0, nested and flat.

use super::tree::{self, Content, Node, Position};
use super::{Desired, Document, Mistake, Place};
use crate::check::Values;
use crate::kind::Kind;
use serde_json::{Map, Value};
use std::sync::Arc;

/// The formats that are understood.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Format {
    V1,
    V2,
    V3,
}

/// Reads a declarative file. Names are not yet resolved and values not yet checked: that needs a state.
///
/// # Errors
/// With everything in the file that is not of the right shape.
pub fn read(text: &str) -> Result<Document, Vec<Mistake>> {
    let root = tree::parse(text).map_err(|mistake| vec![mistake])?;
    let Content::Map(fields) = root.content else {
        return Err(vec![Mistake::new(
            root.at,
            "",
            "expected a map with _format_version",
        )]);
    };
    let mut reader = Reader {
        format: Format::V3,
        document: Document::default(),
        mistakes: Vec::new(),
    };
    reader.read_format(&fields, root.at);
    for (name, node) in fields {
        reader.read_section(&name, node);
    }
    if reader.mistakes.is_empty() {
        Ok(reader.document)
    } else {
        Err(reader.mistakes)
    }
}

struct Reader {
    format: Format,
    document: Document,
    mistakes: Vec<Mistake>,
}

impl Reader {
    fn mistake(&mut self, at: Position, path: &str, message: impl Into<String>) {
        self.mistakes.push(Mistake::new(at, path, message));
    }

    fn read_format(&mut self, fields: &[(String, Node)], at: Position) {
        let Some((name, node)) = fields.iter().find(|(name, _)| name == "_format_version") else {
            return self.mistake(
                at,
                "_format_version",
                "required field missing: add _format_version: \"3.0\"",
            );
        };
        // Unquoted versions are numbers in YAML.
        let text = match node.to_value() {
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => String::new(),
        };
        match text.as_str() {
            "1.1" => self.format = Format::V1,
            "2.1" => self.format = Format::V2,
            "3.0" | "3" => self.format = Format::V3,
            _ => self.mistake(node.at, name, "expected one of: 1.1, 2.1, 3.0"),
        }
    }

    fn read_section(&mut self, name: &str, node: Node) {
        match name {
            "_format_version" | "_comment" | "_ignore" => {}
            "_transform" => match node.to_value() {
                Value::Bool(true) | Value::Null => {}
                Value::Bool(false) => self.document.values = Values::Stored,
                Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
                    self.mistake(node.at, name, "expected a boolean");
                }
            },
            "_workspace" => {
                if node.to_value() != "default" {
                    self.mistake(
                        node.at,
                        name,
                        "only the workspace 'default' is supported so far",
                    );
                }
            }
            "_info" => self.read_info(&node),
            _ => match Kind::from_entity(name) {
                Some(kind) => self.read_list(kind, name, node, None),
                None => self.mistake(
                    node.at,
                    name,
                    "unknown field, or a kind that is not supported yet",
                ),
            },
        }
    }

    fn read_info(&mut self, node: &Node) {
        let Content::Map(fields) = &node.content else {
            return self.mistake(node.at, "_info", "expected a map");
        };
        for (name, node) in fields {
            let path = format!("_info.{name}");
            match (name.as_str(), node.to_value()) {
                ("select_tags", Value::Array(tags)) if tags.iter().all(Value::is_string) => {
                    let texts = tags.iter().filter_map(Value::as_str).map(str::to_owned);
                    self.document.select_tags = texts.collect();
                }
                ("select_tags", _) => self.mistake(node.at, &path, "expected an array of strings"),
                _ => self.mistake(node.at, &path, "not supported yet; remove it"),
            }
        }
    }

    fn read_list(
        &mut self,
        kind: Kind,
        path: &str,
        node: Node,
        parent: Option<(&'static str, usize)>,
    ) {
        match node.content {
            Content::List(items) => {
                for (position, item) in items.into_iter().enumerate() {
                    self.read_entity(kind, format!("{path}[{position}]"), item, parent);
                }
            }
            Content::Scalar(Value::Null) => {}
            Content::Scalar(_) | Content::Map(_) => {
                self.mistake(node.at, path, "expected an array")
            }
        }
    }

    fn read_entity(
        &mut self,
        kind: Kind,
        path: String,
        node: Node,
        parent: Option<(&'static str, usize)>,
    ) {
        let at = node.at;
        let Some(fields) = self.own_fields(kind, &path, node, parent) else {
            return;
        };
        let (nested, own): (Vec<_>, Vec<_>) = fields
            .into_iter()
            .partition(|(name, _)| nested_kind(kind, name).is_some());
        let mut values: Map<String, Value> = own
            .iter()
            .map(|(name, node)| (name.clone(), node.to_value()))
            .collect();
        let node = Arc::new(Node {
            at,
            content: Content::Map(own),
        });
        let place = Place {
            path: path.clone(),
            node,
        };
        if let Some((field, _)) = parent
            && values.contains_key(field)
        {
            self.mistakes
                .push(place.mistake(field, "must not be given: the entity is nested in it"));
        }
        let id = self.take_id(&mut values, &place);
        if kind == Kind::Route && self.format < Format::V3 {
            migrate_paths(&mut values);
        }
        let index = self.document.desired.len();
        self.document.desired.push(Desired {
            kind,
            id,
            fields: values,
            parent,
            place,
        });
        for (name, node) in nested {
            if let Some((child, field)) = nested_kind(kind, &name) {
                self.read_list(child, &format!("{path}.{name}"), node, Some((field, index)));
            }
        }
    }

    /// The fields of an entity. A text stands for one that only needs a name, as in a certificate's `snis`, and a member of
    /// a group for a membership.
    fn own_fields(
        &mut self,
        kind: Kind,
        path: &str,
        node: Node,
        parent: Option<(&'static str, usize)>,
    ) -> Option<Vec<(String, Node)>> {
        let at = node.at;
        let nested = parent.is_some();
        match node.content {
            content if nested && kind == Kind::ConsumerGroupConsumer => {
                let other = match parent {
                    Some(("consumer", _)) => "consumer_group",
                    Some(_) | None => "consumer",
                };
                let node = Node { at, content };
                Some(vec![(other.to_owned(), node)])
            }
            Content::Map(fields) => Some(fields),
            content @ Content::Scalar(Value::String(_)) if nested && kind == Kind::Sni => {
                Some(vec![("name".to_owned(), Node { at, content })])
            }
            Content::Scalar(_) | Content::List(_) => {
                self.mistake(at, path, "expected a map");
                None
            }
        }
    }

    fn take_id(
        &mut self,
        fields: &mut Map<String, Value>,
        place: &Place,
    ) -> Option<crate::entity::Id> {
        match fields.remove("id") {
            None | Some(Value::Null) => None,
            Some(value) => {
                let id = value
                    .as_str()
                    .and_then(|text| uuid::Uuid::try_parse(text).ok());
                if id.is_none() {
                    self.mistakes
                        .push(place.mistake("id", "expected a valid UUID"));
                }
                id.map(crate::entity::Id)
            }
        }
    }
}

/// The kind of a child list inside `parent`, and the child's field that refers to the parent.
fn nested_kind(parent: Kind, name: &str) -> Option<(Kind, &'static str)> {
    match (parent, name) {
        (Kind::Consumer, "groups") => return Some((Kind::ConsumerGroupConsumer, "consumer")),
        (Kind::ConsumerGroup, "consumers") => {
            return Some((Kind::ConsumerGroupConsumer, "consumer_group"));
        }
        (_, _) => {}
    }
    let child = Kind::from_entity(name)?;
    let (field, _) = child
        .schema()
        .foreign()
        .find(|(_, foreign)| foreign.kind == parent)?;
    Some((child, field))
}

/// Before format 3.0 a path was a regex if it had other than plain characters; from 3.0 on a regex begins with `~`.
fn migrate_paths(fields: &mut Map<String, Value>) {
    let Some(Value::Array(paths)) = fields.get_mut("paths") else {
        return;
    };
    for path in paths {
        let Value::String(text) = path else { continue };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_~/%".contains(&byte);
        if !text.starts_with('~') && !text.bytes().all(plain) {
            text.insert(0, '~');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&[&str], &[&str]>) {
        match (read(text), expected) {
            (Ok(document), Ok(expected)) => {
                let found: Vec<String> = document
                    .desired
                    .iter()
                    .map(|desired| {
                        format!(
                            "{} {}",
                            desired.place.path,
                            Value::Object(desired.fields.clone())
                        )
                    })
                    .collect();
                assert_eq!(found, expected);
            }
            (Err(mistakes), Err(expected)) => {
                let found: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
                assert_eq!(found, expected);
            }
            (found, expected) => panic!("{found:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn nested_entities_follow_their_parents() {
        check(
            "_format_version: '3.0'\nservices:\n- name: a\n  url: http://x\n  routes:\n  - name: r\n    paths: [/r]\n    plugins:\n    - name: key-auth\nconsumers:\n- username: u\n  keyauth_credentials:\n  - key: k\n",
            Ok(&[
                r#"services[0] {"name":"a","url":"http://x"}"#,
                r#"services[0].routes[0] {"name":"r","paths":["/r"]}"#,
                r#"services[0].routes[0].plugins[0] {"name":"key-auth"}"#,
                r#"consumers[0] {"username":"u"}"#,
                r#"consumers[0].keyauth_credentials[0] {"key":"k"}"#,
            ]),
        );
    }

    #[test]
    fn old_formats_get_their_regexes_marked() {
        check(
            "_format_version: 2.1\nroutes:\n- paths: [/a/b, '/a/\\d+', '~/c']\n",
            Ok(&[r#"routes[0] {"paths":["/a/b","~/a/\\d+","~/c"]}"#]),
        );
    }

    #[test]
    fn every_mistake_of_shape_is_told_at_once() {
        check(
            "services:\n- 7\n- name: a\n  id: x\n  routes:\n  - service: b\nwrong: 1\nroutes: {}\n",
            Err(&[
                "1:1: _format_version: required field missing: add _format_version: \"3.0\"",
                "2:3: services[0]: expected a map",
                "4:7: services[1].id: expected a valid UUID",
                "6:14: services[1].routes[0].service: must not be given: the entity is nested in it",
                "7:8: wrong: unknown field, or a kind that is not supported yet",
                "8:9: routes: expected an array",
            ]),
        );
    }
}
