//! What whole-system tests share: real servers, started and ended by the test that needs them.

pub mod chaos;
pub mod cluster;
pub mod sim;
pub mod tail;

pub use sluice_tools::processes;
pub use sluice_tools::processes::nats;
