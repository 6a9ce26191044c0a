//! Compiled routes.

use super::entity::Origin;
use super::router::{Criteria, Regexes};
use crate::plugin::Protocols;
use sluice_schema::entity::Workspace;
use sluice_schema::kind;
use sluice_schema::version::Version;
use uuid::Uuid;

/// Which requests go to which service, and how.
#[derive(Debug)]
pub struct Route {
    /// The entity.
    pub id: Uuid,
    /// The event that last wrote it.
    pub version: Version,
    /// Its workspace.
    pub workspace: Workspace,
    /// Its name, for logs.
    pub name: Option<Box<str>>,
    /// Where it leads.
    pub service: Option<Uuid>,
    /// The protocols it accepts. Not part of the match: checked after it.
    pub protocols: Protocols,
    /// 426 or a redirect status, for a request in clear that only `https` would accept.
    pub https_redirect_status_code: u16,
    /// Whether the matched prefix is removed.
    pub strip_path: bool,
    /// Whether the client's Host goes upstream.
    pub preserve_host: bool,
    /// Whether the request body is read before sending.
    pub request_buffering: bool,
    /// Whether the response body is read before sending.
    pub response_buffering: bool,
    pub(super) criteria: Criteria,
}

impl Route {
    pub(super) fn compile(
        origin: Origin<'_>,
        fields: kind::Route,
        regexes: &Regexes,
    ) -> Result<Self, String> {
        Ok(Self {
            id: origin.id,
            version: origin.version,
            workspace: origin.workspace.clone(),
            criteria: Criteria::compile(origin.id, &fields, regexes)?,
            name: fields.name.map(Into::into),
            service: fields.service.map(|service| service.id),
            protocols: Protocols::parse(&fields.protocols),
            https_redirect_status_code: fields.https_redirect_status_code,
            strip_path: fields.strip_path,
            preserve_host: fields.preserve_host,
            request_buffering: fields.request_buffering,
            response_buffering: fields.response_buffering,
        })
    }
}
