//! What old files say in other words: brought to new ones, with a remark.

use crate::check::{Errors, path};
use crate::field::{Field, Type};
use crate::kind::Kind;
use serde_json::{Map, Value};

/// A field, and what to know of it.
type Remark = (String, String);

/// The field that says where Kong 1 ran a plugin.
const RUN_ON: &str = "run_on";

/// What shorthands (a service's `url`) put in the place of fields that are given too.
pub(super) fn shorthands(kind: Kind, given: &Map<String, Value>) -> Vec<Remark> {
    let schema = kind.schema();
    let mut shorthands = schema.shorthands.iter().map(|field| field.name);
    let Some(shorthand) = shorthands.find(|name| given.get(*name).is_some_and(Value::is_string))
    else {
        return Vec::new();
    };
    let mut expanded = given.clone();
    if let Some(prepare) = schema.prepare {
        prepare(&mut expanded, &mut Errors::default());
    }
    let overruled = given.iter().filter_map(|(field, value)| {
        let now = expanded.get(field)?;
        (field != shorthand && !value.is_null() && now != value).then(|| {
            let message =
                format!("{shorthand} is given too and wins, as in Kong (decK decides otherwise)");
            (field.clone(), message)
        })
    });
    overruled.collect()
}

/// Brings the fields of a file before format 3.0 to those of 3.0.
pub(super) fn migrate(kind: Kind, fields: &mut Map<String, Value>) -> Vec<Remark> {
    if kind == Kind::Route {
        migrate_paths(fields)
    } else if kind == Kind::Plugin {
        drop_run_on(fields)
    } else {
        Vec::new()
    }
}

fn drop_run_on(fields: &mut Map<String, Value>) -> Vec<Remark> {
    match fields.get(RUN_ON) {
        Some(Value::Null) => {
            fields.remove(RUN_ON);
            Vec::new()
        }
        Some(Value::String(first)) if first == "first" => {
            fields.remove(RUN_ON);
            let message = "means nothing since Kong 2 and is left out";
            vec![(RUN_ON.to_owned(), message.to_owned())]
        }
        // Refused with the other unknown fields.
        Some(_) | None => Vec::new(),
    }
}

fn migrate_paths(fields: &mut Map<String, Value>) -> Vec<Remark> {
    let mut remarks = Vec::new();
    let Some(Value::Array(paths)) = fields.get_mut("paths") else {
        return remarks;
    };
    for (position, path) in paths.iter_mut().enumerate() {
        let Value::String(text) = path else { continue };
        let migrated = migrate_path(text);
        if migrated != *text {
            let message = format!("before format 3.0 '{text}' means '{migrated}'");
            remarks.push((format!("paths[{position}]"), message));
            *text = migrated;
        }
    }
    remarks
}

/// The paths of a file of format 3.0 that look like those of an older one.
pub(super) fn literal_paths(kind: Kind, fields: &Map<String, Value>) -> Vec<Remark> {
    let paths = match kind == Kind::Route {
        true => fields.get("paths").and_then(Value::as_array),
        false => None,
    };
    let paths = paths.into_iter().flatten().enumerate();
    let literal = paths.filter_map(|(position, path)| {
        let text = path.as_str()?;
        let looks_old = text.starts_with('/') && !text.bytes().all(is_plain);
        let message = format!("'{text}' is taken literally: a regex begins with ~");
        looks_old.then(|| (format!("paths[{position}]"), message))
    });
    literal.collect()
}

/// Whether a path that holds this was one before format 3.0, not a regex.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b".-_~/%".contains(&byte)
}

/// Before format 3.0 a path was a regex if it had other than plain characters, and percent-encoding meant nothing; from 3.0
/// on a regex begins with `~`, and paths are compared byte by byte.
fn migrate_path(text: &str) -> String {
    if text.starts_with('~') {
        // Kong would add another `~`, and refuse that. The author means what 3.0 means.
        return text.to_owned();
    }
    if !text.bytes().all(is_plain) {
        return format!("~{}", decode_regex(text));
    }
    match text.starts_with('/') {
        true => path::normalize(text),
        // Refused, as it is.
        false => text.to_owned(),
    }
}

/// Decodes what need not be encoded in a regex, and keeps it from being one.
fn decode_regex(text: &str) -> String {
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        decoded.push_str(&rest[..at]);
        rest = &rest[at..];
        let hex = rest.as_bytes().get(1..3);
        let Some(hex) = hex.filter(|hex| hex.iter().all(u8::is_ascii_hexdigit)) else {
            decoded.push('%');
            rest = &rest[1..];
            continue;
        };
        let byte = hex.iter().fold(0_u32, |number, digit| {
            number << 4 | char::from(*digit).to_digit(16).unwrap_or_default()
        });
        let byte = u8::try_from(byte).unwrap_or_default();
        match byte {
            b'.' | b'^' | b'-' | b'{' | b'}' | b'\\' | b'|' => {
                decoded.push('\\');
                decoded.push(char::from(byte));
            }
            // Reserved characters stay encoded; so does what is no text of its own.
            _ if b"!#$%&'()*+,/:;=?@[]".contains(&byte) || !byte.is_ascii_graphic() => {
                decoded.push_str(&rest[..3].to_ascii_uppercase());
            }
            _ => decoded.push(char::from(byte)),
        }
        rest = &rest[3..];
    }
    decoded.push_str(rest);
    decoded
}

/// The deprecated names in the configuration of a plugin, with the new ones.
pub(super) fn deprecated(kind: Kind, fields: &Map<String, Value>) -> Vec<Remark> {
    let schema = kind.schema();
    let mut remarks = Vec::new();
    if let Some(variant) = schema.variant
        && let Some(name) = fields.get(variant.key).and_then(Value::as_str)
        && let Some(record) = schema.config(name)
        && let Some(Value::Object(config)) = fields.get(variant.record)
    {
        deprecated_in(record, config, variant.record, &mut remarks);
    }
    remarks
}

fn deprecated_in(
    record: &Field,
    fields: &Map<String, Value>,
    path: &str,
    remarks: &mut Vec<Remark>,
) {
    for alias in record.aliases {
        if fields
            .get(alias.field.name)
            .is_some_and(|value| !value.is_null())
        {
            let message = match alias.path {
                [] => "is deprecated and means nothing any more".to_owned(),
                now => format!("is deprecated: it is {path}.{} now", now.join(".")),
            };
            remarks.push((format!("{path}.{}", alias.field.name), message));
        }
    }
    let Type::Record(inner) = record.kind else {
        return;
    };
    for field in inner {
        if let Some(Value::Object(record)) = fields.get(field.name) {
            deprecated_in(field, record, &format!("{path}.{}", field.name), remarks);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_before_3_0_are_migrated_as_kong_does() {
        for (old, new) in [
            ("/a/b", "/a/b"),
            ("/a.b-c_d~e", "/a.b-c_d~e"),
            ("/a//b/../c%2fd%7e", "/a/c%2Fd~"),
            (r"/a/\d+", r"~/a/\d+"),
            ("/a/(?<id>[^/]+)$", "~/a/(?<id>[^/]+)$"),
            ("/a b", "~/a b"),
            ("/x%2e%2f%41%20(y)", r"~/x\.%2FA%20(y)"),
            ("/x%zz(%", "~/x%zz(%"),
            (r"~/c/\d", r"~/c/\d"),
            ("no-slash", "no-slash"),
            ("", ""),
            ("/%é(", "~/%é("),
        ] {
            assert_eq!(migrate_path(old), new, "{old}");
        }
    }
}
