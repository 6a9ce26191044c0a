//! What control plane, data plane and tools agree on.
//!
//! Pure: no network, no disk, no clock, no randomness. Time, ids and entropy come in as arguments. The same log
//! gives the same state, bytes and digest on every node.

pub mod calendar;
pub mod check;
pub mod chunk;
pub mod codec;
pub mod decide;
pub mod declare;
pub mod difference;
pub mod digest;
pub mod entity;
pub mod entropy;
pub mod event;
pub mod expression;
pub mod field;
pub mod hash;
pub mod kind;
pub mod mask;
pub mod pki;
pub mod plugin;
pub mod reference;
pub mod rejection;
pub mod revert;
pub mod seal;
pub mod state;
pub mod template;
pub mod trace;
pub mod vault;
pub mod version;
mod walk;
