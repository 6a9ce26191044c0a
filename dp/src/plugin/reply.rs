//! A response as far as plugins may see and change it.

use super::context::{Context, Seen};
use super::phase::Plugin;
use super::state::State;
use crate::table::{Route, Service, Table};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A response's head, before it goes to the client.
pub struct Reply<'a> {
    /// The one version of the configuration this request sees.
    pub table: &'a Table,
    /// The request.
    pub request: &'a Seen,
    /// What the request's plugins know.
    pub context: &'a mut Context,
    /// The route; `None` if none matched.
    pub route: Option<&'a Arc<Route>>,
    /// The route's service.
    pub service: Option<&'a Arc<Service>>,
    /// The status; changes go to the client.
    pub status: &'a mut StatusCode,
    /// The headers; changes go to the client.
    pub headers: &'a mut HeaderMap,
    /// Who made the response.
    pub origin: Origin,
    /// How long the upstream was waited for.
    pub upstream_time: Duration,
    /// Seconds since the Unix epoch.
    pub now: u64,
    pub(crate) filters: &'a mut Vec<Box<dyn BodyFilter>>,
    pub(crate) state: &'a State,
}

/// Who made a response.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// The upstream.
    Upstream,
    /// A plugin's [`Answer`](super::Answer).
    Plugin,
    /// The gateway: an error.
    Gateway,
}

impl Reply<'_> {
    /// What outlives configuration.
    pub fn state<P: Plugin>(&self) -> &P::State {
        self.state.of()
    }

    /// Sends the body through a filter, after those that are there already.
    pub fn filter(&mut self, filter: impl BodyFilter) {
        self.filters.push(Box::new(filter));
    }
}

impl fmt::Debug for Reply<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply")
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

/// Changes a response's body on its way. It is asked for more only when the client takes more. If the body breaks off,
/// it is dropped without its end.
pub trait BodyFilter: 'static {
    /// What goes on in place of `data`; perhaps nothing yet.
    fn data(&mut self, data: Bytes) -> Bytes;

    /// The body is at its end: what follows it. Trailers can be changed, added and taken away.
    fn end(&mut self, trailers: &mut Option<HeaderMap>) -> Bytes;

    /// Whether the body keeps its length, and so the response its `Content-Length`.
    fn keeps_length(&self) -> bool {
        false
    }
}

/// A filter that gathers the whole body and changes it then; one with more bytes than that passes as it is.
pub struct Collect<F> {
    bytes_max: usize,
    gathered: BytesMut,
    edit: Option<F>,
}

impl<F: FnOnce(Bytes) -> Bytes + 'static> Collect<F> {
    /// Gathers at most `bytes_max` bytes for `edit`.
    pub fn new(bytes_max: usize, edit: F) -> Self {
        Self {
            bytes_max,
            gathered: BytesMut::new(),
            edit: Some(edit),
        }
    }
}

impl<F: FnOnce(Bytes) -> Bytes + 'static> BodyFilter for Collect<F> {
    fn data(&mut self, data: Bytes) -> Bytes {
        if self.edit.is_none() {
            return data;
        }
        self.gathered.extend_from_slice(&data);
        if self.gathered.len() <= self.bytes_max {
            return Bytes::new();
        }
        self.edit = None;
        std::mem::take(&mut self.gathered).freeze()
    }

    fn end(&mut self, _: &mut Option<HeaderMap>) -> Bytes {
        let gathered = std::mem::take(&mut self.gathered).freeze();
        match self.edit.take() {
            Some(edit) => edit(gathered),
            None => gathered,
        }
    }
}

impl<F> fmt::Debug for Collect<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collect")
            .field("bytes_max", &self.bytes_max)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_changed_whole_or_not_at_all() {
        let check = |bytes_max: usize, expected: &str| {
            let upper = |body: Bytes| Bytes::from(body.to_ascii_uppercase());
            let mut filter = Collect::new(bytes_max, upper);
            let mut passed = Vec::new();
            for part in ["ab", "cd", "ef"] {
                passed.extend(filter.data(Bytes::from(part)));
            }
            passed.extend(filter.end(&mut None));
            assert_eq!(passed, expected.as_bytes(), "{bytes_max}");
        };
        check(6, "ABCDEF");
        check(5, "abcdef");
        check(1, "abcdef");
    }
}
