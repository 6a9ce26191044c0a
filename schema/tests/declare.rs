//! Properties of declarative files: nothing makes reading panic, every mistake has a place, and dumps lose nothing.

#![cfg(test)]

mod world;

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use sluice_schema::field::{Field, Literal, Type};
use sluice_schema::kind::Kind;
use sluice_schema::plugin::available;
use std::collections::BTreeSet;
use world::World;

/// Texts to damage.
const SEEDS: [&str; 8] = [
    include_str!("files/deck.yaml"),
    include_str!("files/top-level.yaml"),
    include_str!("files/aliases.yaml"),
    include_str!("files/shared.yaml"),
    include_str!("files/documents.yaml"),
    include_str!("files/old-format.yaml"),
    include_str!("files/deck.json"),
    include_str!("files/wrong.yaml"),
];

/// What damage is made of.
const TOKENS: [&str; 32] = [
    "- ",
    ": ",
    "\n",
    "  ",
    "{",
    "}",
    "[",
    "]",
    "&a ",
    "*a",
    "<<: ",
    "'",
    "\"",
    "|\n",
    "#",
    "---\n",
    "...\n",
    "!!x ",
    "null",
    "name",
    "id: x",
    "\u{feff}",
    "é",
    "\r\n",
    "\t",
    "%",
    "? ",
    ",",
    "0x",
    "_config: a",
    "consumer: u",
    "1e999",
];

fn check_mistakes(text: &str) -> Result<(), TestCaseError> {
    let mut world = World::new();
    if let Err(mistakes) = world.apply(text, true) {
        let lines = text.matches(['\n', '\r']).count() + 1;
        prop_assert!(!mistakes.is_empty());
        for mistake in mistakes {
            prop_assert!(
                (1..=lines + 1).contains(&mistake.at.line),
                "{mistake}\n{text}"
            );
            prop_assert!(mistake.at.column >= 1, "{mistake}\n{text}");
            prop_assert!(!mistake.message.is_empty());
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn damaged_files_are_read_or_refused_with_places(
        seed in 0..SEEDS.len(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..12, 0..TOKENS.len()), 1..6),
    ) {
        let mut text: Vec<char> = SEEDS[seed].chars().collect();
        for (at, removed, token) in damage {
            let at = at.index(text.len() + 1);
            let end = (at + removed).min(text.len());
            text.splice(at..end, TOKENS[token].chars());
        }
        check_mistakes(&text.into_iter().collect::<String>())?;
    }

    #[test]
    fn any_text_is_read_or_refused_with_places(text in "(_format_version: 3.0\n)?\\PC{0,80}") {
        check_mistakes(&text)?;
    }

    #[test]
    fn any_tokens_are_read_or_refused_with_places(tokens in prop::collection::vec(0..TOKENS.len(), 0..40)) {
        let text: String = tokens.into_iter().map(|token| TOKENS[token]).collect();
        check_mistakes(&text)?;
    }
}

/// A number out of a seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let bound = u64::try_from(bound).unwrap();
        usize::try_from((mixed ^ (mixed >> 31)) % bound).unwrap()
    }

    /// A value of a field as the descriptor describes it, where that is simple; nothing or null now and then.
    fn value(&mut self, field: &Field) -> Option<Value> {
        match self.below(8) {
            0..5 if !field.required => return None,
            5 if !field.required => return Some(Value::Null),
            _ => {}
        }
        if field.auto.is_some() {
            return None;
        }
        if let Some(Literal::Texts(options)) = field.rules.one_of {
            return Some(options[self.below(options.len())].into());
        }
        let simple = field.rules.text.is_none()
            && field.rules.pattern.is_none()
            && field.rules.custom.is_none()
            && !field.rules.regex;
        match field.kind {
            Type::Boolean => Some((self.below(2) == 0).into()),
            Type::Integer | Type::Number => {
                let (low, high) = field.rules.between.unwrap_or((1.0, 60.0));
                let span = (high - low).clamp(0.0, 1000.0);
                Some((low + (self.below(1001) as f64 * span / 1000.0).floor()).into())
            }
            Type::Record(fields) => Some(self.record(fields).into()),
            Type::String if simple => {
                Some(["x", "a: b", "yes", "1", "é\n z\n"][self.below(5)].into())
            }
            Type::Array(elements) | Type::Set(elements) if self.below(2) == 0 => {
                let values = (0..self.below(3)).filter_map(|_| self.value(elements));
                Some(values.filter(|value| !value.is_null()).collect())
            }
            Type::String
            | Type::Array(_)
            | Type::Set(_)
            | Type::Map { .. }
            | Type::Foreign(_)
            | Type::Config
            | Type::Json => field.default.map(Literal::value),
        }
    }

    fn record(&mut self, fields: &[Field]) -> Map<String, Value> {
        let mut record = Map::new();
        for field in fields {
            if let Some(value) = self.value(field) {
                record.insert(field.name.to_owned(), value);
            }
        }
        record
    }

    /// An entity that may be valid. References are to entities that may be there.
    fn entity(&mut self, number: usize) -> (Kind, Value) {
        let kind = match self.below(3) {
            0 => Kind::Plugin,
            _ => Kind::ALL[self.below(Kind::ALL.len())],
        };
        let mut fields = self.record(kind.schema().fields);
        let before = self.below(number.max(1));
        for (name, foreign) in kind.schema().foreign() {
            fields.remove(name);
            if self.below(2) == 0
                || kind
                    .schema()
                    .field(name)
                    .is_some_and(|field| field.required)
            {
                let parent = foreign.kind.name();
                fields.insert(name.to_owned(), json!(format!("{parent}-{before}")));
            }
        }
        for field in [
            "name",
            "username",
            "custom_id",
            "key",
            "kid",
            "group",
            "client_id",
        ] {
            if kind.schema().field(field).is_some() {
                fields.insert(field.to_owned(), json!(format!("{}-{number}", kind.name())));
            }
        }
        let more = [
            (Kind::Service, "host", json!("h.example")),
            (Kind::Route, "paths", json!(["/p", "~/x$"])),
            (Kind::Route, "protocols", json!(["http"])),
            (Kind::Target, "target", json!("10.0.0.1:80")),
            (Kind::Vault, "name", json!("env")),
            (Kind::Vault, "prefix", json!("my-env")),
        ];
        for (_, name, value) in more.into_iter().filter(|(of, _, _)| *of == kind) {
            fields.insert(name.to_owned(), value);
        }
        if kind == Kind::Plugin {
            let plugins: Vec<_> = available().collect();
            let plugin = plugins[self.below(plugins.len())];
            let Type::Record(inner) = plugin.config.kind else {
                panic!("no record");
            };
            fields.insert("name".to_owned(), plugin.name.into());
            fields.insert("config".to_owned(), self.record(inner).into());
            fields.remove("protocols");
        }
        (kind, fields.into())
    }
}

/// A state of entities that are as random as they can be.
fn configuration(seed: u64) -> World {
    let mut dice = Dice(seed);
    let mut world = World::new();
    for number in 0..160 {
        let (kind, entity) = dice.entity(number / 4);
        if !kind.in_files() {
            continue;
        }
        let file = json!({"_format_version": "3.0", kind.schema().entity: [entity]});
        // What is not valid is left out.
        let _ = world.apply(&file.to_string(), false);
    }
    world
}

#[test]
fn random_configurations_have_most_kinds_and_plugins() {
    let mut kinds = BTreeSet::new();
    let mut plugins = BTreeSet::new();
    for seed in 0..40 {
        for (key, entry) in configuration(seed).state.iter() {
            kinds.insert(key.kind.as_str().to_owned());
            if key.kind == Kind::Plugin.key_name() {
                plugins.insert(entry.body.fields().unwrap()["name"].to_string());
            }
        }
    }
    assert!(kinds.len() >= 14, "{kinds:?}");
    assert!(plugins.len() >= 15, "{plugins:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_dump_of_any_configuration_changes_nothing_and_loses_nothing(seed in any::<u64>()) {
        let mut world = configuration(seed);
        prop_assume!(world.state.len() > 3);
        world.check_dump(&format!("seed {seed}"));
    }
}
