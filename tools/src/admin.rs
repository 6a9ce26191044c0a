//! A small client of the Admin API.

use anyhow::{Context, bail};
use clap::Args;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::time::Duration;

const ANSWER_BYTES_MAX: u64 = 1 << 30;

/// How to reach a control plane.
#[derive(Clone, Debug, Args)]
pub struct Connection {
    /// Address of the Admin API
    #[arg(
        long,
        env = "SLUICE_ADMIN_URL",
        default_value = "http://127.0.0.1:8001",
        value_name = "URL"
    )]
    pub admin_url: String,
}

/// An answer that came, whatever its status.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// `Sluice-Version`.
    pub version: Option<u64>,
    /// The JSON body; a text if it is not JSON.
    pub body: Value,
}

impl Connection {
    /// A connection to `url`.
    pub fn to(url: impl Into<String>) -> Self {
        Self {
            admin_url: url.into(),
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.admin_url.trim_end_matches('/'))
    }

    fn unreachable(&self) -> String {
        format!(
            "could not reach the control plane at {} (--admin-url)",
            self.admin_url
        )
    }

    /// GET, which must succeed.
    ///
    /// # Errors
    /// If there is no answer, or not 200.
    pub fn get(&self, path: &str) -> anyhow::Result<Value> {
        let response = agent()
            .get(self.url(path))
            .call()
            .with_context(|| self.unreachable())?;
        let answer = read(response)?;
        if answer.status != 200 {
            bail!(
                "GET {path} was answered with {}: {}",
                answer.status,
                answer.body
            );
        }
        Ok(answer.body)
    }

    /// GET, whatever the status.
    ///
    /// # Errors
    /// If there is no answer.
    pub fn get_any(&self, path: &str) -> anyhow::Result<Answer> {
        let asked = agent().get(self.url(path)).call();
        read(asked.with_context(|| self.unreachable())?)
    }

    /// GET of a text, which must succeed.
    ///
    /// # Errors
    /// If there is no answer, or not 200.
    pub fn get_text(&self, path: &str) -> anyhow::Result<String> {
        let response = agent()
            .get(self.url(path))
            .call()
            .with_context(|| self.unreachable())?;
        let status = response.status().as_u16();
        let text = text(response)?;
        if status != 200 {
            bail!("GET {path} was answered with {status}: {text}");
        }
        Ok(text)
    }

    /// POST of a text with its content type.
    ///
    /// # Errors
    /// If there is no answer.
    pub fn post(
        &self,
        path: &str,
        content_type: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> anyhow::Result<Answer> {
        let mut request = agent()
            .post(self.url(path))
            .header("content-type", content_type);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        read(request.send(body).with_context(|| self.unreachable())?)
    }

    /// GET of a stream of JSON lines; `each` is called per line until the stream ends.
    ///
    /// # Errors
    /// If the stream cannot be had or breaks off, or `each` fails.
    pub fn lines(
        &self,
        path: &str,
        mut each: impl FnMut(Value) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let response = agent()
            .get(self.url(path))
            .call()
            .with_context(|| self.unreachable())?;
        let status = response.status().as_u16();
        if status != 200 {
            bail!("GET {path} was answered with {status}");
        }
        for line in BufReader::new(response.into_body().into_reader()).lines() {
            let line = line.context("the stream broke off")?;
            if !line.is_empty() {
                each(
                    serde_json::from_str(&line)
                        .context("the stream holds something that is not JSON")?,
                )?;
            }
        }
        Ok(())
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(Duration::from_secs(5)))
        .build()
        .into()
}

fn read(response: ureq::http::Response<ureq::Body>) -> anyhow::Result<Answer> {
    let status = response.status().as_u16();
    let version = response.headers().get("sluice-version");
    let version = version.and_then(|value| value.to_str().ok()?.parse().ok());
    let text = text(response)?;
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Ok(Answer {
        status,
        version,
        body,
    })
}

fn text(response: ureq::http::Response<ureq::Body>) -> anyhow::Result<String> {
    let mut body = response.into_body();
    let limited = body.with_config().limit(ANSWER_BYTES_MAX);
    limited.read_to_string().context("the answer broke off")
}

/// `path` in a workspace; in the default one if none is named.
pub(crate) fn workspace_path(workspace: Option<&str>, path: &str) -> String {
    match workspace {
        Some(workspace) => format!("/{}{path}", encode(workspace)),
        None => path.to_owned(),
    }
}

/// A text as part of a URL.
pub(crate) fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~,".contains(&byte);
    text.bytes()
        .map(|byte| match plain(byte) {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect()
}
