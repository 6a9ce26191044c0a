//! The documentation is right where a program can tell: its links lead somewhere, and it names every setting.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Directories that hold no documents of ours.
const SKIPPED: &[&str] = &["target", "node_modules"];
/// Every option of these is a setting.
const PROGRAMS: &[(&str, &[&str])] = &[("sluice-cp", &[]), ("sluice-dp", &[]), ("sluice", &["up"])];

#[test]
fn every_relative_link_leads_to_a_file_and_a_heading() {
    let mut broken = Vec::new();
    let documents = documents(&root());
    assert!(documents.len() > 10, "only {documents:?} were found");
    for document in documents {
        let text = read(&document);
        for link in links(&text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (path, heading) = link.split_once('#').unwrap_or((&link, ""));
            let target = match path {
                "" => document.clone(),
                path => document
                    .parent()
                    .expect("a file has a directory")
                    .join(path),
            };
            let found = target.exists()
                && (heading.is_empty() || headings(&read(&target)).contains(heading));
            if !found {
                broken.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert!(
        broken.is_empty(),
        "links that lead nowhere:\n{}",
        broken.join("\n")
    );
}

#[test]
fn the_operating_guide_names_every_setting_of_every_program() {
    let guide = read(&root().join("docs/guide/operating.md"));
    let known: BTreeSet<&str> = guide
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-'))
        .collect();
    let mut missing = Vec::new();
    for (program, arguments) in PROGRAMS {
        for name in settings(&help(program, arguments)) {
            if !known.contains(name.as_str()) {
                missing.push(format!("{program} {}: {name}", arguments.join(" ")));
            }
        }
    }
    assert!(
        missing.is_empty(),
        "not in docs/guide/operating.md:\n{}",
        missing.join("\n")
    );
}

#[test]
fn the_example_files_of_settings_name_only_settings_that_exist() {
    let files: [(&str, &[&str], &str); 3] = [
        ("sluice-cp", &[], "cp.env"),
        ("sluice-dp", &[], "dp.env"),
        ("sluice", &["log", "export"], "backup.env"),
    ];
    for (program, arguments, file) in files {
        let help = help(program, arguments);
        let known: BTreeSet<&str> = help
            .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .collect();
        let text = read(&root().join("docs/examples/systemd").join(file));
        let named = text.lines().filter_map(|line| {
            let name = line.trim_start_matches('#').split_once('=')?.0;
            name.starts_with("SLUICE_").then_some(name)
        });
        let named: Vec<&str> = named.collect();
        assert!(named.len() >= 5, "{file}: {named:?}");
        for name in named {
            assert!(
                known.contains(name),
                "{file}: {name} is no setting of {program}"
            );
        }
    }
}

#[test]
fn every_command_has_a_man_page() {
    let directory = tempfile::tempdir().expect("there is room for a directory");
    let path = directory.path().to_str().expect("its path is text");
    said("sluice", &["man", "--dir", path]);
    let entries = std::fs::read_dir(path).expect("the pages are there");
    let pages: BTreeSet<String> = entries
        .map(|entry| entry.expect("it can be read").file_name())
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    let mut commands = vec!["sluice-cp".to_owned(), "sluice-dp".to_owned()];
    add_commands(&mut Vec::new(), &mut commands);
    assert!(commands.len() > 30, "{commands:?}");
    let expected: BTreeSet<String> = commands.iter().map(|name| format!("{name}.1")).collect();
    assert_eq!(pages, expected);
    for (program, arguments) in PROGRAMS {
        let name = [&[*program], *arguments].concat().join("-");
        let page = said("sluice", &["man", &name]).replace('\\', "");
        for setting in settings(&help(program, arguments)) {
            assert!(page.contains(&setting), "{setting} is not in {name}.1");
        }
    }
}

#[test]
fn bash_reads_the_completions_of_every_program() {
    for program in ["sluice", "sluice-cp", "sluice-dp"] {
        let directory = tempfile::tempdir().expect("there is room for a directory");
        let file = directory.path().join(program);
        let script = said("sluice", &["completions", "bash", program]);
        assert!(script.contains("--log-level"), "{script}");
        std::fs::write(&file, script).expect("the file can be written");
        let run = Command::new("bash").arg("-n").arg(&file).output();
        let run = run.expect("bash runs");
        let error = String::from_utf8_lossy(&run.stderr);
        assert!(
            run.status.success() && error.is_empty(),
            "{program}: {error}"
        );
    }
}

/// The names of a command of `sluice` and of all below it, as `--help` tells them.
fn add_commands(command: &mut Vec<String>, found: &mut Vec<String>) {
    let arguments: Vec<&str> = command.iter().map(String::as_str).collect();
    let text = help("sluice", &arguments);
    let list = text
        .split_once("\nCommands:\n")
        .map_or("", |(_, rest)| rest);
    let list = list.split_once("\n\n").map_or(list, |(list, _)| list);
    for line in list.lines() {
        // Names stand two spaces in; what is further in goes on with a description.
        let name = line
            .strip_prefix("  ")
            .filter(|rest| !rest.starts_with(' '));
        let Some(name) = name.and_then(|rest| rest.split(' ').next()) else {
            continue;
        };
        if name != "help" {
            command.push(name.to_owned());
            add_commands(command, found);
            command.pop();
        }
    }
    found.push(
        [vec!["sluice"], command.iter().map(String::as_str).collect()]
            .concat()
            .join("-"),
    );
}

/// Long flags and variables in the text of `--help`.
fn settings(help: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in help.lines() {
        let line = line.trim_start();
        let line = line.strip_prefix("-c, ").unwrap_or(line);
        if line.starts_with("--") {
            let flag = line.split_whitespace().next().unwrap_or_default();
            found.insert(flag.to_owned());
        }
        if let Some((_, rest)) = line.split_once("[env: ") {
            found.insert(rest.split(['=', ']']).next().unwrap_or_default().to_owned());
        }
    }
    assert!(found.len() > 10, "this is no --help with settings: {help}");
    found
}

fn help(program: &str, arguments: &[&str]) -> String {
    said(program, &[arguments, &["--help"]].concat())
}

/// What a program prints.
fn said(program: &str, arguments: &[&str]) -> String {
    let run = Command::new(built(program))
        .args(arguments)
        .output()
        .expect("the program runs");
    assert!(
        run.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&run.stderr)
    );
    String::from_utf8(run.stdout).expect("it prints text")
}

/// A program in the directory above this test's.
fn built(program: &str) -> PathBuf {
    let own = std::env::current_exe().expect("this test is a file");
    let path = own
        .ancestors()
        .nth(2)
        .expect("it lies in target/")
        .join(program);
    assert!(
        path.is_file(),
        "there is no {}; run: cargo build --workspace --bins",
        path.display()
    );
    path
}

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent()
        .expect("tests/ lies in the repository")
        .to_owned()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn documents(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).expect("the directory can be read") {
        let path = entry.expect("the directory can be read").path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if path.is_dir() && !name.starts_with('.') && !SKIPPED.contains(&name.as_str()) {
            found.extend(documents(&path));
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
    found
}

/// The targets of `[text](target)`, outside of code.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut in_code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        // Every second part of a line is between backticks.
        for plain in line.split('`').step_by(2) {
            for part in plain.split("](").skip(1) {
                found.extend(part.split_once(')').map(|(target, _)| target.to_owned()));
            }
        }
        // Link texts that are code: [`a`](b).
        for part in line.split("`](").skip(1) {
            found.extend(part.split_once(')').map(|(target, _)| target.to_owned()));
        }
    }
    found
}

/// Headings in the form links use.
fn headings(text: &str) -> BTreeSet<String> {
    let slug = |heading: &str| {
        let kept = heading.trim().to_lowercase();
        kept.chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect::<String>()
    };
    text.lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| slug(line.trim_start_matches('#')))
        .collect()
}
