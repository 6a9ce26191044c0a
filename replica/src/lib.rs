//! The log and the local copy of it.
//!
//! [`log`] moves bytes, [`follow`] decides what to do with them, [`store`] keeps the result, [`run`] joins the three.
//! Only a control plane appends; everything else here is what every replica does. [`process`] is what all our
//! programs share around that.
//!
//! To follow a cluster in a program of your own, implement [`run::Sink`] and run a [`run::Replica`]: `examples/watch.rs` is one whole. What it
//! needs of the broker are the rights of a data plane. Bodies are typed by `sluice_schema::kind`, and their secrets opened with
//! `sluice_schema::seal`.

pub mod archive;
pub mod audit;
pub mod environment;
pub mod files;
pub mod follow;
pub mod keys;
pub mod log;
pub mod node;
pub mod planted;
pub mod process;
pub mod propagation;
pub mod run;
pub mod snapshot;
pub mod store;
pub mod traces;
