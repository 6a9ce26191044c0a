//! `loggly`: a datagram in the format of RFC 5424 per request, with the customer's token and tags, to Loggly.
//!
//! Deviations: no `custom_fields_by_lua`.

use super::socket::{Datagrams, Place};
use super::{Entry, LuaFields, Severities, warn_of_lua};
use crate::access_log::Date;
use crate::plugin::call::milliseconds;
use crate::plugin::queue::{Outlet, Outlets, Parameters};
use crate::plugin::{Change, Entity, Phases, Plugin, Record};
use serde::Deserialize;
use sluice_replica::process::hostname;
use std::fmt::Write as _;
use std::time::SystemTime;

/// The facility `user`.
const FACILITY: u8 = 1 << 3;
/// Loggly's number among private enterprises.
const ENTERPRISE: u32 = 41058;

/// The fields of the entity's `config`.
#[derive(Deserialize)]
pub(crate) struct Fields {
    #[serde(default = "loggly")]
    host: String,
    #[serde(default = "port")]
    port: u16,
    key: String,
    #[serde(default = "kong")]
    tags: Option<Vec<String>>,
    #[serde(flatten)]
    severities: Severities,
    #[serde(default = "ten_seconds")]
    timeout: f64,
    #[serde(default)]
    custom_fields_by_lua: LuaFields,
}

fn loggly() -> String {
    "logs-01.loggly.com".into()
}

fn port() -> u16 {
    514
}

#[allow(clippy::unnecessary_wraps, reason = "the field may be null")]
fn kong() -> Option<Vec<String>> {
    Some(vec!["kong".into()])
}

fn ten_seconds() -> f64 {
    10_000.0
}

/// The prepared configuration.
pub(crate) struct Loggly {
    outlet: Outlet,
    severities: Severities,
    hostname: String,
    /// With the token.
    data: String,
}

impl Plugin for Loggly {
    const NAME: &'static str = "loggly";
    const PRIORITY: i32 = 6;
    const PHASES: Phases = Phases::LOG;
    type Config = Fields;
    type State = Outlets;

    fn compile(fields: Fields, entity: &Entity<'_>) -> Result<Self, String> {
        warn_of_lua(Self::NAME, &fields.custom_fields_by_lua);
        let place = Place {
            host: fields.host,
            port: fields.port,
        };
        let sink = Datagrams::new(place, milliseconds(fields.timeout));
        let mut data = format!("[{}@{ENTERPRISE}", fields.key);
        for tag in fields.tags.iter().flatten() {
            // Writing to a String cannot fail.
            let _ = write!(data, " tag=\"{tag}\"");
        }
        data.push(']');
        Ok(Self {
            outlet: Outlet::new(entity, Self::NAME, Parameters::default(), sink),
            severities: fields.severities,
            hostname: hostname(),
            data,
        })
    }

    fn changed(outlets: &Outlets, change: Change<'_, Self>) {
        outlets.changed(&change, |plugin| &plugin.outlet);
    }

    fn log(&self, record: &Record<'_>) {
        let Some(severity) = self.severities.of(record.status) else {
            return;
        };
        let priority = FACILITY + severity as u8;
        let time = Date::of(SystemTime::now()).rfc3339();
        let (host, data) = (&self.hostname, &self.data);
        let mut message = format!("<{priority}>1 {time} {host} kong - - {data} ").into_bytes();
        message.extend(Entry::of(record).json());
        self.outlet.push(record.state::<Self>(), message);
    }
}
