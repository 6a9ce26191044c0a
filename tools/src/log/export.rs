//! `sluice log export`: the log in a file.

use crate::broker::{bar, block_on, connect};
use crate::keys::load_trusted;
use anyhow::Context;
use clap::Args;
use sluice_replica::archive::{About, End, Extent, Header, export, export_store};
use sluice_replica::keys::{SigningKey, TrustedKeys};
use sluice_replica::log::jetstream::Role;
use sluice_replica::process::connection::ConnectionSettings;
use sluice_replica::process::now;
use sluice_schema::version::Version;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Arguments of `sluice log export`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// File to write; - writes to standard output
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// First version to write [default: the first that is kept]
    #[arg(long, value_name = "VERSION")]
    from: Option<u64>,
    /// Write the newest snapshot alone
    #[arg(long, conflicts_with = "from")]
    snapshot_only: bool,
    /// Read the local store of a stopped control plane or data plane (<data-dir>/store) instead of the log. Nobody has
    /// signed what is in it
    #[arg(long, value_name = "DIR", conflicts_with_all = ["from", "snapshot_only"])]
    store: Option<PathBuf>,
    /// Key to sign the whole file with. Its records and snapshots carry their own signatures anyway
    #[arg(long, value_name = "FILE")]
    signing_key: Option<PathBuf>,
    /// Whose snapshots to write: a .pub file or a directory of them [default: everybody's that fits the log]
    #[arg(long, env = "SLUICE_TRUSTED_KEYS", value_name = "PATH")]
    trusted_keys: Option<PathBuf>,
    #[command(flatten)]
    connection: ConnectionSettings,
}

/// Writes the file.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let extent = match (arguments.snapshot_only, arguments.from) {
        (true, _) => Extent::Snapshot(None),
        (false, Some(from)) => Extent::From(Version(from)),
        (false, None) => Extent::All,
    };
    let key = arguments.signing_key.as_deref().map(SigningKey::load);
    let key = key.transpose()?;
    if let Some(store) = &arguments.store {
        let about = about(&arguments.connection, key.as_ref(), None);
        let (header, end) = to_file(&arguments.file, |out| export_store(store, &about, out))?;
        tell(&arguments.file, &header, &end);
        eprintln!(
            "nobody has signed what is in it: 'sluice log import' wants --accept-unsigned, or a file made with --signing-key"
        );
        return Ok(());
    }
    let trusted = arguments.trusted_keys.as_deref().map(load_trusted);
    let trusted = trusted.transpose()?;
    let about = about(&arguments.connection, key.as_ref(), trusted.as_ref());
    write_archive(&arguments.file, &arguments.connection, extent, &about)
}

/// Exports from the broker to a file, and tells what is in it.
pub(crate) fn write_archive(
    file: &Path,
    connection: &ConnectionSettings,
    extent: Extent,
    about: &About<'_>,
) -> anyhow::Result<()> {
    let bar = bar("exporting");
    let (header, end) = to_file(file, |out| {
        let exporting = async {
            let source = connect(connection, Role::DataPlane, 1).await?;
            let mut progress = |done, of| {
                bar.set_length(of);
                bar.set_position(done);
            };
            Ok(export(&source, extent, about, out, &mut progress).await?)
        };
        block_on(exporting)
    })?;
    bar.finish_and_clear();
    tell(file, &header, &end);
    Ok(())
}

/// What an archive made now says about itself.
pub(crate) fn about<'a>(
    connection: &ConnectionSettings,
    key: Option<&'a SigningKey>,
    trusted: Option<&'a TrustedKeys>,
) -> About<'a> {
    About {
        cluster: connection.cluster().to_owned(),
        made: now(),
        software: format!("sluice {}", env!("CARGO_PKG_VERSION")),
        key,
        trusted,
    }
}

type Out = Box<dyn Write + Send>;

/// Writes beside the file and puts it in place once all of it is on disk.
fn to_file<E>(
    path: &Path,
    write: impl FnOnce(Out) -> Result<(Header, End, Out), E>,
) -> anyhow::Result<(Header, End)>
where
    E: Into<anyhow::Error>,
{
    if path == Path::new("-") {
        let (header, end, mut out) = write(Box::new(io::stdout())).map_err(Into::into)?;
        out.flush()?;
        return Ok((header, end));
    }
    let mut name = path
        .file_name()
        .context("FILE must name a file")?
        .to_owned();
    name.push(".part");
    let part = path.with_file_name(name);
    let could_not = || format!("could not write '{}'", part.display());
    let file = File::create(&part).with_context(could_not)?;
    let synced = file.try_clone().with_context(could_not)?;
    let written = write(Box::new(BufWriter::new(file))).map_err(Into::into);
    let placed = written.and_then(|(header, end, mut out)| {
        out.flush().with_context(could_not)?;
        synced.sync_all().with_context(could_not)?;
        fs::rename(&part, path)
            .with_context(|| format!("could not put '{}' in place", path.display()))?;
        Ok((header, end))
    });
    if placed.is_err() {
        // Half a file is worse than none; what is wrong is told already.
        let _ = fs::remove_file(&part);
    }
    placed
}

fn tell(file: &Path, header: &Header, end: &End) {
    let records = match end.records {
        0 => "no records".to_owned(),
        count => format!(
            "{count} records, versions {} to {}",
            header.first, header.last
        ),
    };
    eprintln!(
        "wrote {}: cluster {}, epoch {}, {records}, {} snapshots with {} chunks, {} pieces of large transactions",
        file.display(),
        header.cluster,
        header.epoch,
        end.roots,
        end.chunks,
        end.pieces
    );
}
