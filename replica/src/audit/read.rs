//! Reading a log record by record.

use crate::log::{LogError, Record, Source};
use futures::stream::{self, StreamExt, TryStreamExt};
use sluice_schema::version::Version;
use std::collections::VecDeque;

/// Records that are asked of the leader at the same time.
const ASKED_AHEAD_MAX: usize = 32;

/// Which copy of a replicated log is audited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Copies {
    /// The leader's.
    Leader,
    /// Whichever answers.
    Any,
}

/// Reads on from a version.
pub(super) struct Reader<'a> {
    source: &'a Source,
    copies: Copies,
    next: Version,
    waiting: VecDeque<Record>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(source: &'a Source, copies: Copies) -> Self {
        Self {
            source,
            copies,
            next: Version::GENESIS,
            waiting: VecDeque::new(),
        }
    }

    /// The next record that is there; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Record>, LogError> {
        if self.waiting.is_empty() {
            self.fill().await?;
        }
        let record = self.waiting.pop_front();
        if let Some(record) = &record {
            self.next = record.version.next();
        }
        Ok(record)
    }

    async fn fill(&mut self) -> Result<(), LogError> {
        let log = &self.source.log;
        let page = log.read(self.next).await?.records;
        match self.copies {
            Copies::Any => self.waiting.extend(page),
            // The copy that answered may be behind.
            Copies::Leader if page.is_empty() => self.waiting.extend(log.get(self.next).await?),
            Copies::Leader => {
                let from_leader: Vec<Option<Record>> = stream::iter(page)
                    .map(|record| log.get(record.version))
                    .buffered(ASKED_AHEAD_MAX)
                    .try_collect()
                    .await?;
                self.waiting.extend(from_leader.into_iter().flatten());
            }
        }
        Ok(())
    }
}
