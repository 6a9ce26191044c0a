//! The data plane: follows the log and proxies traffic by it.
//!
//! [`table`] is the configuration compiled, [`proxy`] serves requests from it, [`balance`] says where they go, [`plugin`] is what
//! it does to them. [`explain`] says why.
//! Nothing here writes the log, and nothing here depends on a control plane.

pub mod access_log;
pub mod balance;
pub mod config;
pub mod explain;
pub mod metrics;
mod node_id;
mod peers;
pub mod plugin;
pub mod proxy;
mod sink;
pub mod start;
pub mod status;
pub mod table;

pub use node_id::NodeId;
