//! From trees to the entities they ask for: formats 1.1, 2.1 and 3.0, nested and flat, one document or several.

use super::head::{Fields, Format, Head, fill, unknown};
use super::legacy;
use super::tree::{self, Content, Node, Position};
use super::{Desired, Document, Mistake, Place};
use crate::kind::Kind;
use serde_json::{Map, Value};
use std::sync::Arc;

/// Names that any map may have and nobody reads.
const REMARKS: [&str; 2] = ["_comment", "_ignore"];
/// A list that Kong's export has beside those of entities.
const KONGS_OWN: &str = "parameters";
/// The field of a plugin that names a shared configuration.
const SHARED_CONFIG: &str = "_config";
/// The most warnings that are given.
const WARNINGS_MAX: usize = 1000;

/// Reads a declarative file, or several as the documents of one text. Names are not yet resolved and values not yet
/// checked: that needs a state. What else is wrong is in [`Document::mistakes`].
///
/// # Errors
/// If the text cannot be read to its end.
pub fn read(text: &str) -> Result<Document, Vec<Mistake>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let parsed = tree::parse(text).map_err(|mistake| vec![mistake])?;
    let mut mistakes = parsed.mistakes;
    let mut documents = Vec::new();
    for Node { at, content } in parsed.documents {
        match content {
            Content::Map(fields) => documents.push((fields, at)),
            // What is between two separators, or an empty file.
            Content::Scalar(Value::Null) => {}
            Content::Scalar(_) | Content::List(_) => {
                mistakes.push(Mistake::new(at, "", "expected a map with _format_version"));
            }
        }
    }
    if documents.is_empty() && mistakes.is_empty() {
        let message = "the file is empty: expected a map with _format_version";
        return Err(vec![Mistake::new(Position::START, "", message)]);
    }
    let mut head = Head::default();
    let formats: Vec<_> = documents
        .iter()
        .map(|(fields, at)| head.read(fields, *at))
        .collect();
    mistakes.append(&mut head.mistakes);
    let mut reader = Reader {
        format: Format::V3,
        document: Document {
            select_tags: std::mem::take(&mut head.select_tags),
            workspace: head.workspace.take(),
            values: head.values.unwrap_or_default(),
            mistakes,
            ..Document::default()
        },
        head,
    };
    for ((fields, _), format) in documents.into_iter().zip(formats) {
        reader.format = format;
        for (name, node) in fields {
            reader.read_section(&name, node);
        }
    }
    Ok(reader.document)
}

struct Reader {
    format: Format,
    head: Head,
    document: Document,
}

/// An entity that another one holds: the field that refers to it, and its index among the desired.
type Parent = Option<(&'static str, usize)>;

impl Reader {
    fn mistake(&mut self, at: Position, path: &str, message: impl Into<String>) {
        self.document.mistakes.push(Mistake::new(at, path, message));
    }

    fn warn(&mut self, warning: Mistake) {
        if self.document.warnings.len() < WARNINGS_MAX {
            self.document.warnings.push(warning);
        }
    }

    fn read_section(&mut self, name: &str, node: Node) {
        match name {
            "_format_version" | "_transform" | "_workspace" | "_info" | "_plugin_configs" => {}
            _ if REMARKS.contains(&name) => {}
            KONGS_OWN => {
                let message = "is Kong's own (its cluster's id), and is left out";
                self.warn(Mistake::new(node.at, name, message));
            }
            _ => match Kind::from_entity(name).filter(|kind| kind.in_files()) {
                Some(kind) => {
                    let nested = Nested {
                        kind,
                        by: "",
                        item: Item::Entity,
                    };
                    self.read_list(nested, name, node, None);
                }
                None => self.mistake(node.at, name, unknown(name)),
            },
        }
    }

    fn read_list(&mut self, nested: Nested, path: &str, node: Node, parent: Parent) {
        match node.content {
            Content::List(items) => {
                for (position, item) in items.into_iter().enumerate() {
                    let path = format!("{path}[{position}]");
                    if let Some((fields, at)) = self.own_fields(nested, &path, item) {
                        self.read_entity(nested.kind, path, fields, at, parent);
                    }
                }
            }
            Content::Scalar(Value::Null) => {}
            Content::Scalar(_) | Content::Map(_) => {
                self.mistake(node.at, path, "expected an array");
            }
        }
    }

    /// The fields of one item of a list.
    fn own_fields(&mut self, nested: Nested, path: &str, node: Node) -> Option<(Fields, Position)> {
        let at = node.at;
        match (nested.item, node.content) {
            (Item::Value(field), content) => {
                Some((vec![(field.to_owned(), Node { at, content })], at))
            }
            (Item::Named(field), content @ Content::Scalar(Value::String(_))) => {
                Some((vec![(field.to_owned(), Node { at, content })], at))
            }
            (Item::Entity | Item::Named(_), Content::Map(fields)) => Some((fields, at)),
            (Item::Entity | Item::Named(_), Content::Scalar(_) | Content::List(_)) => {
                self.mistake(at, path, "expected a map");
                None
            }
        }
    }

    fn read_entity(
        &mut self,
        kind: Kind,
        path: String,
        fields: Fields,
        at: Position,
        parent: Parent,
    ) {
        let mut nested = Vec::new();
        let mut own = Vec::with_capacity(fields.len());
        for (name, node) in fields {
            match Nested::find(kind, &name) {
                Some(list) => nested.push((list, name, node)),
                None if REMARKS.contains(&name.as_str()) => {}
                None => own.push((name, node)),
            }
        }
        let mut values = values_of(&own);
        let mut remarks = legacy::shorthands(kind, &values);
        if self.fill(kind, &path, &mut own) {
            values = values_of(&own);
        }
        remarks.extend(match self.format {
            Format::V1 | Format::V2 => legacy::migrate(kind, &mut values),
            Format::V3 => legacy::literal_paths(kind, &values),
        });
        remarks.extend(legacy::deprecated(kind, &values));
        let content = Content::Map(own);
        let place = Place {
            path: path.clone(),
            node: Arc::new(Node { at, content }),
        };
        if let Some((field, _)) = parent
            && values.contains_key(field)
        {
            let message = "must not be given: the entity is nested in it";
            self.document.mistakes.push(place.mistake(field, message));
        }
        let id = self.take_id(&mut values, &place);
        for (field, message) in remarks {
            self.warn(place.mistake(&field, message));
        }
        let index = self.document.desired.len();
        self.document.desired.push(Desired {
            kind,
            id,
            fields: values,
            parent,
            place,
        });
        for (list, name, node) in nested {
            let path = format!("{path}.{name}");
            self.read_list(list, &path, node, Some((list.by, index)));
        }
    }

    /// Adds what the file says elsewhere; whether there was anything.
    fn fill(&mut self, kind: Kind, path: &str, own: &mut Fields) -> bool {
        let mut filled = false;
        if kind == Kind::Plugin
            && let Some(position) = own.iter().position(|(name, _)| name == SHARED_CONFIG)
        {
            let (_, node) = own.remove(position);
            self.fill_config(path, &node, own);
            filled = true;
        }
        if let Some(defaults) = self.head.defaults.get(&kind) {
            fill(own, defaults);
            filled = true;
        }
        filled
    }

    /// Adds what a plugin takes from `_plugin_configs`: the fields of its `config` that it does not have itself.
    fn fill_config(&mut self, path: &str, node: &Node, own: &mut Fields) {
        let name = match &node.content {
            Content::Scalar(Value::String(name)) => name,
            Content::Scalar(Value::Null) => return,
            Content::Scalar(_) | Content::List(_) | Content::Map(_) => {
                let path = format!("{path}.{SHARED_CONFIG}");
                return self.mistake(node.at, &path, "expected a string");
            }
        };
        let Some((_, shared)) = self.head.configs.get(name) else {
            let message = format!("there is no '{name}' in _plugin_configs");
            return self.mistake(node.at, &format!("{path}.{SHARED_CONFIG}"), message);
        };
        let known = own.iter_mut().find(|(field, _)| field == "config");
        let empty = matches!(
            &known,
            None | Some((
                _,
                Node {
                    content: Content::Scalar(Value::Null),
                    ..
                }
            ))
        );
        if empty {
            own.retain(|(field, _)| field != "config");
            let content = Content::Map(shared.clone());
            own.push((
                "config".to_owned(),
                Node {
                    at: node.at,
                    content,
                },
            ));
        } else if let Some((_, config)) = known
            && let Content::Map(fields) = &mut config.content
        {
            for (name, node) in shared {
                if !fields.iter().any(|(known, _)| known == name) {
                    fields.push((name.clone(), node.clone()));
                }
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
                    let mistake = place.mistake("id", "expected a valid UUID");
                    self.document.mistakes.push(mistake);
                }
                id.map(crate::entity::Id)
            }
        }
    }
}

fn values_of(fields: &Fields) -> Map<String, Value> {
    let value = |(name, node): &(String, Node)| (name.clone(), node.to_value());
    fields.iter().map(value).collect()
}

/// A list of entities inside another one.
#[derive(Clone, Copy)]
struct Nested {
    /// Their kind.
    kind: Kind,
    /// Their field that refers to it.
    by: &'static str,
    item: Item,
}

/// What an item of a list is.
#[derive(Clone, Copy)]
enum Item {
    /// An entity.
    Entity,
    /// An entity, or a text that is the value of this field.
    Named(&'static str),
    /// The value of this field.
    Value(&'static str),
}

impl Nested {
    /// The list of this name inside `parent`.
    fn find(parent: Kind, name: &str) -> Option<Self> {
        for kind in Kind::ALL {
            let refers = |by: &str| {
                let mut foreign = kind.schema().foreign();
                foreign.any(|(field, foreign)| field == by && foreign.kind == parent)
            };
            let inside = kind.schema().inside.iter();
            if let Some(inside) = { inside }.find(|inside| inside.list == name && refers(inside.by))
            {
                return Some(Self {
                    kind: *kind,
                    by: inside.by,
                    item: Item::Value(inside.item),
                });
            }
        }
        let kind = Kind::from_entity(name)?;
        let mut foreign = kind.schema().foreign();
        let (by, _) = foreign.find(|(_, foreign)| foreign.kind == parent)?;
        let names = parent.schema().names.filter(|names| names.child == kind);
        let item = names.map_or(Item::Entity, |names| Item::Named(names.label));
        Some(Self { kind, by, item })
    }
}

#[cfg(test)]
mod tests;
