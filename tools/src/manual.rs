//! `sluice completions` and `sluice man`: made of what the programs know of their own arguments.

use clap::{Args, Command, CommandFactory, ValueEnum};
use clap_complete::Shell;
use clap_mangen::Man;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

/// Arguments of `sluice completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArguments {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
    /// The program
    #[arg(value_enum, default_value_t = Program::Sluice)]
    program: Program,
}

/// Arguments of `sluice man`.
#[derive(Debug, Args)]
pub(crate) struct ManArguments {
    /// The page to print, such as sluice-log-verify
    #[arg(default_value = "sluice", conflicts_with = "dir")]
    page: String,
    /// Write all pages of all programs into this directory, such as /usr/local/share/man/man1
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// The programs that have arguments.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Program {
    Sluice,
    SluiceCp,
    SluiceDp,
}

impl Program {
    fn command(self) -> Command {
        match self {
            Program::Sluice => crate::Cli::command(),
            Program::SluiceCp => sluice_cp::config::Settings::command(),
            Program::SluiceDp => sluice_dp::config::Settings::command(),
        }
    }
}

/// Prints the completions of a program for a shell.
pub(crate) fn completions(arguments: &CompletionsArguments) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(&script(arguments.shell, arguments.program))?;
    Ok(out.flush()?)
}

/// Prints a manual page, or writes all of them.
pub(crate) fn man(arguments: &ManArguments) -> anyhow::Result<()> {
    let pages = pages()?;
    if let Some(directory) = &arguments.dir {
        std::fs::create_dir_all(directory)?;
        for (name, text) in &pages {
            std::fs::write(directory.join(format!("{name}.1")), text)?;
        }
        return crate::say(&format!("{} pages in {}", pages.len(), directory.display()));
    }
    let Some(text) = pages.get(&arguments.page) else {
        let names: Vec<&str> = pages.keys().map(String::as_str).collect();
        anyhow::bail!(
            "there is no page '{}'; there are: {}",
            arguments.page,
            names.join(", ")
        );
    };
    let mut out = std::io::stdout().lock();
    out.write_all(text)?;
    Ok(out.flush()?)
}

fn script(shell: Shell, program: Program) -> Vec<u8> {
    let mut command = program.command();
    let name = command.get_name().to_owned();
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut text);
    text
}

/// Every page by its name, which is that of the command with `-` for each space.
fn pages() -> anyhow::Result<BTreeMap<String, Vec<u8>>> {
    let mut pages = BTreeMap::new();
    for program in Program::value_variants() {
        let mut command = program.command().disable_help_subcommand(true);
        command.build();
        add_pages(command, &mut pages)?;
    }
    Ok(pages)
}

fn add_pages(command: Command, pages: &mut BTreeMap<String, Vec<u8>>) -> anyhow::Result<()> {
    for below in command.get_subcommands() {
        add_pages(below.clone(), pages)?;
    }
    let name = command.get_display_name().unwrap_or(command.get_name());
    let name = name.to_owned();
    let mut text = Vec::new();
    Man::new(command).render(&mut text)?;
    pages.insert(name, text);
    Ok(())
}
