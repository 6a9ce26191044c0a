//! JSON values as YAML text, as a person would write it: block style, quotes only where they are needed.

use super::tree::plain_scalar;
use serde_json::{Map, Value};
use std::fmt::Write;

/// `value` as a YAML document. Reading it gives the same value.
pub fn to_yaml(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Object(fields) if !fields.is_empty() => put_fields(&mut text, fields, 0),
        Value::Array(items) if !items.is_empty() => put_items(&mut text, items, 0),
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_) => {
            put_scalar(&mut text, value, 0);
            text.push('\n');
        }
    }
    text
}

fn put_fields(text: &mut String, fields: &Map<String, Value>, depth: usize) {
    for (position, (name, value)) in fields.iter().enumerate() {
        // The first field of a list's item stands beside its dash.
        if position > 0 || !text.ends_with("- ") {
            indent(text, depth);
        }
        put_text(text, name);
        text.push(':');
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                text.push('\n');
                put_fields(text, inner, depth + 1);
            }
            Value::Array(items) if !items.is_empty() => {
                text.push('\n');
                put_items(text, items, depth);
            }
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Object(_) => {
                text.push(' ');
                put_scalar(text, value, depth + 1);
                text.push('\n');
            }
        }
    }
}

fn put_items(text: &mut String, items: &[Value], depth: usize) {
    for (position, item) in items.iter().enumerate() {
        if position > 0 || !text.ends_with("- ") {
            indent(text, depth);
        }
        text.push_str("- ");
        match item {
            Value::Object(fields) if !fields.is_empty() => put_fields(text, fields, depth + 1),
            Value::Array(inner) if !inner.is_empty() => put_items(text, inner, depth + 1),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Object(_) => {
                put_scalar(text, item, depth + 1);
                text.push('\n');
            }
        }
    }
}

fn indent(text: &mut String, depth: usize) {
    for _ in 0..depth {
        text.push_str("  ");
    }
}

/// A value without fields or elements.
fn put_scalar(text: &mut String, value: &Value, depth: usize) {
    match value {
        Value::String(value) if is_block(value) => put_block(text, value, depth),
        Value::String(value) => put_text(text, value),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            write!(text, "{value}").expect("a String takes all text");
        }
    }
}

/// A text on one line: plain if it cannot be taken for anything else, else as JSON has it.
fn put_text(text: &mut String, value: &str) {
    match is_plain(value) {
        true => text.push_str(value),
        false => write!(text, "{}", Value::from(value)).expect("a String takes all text"),
    }
}

fn is_plain(value: &str) -> bool {
    /// What YAML 1.1 takes for other than a text.
    const WORDS: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    let first = |byte: &u8| byte.is_ascii_alphabetic() || matches!(byte, b'/' | b'_');
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./+~=(),;$^ ".contains(&byte);
    value.as_bytes().first().is_some_and(first)
        && value.bytes().all(allowed)
        && !value.ends_with(' ')
        && !WORDS.contains(&value.to_ascii_lowercase().as_str())
        && plain_scalar(value).is_string()
}

/// Whether a text can stand as lines of its own: keys, certificates, scripts.
fn is_block(value: &str) -> bool {
    let line = |line: &str| {
        !line.ends_with([' ', '\t']) && line.chars().all(|c| c == '\t' || !c.is_control())
    };
    let body = value.strip_suffix('\n').unwrap_or(value);
    body.contains('\n')
        && !body.starts_with([' ', '\n', '\t'])
        && !body.ends_with('\n')
        && body.split('\n').all(line)
        && !value.contains(['\u{85}', '\u{2028}', '\u{2029}', '\u{feff}'])
}

fn put_block(text: &mut String, value: &str, depth: usize) {
    let body = value.strip_suffix('\n');
    text.push_str(match body {
        Some(_) => "|",
        None => "|-",
    });
    for line in body.unwrap_or(value).split('\n') {
        text.push('\n');
        if !line.is_empty() {
            indent(text, depth);
            text.push_str(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::declare::tree;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn a_file_looks_as_people_write_it() {
        let value = json!({
            "_format_version": "3.0",
            "certificates": [{"cert": "--1\n2\n", "id": "0b"}],
            "empty": [],
            "routes": [
                {"paths": ["/a b", "~/p/(?<id>\\d+)$"], "on": "yes", "strip": true},
                [["x"], {}],
            ],
        });
        let text = "_format_version: \"3.0\"
certificates:
- cert: |
    --1
    2
  id: \"0b\"
empty: []
routes:
- \"on\": \"yes\"
  paths:
  - /a b
  - \"~/p/(?<id>\\\\d+)$\"
  strip: true
- - - x
  - {}
";
        assert_eq!(to_yaml(&value), text);
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let texts = prop_oneof![
            any::<String>(),
            "[ -~\n\t]{0,12}",
            "(yes|no|~|null|0x1f|1e3|-|- a|a: b|#x|&a|\\*a|!t|%x|---|\\.\\.\\.|<<|\\?|1_0|\\.5|=)",
            "[a-c]\n( [a-c]|[a-c]|\n){0,4}",
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-1e9..1e9).prop_map(Value::from),
            texts.clone().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map(texts.clone(), inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    /// A name that cannot be told from a merge.
    fn has_merge(value: &Value) -> bool {
        match value {
            Value::Object(map) => map
                .iter()
                .any(|(name, value)| name == "<<" || has_merge(value)),
            Value::Array(items) => items.iter().any(has_merge),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(value in any_value()) {
            prop_assume!(!has_merge(&value));
            let text = to_yaml(&value);
            match tree::parse(&text) {
                Ok(parsed) => {
                    prop_assert!(parsed.mistakes.is_empty(), "{text}");
                    prop_assert_eq!(parsed.documents[0].to_value(), value, "{}", text);
                }
                Err(mistake) => prop_assert!(false, "{mistake}\n{text}"),
            }
        }
    }
}
