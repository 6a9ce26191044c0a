//! Decide: a command against a state gives an event, or a rejection.
//!
//! Validity is decided here and nowhere else. What an event says is unconditional: defaults are filled in, generated
//! values are made and cascades are spelled out, so that a replica needs no rules to apply it.

mod apply;
mod draft;
mod membership;
mod names;
mod precondition;
mod protocols;
mod reseal;
mod restore;
mod workspaces;
mod write;

pub use apply::{Applied, Mistake, Plan};
pub use membership::{Membership, MembershipChange};
pub use precondition::{Precondition, Tags, entity_tag};
pub use reseal::Reseal;
pub use restore::{Conflict, ConflictReason, Former, Restoration, Restore};
pub use write::{Action, Scope, Selector, Write};

use crate::entity::{Key, Workspace};
use crate::entropy::Entropy;
use crate::event::{Actor, Encoded, Event, EventId, Mutations};
use crate::kind::RouterFlavor;
use crate::rejection::Rejection;
use crate::state::State;
use crate::trace::TraceContext;
use crate::version::{Cursor, Epoch, Time};
use draft::Draft;

/// What somebody wants changed.
#[derive(Clone, Debug)]
pub enum Command {
    /// One entity, as the Admin API does it.
    Write(Box<Write>),
    /// Consumers that join groups or leave them.
    Membership(Box<Membership>),
    /// A declarative file, as one transaction.
    Apply(Box<Plan>),
    /// Entities brought back to what they were.
    Restore(Box<Restore>),
    /// Secrets sealed anew.
    Reseal(Box<Reseal>),
}

impl Command {
    /// The workspace it is about.
    pub fn workspace(&self) -> &Workspace {
        match self {
            Self::Write(write) => &write.workspace,
            Self::Membership(membership) => &membership.workspace,
            Self::Apply(plan) => &plan.workspace,
            Self::Restore(restore) => &restore.workspace,
            Self::Reseal(reseal) => &reseal.workspace,
        }
    }
}

/// Who asks, when and why: everything of an event that is not its content.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The event's name, if there will be one.
    pub id: EventId,
    /// Now.
    pub time: Time,
    /// Who asks.
    pub actor: Actor,
    /// Why.
    pub reason: Option<String>,
    /// The request that asks.
    pub request_id: Option<String>,
    /// For [`Event::trace`].
    pub trace: Option<TraceContext>,
    /// The seed of every id and secret made on the way.
    pub seed: [u8; 32],
    /// What routes may say.
    pub router_flavor: RouterFlavor,
}

/// A command that was found valid.
#[derive(Clone, Debug)]
pub struct Decision {
    /// What to append; `None` if the command changes nothing.
    pub event: Option<Proposal>,
    /// The state after it.
    pub state: State,
    /// What the command came to.
    pub outcome: Outcome,
}

/// An event that is ready to be signed and appended.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// The event.
    pub event: Event,
    /// Its bytes, and the chunks to store before it.
    pub encoded: Encoded,
    /// The cursor after it.
    pub cursor: Cursor,
    /// `<workspace>.<kind>.<id>` of the entity the caller named.
    pub subject: String,
}

/// What a command came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An entity that did not exist before; the first of several.
    Created(Key),
    /// An entity that has a new body.
    Updated(Key),
    /// An entity that is gone, or was not there.
    Deleted,
    /// A declarative file, or entities brought back.
    Applied(Applied),
}

/// Why a command is not accepted. The caller can mend it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// An Admin API request, with Kong's error object.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// A declarative file, with everything that is wrong in it.
    #[error("{} mistakes in the file", .0.len())]
    Mistaken(Vec<Mistake>),
    /// Entities that cannot be brought back, each with why.
    #[error("{} entities cannot be brought back", .0.len())]
    Conflicting(Vec<Conflict>),
}

/// The clock, the chance and the rules of one decision.
#[derive(Debug)]
struct Inputs {
    now: Time,
    entropy: Entropy,
    flavor: RouterFlavor,
}

/// Decides `command` on `state`.
///
/// # Errors
/// If the command is not valid on this state. Nothing has changed then.
pub fn decide(state: &State, command: Command, origin: &Origin) -> Result<Decision, Refusal> {
    workspaces::find(state, command.workspace())?;
    let mut draft = Draft::new(state);
    let inputs = Inputs {
        now: origin.time,
        entropy: Entropy::new(origin.seed),
        flavor: origin.router_flavor,
    };
    let (outcome, subject) = match command {
        Command::Write(write) => write::decide(&mut draft, *write, inputs)?,
        Command::Membership(change) => membership::decide(&mut draft, &change, inputs)?,
        Command::Apply(plan) => {
            let applied = apply::decide(&mut draft, *plan, inputs).map_err(Refusal::Mistaken)?;
            (Outcome::Applied(applied), batch(origin))
        }
        Command::Restore(restore) => {
            let applied =
                restore::decide(&mut draft, *restore, inputs).map_err(Refusal::Conflicting)?;
            (Outcome::Applied(applied), batch(origin))
        }
        Command::Reseal(reseal) => {
            let applied = reseal::decide(&mut draft, &reseal)?;
            (Outcome::Applied(applied), batch(origin))
        }
    };
    draft.check_secrets()?;
    Ok(conclude(state, draft, origin, outcome, subject))
}

/// The subject of a command that is about no entity in particular.
fn batch(origin: &Origin) -> String {
    format!("default.batch.{}", origin.id)
}

/// The first event of a log, ready to be signed and appended at version 1.
pub fn genesis(epoch: Epoch, id: EventId, time: Time, actor: Actor) -> Proposal {
    let event = Event::genesis(epoch, id, time, actor);
    let encoded = event.encode();
    let cursor = event.cursor(&encoded.bytes);
    Proposal {
        event,
        encoded,
        cursor,
        subject: format!("default.genesis.{epoch}"),
    }
}

fn conclude(
    state: &State,
    draft: Draft<'_>,
    origin: &Origin,
    outcome: Outcome,
    subject: String,
) -> Decision {
    let (mut next, mutations) = draft.finish();
    if mutations.is_empty() {
        return Decision {
            event: None,
            state: state.clone(),
            outcome,
        };
    }
    let cursor = state.cursor();
    let event = Event {
        epoch: cursor.epoch,
        previous: cursor.version,
        previous_chain: cursor.chain,
        id: origin.id,
        time: origin.time,
        actor: origin.actor.clone(),
        reason: origin.reason.clone(),
        request_id: origin.request_id.clone(),
        trace: origin.trace,
        mutations: Mutations::Inline(mutations),
        digest: next.digest(),
    };
    let encoded = event.encode();
    next.settle(&event, &encoded.bytes);
    let cursor = next.cursor();
    Decision {
        event: Some(Proposal {
            event,
            encoded,
            cursor,
            subject,
        }),
        state: next,
        outcome,
    }
}

#[cfg(test)]
mod tests;
