//! A small client of the Admin API.

use anyhow::{Context, anyhow, bail};
use clap::Args;
use serde_json::Value;
use sluice_schema::trace::TraceContext;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

const ANSWER_BYTES_MAX: u64 = 1 << 30;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The token of the Admin API.
const TOKEN_VARIABLE: &str = "SLUICE_TOKEN";
/// The trace that a change is part of.
const TRACE_VARIABLE: &str = "TRACEPARENT";

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
    #[command(flatten)]
    credentials: Credentials,
}

/// Who we are to the Admin API, and whom we believe. SLUICE_TOKEN holds a token itself.
#[derive(Clone, Debug, Default, Args)]
struct Credentials {
    /// File with the token of the Admin API [or the token itself in the variable SLUICE_TOKEN]
    #[arg(long, env = "SLUICE_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Authorities (PEM) of the Admin API's certificate [default: those of the system]
    #[arg(long, env = "SLUICE_ADMIN_CA", value_name = "FILE")]
    admin_ca: Option<PathBuf>,
    /// Certificate (PEM) to show to the Admin API
    #[arg(
        long,
        env = "SLUICE_ADMIN_CERT",
        requires = "admin_cert_key",
        value_name = "FILE"
    )]
    admin_cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(
        long,
        env = "SLUICE_ADMIN_CERT_KEY",
        requires = "admin_cert",
        value_name = "FILE"
    )]
    admin_cert_key: Option<PathBuf>,
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
            credentials: Credentials::default(),
        }
    }

    fn is_encrypted(&self) -> bool {
        self.admin_url.starts_with("https:")
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.admin_url.trim_end_matches('/'))
    }

    fn call(&self, path: &str) -> anyhow::Result<ureq::http::Response<ureq::Body>> {
        let mut request = self
            .credentials
            .agent(self.is_encrypted())?
            .get(self.url(path));
        if let Some(bearer) = self.credentials.bearer()? {
            request = request.header("authorization", bearer);
        }
        request.call().with_context(|| self.unreachable())
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
        let response = self.call(path)?;
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
        read(self.call(path)?)
    }

    /// GET of a text, which must succeed.
    ///
    /// # Errors
    /// If there is no answer, or not 200.
    pub fn get_text(&self, path: &str) -> anyhow::Result<String> {
        let response = self.call(path)?;
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
        let mut request = self
            .credentials
            .agent(self.is_encrypted())?
            .post(self.url(path))
            .header("content-type", content_type);
        if let Some(bearer) = self.credentials.bearer()? {
            request = request.header("authorization", bearer);
        }
        // As OpenTelemetry hands a trace on from program to program: a pipeline's, for example.
        let trace = std::env::var(TRACE_VARIABLE).ok();
        if let Some(trace) = trace.and_then(|trace| TraceContext::parse(trace.trim())) {
            request = request.header("traceparent", trace.to_string());
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        read(request.send(body).with_context(|| self.unreachable())?)
    }

    /// GET of a stream of JSON lines; `each` is called per line until the stream ends. Gives back the version that the answer is
    /// of, if it is of one.
    ///
    /// # Errors
    /// If the stream cannot be had or breaks off, or `each` fails.
    pub fn lines(
        &self,
        path: &str,
        mut each: impl FnMut(Value) -> anyhow::Result<()>,
    ) -> anyhow::Result<Option<u64>> {
        let response = self.call(path)?;
        let (status, version) = (response.status().as_u16(), version(&response));
        if status != 200 {
            bail!("GET {path} was answered with {status}: {}", text(response)?);
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
        Ok(version)
    }
}

impl Credentials {
    fn agent(&self, encrypted: bool) -> anyhow::Result<ureq::Agent> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = TlsConfig::builder().unversioned_rustls_crypto_provider(provider);
        let authorities = match &self.admin_ca {
            Some(path) => certificates(path)?,
            None if encrypted => system_authorities(),
            None => Vec::new(),
        };
        tls = tls.root_certs(RootCerts::new_with_certs(&authorities));
        if let (Some(certificate), Some(key)) = (&self.admin_cert, &self.admin_cert_key) {
            let pem = read_file(key)?;
            // What could not be read may be the key: nothing of it is said.
            let key = PrivateKey::from_pem(&pem)
                .map_err(|_| anyhow!("there is no private key in {}", key.display()))?;
            let shown = ClientCert::new_with_certs(&certificates(certificate)?, key);
            tls = tls.client_cert(Some(shown));
        }
        Ok(ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .tls_config(tls.build())
            .build()
            .into())
    }

    fn bearer(&self) -> anyhow::Result<Option<String>> {
        let token = match &self.token_file {
            Some(path) => {
                Some(String::from_utf8(read_file(path)?).context("the token is no text")?)
            }
            None => std::env::var(TOKEN_VARIABLE).ok(),
        };
        let token = token.map(|token| token.trim().to_owned());
        let token = token.filter(|token| !token.is_empty());
        Ok(token.map(|token| format!("Bearer {token}")))
    }
}

fn read_file(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("could not read {}", path.display()))
}

fn certificates(path: &Path) -> anyhow::Result<Vec<Certificate<'static>>> {
    let pem = read_file(path)?;
    let mut found = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) =
            item.with_context(|| format!("{} is no PEM", path.display()))?
        {
            found.push(certificate);
        }
    }
    if found.is_empty() {
        bail!("there is no certificate in {}", path.display());
    }
    Ok(found)
}

fn system_authorities() -> Vec<Certificate<'static>> {
    let found = rustls_native_certs::load_native_certs().certs;
    let each = found
        .iter()
        .map(|der| Certificate::from_der(der).to_owned());
    each.collect()
}

fn read(response: ureq::http::Response<ureq::Body>) -> anyhow::Result<Answer> {
    let (status, version) = (response.status().as_u16(), version(&response));
    let text = text(response)?;
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Ok(Answer {
        status,
        version,
        body,
    })
}

fn version(response: &ureq::http::Response<ureq::Body>) -> Option<u64> {
    let version = response.headers().get("sluice-version")?;
    version.to_str().ok()?.parse().ok()
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
