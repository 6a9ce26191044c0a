//! Requests that must not be served by an older configuration than their client has seen: `Sluice-Min-Version`.
//!
//! Without the header a request costs one look for it, and not even that if the setting is off.

use super::errors::Failure;
use super::worker::Worker;
use http::{HeaderName, HeaderValue, Request};
use sluice_schema::version::Version;
use std::time::Duration;
use tokio::time::Instant;

const MIN_VERSION: HeaderName = HeaderName::from_static("sluice-min-version");
/// Names the version that served, on responses.
pub(super) const VERSION: HeaderName = HeaderName::from_static("sluice-version");

/// What requests may ask about versions, and what responses say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Freshness {
    /// How long a request with `Sluice-Min-Version` is held; the header is not looked at without.
    pub wait: Option<Duration>,
    /// Whether responses name the version that served them.
    pub tell: bool,
}

impl Default for Freshness {
    fn default() -> Self {
        Self {
            wait: Some(Duration::from_secs(1)),
            tell: false,
        }
    }
}

/// What a request asks for that is not served yet, and how long it may be held; or that what it asks for cannot be
/// understood.
pub(super) fn missing<B>(
    worker: &Worker,
    request: &Request<B>,
    serving: Version,
) -> Option<Result<(Version, Duration), Failure>> {
    let wait = worker.options.freshness.wait?;
    let asked = request.headers().get(MIN_VERSION)?;
    match version(asked) {
        Some(version) if version <= serving => None,
        Some(version) => Some(Ok((version, wait))),
        None => Some(Err(Failure::BadRequest)),
    }
}

fn version(asked: &HeaderValue) -> Option<Version> {
    let text = asked.to_str().ok()?;
    text.trim().parse().ok().map(Version)
}

/// Returns when a version is served, or when the time is up.
pub(super) async fn reach(
    worker: &Worker,
    asked: Result<(Version, Duration), Failure>,
) -> Result<(), Failure> {
    let (version, wait) = asked?;
    let deadline = Instant::now() + wait;
    loop {
        // Before looking, so that no swap is missed.
        let swapped = worker.shared.swapped.notified();
        tokio::pin!(swapped);
        swapped.as_mut().enable();
        if worker.table().version() >= version {
            return Ok(());
        }
        if tokio::time::timeout_at(deadline, swapped).await.is_err() {
            return Err(Failure::TooOld);
        }
    }
}
