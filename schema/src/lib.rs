//! What control plane, data plane and tools agree on.
//!
//! Pure: no network, no disk, no clock, no randomness. Time, ids and entropy come in as arguments. The same log
//! gives the same state, bytes and digest on every node.

pub mod codec;
pub mod digest;
pub mod entity;
pub mod event;
pub mod hash;
pub mod kind;
pub mod version;
