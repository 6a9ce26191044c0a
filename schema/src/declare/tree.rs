//! YAML or JSON text as a tree in which every value knows its place, so that a mistake can name its line.
//!
//! Bounded: depth, number of values (aliases count each time they are used), so that a small file cannot become a
//! large tree.

use super::Mistake;
use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use serde_json::{Map, Number, Value};
use std::collections::BTreeMap;

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

/// Parses the first document of `text`. JSON is read as the YAML it is.
///
/// # Errors
/// If the text is not YAML, or larger than the bounds.
pub(super) fn parse(text: &str) -> Result<Node, Mistake> {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            let at = Position {
                line: error.marker().line(),
                column: error.marker().col() + 1,
            };
            Mistake::new(at, "", format!("not valid YAML or JSON: {}", error.info()))
        })?;
        if let Some(root) = builder.step(event, span)? {
            return Ok(root);
        }
    }
    Ok(Node {
        at: Position { line: 1, column: 1 },
        content: Content::Scalar(Value::Null),
    })
}

#[derive(Default)]
struct Builder {
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
    Map {
        fields: Vec<(String, Node)>,
        merged: Vec<(String, Node)>,
        name: Option<(String, Position)>,
    },
}

impl Builder {
    fn step(&mut self, event: Event<'_>, span: Span) -> Result<Option<Node>, Mistake> {
        let at = Position {
            line: span.start.line(),
            column: span.start.col() + 1,
        };
        let values = self.values;
        match event {
            Event::SequenceStart(anchor, _) => self.open(at, anchor, Open::List(Vec::new())),
            Event::MappingStart(anchor, _) => self.open(
                at,
                anchor,
                Open::Map {
                    fields: Vec::new(),
                    merged: Vec::new(),
                    name: None,
                },
            ),
            Event::SequenceEnd | Event::MappingEnd => match self.stack.pop() {
                Some(frame) => self.close(frame),
                None => Ok(None),
            },
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && tag.is_none();
                let value = if plain {
                    plain_scalar(&text)
                } else {
                    Value::from(text.as_ref())
                };
                self.add(
                    Node {
                        at,
                        content: Content::Scalar(value),
                    },
                    anchor,
                    values,
                )
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
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => Ok(None),
        }
    }

    fn open(&mut self, at: Position, anchor: usize, open: Open) -> Result<Option<Node>, Mistake> {
        if self.stack.len() >= DEPTH_MAX {
            return Err(Mistake::new(
                at,
                "",
                format!("nested more than {DEPTH_MAX} deep"),
            ));
        }
        self.stack.push(Frame {
            at,
            anchor,
            values_before: self.values,
            open,
        });
        Ok(None)
    }

    fn close(&mut self, frame: Frame) -> Result<Option<Node>, Mistake> {
        let content = match frame.open {
            Open::List(items) => Content::List(items),
            Open::Map {
                mut fields, merged, ..
            } => {
                for (name, node) in merged {
                    if !fields.iter().any(|(known, _)| *known == name) {
                        fields.push((name, node));
                    }
                }
                Content::Map(fields)
            }
        };
        self.add(
            Node {
                at: frame.at,
                content,
            },
            frame.anchor,
            frame.values_before,
        )
    }

    /// Puts a finished node where it belongs. Gives it back if it is the document.
    fn add(&mut self, node: Node, anchor: usize, before: usize) -> Result<Option<Node>, Mistake> {
        self.values += 1;
        if self.values > VALUES_MAX {
            return Err(Mistake::new(
                node.at,
                "",
                format!("more than {VALUES_MAX} values"),
            ));
        }
        if anchor > 0 {
            self.anchors
                .insert(anchor, (node.clone(), self.values - before));
        }
        let Some(parent) = self.stack.last_mut() else {
            return Ok(Some(node));
        };
        match &mut parent.open {
            Open::List(items) => items.push(node),
            Open::Map {
                fields,
                merged,
                name,
            } => match name.take() {
                None => *name = Some((field_name(&node)?, node.at)),
                Some((key, _)) if key == "<<" => merge(merged, node),
                Some((key, at)) if fields.iter().any(|(known, _)| *known == key) => {
                    return Err(Mistake::new(at, &key, "the field is given twice"));
                }
                Some((key, at)) if fields.len() >= FIELDS_MAX => {
                    return Err(Mistake::new(
                        at,
                        &key,
                        format!("more than {FIELDS_MAX} fields"),
                    ));
                }
                Some((key, _)) => fields.push((key, node)),
            },
        }
        Ok(None)
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

fn merge(merged: &mut Vec<(String, Node)>, node: Node) {
    match node.content {
        Content::Map(fields) => merged.extend(fields),
        Content::List(maps) => maps.into_iter().for_each(|map| merge(merged, map)),
        Content::Scalar(_) => {}
    }
}

/// A plain scalar by the YAML 1.2 core schema.
fn plain_scalar(text: &str) -> Value {
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
        let found = parse(text).map(|node| node.to_value());
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
        check("a: 1\na: 2\n", Err((2, "given twice")));
        check("a:\n  - [1\nb: 2\n", Err((3, "not valid")));
        check(&"[".repeat(100), Err((1, "nested more than")));
        check("a: *nothing\n", Err((1, "")));
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
