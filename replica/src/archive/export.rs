//! Exporting: a log's records, or a snapshot, into an archive. Asks for nothing that a data plane may not ask for.

use super::format::{End, Header};
use super::{ArchiveError, Writer};
use crate::keys::{RING_NAME, SigningKey, TrustedKeys};
use crate::log::{ChunkUse, Chunks, Log, Page, Record, Source};
use crate::snapshot::{Root, fetch_tree};
use crate::store::Store;
use bytes::Bytes;
use sluice_schema::chunk::Tree;
use sluice_schema::event::{Event, Mutations};
use sluice_schema::state::State;
use sluice_schema::version::{Cursor, Epoch, Time, Version};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use uuid::Uuid;

/// How much of a log is exported.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extent {
    /// All records, and the snapshot they follow if the log was trimmed.
    All,
    /// The records from a version on, and a snapshot to begin with. A little more if there is none at that version.
    From(Version),
    /// A snapshot alone: that of a version, or the newest.
    Snapshot(Option<Version>),
}

/// How far an export is: so many of so many chunks and records.
pub type Progress<'a> = &'a mut (dyn FnMut(u64, u64) + Send);

/// What an archive says about itself, and who vouches for it.
#[derive(Clone, Debug)]
pub struct About<'a> {
    /// The cluster whose log it is.
    pub cluster: String,
    /// Now.
    pub made: Time,
    /// The program that writes it.
    pub software: String,
    /// Signs the archive as a whole. Its records and snapshots carry their own signatures.
    pub key: Option<&'a SigningKey>,
    /// Whose snapshots are exported; everybody's if not known.
    pub trusted: Option<&'a TrustedKeys>,
}

/// Writes a log, or a part of it, as an archive.
///
/// # Errors
/// If the log cannot be read, lacks what the extent needs, or `out` takes no more. What was written is no archive then.
pub async fn export<W: Write + Send>(
    source: &Source,
    extent: Extent,
    about: &About<'_>,
    out: W,
    progress: Progress<'_>,
) -> Result<(Header, End, W), ArchiveError> {
    let plan = Plan::make(source, extent, about).await?;
    let header = Header {
        cluster: about.cluster.clone(),
        epoch: plan.epoch,
        first: plan.first,
        last: plan.last,
        made: about.made,
        software: about.software.clone(),
    };
    let mut writer = Writer::begin(out, &header)?;
    let mut cursor = Cursor::default();
    let records = (plan.last.0 + 1).saturating_sub(plan.first.0);
    let mut chunks = 0;
    if let Some(ring) = &plan.ring {
        writer.root(ring)?;
    }
    if let Some((root, sealed)) = &plan.base {
        cursor = root.cursor;
        writer.root(sealed)?;
        let mut each = |done, of| progress(done, of + records);
        chunks = write_snapshot(&mut writer, &*source.chunks, root, &mut each).await?;
    }
    let mut next = plan.first;
    while next <= plan.last {
        let Page { records: page, .. } = source.log.read(next).await?;
        let Some(newest) = page.last().map(|record| record.version) else {
            break;
        };
        for record in page.iter().filter(|record| record.version <= plan.last) {
            let event = Event::decode(&record.event).ok();
            if let Some(event) = &event {
                write_pieces(&mut writer, &*source.chunks, event).await?;
                cursor = event.cursor(&record.event);
            }
            writer.record(record)?;
            let done = (record.version.0 + 1).saturating_sub(plan.first.0);
            progress(chunks + done, chunks + records);
        }
        next = newest.next();
    }
    let (end, out) = writer.end(cursor, about.key)?;
    Ok((header, end, out))
}

/// Writes what a stopped program's local store holds as an archive with one snapshot, which nobody has signed.
///
/// # Errors
/// If there is no store, it is damaged, in use or empty, or `out` takes no more.
pub fn export_store<W: Write>(
    directory: &Path,
    about: &About<'_>,
    out: W,
) -> Result<(Header, End, W), ArchiveError> {
    let state = store_state(directory)?;
    let tree = build(&state, &mut |_, _| {});
    let version = state.version();
    let header = Header {
        cluster: about.cluster.clone(),
        epoch: state.epoch(),
        first: version.next(),
        last: version,
        made: about.made,
        software: about.software.clone(),
    };
    let root = Root::of(&state, state.cursor(), &tree, (about.made, Uuid::nil()));
    let mut writer = Writer::begin(out, &header)?;
    writer.unsigned_root(&root)?;
    let mut failed = None;
    build(&state, &mut |hash, content| {
        if failed.is_none() {
            failed = writer.chunk(ChunkUse::Snapshot, hash, &content).err();
        }
    });
    if let Some(error) = failed {
        return Err(error);
    }
    let (end, out) = writer.end(state.cursor(), about.key)?;
    Ok((header, end, out))
}

fn store_state(directory: &Path) -> Result<State, ArchiveError> {
    // Opening makes what is not there.
    if !directory.is_dir() {
        let reason = format!("there is no directory '{}'", directory.display());
        return Err(ArchiveError::Nothing(reason));
    }
    let opened = Store::open(directory)?;
    if let Some(warning) = opened.warning() {
        let reason = format!("{warning}; export again to take what is left");
        return Err(ArchiveError::Nothing(reason));
    }
    let cursor = opened.store.cursor();
    if cursor.version == Version::ZERO {
        return Err(ArchiveError::Nothing("the store is empty".into()));
    }
    Ok(opened
        .store
        .read_all(|entities| State::restore(cursor, entities))?)
}

fn build(state: &State, new: &mut dyn FnMut(sluice_schema::hash::Hash32, Vec<u8>)) -> Tree {
    match Tree::build(state, new) {
        Ok(tree) => tree,
        Err(never) => match never {},
    }
}

/// Writes a snapshot's chunks, each once, and says how many.
async fn write_snapshot<W: Write>(
    writer: &mut Writer<W>,
    chunks: &dyn Chunks,
    root: &Root,
    progress: Progress<'_>,
) -> Result<u64, ArchiveError> {
    let tree = fetch_tree(chunks, root).await?;
    let mut pieces = Vec::new();
    let mut seen = BTreeSet::new();
    for piece in tree.nodes().flat_map(|node| &node.pieces) {
        if seen.insert(*piece) {
            pieces.push(*piece);
        }
    }
    let count = pieces.len() as u64;
    for (done, hash) in (1..).zip(pieces) {
        let content = chunks.get(ChunkUse::Snapshot, hash).await?;
        let missing = || ArchiveError::Missing(format!("chunk {hash} of the snapshot"));
        writer.chunk(ChunkUse::Snapshot, hash, &content.ok_or_else(missing)?)?;
        progress(done, count);
    }
    Ok(count)
}

async fn write_pieces<W: Write>(
    writer: &mut Writer<W>,
    chunks: &dyn Chunks,
    event: &Event,
) -> Result<(), ArchiveError> {
    let Mutations::Stored(stored) = &event.mutations else {
        return Ok(());
    };
    for hash in &stored.chunks {
        let content = chunks.get(ChunkUse::Transaction, *hash).await?;
        let missing = || {
            let version = event.version();
            ArchiveError::Missing(format!(
                "piece {hash} of the transaction of version {version}"
            ))
        };
        writer.chunk(ChunkUse::Transaction, *hash, &content.ok_or_else(missing)?)?;
    }
    Ok(())
}

/// What goes into an archive.
struct Plan {
    epoch: Epoch,
    first: Version,
    last: Version,
    base: Option<(Root, Bytes)>,
    /// So that whoever reads the archive needs the root key alone.
    ring: Option<Bytes>,
}

impl Plan {
    async fn make(
        source: &Source,
        extent: Extent,
        about: &About<'_>,
    ) -> Result<Self, ArchiveError> {
        let log = &*source.log;
        let ends = ends(log).await?;
        let epoch = match &ends {
            Some((_, last)) => epoch_at(log, *last).await?,
            None => None,
        };
        let mut roots = Vec::new();
        let all = source.chunks.roots().await?;
        let trusted = about.trusted.map(|trusted| trusted.with_stored_ring(&all));
        let mut ring = None;
        for stored in all {
            if stored.name == RING_NAME {
                ring = Some(stored.root);
                continue;
            }
            let opened = match &trusted {
                Some(trusted) => Root::open(&stored.root, trusted),
                None => Root::read(&stored.root).map(|(root, _)| root),
            };
            if let Ok(root) = opened
                && agrees(log, ends.as_ref(), &root).await?
            {
                roots.push((root, stored.root));
            }
        }
        roots.sort_by_key(|(root, _)| (root.cursor.epoch, root.cursor.version));
        let plan = match (extent, ends, epoch) {
            (Extent::Snapshot(version), ..) => Self::snapshot(roots, version),
            (Extent::All, Some((first, last)), Some(epoch)) => {
                Self::records(roots, epoch, (&first, last), Version::ZERO)
            }
            (Extent::From(from), Some((first, last)), Some(epoch)) => {
                Self::records(roots, epoch, (&first, last), from)
            }
            (Extent::All | Extent::From(_), _, None) | (Extent::All | Extent::From(_), None, _) => {
                Err(ArchiveError::Nothing(
                    "the log holds no readable event".into(),
                ))
            }
        }?;
        Ok(Self { ring, ..plan })
    }

    fn snapshot(
        mut roots: Vec<(Root, Bytes)>,
        version: Option<Version>,
    ) -> Result<Self, ArchiveError> {
        roots.retain(|(root, _)| version.is_none_or(|version| root.cursor.version == version));
        let none = || {
            ArchiveError::Nothing(match version {
                Some(version) => format!("there is no snapshot of version {version}"),
                None => "there is no snapshot; cut one first (sluice snapshot cut)".into(),
            })
        };
        let base = roots.pop().ok_or_else(none)?;
        let Cursor { epoch, version, .. } = base.0.cursor;
        Ok(Self {
            epoch,
            first: version.next(),
            last: version,
            base: Some(base),
            ring: None,
        })
    }

    fn records(
        mut roots: Vec<(Root, Bytes)>,
        epoch: Epoch,
        (first, last): (&Record, Version),
        from: Version,
    ) -> Result<Self, ArchiveError> {
        let from = from.max(first.version);
        let plan = |first, base| Self {
            epoch,
            first,
            last,
            base,
            ring: None,
        };
        let whole = Event::decode(&first.event)
            .is_ok_and(|event| event.epoch == epoch && event.begins() && !event.is_founding());
        if whole && from == first.version {
            return Ok(plan(from, None));
        }
        roots.retain(|(root, _)| root.cursor.epoch == epoch && root.cursor.version <= last);
        let behind = roots.partition_point(|(root, _)| root.cursor.version.next() < from);
        if behind < roots.len() {
            return Ok(plan(from, Some(roots.swap_remove(behind))));
        }
        match roots.pop() {
            Some(base) => Ok(plan(base.0.cursor.version.next().max(first.version), Some(base))),
            None if whole => Ok(plan(first.version, None)),
            None => Err(ArchiveError::Nothing(
                "the log does not begin with its first event, and has no snapshot that stands for what came before".into(),
            )),
        }
    }
}

/// The first record of the log and its last version; `None` if it is empty. Asks only for reading.
pub(crate) async fn ends(log: &dyn Log) -> Result<Option<(Record, Version)>, ArchiveError> {
    let Page { records, .. } = log.read(Version::GENESIS).await?;
    let (Some(first), Some(mut last)) = (
        records.first().cloned(),
        records.last().map(|record| record.version),
    ) else {
        return Ok(None);
    };
    // Doubles the stride until nothing is there, then halves it. A record that is lost in between does no harm: reading
    // from its place gives the next one.
    let mut stride = last.0.max(1);
    let mut beyond = None;
    while stride > 0 {
        let probe = Version(last.0.saturating_add(stride));
        if beyond.is_some_and(|beyond| probe >= beyond) {
            stride /= 2;
            continue;
        }
        let Page { records, .. } = log.read(probe).await?;
        match records.last() {
            Some(record) => {
                last = record.version;
                stride = if beyond.is_none() {
                    stride.saturating_mul(2)
                } else {
                    stride
                };
            }
            None => {
                beyond = Some(probe);
                stride /= 2;
            }
        }
    }
    Ok(Some((first, last)))
}

/// The life of the log at its end: that of the last event that can be read.
async fn epoch_at(log: &dyn Log, last: Version) -> Result<Option<Epoch>, ArchiveError> {
    let from = Version(
        last.0
            .saturating_sub(crate::log::PAGE_RECORDS_MAX as u64 - 1)
            .max(1),
    );
    let Page { records, .. } = log.read(from).await?;
    let mut events = records
        .iter()
        .rev()
        .filter_map(|record| Event::decode(&record.event).ok());
    Ok(events.next().map(|event| event.epoch))
}

/// Whether a snapshot is one of this log, as far as the log can tell: it has the same event there.
async fn agrees(
    log: &dyn Log,
    ends: Option<&(Record, Version)>,
    root: &Root,
) -> Result<bool, ArchiveError> {
    let Some((first, last)) = ends else {
        return Ok(true);
    };
    let cursor = root.cursor;
    if cursor.version.next() == first.version {
        let event = Event::decode(&first.event);
        return Ok(event.is_ok_and(|event| event.previous_chain == cursor.chain));
    }
    if cursor.version < first.version || cursor.version > *last {
        return Ok(true);
    }
    let record = log.get(cursor.version).await?;
    Ok(record.is_some_and(|record| {
        let event = Event::decode(&record.event);
        event.is_ok_and(|event| event.cursor(&record.event) == cursor)
    }))
}
