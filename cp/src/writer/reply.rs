//! Answers: when a caller is told what, and by what state.

use super::{Ask, FOLD_TIMEOUT, RACE_TIMEOUT, WriteError, Written};
use crate::view::View;
use sluice_replica::log::Source;
use sluice_replica::planted::{Bug, planted};
use sluice_replica::run::chain;
use sluice_schema::decide::{Action, Applied, Command, Outcome};
use sluice_schema::event::{Event, EventId, Mutation, Mutations};
use sluice_schema::version::{Cursor, Epoch, Version};
use tokio::sync::mpsc;

/// Answers once the state has reached what was written, if that is the event there: a broker may lose what it has
/// acknowledged, and another event take its place.
pub(super) async fn answer_after(
    view: View,
    epoch: Epoch,
    id: EventId,
    mut ask: Ask,
    written: Written,
) {
    let version = written.version;
    if planted(Bug::AnswerBeforeFold) {
        return answer(ask, Ok(written));
    }
    let reached = tokio::time::timeout(FOLD_TIMEOUT, view.reached(epoch, version)).await;
    // Believed twice over: the bugs are bugs only without this.
    let unchecked = planted(Bug::UnknownTakenForDone) || planted(Bug::BatchKnownById);
    let reason = match reached {
        Ok(true) if unchecked || view.version_of(id) == Some(version) => {
            ask.steps.folded(version);
            return answer(ask, Ok(written));
        }
        Ok(true) => format!("the log has another event at version {version}"),
        Ok(false) => format!("the log has begun a new life after version {version} was stored"),
        Err(_) => format!("version {version} has not come back from the log"),
    };
    answer(ask, Err(WriteError::Unknown { reason }));
}

/// Answers a command that needs no event, if the state it was decided on is the log's last; else decides it again. The
/// state of a control plane that is cut off says nothing about what is there by now.
pub(super) async fn confirm(
    source: Source,
    view: View,
    asks: mpsc::WeakSender<Ask>,
    decided_on: Cursor,
    ask: Ask,
    written: Result<Written, WriteError>,
) {
    let last = match source.log.bounds().await {
        Ok(bounds) if bounds.last == decided_on.version => return answer(ask, written),
        Ok(bounds) if bounds.last < decided_on.version => {
            let (last, version) = (bounds.last, decided_on.version);
            let reason = format!(
                "it ends at version {last}, before version {version}, which was applied here"
            );
            return answer(ask, Err(unavailable(&reason)));
        }
        Ok(bounds) => bounds.last,
        Err(error) => return answer(ask, Err(unavailable(&chain(&error)))),
    };
    view.look();
    let reached = view.reached(decided_on.epoch, last);
    let behind = tokio::time::timeout(FOLD_TIMEOUT, reached).await.is_err();
    if behind || ask.arrived.elapsed() > RACE_TIMEOUT {
        let reason = "this control plane has not caught up with it; try again";
        return answer(ask, Err(unavailable(reason)));
    }
    ask_again(&asks, ask).await;
}

/// After a start, and after a snapshot, the recent events must be read before a repeated request can be told from a new
/// one.
pub(super) async fn ask_again_when_remembered(view: View, asks: mpsc::WeakSender<Ask>, ask: Ask) {
    let known = tokio::time::timeout(FOLD_TIMEOUT, view.remembered()).await;
    if known.is_err() || ask.arrived.elapsed() > RACE_TIMEOUT {
        let reason = "this control plane has not read its recent events yet; try again";
        return answer(ask, Err(unavailable(reason)));
    }
    ask_again(&asks, ask).await;
}

/// Puts a command back into the queue. If that is gone, so is the control plane, and the caller is told by the reply that
/// is dropped.
async fn ask_again(asks: &mpsc::WeakSender<Ask>, ask: Ask) {
    if let Some(asks) = asks.upgrade() {
        let _ = asks.send(ask).await;
    }
}

/// Answers a request that was already carried out under the same idempotency key.
pub(super) async fn answer_repeated(source: Source, view: View, ask: Ask, version: Version) {
    let epoch = view.state().epoch();
    let reached = tokio::time::timeout(FOLD_TIMEOUT, view.reached(epoch, version)).await;
    if reached.is_err() {
        let reason = format!("version {version} has not come back from the log");
        return answer(ask, Err(WriteError::Unknown { reason }));
    }
    let state = view.state();
    let event = match source.log.get(version).await {
        Ok(Some(record)) => Event::decode(&record.event).ok(),
        Ok(None) => None,
        Err(error) => return answer(ask, Err(unavailable(&error.to_string()))),
    };
    let outcome = first_outcome(event.as_ref(), &ask.command);
    answer(
        ask,
        Ok(Written {
            version,
            event: None,
            outcome,
            state,
            base: None,
        }),
    );
}

/// What the first of two equal requests came to, as far as its event tells.
fn first_outcome(event: Option<&Event>, command: &Command) -> Outcome {
    let keys = match event.map(|event| &event.mutations) {
        Some(Mutations::Inline(mutations)) => mutations.as_slice(),
        Some(Mutations::Stored(_)) | None => &[],
    };
    let mut keys = keys.iter().map(Mutation::key);
    match command {
        Command::Write(write) => {
            // What goes with it (a certificate's names) is not what was asked for.
            let key = keys.find(|key| key.kind == write.kind.key_name());
            match (&write.action, key) {
                (Action::Create, Some(key)) => Outcome::Created(key),
                (Action::Replace(_) | Action::Update(_), Some(key)) => Outcome::Updated(key),
                (Action::Delete(_), _) | (_, None) => Outcome::Deleted,
            }
        }
        Command::Membership(_) => keys.next().map_or(Outcome::Deleted, Outcome::Created),
        Command::Apply(_) | Command::Restore(_) | Command::Reseal(_) => {
            Outcome::Applied(Applied::default())
        }
    }
}

pub(super) fn unavailable(reason: &str) -> WriteError {
    WriteError::Unavailable {
        reason: reason.to_owned(),
    }
}

pub(super) fn answer(ask: Ask, answer: Result<Written, WriteError>) {
    // A caller that has gone away needs no answer.
    let _ = ask.reply.send(answer);
}
