//! What has happened, and how to take it back: `show`, `blame`, `rollback`, `undo`, `bisect`, and `diff` between versions.

pub(crate) mod bisect;
pub(crate) mod blame;
pub(crate) mod compare;
pub(crate) mod replay;
pub(crate) mod restore;
pub(crate) mod show;

use serde_json::Value;
use std::io::IsTerminal;

/// Whether lines are coloured: on a terminal, unless NO_COLOR says otherwise (<https://no-color.org>).
pub(crate) fn is_coloured() -> bool {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    std::io::stdout().is_terminal() && !unwanted
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A time to the second: what people compare.
pub(crate) fn short_time(time: &Value) -> String {
    let whole = text(time);
    match whole.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => whole.to_owned(),
    }
}
