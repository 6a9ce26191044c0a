//! What whole-system tests share: real servers, started and ended by the test that needs them.

pub mod cluster;

pub use sluice_tools::processes;
pub use sluice_tools::processes::nats;
