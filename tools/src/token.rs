//! `sluice token`: tokens of the Admin API, and what the control planes' file says of them.

use crate::say;
use anyhow::Context;
use clap::{Args, Subcommand};
use sluice_cp::access::{File, Hash, Role, make_token};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Arguments of `sluice token`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a token. It is printed once and kept nowhere; what goes into the file of callers (admin_access) is its hash
    New(New),
    /// Print the hash of a token that is read from standard input
    Hash,
}

#[derive(Debug, Args)]
struct New {
    /// Who it is for: the actor of what it changes
    #[arg(value_name = "NAME")]
    name: String,
    /// What it is for
    #[arg(long, value_enum)]
    role: Role,
    /// Where: a workspace; several may be given. Everywhere if there is none
    #[arg(long, value_name = "WORKSPACE")]
    workspace: Vec<String>,
    /// When it ends, such as 2027-01-01T00:00:00Z
    #[arg(long, value_name = "TIME")]
    expires: Option<String>,
    /// File of callers it is added to; without one, what to add is printed to standard error
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Makes a token, or hashes one.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    match &arguments.command {
        Command::New(new) => make(new),
        Command::Hash => {
            let mut token = String::new();
            std::io::stdin().read_line(&mut token)?;
            say(&Hash::of(token.trim()).to_string())
        }
    }
}

fn make(new: &New) -> anyhow::Result<()> {
    let token = make_token(rand::random());
    let stanza = stanza(new, &Hash::of(&token))?;
    match &new.file {
        Some(path) => append(path, &stanza)?,
        None => eprint!("add to the file of callers (admin_access):\n\n{stanza}\n"),
    }
    say(&token)
}

fn stanza(new: &New, hash: &Hash) -> anyhow::Result<String> {
    // Names and times come as they are typed: a TOML string has JSON's escapes.
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let mut stanza = format!(
        "[[token]]\nname = {}\nhash = \"{hash}\"\nrole = \"{}\"\n",
        quoted(&new.name),
        new.role
    );
    if !new.workspace.is_empty() {
        let names: Vec<String> = new.workspace.iter().map(|name| quoted(name)).collect();
        writeln!(stanza, "workspaces = [{}]", names.join(", "))?;
    }
    if let Some(expires) = &new.expires {
        writeln!(stanza, "expires = {}", quoted(expires))?;
    }
    File::parse(&stanza)?;
    Ok(stanza)
}

fn append(path: &Path, stanza: &str) -> anyhow::Result<()> {
    let before = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => {
            return Err(error).with_context(|| format!("could not read {}", path.display()));
        }
    };
    let gap = if before.is_empty() { "" } else { "\n" };
    let text = format!("{gap}{stanza}");
    File::parse(&format!("{before}{text}"))
        .with_context(|| format!("{} would not be right any more", path.display()))?;
    let mut options = std::fs::OpenOptions::new();
    let opened = options.create(true).append(true).open(path);
    let mut file = opened.with_context(|| format!("could not write {}", path.display()))?;
    file.write_all(text.as_bytes())?;
    eprintln!("added to {}", path.display());
    Ok(())
}
