//! The Admin API over HTTP, on a real control plane with an embedded log.
#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod access;
mod bodies;
mod certificates;
mod conditions;
mod credentials;
mod entities;
mod events;
mod files;
mod groups;
mod health;
mod history;
mod info;
mod keyring;
mod lists;
mod methods;
mod nodes;
mod refusals;
mod restore;
mod server;
mod torn;
mod wait;
mod walk;
mod workspaces;
