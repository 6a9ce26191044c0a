//! The log and the local copy of it.
//!
//! [`log`] moves bytes, [`follow`] decides what to do with them, [`store`] keeps the result, [`run`] joins the three.
//! Only a control plane appends; everything else here is what every replica does. [`process`] is what all our
//! programs share around that.

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
