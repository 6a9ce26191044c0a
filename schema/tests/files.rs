//! Declarative files as people have them. Each file in `files/` is applied to an empty state; what comes of it is in the
//! file of the same name with `.expected` added: warnings, mistakes, or all entities. `BLESS=1` writes these anew.

#![cfg(test)]

mod world;

use serde_json::Value;
use std::fmt::Write;
use std::path::PathBuf;
use world::World;

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/files")
}

/// The names and texts of all files.
fn files() -> Vec<(String, String)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory()).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_none_or(|extension| extension != "expected")
        {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            files.push((name, std::fs::read_to_string(path).unwrap()));
        }
    }
    files.sort();
    files
}

/// What comes of a file, in lines.
fn told(text: &str) -> String {
    let mut world = World::new();
    let mut lines = String::new();
    for warning in world::warnings(text) {
        writeln!(lines, "warning {warning}").unwrap();
    }
    match world.apply(text, true) {
        Ok(counts) => writeln!(lines, "{counts}").unwrap(),
        Err(mistakes) => {
            for mistake in mistakes {
                writeln!(lines, "mistake {mistake}").unwrap();
            }
        }
    }
    for (key, entry) in world.state.iter() {
        let mut fields = entry.body.fields().unwrap();
        // They depend on when the test runs in the order of tests.
        fields.retain(|name, _| !matches!(name.as_str(), "created_at" | "updated_at"));
        if let Some(password) = fields.get_mut("password") {
            *password = "hashed".into();
        }
        writeln!(lines, "{} {} {}", key.kind, key.id, Value::Object(fields)).unwrap();
    }
    lines
}

#[test]
fn every_file_gives_what_is_expected() {
    let bless = std::env::var_os("BLESS").is_some();
    let mut differing = Vec::new();
    for (name, text) in files() {
        let path = directory().join(format!("{name}.expected"));
        let found = told(&text);
        if bless {
            std::fs::write(&path, &found).unwrap();
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        if found != expected {
            differing.push(format!(
                "== {name}\n-- found\n{found}-- expected\n{expected}"
            ));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

#[test]
fn every_good_file_applied_again_and_its_dump_change_nothing() {
    for (name, text) in files() {
        let mut world = World::new();
        if world.apply(&text, true).is_err() {
            continue;
        }
        let before = world.state.digest();
        let again = world.apply(&text, true);
        // A password is hashed anew, as the old hash does not tell what it was.
        if !text.contains("password") {
            assert_eq!(world.state.digest(), before, "{name}: {again:?}");
        }
        world.check_dump(&name);
    }
}
