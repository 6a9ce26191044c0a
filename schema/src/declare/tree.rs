//! YAML or JSON text as trees, one a document, in which every value knows its place, so that a mistake can name its line.
//!
//! Bounded: depth, number of values (aliases count each time they are used), so that a small file cannot become a
//! large tree.

use super::Mistake;
use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use serde_json::{Map, Number, Value};
use std::collections::{BTreeMap, BTreeSet};

const DEPTH_MAX: usize = 64;
const VALUES_MAX: usize = 20_000_000;
const ALIASED_VALUES_MAX: usize = 100_000;
const FIELDS_MAX: usize = 4096;

/// A line and column, both from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Position {
    /// From 1.
    pub line: usize,
    /// From 1.
    pub column: usize,
}

impl Position {
    /// Where a text begins.
    pub(crate) const START: Self = Self { line: 1, column: 1 };
}

/// A value and where it begins.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Node {
    pub(super) at: Position,
    pub(super) content: Content,
}

#[derive(Clone, PartialEq, Debug)]
pub(super) enum Content {
    Scalar(Value),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl Node {
    /// The value without its places.
    pub(super) fn to_value(&self) -> Value {
        match &self.content {
            Content::Scalar(value) => value.clone(),
            Content::List(items) => items.iter().map(Self::to_value).collect(),
            Content::Map(fields) => Value::Object(
                fields
                    .iter()
                    .map(|(name, node)| (name.clone(), node.to_value()))
                    .collect::<Map<_, _>>(),
            ),
        }
    }

    /// The node at a path of field names and indexes, or the nearest one above it.
    pub(super) fn nearest(&self, path: &[String]) -> &Self {
        let Some((first, rest)) = path.split_first() else {
            return self;
        };
        let child = match &self.content {
            Content::Map(fields) => fields
                .iter()
                .find(|(name, _)| name == first)
                .map(|(_, node)| node),
            Content::List(items) => first
                .parse::<usize>()
                .ok()
                .and_then(|index| items.get(index)),
            Content::Scalar(_) => None,
        };
        child.map_or(self, |child| child.nearest(rest))
    }
}

/// What a text holds.
#[derive(Default)]
pub(super) struct Parsed {
    /// Its documents, one after the other.
    pub(super) documents: Vec<Node>,
    /// What is wrong with them, as far as reading could go on.
    pub(super) mistakes: Vec<Mistake>,
}

/// Parses all documents of `text`. JSON is read as the YAML it is.
///
/// # Errors
/// If the text is not YAML, or larger than the bounds.
pub(super) fn parse(text: &str) -> Result<Parsed, Mistake> {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            let at = Position {
                line: error.marker().line().max(1),
                column: error.marker().col() + 1,
            };
            Mistake::new(at, "", format!("not valid YAML or JSON: {}", error.info()))
        })?;
        builder.step(event, span)?;
    }
    Ok(builder.parsed)
}

#[derive(Default)]
struct Builder {
    parsed: Parsed,
    stack: Vec<Frame>,
    anchors: BTreeMap<usize, (Node, usize)>,
    values: usize,
    aliased: usize,
}

struct Frame {
    at: Position,
    anchor: usize,
    values_before: usize,
    open: Open,
}

enum Open {
    List(Vec<Node>),
    Map(OpenMap),
}

/// A map whose end has not come yet.
#[derive(Default)]
struct OpenMap {
    fields: Vec<(String, Node)>,
    /// Where the names of the fields stand.
    places: Vec<Position>,
    /// What `<<` brings.
    merged: Vec<(String, Node)>,
    /// A name whose value has not come yet.
    name: Option<(String, Position)>,
}

impl OpenMap {
    /// Its fields, those that are merged last. The second of two equal names is a mistake.
    fn close(self, mistakes: &mut Vec<Mistake>) -> Vec<(String, Node)> {
        let mut first: BTreeMap<&str, Position> = BTreeMap::new();
        let mut twice = false;
        for ((name, _), at) in self.fields.iter().zip(&self.places) {
            if let Some(before) = first.get(name.as_str()) {
                let message = format!("the field is given twice, first on line {}", before.line);
                mistakes.push(Mistake::new(*at, name, message));
                twice = true;
            } else {
                first.insert(name, *at);
            }
        }
        let mut added = BTreeSet::new();
        let new = |(name, _): &(String, Node)| {
            !first.contains_key(name.as_str()) && added.insert(name.clone())
        };
        let merged: Vec<_> = self.merged.into_iter().filter(new).collect();
        let mut fields = self.fields;
        if twice {
            let mut known = BTreeSet::new();
            fields.retain(|(name, _)| known.insert(name.clone()));
        }
        fields.extend(merged);
        fields
    }
}

impl Builder {
    fn step(&mut self, event: Event<'_>, span: Span) -> Result<(), Mistake> {
        let at = Position {
            line: span.start.line().max(1),
            column: span.start.col() + 1,
        };
        let values = self.values;
        match event {
            Event::SequenceStart(anchor, _) => self.open(at, anchor, Open::List(Vec::new())),
            Event::MappingStart(anchor, _) => self.open(at, anchor, Open::Map(OpenMap::default())),
            Event::SequenceEnd | Event::MappingEnd => match self.stack.pop() {
                Some(frame) => self.close(frame),
                None => Ok(()),
            },
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && tag.is_none();
                let value = match plain {
                    true => plain_scalar(&text),
                    false => Value::from(text.as_ref()),
                };
                let content = Content::Scalar(value);
                self.add(Node { at, content }, anchor, values)
            }
            Event::Alias(anchor) => {
                let Some((node, size)) = self.anchors.get(&anchor) else {
                    return Err(Mistake::new(at, "", "the alias names no finished anchor"));
                };
                self.values += size;
                self.aliased += size;
                if self.aliased > ALIASED_VALUES_MAX {
                    let message =
                        format!("aliases stand for more than {ALIASED_VALUES_MAX} values");
                    return Err(Mistake::new(at, "", message));
                }
                let node = Node { at, ..node.clone() };
                self.add(node, 0, values)
            }
            Event::DocumentStart(_) => {
                // An alias names an anchor of its own document.
                self.anchors.clear();
                Ok(())
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    fn open(&mut self, at: Position, anchor: usize, open: Open) -> Result<(), Mistake> {
        if self.stack.len() >= DEPTH_MAX {
            let message = format!("nested more than {DEPTH_MAX} deep");
            return Err(Mistake::new(at, "", message));
        }
        self.stack.push(Frame {
            at,
            anchor,
            values_before: self.values,
            open,
        });
        Ok(())
    }

    fn close(&mut self, frame: Frame) -> Result<(), Mistake> {
        let content = match frame.open {
            Open::List(items) => Content::List(items),
            Open::Map(map) => Content::Map(map.close(&mut self.parsed.mistakes)),
        };
        let at = frame.at;
        self.add(Node { at, content }, frame.anchor, frame.values_before)
    }

    /// Puts a finished node where it belongs.
    fn add(&mut self, node: Node, anchor: usize, before: usize) -> Result<(), Mistake> {
        self.values += 1;
        if self.values > VALUES_MAX {
            let message = format!("more than {VALUES_MAX} values");
            return Err(Mistake::new(node.at, "", message));
        }
        if anchor > 0 {
            self.anchors
                .insert(anchor, (node.clone(), self.values - before));
        }
        match self.stack.last_mut().map(|parent| &mut parent.open) {
            None => self.parsed.documents.push(node),
            Some(Open::List(items)) => items.push(node),
            Some(Open::Map(map)) => match map.name.take() {
                None => map.name = Some((field_name(&node)?, node.at)),
                Some((key, at)) if key == "<<" => {
                    if !merge(&mut map.merged, node) {
                        let message = "expected a map, or a list of maps, to merge";
                        self.parsed.mistakes.push(Mistake::new(at, &key, message));
                    }
                }
                Some((key, at)) if map.fields.len() >= FIELDS_MAX => {
                    let message = format!("more than {FIELDS_MAX} fields");
                    return Err(Mistake::new(at, &key, message));
                }
                Some((key, at)) => {
                    map.fields.push((key, node));
                    map.places.push(at);
                }
            },
        }
        Ok(())
    }
}

fn field_name(node: &Node) -> Result<String, Mistake> {
    match &node.content {
        Content::Scalar(Value::String(text)) => Ok(text.clone()),
        Content::Scalar(value) => Ok(value.to_string()),
        Content::List(_) | Content::Map(_) => Err(Mistake::new(
            node.at,
            "",
            "a field name must be a plain text",
        )),
    }
}

/// Takes the fields of a map or of several; false if it is neither.
fn merge(merged: &mut Vec<(String, Node)>, node: Node) -> bool {
    match node.content {
        Content::Map(fields) => {
            merged.extend(fields);
            true
        }
        Content::List(maps) => maps.into_iter().all(|map| merge(merged, map)),
        Content::Scalar(_) => false,
    }
}

/// A plain scalar by the YAML 1.2 core schema.
pub(super) fn plain_scalar(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let numeric = text.starts_with(|first: char| first.is_ascii_digit() || "+-.".contains(first));
    if !numeric {
        return Value::from(text);
    }
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    if let Ok(integer) = unsigned.parse::<i64>() {
        return Value::from(integer);
    }
    if let Some(hex) = unsigned.strip_prefix("0x") {
        return i64::from_str_radix(hex, 16).map_or_else(|_| Value::from(text), Value::from);
    }
    let float = unsigned
        .bytes()
        .all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte));
    match unsigned.parse::<f64>() {
        Ok(number) if float => {
            Number::from_f64(number).map_or_else(|| Value::from(text), Value::Number)
        }
        Ok(_) | Err(_) => Value::from(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(text: &str, expected: Result<Value, (usize, &str)>) {
        let first = |parsed: Parsed| match parsed.mistakes.into_iter().next() {
            Some(mistake) => Err(mistake),
            None => Ok(parsed.documents[0].to_value()),
        };
        let found = parse(text).and_then(first);
        match expected {
            Ok(value) => assert_eq!(found.unwrap(), value, "{text}"),
            Err((line, message)) => {
                let mistake = found.unwrap_err();
                assert_eq!(mistake.at.line, line, "{text}: {mistake}");
                assert!(mistake.message.contains(message), "{mistake}");
            }
        }
    }

    #[test]
    fn values_come_out_as_the_core_schema_says() {
        check(
            "a: 1\nb: [x, 'y', ~, 1.5, 1.2.3, 0x10, true, yes]\nc: {d: \"2\"}\n",
            Ok(
                json!({"a": 1, "b": ["x", "y", null, 1.5, "1.2.3", 16, true, "yes"], "c": {"d": "2"}}),
            ),
        );
        check(
            "{\"a\": [1, 2], \"b\": null}",
            Ok(json!({"a": [1, 2], "b": null})),
        );
        check(
            "x: &a {k: 1, l: 2}\ny: {<<: *a, l: 3}\n",
            Ok(json!({"x": {"k": 1, "l": 2}, "y": {"l": 3, "k": 1}})),
        );
    }

    #[test]
    fn what_is_wrong_with_the_text_is_told_with_its_line() {
        check(
            "a: 1\nb: 3\na: 2\n",
            Err((3, "given twice, first on line 1")),
        );
        check("a: {<<: 7}\n", Err((1, "to merge")));
        check("a:\n  - [1\nb: 2\n", Err((3, "not valid")));
        check(&"[".repeat(100), Err((1, "nested more than")));
        check("a: *nothing\n", Err((1, "")));
    }

    #[test]
    fn documents_follow_each_other() {
        let parsed = parse("a: &a 1\n...\n# two\nb: 2\n---\nc: 3\n").unwrap();
        let found: Vec<_> = parsed.documents.iter().map(Node::to_value).collect();
        assert_eq!(found, [json!({"a": 1}), json!({"b": 2}), json!({"c": 3})]);
        assert_eq!(parsed.documents[1].at.line, 4);
        check("a: &a 1\n---\nb: *a\n", Err((3, "")));
    }

    #[test]
    fn a_merge_adds_only_what_is_not_there() {
        check(
            "a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc: {z: 3, <<: [*a, *b]}\n",
            Ok(
                json!({"a": {"x": 1, "y": 1}, "b": {"y": 2, "z": 2}, "c": {"z": 3, "x": 1, "y": 1}}),
            ),
        );
    }

    #[test]
    fn a_small_file_cannot_become_a_large_tree() {
        let mut text = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for level in 1..12 {
            let alias = format!("*a{}", level - 1);
            text += &format!("a{level}: &a{level} [{}]\n", vec![alias; 10].join(","));
        }
        check(&text, Err((5, "aliases stand for more than")));
    }
}
