//! In place of Redis in a build without it: a plugin that wants it is refused.

use super::counters::{Counters, Key};
use super::limiter::{Server, Unavailable, Window};
use crate::metrics::Writer;
use crate::plugin::Surroundings;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, Default)]
pub(super) struct Servers;

#[allow(clippy::unused_async, reason = "as in a build with Redis")]
impl Servers {
    pub(super) fn start(&self, _: &Surroundings) {}

    pub(super) fn metrics(&self, _: &mut Writer) {}

    pub(super) async fn stop(&self, _: Duration) {}
}

#[derive(Debug)]
pub(super) struct Remote(Infallible);

#[allow(clippy::unused_async, reason = "as in a build with Redis")]
impl Remote {
    pub(super) fn new(_: Server, _: f64) -> Result<Self, String> {
        Err("this build cannot count in Redis (feature `redis`)".to_owned())
    }

    pub(super) fn waits(&self) -> bool {
        match self.0 {}
    }

    pub(super) async fn ask(
        &self,
        _: &Servers,
        _: &[Window],
        _: bool,
    ) -> Result<Vec<u64>, Unavailable> {
        match self.0 {}
    }

    pub(super) fn add(&self, _: &Servers, _: Vec<Window>, _: u64) {
        match self.0 {}
    }

    pub(super) fn note(&self, _: &Servers, _: &Arc<Counters>, _: (Key, u64)) {
        match self.0 {}
    }
}
