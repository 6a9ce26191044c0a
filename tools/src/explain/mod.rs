//! `sluice explain`: why a request goes where it goes.
//!
//! At a version the control plane tells the state, and the data plane's own table is made of it in this process; a live data plane
//! is asked itself. Who last changed what is in the control plane's history either way.

mod past;
mod render;
mod who;

use crate::admin::Connection;
use crate::history::is_coloured;
use crate::history::replay::read_headers;
use crate::say;
use anyhow::{Context, bail};
use clap::Args;
use serde_json::Value;
use sluice_dp::explain::{Asked, Question, explain};
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

/// The exit status if no route takes the request.
const EXIT_NO_ROUTE: u8 = 1;
/// How long a data plane may take: it asks each of its routes.
const NODE_PATIENCE: Duration = Duration::from_secs(60);

const EXAMPLES: &str = "\
Examples:
  sluice explain GET https://shop.example/cart
  sluice explain POST http://shop.example/pay -H 'X-Beta: 1' --consumer anna --at 2h
  sluice explain GET http://shop.example/cart --node http://127.0.0.1:8007

Without --node it is what a data plane would do by the configuration at a version, the newest one if none is given; with it,
what that one does now, with the health of its targets. A data plane answers on its own machine only. No request is sent, and no
plugin is run: what is sent on is shown as if none changed it.

Exit status: 0 if a route takes the request, 1 if none does.";

/// Arguments of `sluice explain`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// The method
    #[arg(value_name = "METHOD")]
    method: String,
    /// The URL
    #[arg(value_name = "URL")]
    url: String,
    /// A header of the request
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// As of this version or time: 812, 2026-11-23T10:00:00Z, 2h [default: the newest version]
    #[arg(long, value_name = "VERSION|TIME", conflicts_with = "node")]
    at: Option<String>,
    /// Address of a data plane's status listener: what it does now
    #[arg(long, value_name = "URL")]
    node: Option<String>,
    /// Who is asking: a consumer's username or id
    #[arg(long, value_name = "NAME")]
    consumer: Option<String>,
    /// The server name that the client asks for [default: the host, over TLS]
    #[arg(long, value_name = "NAME")]
    sni: Option<String>,
    /// The client's address [default: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS[:PORT]")]
    source: Option<String>,
    /// The address that it connects to [default: 127.0.0.1 with the URL's port]
    #[arg(long, value_name = "ADDRESS:PORT")]
    destination: Option<SocketAddr>,
    /// The whole explanation as JSON
    #[arg(long)]
    json: bool,
}

/// Explains a request.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let question = arguments.question()?;
    let mut explanation = match &arguments.node {
        Some(node) => ask(node, &question)?,
        None => {
            let asked = Asked::parse(&question)?;
            let at = arguments.at.as_deref().unwrap_or("latest");
            let table = past::table(&arguments.connection, at)?;
            serde_json::to_value(explain(&table, &asked))?
        }
    };
    who::add(&arguments.connection, &mut explanation);
    match arguments.json {
        true => say(&serde_json::to_string_pretty(&explanation)?)?,
        false => say(render::render(&explanation, &arguments.title(), is_coloured()).trim_end())?,
    }
    Ok(match explanation["route"].is_object() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(EXIT_NO_ROUTE),
    })
}

impl Arguments {
    fn question(&self) -> anyhow::Result<Question> {
        let source = self.source.as_deref().map(|text| {
            let port = || Some(SocketAddr::from((text.parse::<IpAddr>().ok()?, 0)));
            let parsed = text.parse().ok().or_else(port);
            parsed.with_context(|| format!("'{text}' is not an address: 10.1.2.3, 10.1.2.3:4711"))
        });
        Ok(Question {
            method: self.method.clone(),
            url: self.url.clone(),
            headers: read_headers(&self.headers)?,
            sni: self.sni.clone(),
            source: source.transpose()?,
            destination: self.destination,
            consumer: self.consumer.clone(),
        })
    }

    /// `GET https://shop.example/cart`
    fn title(&self) -> String {
        format!("{} {}", self.method.to_ascii_uppercase(), self.url)
    }
}

/// Asks a data plane. It is told nothing of who we are to the Admin API.
fn ask(node: &str, question: &Question) -> anyhow::Result<Value> {
    let url = format!("{}/explain", node.trim_end_matches('/'));
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        // The node is on this machine, and the question may hold what a client's request does.
        .proxy(None)
        .timeout_global(Some(NODE_PATIENCE));
    let agent: ureq::Agent = config.build().into();
    let request = agent.post(&url).header("content-type", "application/json");
    let response = request
        .send(serde_json::to_vec(question)?)
        .with_context(|| format!("could not reach the data plane at {node} (--node)"))?;
    let status = response.status().as_u16();
    let text = response.into_body().read_to_string();
    let text = text.context("the data plane's answer broke off")?;
    let body: Value = serde_json::from_str(&text).unwrap_or_default();
    match (status, body["message"].as_str()) {
        (200, _) => Ok(body),
        (404, _) => bail!("{node} is not the status listener of a data plane that explains"),
        (_, Some(message)) => bail!("the data plane answered with {status}: {message}"),
        (_, None) => bail!("the data plane answered with {status}"),
    }
}
