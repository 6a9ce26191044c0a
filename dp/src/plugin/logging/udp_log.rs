//! `udp-log`: a datagram of JSON per request.
//!
//! Deviations: what is longer than a datagram is dropped and counted, where Kong only writes an error; no
//! `custom_fields_by_lua`.

use super::socket::{Datagrams, Place};
use super::{Entry, LuaFields, warn_of_lua};
use crate::plugin::call::milliseconds;
use crate::plugin::queue::{Outlet, Outlets, Parameters};
use crate::plugin::{Change, Entity, Phases, Plugin, Record};
use serde::Deserialize;

/// The fields of the entity's `config`.
#[derive(Deserialize)]
pub(crate) struct Fields {
    host: String,
    port: u16,
    #[serde(default = "ten_seconds")]
    timeout: f64,
    #[serde(default)]
    custom_fields_by_lua: LuaFields,
}

fn ten_seconds() -> f64 {
    10_000.0
}

/// The prepared configuration.
#[derive(Debug)]
pub(crate) struct UdpLog(Outlet);

impl Plugin for UdpLog {
    const NAME: &'static str = "udp-log";
    const PRIORITY: i32 = 8;
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
        // A datagram each: a batch that is tried again would send some of them twice.
        Ok(Self(Outlet::new(
            entity,
            Self::NAME,
            Parameters::default(),
            sink,
        )))
    }

    fn changed(outlets: &Outlets, change: Change<'_, Self>) {
        outlets.changed(&change, |plugin| &plugin.0);
    }

    fn log(&self, record: &Record<'_>) {
        self.0
            .push(record.state::<Self>(), Entry::of(record).json());
    }
}
