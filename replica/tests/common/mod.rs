//! What the integration tests of this crate share.

use sluice_schema::event::{Actor, Event, EventId, Mutation, Mutations};
use sluice_schema::state::{ApplyError, State};
use sluice_schema::version::{Epoch, Time};
use uuid::Uuid;

/// The event that a control plane would append to a state, with the digest of what it leads to.
pub(crate) fn next_event(state: &State, epoch: Epoch, mutations: Vec<Mutation>) -> Event {
    let version = state.version();
    let id = EventId(Uuid::from_u128(u128::from(version.0)));
    let mut event = Event {
        previous: version,
        previous_chain: state.chain(),
        mutations: Mutations::Inline(mutations),
        ..Event::genesis(epoch, id, Time(1), Actor::default())
    };
    if let Err(ApplyError::Diverged { found, .. }) = state.apply(&event, b"") {
        event.digest = found;
    }
    event
}
