//! `sluice apply` and `sluice dump`.

use crate::admin::Connection;
use crate::say;
use anyhow::{Context, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Arguments of `sluice apply`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// File to apply; - reads standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Delete entities that are not in the file. With _info.select_tags, only those that carry the tags
    #[arg(long)]
    prune: bool,
    /// Show what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Why; kept in the log
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Who; kept in the log [default: the login name]
    #[arg(long, value_name = "NAME")]
    actor: Option<String>,
}

/// Applies a file.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let text = read_file(&arguments.file)?;
    let query = format!(
        "prune={}&dry_run={}",
        u8::from(arguments.prune),
        u8::from(arguments.dry_run)
    );
    let login = std::env::var("USER").unwrap_or_else(|_| "sluice apply".into());
    let actor = arguments.actor.as_ref().unwrap_or(&login);
    let mut headers = vec![("sluice-actor", actor.as_str())];
    if let Some(reason) = &arguments.reason {
        headers.push(("sluice-reason", reason));
    }
    let began = Instant::now();
    let spinner = spinner(format!(
        "applying {} ({} KiB)",
        arguments.file.display(),
        text.len() / 1024
    ));
    let answer = arguments.connection.post(
        &format!("/apply?{query}"),
        "application/yaml",
        &headers,
        text.as_bytes(),
    );
    spinner.finish_and_clear();
    let answer = answer?;
    match answer.status {
        200 | 201 => say(&summary(&answer.body, arguments.dry_run, began.elapsed())),
        400 => {
            let list = mistakes(&arguments.file, &answer.body);
            bail!("nothing was applied\n{list}")
        }
        status => bail!("nothing was applied: {status} {}", answer.body),
    }
}

/// Prints the configuration.
pub(crate) fn dump(connection: &Connection) -> anyhow::Result<()> {
    let file = connection.get("/dump")?;
    say(&serde_json::to_string_pretty(&file)?)
}

fn read_file(path: &Path) -> anyhow::Result<String> {
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .context("could not read standard input")?;
        return Ok(text);
    }
    std::fs::read_to_string(path).with_context(|| format!("could not read '{}'", path.display()))
}

fn summary(body: &Value, dry_run: bool, took: Duration) -> String {
    let count = |name: &str| body[name].as_u64().unwrap_or(0);
    let counts = format!(
        "{} created, {} updated, {} deleted, {} unchanged",
        count("created"),
        count("updated"),
        count("deleted"),
        count("unchanged")
    );
    if dry_run {
        return format!("would apply: {counts}");
    }
    format!(
        "version {}: {counts} ({:.1} s)",
        count("version"),
        took.as_secs_f64()
    )
}

/// One line a mistake, in the form that editors can jump to.
fn mistakes(file: &Path, body: &Value) -> String {
    let Some(mistakes) = body["mistakes"].as_array() else {
        return body.to_string();
    };
    let line = |mistake: &Value| {
        let path = mistake["path"].as_str().unwrap_or_default();
        let colon = if path.is_empty() { "" } else { ": " };
        format!(
            "{}:{}:{}: {path}{colon}{}",
            file.display(),
            mistake["line"],
            mistake["column"],
            mistake["message"].as_str().unwrap_or_default()
        )
    };
    mistakes.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Shows on a terminal that something is going on.
pub(crate) fn spinner(message: String) -> ProgressBar {
    let target = match std::io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    let spinner = ProgressBar::with_draw_target(None, target).with_message(message);
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
        spinner.set_style(style);
    }
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner
}
