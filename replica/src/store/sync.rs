//! Making what was written survive power loss, from any thread.

use super::current::{Current, Pointer};
use super::disk::{Database, SledDatabase};
use super::{StoreError, io_error};
use crate::planted::{Bug, planted};
use std::path::Path;
use std::sync::Arc;

/// What makes the writes of a store survive power loss.
#[derive(Clone, Debug)]
pub struct Syncer {
    database: Arc<dyn Database>,
    witness: Option<Witness>,
}

/// What is to be said beside the database once it is on disk.
#[derive(Clone, Debug)]
pub(super) struct Witness {
    pub(super) pointer: Arc<Pointer>,
    /// Counts the syncs of a store.
    pub(super) number: u64,
    pub(super) current: Current,
}

impl Syncer {
    /// For a database with nothing beside it.
    pub(crate) fn new(db: sled::Db, directory: &Path) -> Self {
        Self {
            database: Arc::new(SledDatabase::new(db, directory)),
            witness: None,
        }
    }

    pub(super) fn with_witness(database: Arc<dyn Database>, witness: Witness) -> Self {
        Self {
            database,
            witness: Some(witness),
        }
    }

    /// Returns when everything written before this was made is on disk, and the disk says so.
    ///
    /// # Errors
    /// If the disk says no; nothing is to be claimed then.
    pub fn sync(&self) -> Result<(), StoreError> {
        if !planted(Bug::SyncClaimed) {
            self.database.sync()?;
        }
        match &self.witness {
            Some(witness) => witness
                .pointer
                .synced(witness.number, witness.current)
                .map_err(io_error("sync")),
            None => Ok(()),
        }
    }
}
