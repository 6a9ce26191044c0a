//! The reference pages of kinds and plugins, made from their descriptors: docs/reference/kinds.md and plugins.md. Markdown,
//! the same bytes whenever the descriptors are the same.

mod words;

use crate::field::{Alias, Field, OnDelete, Type};
use crate::kind::{Kind, Schema};
use crate::plugin::{PLUGINS, PluginSchema};
use words::{check_words, default_words, list, rule_words, type_words};

/// The first lines of a page.
fn head(title: &str, about: &str) -> String {
    format!(
        "# {title}\n\n\
         Made from the descriptors in the source; not to be edited. `UPDATE_REFERENCE=1 cargo test -p sluice-schema \
         --test reference` makes it anew.\n\n{about}\n"
    )
}

/// The page of all kinds.
pub fn kinds() -> String {
    let mut page = head(
        "Kinds",
        "Every kind of entity: its paths in the Admin API, its fields, and what must hold. Besides these fields each \
         entity has an `id`, a UUID that is made if it is not given. A field without a value is `null`.",
    );
    for kind in Kind::ALL.iter().copied() {
        page += &kind_section(kind.schema());
    }
    page
}

/// The page of all plugins.
pub fn plugins() -> String {
    let mut page = head(
        "Plugins",
        "The configuration of every plugin that can be stored: the fields of `config`. Whether a plugin is active is \
         another matter: `/nodes` says which ones the data planes run, and the answer to who configures another one \
         has the header `Sluice-Warning`.",
    );
    let mut sorted: Vec<&PluginSchema> = PLUGINS.to_vec();
    sorted.sort_by_key(|plugin| plugin.name);
    for plugin in sorted {
        page += &plugin_section(plugin);
    }
    page
}

fn kind_section(schema: &Schema) -> String {
    let mut section = format!("\n## {}\n", schema.entity);
    let mut paths: Vec<String> = schema
        .path
        .map(|path| format!("`/{path}`"))
        .into_iter()
        .collect();
    for (_, foreign) in schema.foreign() {
        if let (Some(parent), Some(nested)) = (foreign.kind.schema().path, schema.nested_path) {
            paths.push(format!("`/{parent}/{{{parent}}}/{nested}`"));
        }
    }
    if !paths.is_empty() {
        section += &format!("\nPaths: {}.\n", paths.join(", "));
    }
    if let Some(key) = schema.endpoint_key {
        section += &format!("\nIn paths `{key}` may stand for the id.\n");
    }
    let names = schema.names.map(|names| names.field);
    section += &table(schema.fields.iter().chain(names));
    let mut rules: Vec<String> = schema.checks.iter().filter_map(check_words).collect();
    let together = schema
        .unique
        .iter()
        .filter(|unique| unique.fields.len() > 1);
    rules.extend(together.map(|unique| format!("{} are unique together", list(unique.fields))));
    for (field, foreign) in schema.foreign() {
        let parent = foreign.kind.schema().entity;
        rules.push(match foreign.on_delete {
            OnDelete::Cascade => format!("it is deleted with its `{field}` (of {parent})"),
            OnDelete::Restrict => {
                format!("what its `{field}` refers to (of {parent}) cannot be deleted before it")
            }
        });
    }
    for ids in schema.id_lists {
        let (field, parent) = (ids.field, ids.kind.schema().entity);
        rules.push(format!(
            "what its `{field}` name (of {parent}) cannot be deleted before it"
        ));
    }
    section += &bullets(&rules);
    if !schema.shorthands.is_empty() {
        section += "\nOnly written, never shown:\n";
        section += &table(schema.shorthands.iter());
    }
    section
}

fn plugin_section(plugin: &PluginSchema) -> String {
    let mut section = format!("\n## {}\n", plugin.name);
    if let Some(reason) = plugin.refused {
        return section + &format!("\nRefused: {reason}.\n");
    }
    if !plugin.no_scope.is_empty() {
        section += &format!("\nNot per {}.\n", plugin.no_scope.join(", "));
    }
    if let Some(default) = default_words(&plugin.protocols) {
        section += &format!("\nProtocols: {default}.\n");
    }
    let Type::Record(fields) = plugin.config.kind else {
        return section;
    };
    section += &table(fields.iter());
    let checks = plugin.checks.iter().chain(plugin.config.checks);
    section += &bullets(&checks.filter_map(check_words).collect::<Vec<_>>());
    let mut old = Vec::new();
    deprecated("", &plugin.config, &mut old);
    if !old.is_empty() {
        section += "\nDeprecated, still taken:\n\n| field | now |\n|---|---|\n";
        for (path, alias) in old {
            let now = match alias.path {
                [] => "means nothing any more".to_owned(),
                path => format!("`{}`", path.join(".")),
            };
            section += &format!("| `{path}` | {now} |\n");
        }
    }
    section
}

fn table<'a>(fields: impl Iterator<Item = &'a Field>) -> String {
    let mut rows = Vec::new();
    for field in fields {
        collect(field.name.to_owned(), field, &mut rows);
    }
    if rows.is_empty() {
        return String::new();
    }
    let mut table = "\n| field | type | default | rules |\n|---|---|---|---|\n".to_owned();
    for (path, field) in rows {
        let default = default_words(&field).unwrap_or_default();
        let (kind, rules) = (type_words(&field), rule_words(&field));
        table += &format!(
            "| `{path}` | {kind} | {} | {} |\n",
            cell(&default),
            cell(&rules)
        );
    }
    table
}

/// What stands in a table must not end its cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// A field and those inside it, by their paths.
fn collect(path: String, field: &Field, rows: &mut Vec<(String, Field)>) {
    let inside: (&[Field], &str) = match field.kind {
        Type::Record(fields) => (fields, "."),
        Type::Array(Field {
            kind: Type::Record(fields),
            ..
        })
        | Type::Set(Field {
            kind: Type::Record(fields),
            ..
        }) => (*fields, "[]."),
        Type::Map {
            values:
                Field {
                    kind: Type::Record(fields),
                    ..
                },
            ..
        } => (*fields, ".*."),
        Type::String
        | Type::Integer
        | Type::Number
        | Type::Boolean
        | Type::Array(_)
        | Type::Set(_)
        | Type::Map { .. }
        | Type::Foreign(_)
        | Type::Config
        | Type::Json => (&[], ""),
    };
    rows.push((path.clone(), *field));
    for inner in inside.0 {
        collect(format!("{path}{}{}", inside.1, inner.name), inner, rows);
    }
}

/// The deprecated names in a record, by their paths.
fn deprecated(path: &str, field: &Field, old: &mut Vec<(String, Alias)>) {
    for alias in field.aliases {
        old.push((format!("{path}{}", alias.field.name), *alias));
    }
    if let Type::Record(fields) = field.kind {
        for inner in fields {
            deprecated(&format!("{path}{}.", inner.name), inner, old);
        }
    }
}

fn bullets(rules: &[String]) -> String {
    if rules.is_empty() {
        return String::new();
    }
    let lines: String = rules.iter().map(|rule| format!("- {rule}\n")).collect();
    format!("\n{lines}")
}
