//! Appending what was decided, and finding it again in the log.

use super::Decided;
use sluice_replica::keys::SigningKey;
use sluice_replica::log::{Append, AppendError, ChunkUse, LogError, Record, Source};
use sluice_replica::planted::{Bug, planted};
use sluice_schema::decide::Proposal;
use sluice_schema::event::Event;
use sluice_schema::version::Version;

pub(super) async fn append(
    source: &Source,
    key: &SigningKey,
    batch: &[Decided],
) -> Result<(), AppendError> {
    let proposals = batch.iter().map(|decided| &*decided.proposal);
    append_proposals(source, key, proposals.collect()).await
}

pub(super) fn signed<'a>(
    key: &SigningKey,
    proposals: impl Iterator<Item = &'a Proposal>,
) -> Vec<Append> {
    let sign = |proposal: &Proposal| Append {
        subject: proposal.subject.clone(),
        id: proposal.event.id,
        event: proposal.encoded.bytes.clone().into(),
        signature: key.sign_event(proposal.cursor.chain),
    };
    proposals.map(sign).collect()
}

pub(super) async fn append_proposals(
    source: &Source,
    key: &SigningKey,
    proposals: Vec<&Proposal>,
) -> Result<(), AppendError> {
    for proposal in &proposals {
        for (hash, content) in &proposal.encoded.chunks {
            source
                .chunks
                .put(ChunkUse::Transaction, *hash, content)
                .await
                .map_err(AppendError::Refused)?;
        }
    }
    let mut events = signed(key, proposals.iter().copied());
    if planted(Bug::BatchCutShort) {
        events.truncate(1);
    }
    let mut expected = proposals
        .first()
        .map_or(Version::ZERO, |first| first.event.previous);
    if planted(Bug::ExpectedVersionIgnored)
        && let Ok(bounds) = source.log.bounds().await
    {
        expected = bounds.last;
    }
    source.log.append(expected, events).await
}

/// Whether a record is the event that was decided. The same bytes, not the same id: another control plane may have carried
/// out the same request.
pub(super) fn is(record: &Record, decided: &Decided) -> bool {
    let proposal = &decided.proposal;
    let same_id = planted(Bug::BatchKnownById)
        && Event::decode(&record.event).is_ok_and(|event| event.id == proposal.event.id);
    record.event == proposal.encoded.bytes || same_id
}

/// How many of a batch's events the log has, from the first on, which it has. A broker that loses power while it
/// stores an atomic batch comes back with a part of it.
pub(super) async fn stored(
    source: &Source,
    batch: &[Decided],
    base: Version,
) -> Result<usize, LogError> {
    let has = async |at: usize| {
        let record = source.log.get(Version(base.0 + at as u64 + 1)).await?;
        Ok::<_, LogError>(record.is_some_and(|record| is(&record, &batch[at])))
    };
    // The last one is there only if all are, which is the usual case.
    if planted(Bug::BatchKnownById) || has(batch.len() - 1).await? {
        return Ok(batch.len());
    }
    for at in 1..batch.len() {
        if !has(at).await? {
            return Ok(at);
        }
    }
    Ok(batch.len())
}
