//! Structured logs on standard error: text for a terminal, JSON lines for everything else.

use std::fmt;
use std::io::IsTerminal;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{LevelFilter, ParseError};

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

/// A log level as the Admin API knows it: Kong's names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Level {
    name: &'static str,
    filter: LevelFilter,
}

/// Kong's names, and ours that stand for them. Several of Kong's are one of ours.
const LEVELS: [Level; 9] = [
    level("debug", LevelFilter::DEBUG),
    level("info", LevelFilter::INFO),
    level("notice", LevelFilter::INFO),
    level("warn", LevelFilter::WARN),
    level("error", LevelFilter::ERROR),
    level("crit", LevelFilter::ERROR),
    level("alert", LevelFilter::ERROR),
    level("emerg", LevelFilter::ERROR),
    level("trace", LevelFilter::TRACE),
];

const fn level(name: &'static str, filter: LevelFilter) -> Level {
    Level { name, filter }
}

impl FromStr for Level {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        let level = LEVELS.iter().find(|level| level.name == name);
        level.copied().ok_or(())
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Why the log level cannot be changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SetError {
    /// Logging was not started by this program.
    #[error("the log level of this process cannot be changed while it runs")]
    NotOurs,
}

/// Changes what is logged while the program runs. Cheap to clone.
#[derive(Clone, Default)]
pub struct LogLevel(Option<Arc<Control>>);

struct Control {
    /// The filter of the settings.
    configured: String,
    reload: Box<dyn Fn(EnvFilter) -> bool + Send + Sync>,
    current: Mutex<Current>,
}

#[derive(Clone, Copy)]
struct Current {
    level: Option<Level>,
    /// Counts changes, so that an old one is not put back over a newer.
    changes: u64,
}

impl fmt::Debug for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogLevel").field(&self.level()).finish()
    }
}

impl LogLevel {
    /// The level in force; `None` if it is not known.
    pub fn level(&self) -> Option<Level> {
        let control = self.0.as_ref()?;
        let changed = control.current().level;
        changed.or_else(|| {
            let filter = filter(&control.configured).ok()?.max_level_hint()?;
            LEVELS.iter().find(|level| level.filter == filter).copied()
        })
    }

    /// Logs at `level`, for good or for a while; needs a runtime for the latter. `false` if it is the level already.
    ///
    /// # Errors
    /// If logging was not started by this program.
    pub fn set(&self, level: Level, timeout: Option<Duration>) -> Result<bool, SetError> {
        let control = self.0.as_ref().ok_or(SetError::NotOurs)?;
        if self.level().is_some_and(|now| now.filter == level.filter) {
            return Ok(false);
        }
        let change = control.change(Some(level))?;
        if let Some(timeout) = timeout {
            let control = control.clone();
            tokio::spawn(async move {
                tokio::time::sleep(timeout).await;
                if control.current().changes == change {
                    let _ = control.change(None);
                }
            });
        }
        Ok(true)
    }
}

impl Control {
    fn current(&self) -> Current {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs at `level`, or as the settings say. Gives back which change it was.
    fn change(&self, level: Option<Level>) -> Result<u64, SetError> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let directives =
            level.map_or_else(|| self.configured.clone(), |level| level.filter.to_string());
        let reloaded = filter(&directives).is_ok_and(&self.reload);
        if !reloaded {
            return Err(SetError::NotOurs);
        }
        current.level = level;
        current.changes += 1;
        tracing::info!(level = directives, "the log level has changed");
        Ok(current.changes)
    }
}

/// What the client has to say reaches us as events, and is told once; it would repeat it at each attempt.
fn filter(directives: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::try_new(format!("async_nats=off,{directives}"))
}

/// Starts logging. Call once.
///
/// # Errors
/// If the filter cannot be read.
pub fn start(settings: &LoggingSettings) -> Result<LogLevel, String> {
    let filter = filter(&settings.log_level)
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
    let reload: Box<dyn Fn(EnvFilter) -> bool + Send + Sync> = if json {
        let logs = logs.json().flatten_event(true).with_filter_reloading();
        let handle = logs.reload_handle();
        logs.init();
        Box::new(move |filter| handle.reload(filter).is_ok())
    } else {
        let logs = logs.with_ansi(terminal).compact().with_filter_reloading();
        let handle = logs.reload_handle();
        logs.init();
        Box::new(move |filter| handle.reload(filter).is_ok())
    };
    Ok(LogLevel(Some(Arc::new(Control {
        configured: settings.log_level.clone(),
        reload,
        current: Mutex::new(Current {
            level: None,
            changes: 0,
        }),
    }))))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log level whose filters are only remembered.
    fn remembered(configured: &str) -> (LogLevel, Arc<Mutex<Vec<String>>>) {
        let filters: Arc<Mutex<Vec<String>>> = Arc::default();
        let kept = filters.clone();
        let control = Control {
            configured: configured.to_owned(),
            reload: Box::new(move |filter| {
                kept.lock().unwrap().push(filter.to_string());
                true
            }),
            current: Mutex::new(Current {
                level: None,
                changes: 0,
            }),
        };
        (LogLevel(Some(Arc::new(control))), filters)
    }

    fn level(name: &str) -> Level {
        name.parse().unwrap()
    }

    #[tokio::test]
    async fn a_level_holds_for_its_time_and_gives_way_to_a_newer_one() {
        let (log_level, filters) = remembered("warn,sluice_cp=trace");
        assert_eq!(
            log_level.level().map(|level| level.to_string()),
            Some("trace".into())
        );
        let moment = Some(Duration::from_millis(1));
        assert_eq!(log_level.set(level("debug"), moment), Ok(true));
        assert_eq!(log_level.set(level("debug"), moment), Ok(false));
        assert_eq!(log_level.level(), Some(level("debug")));
        while log_level.level() != Some(level("trace")) {
            tokio::task::yield_now().await;
        }
        assert_eq!(log_level.set(level("crit"), moment), Ok(true));
        assert_eq!(
            log_level.set(level("error"), None),
            Ok(false),
            "the same to us"
        );
        assert_eq!(log_level.set(level("notice"), None), Ok(true));
        // Timers of one runtime end in their order.
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(
            log_level.level(),
            Some(level("notice")),
            "the old one's end means nothing"
        );
        assert_eq!(filters.lock().unwrap().len(), 4);
    }

    #[test]
    fn without_logs_of_our_own_the_level_stays() {
        let log_level = LogLevel::default();
        assert_eq!(log_level.level(), None);
        assert_eq!(log_level.set(level("info"), None), Err(SetError::NotOurs));
        assert!("loud".parse::<Level>().is_err());
    }
}
