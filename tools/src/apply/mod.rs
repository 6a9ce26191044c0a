//! `sluice apply` and `sluice diff`.

mod files;
pub(crate) mod plan;
mod template;

use crate::admin::{Answer, Connection, workspace_path};
use crate::history::{compare, is_coloured};
use crate::say;
use crate::wait;
use anyhow::bail;
use clap::Args;
pub(crate) use files::Bundle;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use plan::Counts;
use serde_json::Value;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// What `--detailed-exitcode` answers if there is something to change.
const EXIT_CHANGES: u8 = 2;
/// What `sluice diff` answers if there is a difference, and if it cannot tell.
const EXIT_DIFFERENT: u8 = 1;
const EXIT_TROUBLE: u8 = 2;

/// What is compared.
#[derive(Debug, Args)]
struct Source {
    #[command(flatten)]
    connection: Connection,
    /// Delete entities that are not in the files. With _info.select_tags, only those that carry the tags
    #[arg(long)]
    prune: bool,
    /// The workspace, if the files do not name one
    #[arg(long, value_name = "NAME")]
    workspace: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  sluice apply shop.yaml                     create and update what the file names
  sluice apply --dry-run --prune shop.yaml   show what would change, also what would be deleted
  sluice apply --prune config/               all files of a directory, and nothing else stays
  kubectl get cm shop -o yaml | yq .data.f | sluice apply -

${{ env \"NAME\" }} in a file stands for an environment variable of this process.

Exit status: 0 if it is done or there is nothing to do, 1 if not; with --dry-run --detailed-exitcode, 2 if there is
something to do. With --wait: 2 if it is stored, but not served by as many data planes in time, 3 if none is alive.";

/// Arguments of `sluice apply`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    source: Source,
    /// Files; directories, for all .yaml, .yml and .json files below them; - for standard input. Several are applied together,
    /// as one transaction
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Show what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// With --dry-run: exit with 2 if something would change
    #[arg(long, requires = "dry_run")]
    detailed_exitcode: bool,
    /// With --dry-run: print the control plane's answer as JSON
    #[arg(long, requires = "dry_run")]
    json: bool,
    /// Why; kept in the log
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Who; kept in the log [default: the login name]
    #[arg(long, value_name = "NAME")]
    actor: Option<String>,
    /// Return when the data planes serve it (see sluice wait)
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
    #[command(flatten)]
    patience: wait::Patience,
}

const DIFF_EXAMPLES: &str = "\
Examples:
  sluice diff shop.yaml           what sluice apply shop.yaml would change
  sluice diff --prune config/     also what --prune would delete
  sluice diff --from 812          what has changed since version 812
  sluice diff --from 1d --to 2h   what had changed between a day ago and two hours ago

Exit status: 0 if there is no difference, 1 if there is one, 2 if it cannot be told.";

/// Arguments of `sluice diff`.
#[derive(Debug, Args)]
#[command(after_help = DIFF_EXAMPLES)]
pub(crate) struct DiffArguments {
    #[command(flatten)]
    source: Source,
    /// Files; directories, for all .yaml, .yml and .json files below them; - for standard input. Several are compared together,
    /// as one transaction
    #[arg(value_name = "FILE", required_unless_present = "from")]
    files: Vec<PathBuf>,
    /// Compare this version (or time) with --to, instead of files with what is there
    #[arg(long, value_name = "VERSION|TIME", conflicts_with_all = ["files", "prune"])]
    from: Option<String>,
    /// The version or time to compare with [default: latest]
    #[arg(long, value_name = "VERSION|TIME", requires = "from")]
    to: Option<String>,
    /// Print the control plane's answer as JSON
    #[arg(long)]
    json: bool,
}

/// Applies files.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if arguments.dry_run {
        let counts = show_plan(&arguments.source, &arguments.files, arguments.json)?;
        return Ok(match arguments.detailed_exitcode && counts.differ() {
            true => ExitCode::from(EXIT_CHANGES),
            false => ExitCode::SUCCESS,
        });
    }
    let login = std::env::var("USER").unwrap_or_else(|_| "sluice apply".into());
    let actor = arguments.actor.as_ref().unwrap_or(&login);
    let mut headers = vec![("sluice-actor", actor.as_str())];
    if let Some(reason) = &arguments.reason {
        headers.push(("sluice-reason", reason));
    }
    let began = Instant::now();
    let answer = arguments
        .source
        .send(&arguments.files, "applying", false, &headers)?;
    say(&summary(&answer.body, began.elapsed()))?;
    if arguments.wait {
        let version = answer.body["version"].as_u64().unwrap_or(0).to_string();
        return wait::until(
            &arguments.source.connection,
            &version,
            &arguments.patience,
            false,
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows what applying files would change.
pub(crate) fn diff(arguments: &DiffArguments) -> ExitCode {
    let source = &arguments.source;
    let differ = match &arguments.from {
        None => show_plan(source, &arguments.files, arguments.json).map(Counts::differ),
        Some(from) => {
            let range = compare::Range {
                from,
                to: arguments.to.as_deref(),
                workspace: source.workspace.as_deref(),
            };
            compare::run(&source.connection, &range, arguments.json)
        }
    };
    match differ {
        Ok(true) => ExitCode::from(EXIT_DIFFERENT),
        Ok(false) => ExitCode::SUCCESS,
        Err(error) => {
            crate::report(&error);
            ExitCode::from(EXIT_TROUBLE)
        }
    }
}

fn show_plan(source: &Source, files: &[PathBuf], json: bool) -> anyhow::Result<Counts> {
    let answer = source.send(files, "comparing", true, &[])?;
    let colour = is_coloured();
    match json {
        true => say(&serde_json::to_string_pretty(&answer.body)?)?,
        false => say(&plan::render(&answer.body, colour))?,
    }
    Ok(Counts::of(&answer.body))
}

impl Source {
    /// Sends the files. Warnings go to standard error.
    fn send(
        &self,
        files: &[PathBuf],
        doing: &str,
        dry_run: bool,
        headers: &[(&str, &str)],
    ) -> anyhow::Result<Answer> {
        let spinner = spinner("reading".to_owned());
        let bundle = Bundle::read(files, &|name| std::env::var(name).ok())?;
        spinner.set_message(format!("{doing} {}", bundle.label()));
        let query = format!(
            "prune={}&dry_run={}",
            u8::from(self.prune),
            u8::from(dry_run)
        );
        let answer = self.connection.post(
            &workspace_path(self.workspace.as_deref(), &format!("/apply?{query}")),
            "application/yaml",
            headers,
            bundle.text.as_bytes(),
        );
        spinner.finish_and_clear();
        let answer = answer?;
        for warning in places(&bundle, &answer.body["warnings"]) {
            eprintln!("warning: {warning}");
        }
        match answer.status {
            200 | 201 => Ok(answer),
            400 if answer.body["mistakes"].is_array() => {
                let list = places(&bundle, &answer.body["mistakes"]);
                bail!("nothing was applied\n{}", list.join("\n"))
            }
            status => bail!("nothing was applied: {status} {}", answer.body),
        }
    }
}

fn summary(body: &Value, took: Duration) -> String {
    let Counts {
        created,
        updated,
        deleted,
        unchanged,
    } = Counts::of(body);
    format!(
        "version {}: {created} created, {updated} updated, {deleted} deleted, {unchanged} unchanged \
         ({:.1} s)",
        body["version"].as_u64().unwrap_or(0),
        took.as_secs_f64()
    )
}

/// One line a mistake or warning, in the form that editors can jump to.
fn places(bundle: &Bundle, list: &Value) -> Vec<String> {
    let line = |mistake: &Value| {
        let path = mistake["path"].as_str().unwrap_or_default();
        let colon = if path.is_empty() { "" } else { ": " };
        format!(
            "{}:{}: {path}{colon}{}",
            bundle.place(mistake["line"].as_u64().unwrap_or_default()),
            mistake["column"],
            mistake["message"].as_str().unwrap_or_default()
        )
    };
    list.as_array().into_iter().flatten().map(line).collect()
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
