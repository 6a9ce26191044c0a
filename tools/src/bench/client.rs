//! A client of the Admin API that keeps its connection.

use super::rig::PATIENCE;
use anyhow::Result;
use serde_json::Value;
use ureq::{Agent, Body, http::Response};

pub(super) struct Client {
    url: String,
    agent: Agent,
}

impl Client {
    pub(super) fn new(url: String) -> Self {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .build()
            .into();
        Self { url, agent }
    }

    pub(super) fn get(&self, path: &str) -> Result<Response<Body>> {
        Ok(self.agent.get(format!("{}{path}", self.url)).call()?)
    }

    pub(super) fn post(&self, path: &str, body: &str) -> Result<Response<Body>> {
        let request = self.agent.post(format!("{}{path}", self.url));
        Ok(request
            .header("content-type", "application/json")
            .send(body)?)
    }

    /// PUT; gives back the status and what was said.
    pub(super) fn put(&self, path: &str, body: &Value) -> Result<(u16, String)> {
        let request = self.agent.put(format!("{}{path}", self.url));
        let request = request.header("content-type", "application/json");
        let mut answer = request.send(body.to_string().as_bytes())?;
        // A connection is used again only once its answer has been read.
        let said = answer.body_mut().read_to_string()?;
        Ok((answer.status().as_u16(), said))
    }
}
