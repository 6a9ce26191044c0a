//! `ip-restriction`: which addresses may send requests.
//!
//! Deviation from Kong: raw streams are not looked at.

use crate::plugin::{Access, Answer, Entity, Phases, Plugin, Step};
use crate::proxy::Network;
use http::StatusCode;
use serde::Deserialize;
use std::net::IpAddr;

/// The fields of the entity's `config`.
#[derive(Deserialize)]
pub(crate) struct Fields {
    allow: Option<Vec<String>>,
    deny: Option<Vec<String>>,
    status: Option<u16>,
    message: Option<String>,
}

/// The prepared configuration.
#[derive(Debug)]
pub(crate) struct IpRestriction {
    allow: Networks,
    deny: Networks,
    status: StatusCode,
    message: Option<String>,
}

#[derive(Debug)]
struct Networks(Vec<Network>);

impl Networks {
    fn compile(texts: Option<Vec<String>>) -> Result<Self, String> {
        let texts = texts.unwrap_or_default();
        let networks = texts.iter().map(|text| text.parse::<Network>());
        let networks = networks.collect::<Result<_, _>>();
        networks.map(Self).map_err(|error| error.to_string())
    }

    fn contain(&self, address: IpAddr) -> bool {
        let mut networks = self.0.iter();
        networks.any(|network| network.contains(address))
    }
}

impl Plugin for IpRestriction {
    const NAME: &'static str = "ip-restriction";
    const PRIORITY: i32 = 990;
    const PHASES: Phases = Phases::ACCESS;
    type Config = Fields;
    type State = ();

    fn compile(fields: Fields, _: &Entity<'_>) -> Result<Self, String> {
        let status = fields.status.unwrap_or(403);
        Ok(Self {
            allow: Networks::compile(fields.allow)?,
            deny: Networks::compile(fields.deny)?,
            status: StatusCode::from_u16(status).map_err(|error| error.to_string())?,
            message: fields.message,
        })
    }

    fn access(&self, request: &mut Access<'_>) -> Step {
        let address = request.client;
        let allowed = self.allow.0.is_empty() || self.allow.contain(address);
        if allowed && !self.deny.contain(address) {
            return Step::Continue;
        }
        let message = self.message.clone();
        let message = message.unwrap_or_else(|| format!("IP address not allowed: {address}"));
        Step::Answer(Answer::message(self.status, message))
    }
}
