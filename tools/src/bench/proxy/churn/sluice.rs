//! Sluice, changed by its Admin API.

use crate::bench::client::Client;
use crate::bench::proxy::shapes::Shape;
use crate::bench::proxy::start;
use crate::bench::rig::Rig;
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::net::SocketAddr;

pub(super) struct Sluice {
    pub(super) rig: Rig,
    client: Client,
}

impl Sluice {
    pub(super) fn start(shape: Shape, routes: usize, origin: SocketAddr) -> Result<Self> {
        let rig = start(shape, routes, origin)?;
        let client = Client::new(rig.control.url());
        Ok(Self { rig, client })
    }

    pub(super) fn change(&self, number: u32) -> Result<()> {
        let tag = format!("tag-{number}");
        let (path, body) = match number % 3 {
            0 => (
                "/routes/changing",
                json!({ "hosts": [format!("changing-{number}.example.com")], "service": { "name": "origin" } }),
            ),
            1 => (
                "/services/changing",
                json!({ "host": "changing.example.com", "tags": [tag] }),
            ),
            _ => (
                "/plugins/5a1ce000-0000-4000-8000-000000000001",
                json!({ "name": "rate-limiting", "route": { "name": "changing" }, "config": { "minute": 1 + number, "policy": "local" } }),
            ),
        };
        let (status, said) = self.client.put(path, &body)?;
        ensure!(
            status == 200 || status == 201,
            "PUT {path} was answered with {status}: {said}"
        );
        Ok(())
    }

    pub(super) fn settle(&self) -> Result<()> {
        let head = self.rig.admin.get("/log/head")?;
        let version = head["version"].as_u64().context("no version")?;
        self.rig.wait_for(version)
    }
}
