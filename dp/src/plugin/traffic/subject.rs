//! Whom a limit is for, as requests show it.

use super::counters::Subject;
use crate::plugin::Access;
use http::HeaderName;

/// What requests are counted by.
#[derive(Debug)]
pub(super) enum By {
    Consumer,
    Credential,
    Address,
    Service,
    Header(HeaderName),
    Path(String),
}

impl By {
    /// Whom a request counts for; the client's address where what was configured is absent.
    pub(super) fn subject(&self, request: &Access<'_>) -> Subject {
        let identity = &request.context.identity;
        let credential = identity.credential.map(|credential| credential.id);
        let entity = match self {
            Self::Consumer => {
                let consumer = identity.consumer.as_ref().map(|consumer| consumer.id);
                consumer.or(credential)
            }
            Self::Credential => credential,
            Self::Service => request.service.map(|service| service.id),
            Self::Address => None,
            Self::Header(name) => {
                let value = request.headers.get(name);
                return value.map_or(Subject::Address(request.client), |value| {
                    text(value.as_bytes())
                });
            }
            Self::Path(path) if path == request.path => return text(path.as_bytes()),
            Self::Path(_) => None,
        };
        entity.map_or(Subject::Address(request.client), Subject::Entity)
    }
}

fn text(bytes: &[u8]) -> Subject {
    let mut hash = [0; 16];
    hash.copy_from_slice(&blake3::hash(bytes).as_bytes()[..16]);
    Subject::Text(hash)
}
