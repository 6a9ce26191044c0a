//! The log and the local copy of it.

pub mod log;
