//! The data plane's table at a version, from the state that a control plane tells.

use crate::admin::{Connection, encode};
use crate::history::replay::Mutation;
use anyhow::Context;
use sluice_dp::table::Table;
use sluice_schema::entity::{Body, Change, Entry, Key};
use sluice_schema::kind::Kind;
use sluice_schema::vault::{self, Reference};
use sluice_schema::version::Version;

/// Entities that are compiled at a time.
const PAGE: usize = 1000;
/// Stands for secrets of vaults, which only data planes know. Fields of any type take it.
const SECRET: &str = "0";

/// The table at a version or a time.
///
/// # Errors
/// If the control plane cannot be asked, or does not know that version.
pub(super) fn table(connection: &Connection, at: &str) -> anyhow::Result<Table> {
    let path = format!("/log/state?at={}", encode(at));
    let mut table = Table::empty();
    let mut page = Vec::new();
    let version = connection.lines(&path, |shown| {
        let version = shown["version"].as_u64();
        let version = version.context("an entity has no version")?;
        page.extend(change(Mutation::parse(&shown)?, Version(version)));
        if page.len() >= PAGE {
            (table, _) = table.apply(Version::ZERO, &page);
            page.clear();
        }
        Ok(())
    })?;
    let version = version.context("the control plane does not say which version it told")?;
    let (table, _) = table.apply(Version(version), &page);
    Ok(table)
}

/// An entity as it becomes a part of the table; nothing for one that says nothing about where requests go.
fn change(entity: Mutation, version: Version) -> Option<Change> {
    let kind = Kind::from_name(&entity.kind).filter(|kind| matters(*kind))?;
    let mut fields = entity.body?;
    if kind == Kind::Plugin {
        // What is wrong with a reference the data planes say.
        let _ = vault::resolve(kind, &mut fields, &mut |reference| Ok(secret(reference)));
    }
    let body = Body::encode(&fields);
    let key = Key {
        kind: kind.key_name(),
        workspace: entity.workspace,
        id: entity.id,
    };
    let after = Some(Entry { version, body });
    Some(Change {
        key,
        before: None,
        after,
    })
}

fn secret(reference: &Reference) -> String {
    match &reference.key {
        None => SECRET.to_owned(),
        Some(key) => serde_json::json!({ key: SECRET }).to_string(),
    }
}

fn matters(kind: Kind) -> bool {
    match kind {
        Kind::Service
        | Kind::Route
        | Kind::Upstream
        | Kind::Target
        | Kind::Plugin
        | Kind::Consumer
        | Kind::ConsumerGroup
        | Kind::ConsumerGroupConsumer => true,
        Kind::KeyauthCredential
        | Kind::BasicauthCredential
        | Kind::JwtSecret
        | Kind::HmacauthCredential
        | Kind::Oauth2Credential
        | Kind::Oauth2Token
        | Kind::Acl
        | Kind::Certificate
        | Kind::Sni
        | Kind::CaCertificate
        | Kind::Vault
        | Kind::FilterChain
        | Kind::KeySet
        | Kind::Key
        | Kind::Workspace => false,
    }
}
