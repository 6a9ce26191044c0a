//! The walk over a log.

use super::read::Reader;
use super::{Checked, Copies, Doubt, Fault, Life, Report, Wrong};
use crate::keys::{RING_NAME, Standing, TrustedKeys};
use crate::log::{LogError, Record, Source};
use crate::run::{ResolveError, chain, resolve};
use crate::snapshot::{LoadError, Root, load_state, verify};
use sluice_schema::event::{Event, StoredError};
use sluice_schema::state::{ApplyError, State};
use sluice_schema::version::{Chain, Cursor, Version};
use std::collections::BTreeMap;

/// Audits a log or an archive, believing `trusted` and the keyring that lies with it. `progress` is told each version that is read.
///
/// # Errors
/// If something cannot be read now. What is wrong with what can be read is in the report.
pub async fn audit(
    source: &Source,
    trusted: &TrustedKeys,
    copies: Copies,
    progress: &mut (dyn FnMut(Version) + Send),
) -> Result<Report, LogError> {
    let mut report = Report::default();
    let mut roots = Vec::new();
    let stored = source.chunks.roots().await?;
    let trusted = &trusted.with_stored_ring(&stored);
    for stored in stored {
        if stored.name == RING_NAME {
            continue;
        }
        match Root::open(&stored.root, trusted) {
            Ok(root) => roots.push((root, stored.name)),
            Err(error) => report.ignored.push((stored.name, chain(&error))),
        }
    }
    roots.sort_by_key(|(root, _)| (root.cursor.epoch, root.cursor.version));
    let snapshots = roots.iter().map(|(root, name)| Checked {
        name: name.clone(),
        cursor: root.cursor,
        entities: root.entities,
        compared: false,
        fault: None,
    });
    report.snapshots = snapshots.collect();
    let mut walk = Walk {
        source,
        trusted,
        roots: roots.into_iter().map(|(root, _)| root).collect(),
        report,
        life: None,
    };
    let mut reader = Reader::new(source, copies);
    while let Some(record) = reader.next().await? {
        progress(record.version);
        walk.report.records += 1;
        walk.take(&record).await?;
    }
    walk.end_life();
    walk.check_snapshots().await?;
    Ok(walk.report)
}

struct Walk<'a> {
    source: &'a Source,
    trusted: &'a TrustedKeys,
    /// Those that are believed, as in the report's `snapshots`.
    roots: Vec<Root>,
    report: Report,
    life: Option<Current>,
}

/// The life that is being walked.
struct Current {
    told: Life,
    /// After the last record.
    cursor: Cursor,
    /// If it is known.
    state: Option<State>,
    /// The first record that no signature covers yet, and all of them.
    pending: Option<(Version, Doubt)>,
    doubts: BTreeMap<Doubt, u64>,
}

impl Walk<'_> {
    async fn take(&mut self, record: &Record) -> Result<(), LogError> {
        let event = Event::decode(&record.event);
        let event = match event {
            Ok(event) if event.version() == record.version => Ok(event),
            Ok(event) => Err(Wrong::Misplaced(event.version())),
            Err(error) => Err(Wrong::Unreadable(chain(&error))),
        };
        if self.life.is_none() {
            self.begin_log(record, event.as_ref().ok());
        } else if let Ok(event) = &event
            && self.begins_life(record, event)
        {
            self.end_life();
            self.begin_life(event);
        }
        let Some(mut life) = self.life.take() else {
            return Ok(());
        };
        if life.told.fault.is_none() {
            let taken = self.follow(&mut life, record, event).await?;
            if let Err(fault) = taken {
                life.told.fault = Some(fault);
            }
        }
        life.told.last = record.version;
        self.life = Some(life);
        Ok(())
    }

    /// The first record that is kept, whatever it is.
    fn begin_log(&mut self, record: &Record, event: Option<&Event>) {
        match event {
            Some(event) if event.begins() => self.begin_life(event),
            Some(event) => self.life = Some(self.trimmed(event)),
            None => {
                let cursor = Cursor {
                    version: Version(record.version.0.saturating_sub(1)),
                    ..Cursor::default()
                };
                self.life = Some(Current::new(cursor));
            }
        }
    }

    /// Whether a record begins another life of the log.
    fn begins_life(&self, record: &Record, event: &Event) -> bool {
        let later = self
            .life
            .as_ref()
            .is_some_and(|life| event.epoch > life.cursor.epoch);
        let chain = event.cursor(&record.event).chain;
        let signature = record.signature.as_ref();
        event.begins()
            && later
            && signature.is_some_and(|signature| self.trusted.verifies_event(chain, signature))
    }

    /// The life that `event` begins, with the state before it as far as that is nothing.
    fn begin_life(&mut self, event: &Event) {
        let cursor = Cursor {
            epoch: event.epoch,
            version: event.previous,
            chain: Chain::ZERO,
        };
        let mut life = Current::new(cursor);
        life.told.chartered = self.is_chartered(&life);
        let first = event.version() == Version::GENESIS && !event.is_founding();
        if !first && !life.told.chartered {
            life.told.fault = Some(Fault {
                version: event.version(),
                wrong: Wrong::Charter(event.epoch),
            });
        }
        if !event.is_founding() {
            life.told.folded_from = Some(event.version());
            life.state = Some(State::restore(cursor, []));
        }
        self.life = Some(life);
    }

    /// A life whose beginning was trimmed off before `event`.
    fn trimmed(&self, event: &Event) -> Current {
        let cursor = Cursor {
            epoch: event.epoch,
            version: event.previous,
            chain: event.previous_chain,
        };
        let mut life = Current::new(cursor);
        life.told.chartered = self.is_chartered(&life);
        life
    }

    fn is_chartered(&self, life: &Current) -> bool {
        let mut roots = self.roots.iter();
        roots.any(|root| root.chartered && root.cursor.epoch == life.cursor.epoch)
    }

    /// Takes a record up, if it follows.
    async fn follow(
        &mut self,
        life: &mut Current,
        record: &Record,
        event: Result<Event, Wrong>,
    ) -> Result<Result<(), Fault>, LogError> {
        let fault = |version, wrong| Ok(Err(Fault { version, wrong }));
        let (due, version) = (life.cursor.version.next(), record.version);
        if version != due {
            return fault(due, Wrong::Lost);
        }
        let event = match event {
            Ok(event) => event,
            Err(wrong) => return fault(version, wrong),
        };
        if event.epoch != life.cursor.epoch {
            return fault(version, Wrong::Epoch(event.epoch));
        }
        if event.previous_chain != life.cursor.chain {
            return fault(version, Wrong::Chain);
        }
        if life.state.is_none() {
            self.load(life).await?;
        }
        let cursor = event.cursor(&record.event);
        self.check_signature(life, record, cursor.chain);
        let resolved = match resolve(&*self.source.chunks, event).await {
            Ok(event) => event,
            Err(ResolveError::Log(error @ LogError::Unavailable(_))) => return Err(error),
            Err(
                error @ (ResolveError::Log(LogError::Unusable(_))
                | ResolveError::Missing(_)
                | ResolveError::Stored(StoredError::Hash | StoredError::Codec(_))),
            ) => return fault(version, Wrong::Mutations(chain(&error))),
        };
        if let Some(state) = &life.state {
            match state.apply(&resolved, &record.event) {
                Ok((next, _)) => life.state = Some(next),
                Err(ApplyError::Diverged {
                    expected, found, ..
                }) => {
                    return fault(version, Wrong::Digest { expected, found });
                }
                Err(ApplyError::OutOfOrder { .. } | ApplyError::Unresolved(_)) => {
                    return fault(version, Wrong::Chain);
                }
            }
        }
        life.cursor = cursor;
        if life.state.is_none() {
            self.load(life).await?;
        }
        self.compare(life);
        Ok(Ok(()))
    }

    fn check_signature(&self, life: &mut Current, record: &Record, chain: Chain) {
        let Some(doubt) = self.doubt(record, chain) else {
            for (doubt, count) in std::mem::take(&mut life.doubts) {
                *life.told.covered.entry(doubt).or_default() += count;
            }
            life.pending = None;
            return;
        };
        *life.doubts.entry(doubt.clone()).or_default() += 1;
        life.pending.get_or_insert((record.version, doubt));
    }

    /// Why a record's own signature is not believed, if it is not.
    fn doubt(&self, record: &Record, chain: Chain) -> Option<Doubt> {
        let Some(signature) = &record.signature else {
            return Some(Doubt::Unsigned);
        };
        if self.trusted.verifies_event(chain, signature) {
            return None;
        }
        let key = signature.key.clone();
        Some(match self.trusted.standing(&key) {
            Some(Standing::Active | Standing::Retired) => Doubt::Forged(key),
            Some(Standing::Revoked) => Doubt::Revoked(key),
            None => Doubt::Unknown(key),
        })
    }

    /// Begins to fold with a snapshot of exactly this cursor, if there is one that can be loaded.
    async fn load(&mut self, life: &mut Current) -> Result<(), LogError> {
        let at = |root: &&Root| root.cursor == life.cursor;
        let Some(root) = self.roots.iter().find(at) else {
            return Ok(());
        };
        match load_state(self.source.chunks.clone(), root).await {
            Ok(state) => {
                life.told.folded_from = Some(state.version());
                life.state = Some(state);
                Ok(())
            }
            Err(LoadError::Log(error @ LogError::Unavailable(_))) => Err(error),
            // All snapshots are checked at the end.
            Err(
                LoadError::Log(LogError::Unusable(_))
                | LoadError::Missing(_)
                | LoadError::Chunk(_)
                | LoadError::Digest,
            ) => Ok(()),
        }
    }

    /// Compares the snapshots of this version with the log.
    fn compare(&mut self, life: &Current) {
        let Cursor { epoch, version, .. } = life.cursor;
        for (root, checked) in self.roots.iter().zip(&mut self.report.snapshots) {
            if (root.cursor.epoch, root.cursor.version) != (epoch, version) {
                continue;
            }
            if root.cursor != life.cursor {
                checked.fault = Some(Wrong::Foreign);
            }
            let Some(state) = &life.state else { continue };
            checked.compared = true;
            let (expected, found) = (state.digest(), root.digest);
            if expected != found && checked.fault.is_none() {
                checked.fault = Some(Wrong::Other { expected, found });
            }
        }
    }

    fn end_life(&mut self) {
        let Some(life) = self.life.take() else {
            return;
        };
        let mut told = life.told;
        let none = told.folded_from.is_none();
        let uncovered = life.pending.map(|(version, doubt)| Fault {
            version,
            wrong: Wrong::Uncovered(doubt),
        });
        let baseless = none.then_some(Fault {
            version: told.first,
            wrong: Wrong::Baseless,
        });
        told.fault = told.fault.or(uncovered).or(baseless);
        self.report.lives.push(told);
        self.report.state = life.state;
    }

    /// Reads every chunk of every snapshot.
    async fn check_snapshots(&mut self) -> Result<(), LogError> {
        for place in 0..self.roots.len() {
            let root = &self.roots[place];
            let found = match verify(&*self.source.chunks, root, |_, _| {}).await {
                Ok(()) => continue,
                Err(LoadError::Log(error @ LogError::Unavailable(_))) => return Err(error),
                Err(
                    error @ (LoadError::Log(LogError::Unusable(_))
                    | LoadError::Missing(_)
                    | LoadError::Chunk(_)
                    | LoadError::Digest),
                ) => chain(&error),
            };
            let name = &self.report.snapshots[place].name;
            // A control plane may have removed it while it was read.
            let stored = self.source.chunks.roots().await?;
            if stored.iter().any(|stored| stored.name == *name) {
                let checked = &mut self.report.snapshots[place];
                checked.fault.get_or_insert(Wrong::Snapshot(found));
            }
        }
        if self.report.records == 0
            && let Some(root) = self.roots.last()
            && let Ok(state) = load_state(self.source.chunks.clone(), root).await
        {
            self.report.state = Some(state);
        }
        Ok(())
    }
}

impl Current {
    /// Before its first record.
    fn new(cursor: Cursor) -> Self {
        let first = cursor.version.next();
        Self {
            told: Life {
                epoch: cursor.epoch,
                first,
                last: first,
                chartered: false,
                folded_from: None,
                covered: BTreeMap::new(),
                fault: None,
            },
            cursor,
            state: None,
            pending: None,
            doubts: BTreeMap::new(),
        }
    }
}
