//! Settings from flags, `SLUICE_*` variables and a TOML file, in that order of strength.
//!
//! Each program describes its settings once, as clap arguments. The file's keys are the arguments' names with `_`; its
//! values become the arguments' defaults, so that the same checks apply wherever a value comes from. Keys nobody knows
//! are refused with the nearest known one.

use clap::{Arg, ArgAction, Command, CommandFactory, FromArgMatches};
use std::ffi::OsString;
use std::path::PathBuf;

/// The exit code for settings that cannot be used: `EX_USAGE`.
pub const USAGE: u8 = 64;

/// Variables that another program of ours reads; not unknown, not ours.
const FOREIGN_PREFIXES: [&str; 4] = ["SLUICE_CP_", "SLUICE_DP_", "SLUICE_TEST_", "SLUICE_UP_"];
/// Variables that several programs read; a program that does not know one of them ignores it.
const SHARED: [&str; 19] = [
    "SLUICE_ADMIN_URL",
    "SLUICE_CLUSTER",
    "SLUICE_CONFIG",
    "SLUICE_INCREMENTAL_SYNC",
    "SLUICE_NATS_CREDS",
    "SLUICE_NATS_INBOX_PREFIX",
    "SLUICE_NATS_NKEY",
    "SLUICE_NATS_PASSWORD_FILE",
    "SLUICE_NATS_TLS_CA",
    "SLUICE_NATS_TLS_CERT",
    "SLUICE_NATS_TLS_FIRST",
    "SLUICE_NATS_TLS_KEY",
    "SLUICE_NATS_TOKEN_FILE",
    "SLUICE_NATS_URL",
    "SLUICE_NATS_USER",
    "SLUICE_SECRETS_FILE",
    "SLUICE_TRACES_ENDPOINT",
    "SLUICE_TRACES_SAMPLE",
    "SLUICE_TRUSTED_KEYS",
];

/// A setting that is `on` or `off`, for clap.
///
/// # Errors
/// If it is something else.
pub fn parse_switch(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("expected on or off".to_owned()),
    }
}

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// clap's word on it; also carries the text of `--help` and `--version`.
    #[error(transparent)]
    Arguments(#[from] clap::Error),
    /// The file cannot be read.
    #[error("could not read settings file '{path}'")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("settings file '{path}' is not valid TOML: {message}")]
    Toml {
        /// Which file.
        path: PathBuf,
        /// What is wrong, with its line.
        message: String,
    },
    /// A key nobody knows.
    #[error("{place} has the unknown key '{key}'{hint}")]
    Unknown {
        /// The file, or the environment.
        place: String,
        /// The key.
        key: String,
        /// The nearest known one, as `; did you mean 'x'?`.
        hint: String,
    },
    /// Settings that contradict each other, or name a file that does not hold what it should.
    #[error("{0}")]
    Unusable(String),
    /// A value of a kind that no setting takes.
    #[error(
        "settings file '{path}': '{key}' must be a text, number, true, false, or a list of those"
    )]
    Value {
        /// Which file.
        path: PathBuf,
        /// The key.
        key: String,
    },
}

impl SettingsError {
    /// Prints the message where it belongs and gives the exit code: 0 for `--help` and `--version`.
    pub fn report(&self) -> u8 {
        match self {
            Self::Arguments(error) => {
                // Nothing can be done about a closed standard output.
                let _ = error.print();
                if error.use_stderr() { USAGE } else { 0 }
            }
            Self::File { .. }
            | Self::Toml { .. }
            | Self::Unknown { .. }
            | Self::Unusable(_)
            | Self::Value { .. } => {
                // Logging is not set up before the settings are known.
                eprintln!("error: {}", crate::run::chain(self));
                USAGE
            }
        }
    }
}

/// Loads the settings `T` from `arguments`, `variables` and the file that `--config` or `SLUICE_CONFIG` names.
/// `own_prefix` is that of the variables only this program reads.
///
/// # Errors
/// If any of the three holds something that is not a setting, or a value that is not one.
pub fn load<T: CommandFactory + FromArgMatches>(
    arguments: impl IntoIterator<Item = OsString>,
    variables: impl IntoIterator<Item = String>,
    own_prefix: &str,
) -> Result<T, SettingsError> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let mut command = T::command();
    command.build();
    check_variables(&command, variables, own_prefix)?;
    if let Some(path) = config_path(&command, &arguments) {
        command = with_file(T::command(), path)?;
    }
    let matches = command.try_get_matches_from(arguments)?;
    Ok(T::from_arg_matches(&matches)?)
}

/// Finds `--config` without complaining about anything else.
fn config_path(command: &Command, arguments: &[OsString]) -> Option<PathBuf> {
    let lenient = command.clone().ignore_errors(true);
    let matches = lenient.try_get_matches_from(arguments).ok()?;
    matches
        .try_get_one::<PathBuf>("config")
        .ok()
        .flatten()
        .cloned()
}

fn check_variables(
    command: &Command,
    variables: impl IntoIterator<Item = String>,
    own_prefix: &str,
) -> Result<(), SettingsError> {
    let known: Vec<&str> = command
        .get_arguments()
        .filter_map(|argument| argument.get_env()?.to_str())
        .chain(SHARED)
        .collect();
    for name in variables {
        let foreign = FOREIGN_PREFIXES
            .iter()
            .any(|prefix| *prefix != own_prefix && name.starts_with(prefix));
        if name.starts_with("SLUICE_") && !foreign && !known.contains(&name.as_str()) {
            let hint = nearest(&name, known.iter().copied());
            return Err(SettingsError::Unknown {
                place: "the environment".into(),
                key: name,
                hint,
            });
        }
    }
    Ok(())
}

fn with_file(command: Command, path: PathBuf) -> Result<Command, SettingsError> {
    let text = std::fs::read_to_string(&path).map_err(|source| SettingsError::File {
        path: path.clone(),
        source,
    })?;
    let table: toml::Table =
        text.parse()
            .map_err(|error: toml::de::Error| SettingsError::Toml {
                path: path.clone(),
                message: error.to_string().trim_end().to_owned(),
            })?;
    let mut command = command;
    for (key, value) in table {
        let settable =
            |argument: &&Arg| !["config", "help", "version"].contains(&argument.get_id().as_str());
        let known: Vec<String> = command
            .get_arguments()
            .filter(settable)
            .map(|argument| argument.get_id().to_string())
            .collect();
        if !known.contains(&key) {
            let hint = nearest(&key, known.iter().map(String::as_str));
            let place = format!("settings file '{}'", path.display());
            return Err(SettingsError::Unknown { place, key, hint });
        }
        let values = texts(&value).ok_or_else(|| SettingsError::Value {
            path: path.clone(),
            key: key.clone(),
        })?;
        command = command.mut_arg(&key, |argument| set_default(argument, values));
    }
    Ok(command)
}

fn set_default(argument: Arg, values: Vec<String>) -> Arg {
    let argument = argument.required(false);
    // A flag without value takes its word from the file as an explicit value.
    if matches!(argument.get_action(), ArgAction::SetTrue) {
        argument.default_value(values.join(""))
    } else {
        argument.default_values(values)
    }
}

fn texts(value: &toml::Value) -> Option<Vec<String>> {
    match value {
        toml::Value::String(text) => Some(vec![text.clone()]),
        toml::Value::Integer(number) => Some(vec![number.to_string()]),
        toml::Value::Float(number) => Some(vec![number.to_string()]),
        toml::Value::Boolean(flag) => Some(vec![flag.to_string()]),
        toml::Value::Array(items) => items
            .iter()
            .map(texts)
            .collect::<Option<Vec<_>>>()
            .map(|items| items.concat()),
        toml::Value::Datetime(_) | toml::Value::Table(_) => None,
    }
}

fn nearest<'a>(key: &str, known: impl Iterator<Item = &'a str>) -> String {
    let scored = known.map(|name| (strsim::jaro_winkler(key, name), name));
    let best = scored.max_by(|one, other| one.0.total_cmp(&other.0));
    match best {
        Some((score, name)) if score > 0.7 => format!("; did you mean '{name}'?"),
        Some(_) | None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser, Debug, PartialEq)]
    struct Sample {
        /// The file.
        #[arg(long, env = "SLUICE_CONFIG")]
        config: Option<PathBuf>,
        /// A number.
        #[arg(long, default_value = "4")]
        workers: u16,
        /// Several.
        #[arg(long, value_delimiter = ',')]
        listen: Vec<String>,
        /// Required.
        #[arg(long)]
        name: String,
    }

    fn check(file: &str, arguments: &[&str], expected: Result<Sample, &str>) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sluice.toml");
        std::fs::write(&path, file).unwrap();
        let mut all = vec![
            OsString::from("sample"),
            "--config".into(),
            path.clone().into(),
        ];
        all.extend(arguments.iter().map(OsString::from));
        let found = load::<Sample>(all, [], "SLUICE_SAMPLE_");
        match expected {
            Ok(sample) => assert_eq!(
                found.unwrap(),
                Sample {
                    config: Some(path),
                    ..sample
                }
            ),
            Err(text) => {
                let error = found.unwrap_err().to_string();
                assert!(error.contains(text), "{error}");
            }
        }
    }

    #[test]
    fn flags_beat_the_file_and_the_file_beats_defaults() {
        let sample = |workers, listen: &[&str], name: &str| Sample {
            config: None,
            workers,
            listen: listen.iter().map(ToString::to_string).collect(),
            name: name.into(),
        };
        check(
            "workers = 8\nlisten = ['a', 'b']\nname = 'n'",
            &[],
            Ok(sample(8, &["a", "b"], "n")),
        );
        check(
            "workers = 8\nlisten = 'a,b'\nname = 'n'",
            &["--workers", "2"],
            Ok(sample(2, &["a", "b"], "n")),
        );
        check("name = 'n'", &["--name", "m"], Ok(sample(4, &[], "m")));
    }

    #[test]
    fn what_nobody_knows_is_refused_with_the_nearest_known_name() {
        check(
            "worker = 8",
            &[],
            Err("unknown key 'worker'; did you mean 'workers'?"),
        );
        check(
            "workers = 'many'",
            &["--name", "n"],
            Err("invalid value 'many' for '--workers"),
        );
        check("workers = {a = 1}", &[], Err("must be a text"));
        check("workers = ", &[], Err("not valid TOML"));
        check("", &[], Err("--name"));
        let variables = ["SLUICE_CONFIK".to_owned()];
        let error = load::<Sample>(["sample".into()], variables, "SLUICE_SAMPLE_").unwrap_err();
        assert!(
            error.to_string().contains("did you mean 'SLUICE_CONFIG'?"),
            "{error}"
        );
        let foreign = ["SLUICE_DP_WORKERS".to_owned(), "OTHER".to_owned()];
        let found = load::<Sample>(
            ["sample".into(), "--name=n".into()],
            foreign,
            "SLUICE_SAMPLE_",
        );
        assert!(found.is_ok());
    }
}
