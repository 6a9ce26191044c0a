//! What outlives configuration.

use super::peers::Peers;
use super::phase::Answer;
use super::registry::Registry;
use crate::metrics::Writer;
use crate::proxy::Clock;
use crate::table::Authority;
use http::Method;
use std::any::{Any, TypeId};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// State of plugins that outlives configuration: keyed by identity (a plugin's id, a credential's), bounded, shared by all
/// workers. Made once, at the start, for each type that a registered plugin names.
pub struct State {
    kept: Vec<(TypeId, Box<dyn Lasting>)>,
    registry: Registry,
}

/// A type of which [`State`] holds one value.
pub trait Lasting: Any + Send + Sync {
    /// Called once, before the first request.
    fn start(&self, _node: &Surroundings) {}

    /// Called about once a second by each worker: drops what is over. `now` is in seconds since the Unix epoch.
    fn tick(&self, _now: u64) {}

    /// Writes its numbers for whoever scrapes.
    fn metrics(&self, _writer: &mut Writer) {}

    /// The answer to a request to the status listener, from this machine; `None` if it is about something else.
    fn answer(&self, _method: &Method, _path: &str) -> Option<Answer> {
        None
    }

    /// Called once, when the workers have ended: hands over what waits, in that time at most.
    fn stop(&self, _patience: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::ready(()))
    }
}

impl Lasting for () {}

/// What state may use of its node.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The authorities that verify servers for which the configuration names no others.
    pub trusted: Arc<[Authority]>,
    /// The way to the other data planes, where there can be any.
    pub peers: Option<Arc<dyn Peers>>,
    /// The wall clock.
    pub clock: Clock,
}

impl State {
    /// The state of these plugins.
    pub fn new(registry: Registry) -> Self {
        let mut kept: Vec<(TypeId, Box<dyn Lasting>)> = Vec::new();
        for registered in registry.iter() {
            let (id, make) = registered.state();
            if kept.iter().all(|(known, _)| *known != id) {
                kept.push((id, make()));
            }
        }
        Self { kept, registry }
    }

    /// The plugins it is for.
    pub fn registry(&self) -> Registry {
        self.registry
    }

    /// The value of a type that some plugin names.
    pub fn find<T: Lasting>(&self) -> Option<&T> {
        let wanted = TypeId::of::<T>();
        let (_, kept) = self.kept.iter().find(|(id, _)| *id == wanted)?;
        let kept: &dyn Any = &**kept;
        kept.downcast_ref()
    }

    /// The value of the type that a registered plugin names.
    pub(crate) fn of<T: Lasting>(&self) -> &T {
        self.find()
            .expect("the state of every registered plugin is made at the start")
    }

    /// All values.
    pub(crate) fn all(&self) -> impl Iterator<Item = &dyn Lasting> {
        self.kept.iter().map(|(_, kept)| &**kept)
    }

    /// Gives all values what they may use.
    pub(crate) fn start(&self, node: &Surroundings) {
        self.all().for_each(|kept| kept.start(node));
    }

    /// The answer of the value that a request to the status listener is about.
    pub(crate) fn answer(&self, method: &Method, path: &str) -> Option<Answer> {
        self.all().find_map(|kept| kept.answer(method, path))
    }

    /// Hands over what waits.
    pub(crate) async fn stop(&self, patience: Duration) {
        let each = self.all().map(|kept| kept.stop(patience));
        futures::future::join_all(each).await;
    }
}

impl Default for State {
    fn default() -> Self {
        Self::new(super::STANDARD)
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}
