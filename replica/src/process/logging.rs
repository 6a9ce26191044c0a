//! Structured logs on standard error: text for a terminal, JSON lines for everything else.

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum Format {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// Text for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Settings of the logs.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Logs")]
pub struct LoggingSettings {
    /// What to log: error, warn, info, debug, trace, or a filter such as `info,sluice_replica=debug`
    #[arg(
        long,
        env = "SLUICE_LOG_LEVEL",
        default_value = "info",
        value_name = "FILTER"
    )]
    pub log_level: String,
    /// How log lines look; auto is text on a terminal and JSON otherwise
    #[arg(long, env = "SLUICE_LOG_FORMAT", value_enum, default_value = "auto")]
    pub log_format: Format,
}

/// Starts logging. Call once.
///
/// # Errors
/// If the filter cannot be read.
pub fn start(settings: &LoggingSettings) -> Result<(), String> {
    // What the client has to say reaches us as events, and is told once; it would repeat it at each attempt.
    let filter = EnvFilter::try_new(format!("async_nats=off,{}", settings.log_level))
        .map_err(|error| format!("log_level '{}': {error}", settings.log_level))?;
    let terminal = std::io::stderr().is_terminal();
    let json = match settings.log_format {
        Format::Auto => !terminal,
        Format::Text => false,
        Format::Json => true,
    };
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if json {
        logs.json().flatten_event(true).init();
    } else {
        logs.with_ansi(terminal).compact().init();
    }
    Ok(())
}
