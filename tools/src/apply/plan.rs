//! A plan as a person reads it. What it says is the control plane's; nothing is worked out here.

use serde_json::Value;
use std::fmt::Write;

/// The longest value that is shown whole, in characters.
const VALUE_CHARS_MAX: usize = 160;

/// The counts of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) created: u64,
    pub(super) updated: u64,
    pub(super) deleted: u64,
    pub(super) unchanged: u64,
}

impl Counts {
    pub(super) fn of(body: &Value) -> Self {
        let count = |name: &str| body[name].as_u64().unwrap_or(0);
        Self {
            created: count("created"),
            updated: count("updated"),
            deleted: count("deleted"),
            unchanged: count("unchanged"),
        }
    }

    /// Whether anything would change.
    pub(super) fn differ(self) -> bool {
        self.created + self.updated + self.deleted > 0
    }
}

/// What stands for a kind of change, and the colour of its lines.
#[derive(Clone, Copy)]
struct Sign(char, &'static str);

const ADDED: Sign = Sign('+', "32");
const CHANGED: Sign = Sign('~', "33");
const REMOVED: Sign = Sign('-', "31");

/// Which fields of an entity are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fields {
    /// Those that differ.
    Changed,
    /// Also all of one that is new or goes.
    All,
}

/// A line an entity, below it one a field, in the order of kinds and names.
pub(crate) fn changes(mutations: &[Value], fields: Fields, colour: bool) -> String {
    let mut blocks: Vec<([String; 3], String)> = mutations
        .iter()
        .map(|mutation| (order(mutation), block(mutation, fields, colour)))
        .collect();
    blocks.sort_by(|a, b| a.0.cmp(&b.0));
    blocks.into_iter().map(|(_, block)| block).collect()
}

/// The plan in the answer to a dry run: a line an entity, below it one a field.
pub(crate) fn render(body: &Value, colour: bool) -> String {
    let none = Vec::new();
    let mutations = body["event"]["mutations"].as_array().unwrap_or(&none);
    let mut text = changes(mutations, Fields::Changed, colour);
    let Counts {
        created,
        updated,
        deleted,
        unchanged,
    } = Counts::of(body);
    if !text.is_empty() {
        text.push('\n');
    }
    write!(
        text,
        "{created} to create, {updated} to update, {deleted} to delete, {unchanged} unchanged"
    )
    .expect("a String takes all text");
    text
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn order(mutation: &Value) -> [String; 3] {
    [text(&mutation["kind"]), belongs(mutation), label(mutation)]
}

fn label(mutation: &Value) -> String {
    match mutation["name"].as_str() {
        Some(name) => name.to_owned(),
        None => text(&mutation["id"]),
    }
}

/// `of service catalog`, or nothing.
fn belongs(mutation: &Value) -> String {
    let parents = mutation["of"].as_object().into_iter().flatten();
    let named: Vec<String> = parents
        .map(|(field, name)| format!("{field} {}", text(name)))
        .collect();
    match named.is_empty() {
        true => String::new(),
        false => format!(" of {}", named.join(", ")),
    }
}

fn block(mutation: &Value, fields: Fields, colour: bool) -> String {
    let sign = match (mutation["op"].as_str(), mutation["before"].is_null()) {
        (Some("delete"), _) => REMOVED,
        (_, true) if mutation.get("before").is_some() => ADDED,
        (_, _) => CHANGED,
    };
    let kind = text(&mutation["kind"]);
    let title = format!("{kind} {}{}", label(mutation), belongs(mutation));
    let mut block = line("", sign, &title, colour);
    for change in mutation["changes"].as_array().into_iter().flatten() {
        let (before, after) = (&change["before"], &change["after"]);
        let path = text(&change["path"]);
        let (sign, told) = match (before.is_null(), after.is_null()) {
            (true, _) => (ADDED, format!("{path}: {}", shown(after))),
            (false, true) => (REMOVED, format!("{path}: {}", shown(before))),
            (false, false) => (
                CHANGED,
                format!("{path}: {} -> {}", shown(before), shown(after)),
            ),
        };
        block += &line("    ", sign, &told, colour);
    }
    // What was before is not always known.
    let known = mutation.get("before").is_some();
    let whole = match sign {
        Sign('+', _) if known => mutation["body"].as_object(),
        Sign('-', _) => mutation["before"].as_object(),
        _ => None,
    };
    for (name, value) in whole
        .filter(|_| fields == Fields::All)
        .into_iter()
        .flatten()
    {
        let told = format!("{name}: {}", shown(value));
        block += &line("    ", sign, &told, colour);
    }
    block
}

fn line(indent: &str, Sign(sign, code): Sign, text: &str, colour: bool) -> String {
    match colour {
        true => format!("{indent}\u{1b}[{code}m{sign} {text}\u{1b}[0m\n"),
        false => format!("{indent}{sign} {text}\n"),
    }
}

/// A value on one line, cut if it is long.
fn shown(value: &Value) -> String {
    let whole = value.to_string();
    if whole.chars().count() <= VALUE_CHARS_MAX {
        return whole;
    }
    let cut: String = whole.chars().take(VALUE_CHARS_MAX).collect();
    format!("{cut}…")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_plan_is_a_line_an_entity_and_one_a_field() {
        let body = json!({
            "created": 1, "updated": 1, "deleted": 1, "unchanged": 40,
            "event": {"mutations": [
                {"op": "put", "kind": "service", "id": "1", "name": "a", "before": {"host": "x"}, "changes": [
                    {"path": "host", "before": "x", "after": "y"},
                    {"path": "path", "before": null, "after": "/p"},
                    {"path": "tags", "before": ["t"], "after": null},
                ]},
                {"op": "delete", "kind": "plugin", "id": "2", "name": "cors", "of": {"service": "a"}, "before": {}},
                {"op": "put", "kind": "certificate", "id": "3", "before": null},
            ]},
        });
        let plain = "+ certificate 3
- plugin cors of service a
~ service a
    ~ host: \"x\" -> \"y\"
    + path: \"/p\"
    - tags: [\"t\"]

1 to create, 1 to update, 1 to delete, 40 unchanged";
        assert_eq!(render(&body, false), plain);
        let colours = render(&body, true);
        assert!(
            colours.starts_with("\u{1b}[32m+ certificate 3\u{1b}[0m\n"),
            "{colours}"
        );
        let nothing = json!({"unchanged": 3, "event": null});
        assert_eq!(
            render(&nothing, true),
            "0 to create, 0 to update, 0 to delete, 3 unchanged"
        );
        assert!(shown(&"x".repeat(1000).into()).chars().count() < 200);
    }
}
