//! The `sluice` command: run, apply, inspect, measure. A library, so that tests use the same processes as benchmarks.

#![allow(
    clippy::print_stdout,
    reason = "a command's answer goes to standard output"
)]

pub mod admin;
mod apply;
mod bench;
mod broker;
mod dump;
mod echo;
mod explain;
mod history;
mod keys;
mod log;
mod manual;
mod nodes;
pub mod processes;
mod secrets;
mod snapshot;
mod token;
mod up;
mod wait;

use clap::{Parser, Subcommand};
use std::io::Write;
use std::process::ExitCode;

/// Sluice: an API gateway whose configuration is an event log.
#[derive(Debug, Parser)]
#[command(name = "sluice", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run control plane and data plane in one process, without a broker
    Up(Box<up::Settings>),
    /// Apply declarative files (Kong's and decK's YAML or JSON, _format_version 1.1 to 3.0) as one transaction
    Apply(apply::Arguments),
    /// Show what applying declarative files would change, or what differs between two versions
    Diff(apply::DiffArguments),
    /// Print the configuration as a declarative file
    Dump(dump::Arguments),
    /// Print the log, a line per event; or verify, export, import or trim it
    Log(log::Arguments),
    /// Show one event: who, when, why, and each field that it changed
    Show(history::show::Arguments),
    /// Show for each field of an entity who gave it its value, when and why
    Blame(history::blame::Arguments),
    /// Make everything, or what is named, what it was at a version, by one further event
    Rollback(history::restore::RollbackArguments),
    /// Take back what one event did, by one further event
    Undo(history::restore::UndoArguments),
    /// Find the version that broke a request
    Bisect(history::bisect::Arguments),
    /// Say why a request goes where it goes: route, plugins, upstream, and who last changed each
    Explain(explain::Arguments),
    /// Cut, list, verify and fetch snapshots
    Snapshot(snapshot::Arguments),
    /// List the data planes: what they serve, how far behind they are
    Nodes(nodes::Arguments),
    /// Wait until the data planes serve a version
    Wait(wait::Arguments),
    /// Make and show keys, sign and publish keyrings
    Keys(keys::Arguments),
    /// Make and change the keys that secrets are sealed with, and seal anew
    Secrets(secrets::Arguments),
    /// Make tokens of the Admin API
    Token(token::Arguments),
    /// Measure
    Bench(bench::Arguments),
    /// Print a shell's completions of the programs' arguments
    Completions(manual::CompletionsArguments),
    /// Print a manual page, or write all of them
    Man(manual::ManArguments),
}

/// Runs the command of this process's arguments.
pub fn run() -> ExitCode {
    // `up` is a server with a settings file; it reads its arguments as the other servers do.
    let mut arguments = std::env::args_os().skip(1).peekable();
    if arguments.peek().is_some_and(|name| name == "up") {
        return up::run(arguments);
    }
    let result = match Cli::parse().command {
        Command::Up(_) => return up::run(std::env::args_os().skip(1)),
        Command::Apply(arguments) => {
            return match apply::run(&arguments) {
                Ok(code) => code,
                Err(error) => report(&error),
            };
        }
        Command::Diff(arguments) => return apply::diff(&arguments),
        Command::Dump(arguments) => dump::run(&arguments),
        Command::Log(arguments) => {
            return match log::run(&arguments) {
                Ok(code) => code,
                Err(error) => report(&error),
            };
        }
        Command::Show(arguments) => history::show::run(&arguments),
        Command::Blame(arguments) => history::blame::run(&arguments),
        Command::Rollback(arguments) => history::restore::rollback(&arguments),
        Command::Undo(arguments) => history::restore::undo(&arguments),
        Command::Bisect(arguments) => {
            return match history::bisect::run(&arguments) {
                Ok(code) => code,
                Err(error) => report(&error),
            };
        }
        Command::Explain(arguments) => {
            return match explain::run(&arguments) {
                Ok(code) => code,
                Err(error) => report(&error),
            };
        }
        Command::Snapshot(arguments) => snapshot::run(&arguments),
        Command::Nodes(arguments) => nodes::run(&arguments),
        Command::Wait(arguments) => {
            return match wait::run(&arguments) {
                Ok(code) => code,
                Err(error) => report(&error),
            };
        }
        Command::Keys(arguments) => keys::run(arguments),
        Command::Secrets(arguments) => secrets::run(&arguments),
        Command::Token(arguments) => token::run(&arguments),
        Command::Bench(arguments) => bench::run(arguments),
        Command::Completions(arguments) => manual::completions(&arguments),
        Command::Man(arguments) => manual::man(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&error),
    }
}

fn report(error: &anyhow::Error) -> ExitCode {
    if is_broken_pipe(error) {
        return ExitCode::SUCCESS;
    }
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}

/// Prints a line of the answer.
fn say(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// Whether the reader of our answer has seen enough, as `head` does.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let cause = error.downcast_ref::<std::io::Error>();
    cause.is_some_and(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn no_two_arguments_are_in_each_others_way() {
        Cli::command().debug_assert();
    }
}
