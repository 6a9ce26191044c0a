//! `correlation-id`: one id for a request, for the upstream and, if wanted, for the client.
//!
//! Deviation from Kong: in ids of `tracker`, a number of the request stands for that of the connection.

use crate::plugin::{Access, Entity, Lasting, Phases, Plugin, Reply, Step};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;
use uuid::Uuid;

/// The fields of the entity's `config`.
#[derive(Deserialize)]
pub(crate) struct Fields {
    header_name: Option<String>,
    generator: Generator,
    echo_downstream: bool,
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum Generator {
    #[serde(rename = "uuid")]
    Uuid,
    #[serde(rename = "uuid#counter")]
    Counter,
    #[serde(rename = "tracker")]
    Tracker,
}

/// The prepared configuration.
#[derive(Debug)]
pub(crate) struct CorrelationId {
    header: HeaderName,
    generator: Generator,
    echo: bool,
}

/// Where numbers come from.
#[derive(Debug)]
pub(crate) struct Sequence {
    id: Uuid,
    last: AtomicU64,
}

impl Default for Sequence {
    fn default() -> Self {
        Self {
            id: random_id(),
            last: AtomicU64::new(0),
        }
    }
}

impl Lasting for Sequence {}

impl Sequence {
    fn next(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// The id of a request, for its response.
struct Given(HeaderValue);

impl Plugin for CorrelationId {
    const NAME: &'static str = "correlation-id";
    const PRIORITY: i32 = 100_001;
    const PHASES: Phases = Phases::ACCESS.and(Phases::RESPONSE);
    type Config = Fields;
    type State = Sequence;

    fn compile(fields: Fields, _: &Entity<'_>) -> Result<Self, String> {
        let name = fields.header_name;
        let name = name.unwrap_or_else(|| "Kong-Request-ID".to_owned());
        let header = name
            .parse()
            .map_err(|_| format!("`{name}` is not a header's name"))?;
        Ok(Self {
            header,
            generator: fields.generator,
            echo: fields.echo_downstream,
        })
    }

    fn access(&self, request: &mut Access<'_>) -> Step {
        let id = match present(request.headers, &self.header) {
            Some(id) => id.clone(),
            None => {
                let local = (request.local.ip(), request.local.port());
                let id = self.make(request.state::<Self>(), Some(local));
                request.headers.insert(&self.header, id.clone());
                id
            }
        };
        if self.echo {
            request.context.shared.insert(Given(id));
        }
        Step::Continue
    }

    fn response(&self, reply: &mut Reply<'_>) {
        if !self.echo {
            return;
        }
        // A request that was refused before plugins ran has none.
        let given = reply.context.shared.get::<Given>().map(|given| &given.0);
        let given = given.or_else(|| present(&reply.request.headers, &self.header));
        let id = match given {
            Some(id) => id.clone(),
            None => self.make(reply.state::<Self>(), None),
        };
        reply.headers.insert(&self.header, id);
    }
}

impl CorrelationId {
    fn make(&self, sequence: &Sequence, local: Option<(std::net::IpAddr, u16)>) -> HeaderValue {
        let text = match (self.generator, local) {
            (Generator::Uuid, _) => random_id().to_string(),
            (Generator::Counter, _) | (Generator::Tracker, None) => {
                format!("{}#{}", sequence.id, sequence.next())
            }
            (Generator::Tracker, Some((address, port))) => {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                let now = now.map_or(0.0, |now| now.as_secs_f64());
                let (process, number) = (std::process::id(), sequence.next());
                format!("{address}-{port}-{process}-{number}-1-{now:.3}")
            }
        };
        HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
    }
}

fn present<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    headers.get(name).filter(|value| !value.is_empty())
}

fn random_id() -> Uuid {
    uuid::Builder::from_random_bytes(rand::random()).into_uuid()
}
