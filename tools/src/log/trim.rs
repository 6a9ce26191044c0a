//! `sluice log trim`: the log without its beginning.

use super::export::about;
use super::write_archive;
use crate::admin::Connection;
use crate::say;
use anyhow::bail;
use clap::Args;
use serde_json::json;
use sluice_replica::archive::Extent;
use sluice_replica::process::connection::ConnectionSettings;
use std::path::PathBuf;

/// Arguments of `sluice log trim`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// First version to keep; everything before it goes, for good
    #[arg(long, value_name = "VERSION")]
    before: u64,
    /// File to export the log to first
    #[arg(long, value_name = "FILE")]
    export: Option<PathBuf>,
    #[command(flatten)]
    admin: Connection,
    #[command(flatten)]
    connection: ConnectionSettings,
}

const CONFLICT: u16 = 409;

/// Exports if asked to, and trims.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if let Some(file) = &arguments.export {
        let about = about(&arguments.connection, None, None);
        write_archive(file, &arguments.connection, Extent::All, &about)?;
    }
    let body = json!({ "before": arguments.before }).to_string();
    let admin = &arguments.admin;
    let answer = admin.post("/log/trim", "application/json", &[], body.as_bytes())?;
    let number = |name: &str| answer.body[name].as_u64().unwrap_or(0);
    match answer.status {
        200 => say(&format!(
            "the log keeps versions {} to {}; the snapshot of version {} stands for what came before",
            number("first"),
            number("last"),
            number("snapshot")
        )),
        CONFLICT => bail!(
            "nothing was trimmed: {}",
            answer.body["message"].as_str().unwrap_or("no reason given")
        ),
        status => bail!("the control plane answered with {status}: {}", answer.body),
    }
}
