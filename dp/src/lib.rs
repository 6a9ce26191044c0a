//! Placeholder.

mod balance;
pub mod metrics;
pub mod plugin;
pub mod proxy;
pub mod status;
pub mod table;
