//! The Admin API over HTTP, on a real control plane with an embedded log.
#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod certificates;
mod credentials;
mod entities;
mod events;
mod files;
mod groups;
mod info;
mod keyring;
mod lists;
mod refusals;
mod server;
mod torn;
