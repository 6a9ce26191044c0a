//! A line for each request and each stream: made by the worker that served it, written by a thread of its own.
//!
//! Workers never wait for a disk or a pipe. What does not fit into the bounded queue is dropped and counted.

mod record;
mod time;
mod writer;

pub use record::{Latencies, Record, Request, Session};
pub(crate) use time::Date;
pub use writer::Writer;
pub(crate) use writer::{Ended, Log};

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where lines go.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Destination {
    /// Nowhere: none are made.
    #[default]
    Off,
    /// Standard output.
    Stdout,
    /// The end of a file, made if it is not there.
    File(PathBuf),
}

impl FromStr for Destination {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "off" => Self::Off,
            "stdout" | "/dev/stdout" => Self::Stdout,
            path => Self::File(path.into()),
        })
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Stdout => f.write_str("stdout"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// How a line looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum Format {
    /// The format of other web servers, and more behind it.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

/// What of a request's query is written. Values may be credentials.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum Query {
    /// Nothing.
    Off,
    /// The names, with `*` for each value.
    #[default]
    Names,
    /// All of it, credentials too.
    Full,
}

/// Settings of the log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Settings {
    /// Where lines go.
    pub destination: Destination,
    /// How they look.
    pub format: Format,
    /// What of a query is written.
    pub query: Query,
}
