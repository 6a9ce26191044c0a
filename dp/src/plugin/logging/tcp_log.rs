//! `tcp-log`: a line of JSON per request over a TCP connection.
//!
//! As in Kong the server's certificate is not verified. Deviations: entries go through a queue, in batches, and are kept
//! while the server is away, for a minute; no `custom_fields_by_lua`.

use super::socket::{Place, Stream};
use super::{Entry, LuaFields, warn_of_lua};
use crate::plugin::call::milliseconds;
use crate::plugin::queue::{Outlet, Outlets, Parameters};
use crate::plugin::{Change, Entity, Phases, Plugin, Record};
use serde::Deserialize;
use std::time::Duration;

/// Lines sent at a time.
const BATCH_MAX: usize = 100;

/// The fields of the entity's `config`.
#[derive(Deserialize)]
pub(crate) struct Fields {
    host: String,
    port: u16,
    #[serde(default = "ten_seconds")]
    timeout: f64,
    #[serde(default = "minute")]
    keepalive: f64,
    #[serde(default)]
    tls: bool,
    #[serde(default)]
    tls_sni: Option<String>,
    #[serde(default)]
    custom_fields_by_lua: LuaFields,
}

fn ten_seconds() -> f64 {
    10_000.0
}

fn minute() -> f64 {
    60_000.0
}

/// The prepared configuration.
#[derive(Debug)]
pub(crate) struct TcpLog(Outlet);

impl Plugin for TcpLog {
    const NAME: &'static str = "tcp-log";
    const PRIORITY: i32 = 7;
    const PHASES: Phases = Phases::LOG;
    type Config = Fields;
    type State = Outlets;

    fn compile(fields: Fields, entity: &Entity<'_>) -> Result<Self, String> {
        warn_of_lua(Self::NAME, &fields.custom_fields_by_lua);
        let place = Place {
            host: fields.host,
            port: fields.port,
        };
        let keepalive = milliseconds(fields.keepalive);
        let mut stream = Stream::new(place, milliseconds(fields.timeout), keepalive);
        if fields.tls {
            stream = stream.over_tls(fields.tls_sni);
        }
        let parameters = Parameters {
            batch_max: BATCH_MAX,
            coalescing: Duration::ZERO,
            ..Parameters::default()
        };
        Ok(Self(Outlet::new(entity, Self::NAME, parameters, stream)))
    }

    fn changed(outlets: &Outlets, change: Change<'_, Self>) {
        outlets.changed(&change, |plugin| &plugin.0);
    }

    fn log(&self, record: &Record<'_>) {
        self.0
            .push(record.state::<Self>(), Entry::of(record).line(b"\r\n"));
    }
}
