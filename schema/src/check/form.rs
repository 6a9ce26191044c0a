//! Form bodies (`application/x-www-form-urlencoded`): names like `config.key`, `config[key]`, `paths[]`, `paths[2]`
//! become a tree, and texts become what the schema says they are.

use crate::field::{Field, Type};
use crate::kind::Schema;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The deepest nesting a name can say; more is cut off and becomes an unknown field.
const DEPTH_MAX: usize = 16;

/// The typed form of decoded pairs. Texts that do not fit their field stay texts, and fail when they are checked.
/// `before` is the entity that is patched, if any: the types of a plugin's configuration depend on its name.
pub fn form_value(
    schema: &Schema,
    pairs: &[(String, String)],
    before: Option<&Map<String, Value>>,
) -> Map<String, Value> {
    let mut root = Node::default();
    for (name, text) in pairs {
        root.insert(&segments(name), text);
    }
    let name = root.children.get("name").and_then(|node| node.texts.last());
    let name = name
        .map(String::as_str)
        .or_else(|| before?.get("name")?.as_str());
    let config = name.and_then(|name| schema.config(name));
    let mut typed = Map::new();
    for (name, node) in root.children {
        let known = schema
            .fields
            .iter()
            .chain(schema.shorthands)
            .chain(schema.names.map(|names| names.field))
            .find(|field| field.name == name);
        let field = match (known.map(|field| field.kind), config) {
            (Some(Type::Config), Some(config)) => Some(config),
            _ => known,
        };
        typed.insert(name, node.typed(field));
    }
    typed
}

/// A name taken apart: `a.b[c][]` is `a`, `b`, `c`, and an empty segment for "the next element".
fn segments(name: &str) -> Vec<&str> {
    let mut segments = Vec::new();
    let mut rest = name;
    while !rest.is_empty() && segments.len() < DEPTH_MAX {
        if let Some((inside, after)) = rest
            .strip_prefix('[')
            .and_then(|bracket| bracket.split_once(']'))
        {
            segments.push(inside);
            rest = after.strip_prefix('.').unwrap_or(after);
            continue;
        }
        let end = rest.find(['.', '[']).unwrap_or(rest.len()).max(1);
        // A name may begin with any character, so the cut must not split it.
        let end = (end..=rest.len())
            .find(|end| rest.is_char_boundary(*end))
            .unwrap_or(rest.len());
        segments.push(&rest[..end]);
        rest = &rest[end..];
        rest = rest.strip_prefix('.').unwrap_or(rest);
    }
    segments
}

/// A place in the tree: the texts given for it, or what is below it.
#[derive(Default)]
struct Node {
    texts: Vec<String>,
    children: BTreeMap<String, Node>,
}

impl Node {
    fn insert(&mut self, segments: &[&str], text: &str) {
        match segments.split_first() {
            None => self.texts.push(text.to_owned()),
            // `a[]=x` adds an element, as does `a=x` given twice.
            Some((&"", [])) => self.texts.push(text.to_owned()),
            Some((name, below)) => {
                self.children
                    .entry((*name).to_owned())
                    .or_default()
                    .insert(below, text);
            }
        }
    }

    fn typed(self, field: Option<&Field>) -> Value {
        match field.map(|field| field.kind) {
            Some(Type::Array(elements) | Type::Set(elements)) => self.list(elements),
            Some(Type::Map { values, .. }) => self.object(|_| Some(values)),
            Some(Type::Record(fields)) => {
                let aliases = field.map(|field| field.aliases).unwrap_or_default();
                self.object(|name| {
                    let known = fields.iter().find(|field| field.name == name);
                    known.or_else(|| {
                        aliases
                            .iter()
                            .map(|alias| &alias.field)
                            .find(|field| field.name == name)
                    })
                })
            }
            Some(Type::Foreign(_)) if self.children.is_empty() => {
                self.last().map_or(Value::Null, |id| json!({ "id": id }))
            }
            Some(Type::Integer | Type::Number) if self.children.is_empty() => {
                self.last().map_or(Value::Null, number)
            }
            Some(Type::Boolean) if self.children.is_empty() => match self.last() {
                Some("true") => true.into(),
                Some("false") => false.into(),
                other => other.into(),
            },
            Some(Type::Integer | Type::Number | Type::Boolean)
            | Some(Type::String | Type::Foreign(_) | Type::Config | Type::Json)
            | None => self.object(|_| None),
        }
    }

    /// Elements by index, then those without one.
    fn list(mut self, elements: &Field) -> Value {
        if self.children.is_empty() && self.texts.iter().all(String::is_empty) {
            return Value::Null;
        }
        let mut items: Vec<_> = std::mem::take(&mut self.children).into_iter().collect();
        items.sort_by_key(|(index, _)| index.parse().unwrap_or(u64::MAX));
        let indexed = items
            .into_iter()
            .map(|(_, node)| node.typed(Some(elements)));
        let texts = self.texts.into_iter().map(|text| {
            Self {
                texts: vec![text],
                children: BTreeMap::new(),
            }
            .typed(Some(elements))
        });
        indexed.chain(texts).collect()
    }

    fn object<'a>(self, field: impl Fn(&str) -> Option<&'a Field>) -> Value {
        if self.children.is_empty() {
            return self.last().into();
        }
        let typed = |(name, node): (String, Self)| {
            let field = field(&name);
            let value = node.typed(field);
            (name, value)
        };
        Value::Object(self.children.into_iter().map(typed).collect())
    }

    /// The text; none if it is empty, for forms have no other way to say so.
    fn last(&self) -> Option<&str> {
        self.texts
            .last()
            .map(String::as_str)
            .filter(|text| !text.is_empty())
    }
}

fn number(text: &str) -> Value {
    if let Ok(whole) = text.parse::<i64>() {
        return whole.into();
    }
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => json!(number),
        Ok(_) | Err(_) => text.into(),
    }
}
