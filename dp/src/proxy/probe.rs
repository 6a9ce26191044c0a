//! Active checks of health: each upstream that wants them has a task that asks its addresses by its intervals.

use super::exec::LocalExec;
use super::tls::TlsOptions;
use super::tls::client::{checker, server_name};
use crate::balance::{Group, Lineup, Outcome, Seat};
use crate::table::{Active, ProbeProtocol, Table, Upstream};
use arc_swap::ArcSwap;
use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderName, HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::rt::{Read, Write};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

/// Checks at a time, of all upstreams.
const CHECKS_MAX: usize = 256;
/// What is read of an answer to gRPC's health protocol.
const GRPC_ANSWER_BYTES_MAX: usize = 1024;
const GRPC_PATH: &str = "/grpc.health.v1.Health/Check";
/// A message without fields: about the server as a whole.
const GRPC_QUESTION: &[u8] = &[0; 5];
/// A message that says SERVING.
const GRPC_SERVING: &[u8] = &[0, 0, 0, 0, 2, 8, 1];
/// The server does not know the health protocol, and so is alive.
const GRPC_UNIMPLEMENTED: &str = "12";
const USER_AGENT: HeaderValue = HeaderValue::from_static("sluice healthcheck");

/// What checks need.
pub(super) struct Prober {
    tables: Arc<ArcSwap<Table>>,
    tls: TlsOptions,
    turns: Semaphore,
}

impl Prober {
    pub(super) fn new(tables: Arc<ArcSwap<Table>>, tls: TlsOptions) -> Self {
        Self {
            tables,
            tls,
            turns: Semaphore::new(CHECKS_MAX),
        }
    }

    /// Asks the seats of the states in `wanted`: the healthy, the others.
    async fn round(&self, group: &Group, lineup: &Lineup, active: &Active, wanted: [bool; 2]) {
        let tls = match self.connector(lineup, active) {
            Ok(tls) => tls,
            Err(error) => {
                tracing::warn!(%error, "checks of health cannot use TLS");
                return;
            }
        };
        let is_wanted = |seat: &&Seat| wanted[usize::from(!seat.is_healthy())];
        let seats = futures::stream::iter(lineup.seats().iter().filter(is_wanted));
        let ask = |seat| self.ask(group, lineup, active, tls.as_ref(), seat);
        seats.for_each_concurrent(active.concurrency, ask).await;
    }

    async fn ask(
        &self,
        group: &Group,
        lineup: &Lineup,
        active: &Active,
        tls: Option<&TlsConnector>,
        seat: &Seat,
    ) {
        let Ok(_turn) = self.turns.acquire().await else {
            return;
        };
        let checked = tokio::time::timeout(active.timeout, check(active, tls, seat));
        let outcome = match checked.await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => {
                tracing::debug!(address = %seat.address, %error, "a check of health failed");
                Some(Outcome::TcpFailure)
            }
            Err(_) => Some(Outcome::Timeout),
        };
        if let (Some(outcome), Some(member)) = (outcome, &seat.member)
            && member.health.report(outcome, active.judge.limits)
        {
            lineup.log_turn(seat);
            group.turned();
        }
    }

    fn connector(
        &self,
        lineup: &Lineup,
        active: &Active,
    ) -> Result<Option<TlsConnector>, rustls::Error> {
        if !active.protocol.is_tls() {
            return Ok(None);
        }
        let table = self.tables.load();
        let certificate = |upstream: &Arc<Upstream>| upstream.client_certificate;
        let certificate = lineup.upstream().and_then(certificate);
        let certificate = certificate.and_then(|id| table.certificate(id));
        let trusted = active.verify.then_some(&*self.tls.trusted);
        checker(trusted, certificate, active.protocol.is_http2()).map(Some)
    }
}

/// Sees to the active checks of a group until it is gone or has none any more.
pub(super) async fn watch(group: Weak<Group>, prober: Rc<Prober>) {
    // When the healthy and the others were last asked.
    let mut asked: [Option<Instant>; 2] = [None, None];
    loop {
        let (next, changed) = {
            let Some(group) = group.upgrade() else {
                return;
            };
            let lineup = group.lineup();
            let active = lineup
                .upstream()
                .and_then(|upstream| upstream.checks.active.as_ref());
            let Some(active) = active else {
                if group.end_watch() {
                    return;
                }
                continue;
            };
            let intervals = [active.healthy_interval, active.unhealthy_interval];
            let now = Instant::now();
            let due = |state: usize| {
                let interval = intervals[state]?;
                Some(asked[state].map_or(now, |asked| asked + interval))
            };
            let wanted = [0, 1].map(|state| due(state).is_some_and(|due| due <= now));
            if wanted.contains(&true) {
                prober.round(&group, &lineup, active, wanted).await;
            }
            for state in 0..2 {
                if wanted[state] {
                    asked[state] = Some(now);
                }
            }
            let due = [0, 1].map(|state| Some(asked[state]? + intervals[state]?));
            (due.into_iter().flatten().min(), group.changed())
        };
        match next {
            Some(next) => tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                () = changed.notified() => {}
            },
            None => changed.notified().await,
        }
    }
}

/// `None` if the answer says nothing.
async fn check(
    active: &Active,
    tls: Option<&TlsConnector>,
    seat: &Seat,
) -> io::Result<Option<Outcome>> {
    let stream = TcpStream::connect(seat.address).await?;
    let host = seat.host(active.protocol.is_tls());
    let Some(tls) = tls else {
        return speak(active, host, TokioIo::new(stream)).await;
    };
    let name = match &active.server_name {
        Some(name) => ServerName::try_from(name.to_string()).ok(),
        None => server_name(host),
    };
    let name = name.unwrap_or_else(|| ServerName::from(seat.address.ip()));
    let stream = tls.connect(name, stream).await?;
    speak(active, host, TokioIo::new(stream)).await
}

async fn speak<I>(active: &Active, host: &HeaderValue, io: I) -> io::Result<Option<Outcome>>
where
    I: Read + Write + Unpin + 'static,
{
    match active.protocol {
        ProbeProtocol::Tcp => Ok(Some(Outcome::Success)),
        ProbeProtocol::Http | ProbeProtocol::Https => {
            let status = ask_http(active, host, io).await?.status();
            Ok(Outcome::of(status.as_u16(), &active.judge))
        }
        ProbeProtocol::Grpc | ProbeProtocol::Grpcs => {
            let serves = ask_grpc(active, host, io).await?;
            Ok(Some(if serves {
                Outcome::Success
            } else {
                Outcome::HttpFailure
            }))
        }
    }
}

async fn ask_http<I>(active: &Active, host: &HeaderValue, io: I) -> io::Result<Response<Incoming>>
where
    I: Read + Write + Unpin + 'static,
{
    let (mut sender, connection) = http1::handshake(io).await.map_err(io::Error::other)?;
    let mut request = Request::new(Full::<Bytes>::default());
    *request.uri_mut() = active.path.parse().map_err(io::Error::other)?;
    let headers = request.headers_mut();
    headers.insert(header::HOST, host.clone());
    headers.insert(header::USER_AGENT, USER_AGENT);
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    add_headers(active, headers);
    let mut answer = pin!(sender.send_request(request));
    let answer = tokio::select! {
        biased;
        answer = &mut answer => answer,
        // It ends with the answer that it hands over.
        _ = connection => answer.await,
    };
    answer.map_err(io::Error::other)
}

async fn ask_grpc<I>(active: &Active, host: &HeaderValue, io: I) -> io::Result<bool>
where
    I: Read + Write + Unpin + 'static,
{
    let builder = {
        let mut builder = http2::Builder::new(LocalExec);
        builder.timer(TokioTimer::new());
        builder
    };
    let (mut sender, connection) = builder.handshake(io).await.map_err(io::Error::other)?;
    let scheme = if active.protocol.is_tls() {
        "https"
    } else {
        "http"
    };
    let host = host.to_str().map_err(io::Error::other)?;
    let mut request = Request::new(Full::new(Bytes::from_static(GRPC_QUESTION)));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = format!("{scheme}://{host}{GRPC_PATH}")
        .parse()
        .map_err(io::Error::other)?;
    let headers = request.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    headers.insert(header::USER_AGENT, USER_AGENT);
    add_headers(active, headers);
    let answer = async {
        let answer = sender
            .send_request(request)
            .await
            .map_err(io::Error::other)?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, GRPC_ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(io::Error::other)?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        let status = trailers
            .get("grpc-status")
            .or_else(|| head.headers.get("grpc-status"));
        let status = status
            .and_then(|status| status.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        let serves = status == "0" && *body.to_bytes() == *GRPC_SERVING;
        Ok(serves || status == GRPC_UNIMPLEMENTED)
    };
    let mut answer = pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        _ = connection => answer.await,
    }
}

/// The upstream's own headers; `Host` may be one.
fn add_headers(active: &Active, headers: &mut http::HeaderMap) {
    for (name, value) in &active.headers {
        let (Ok(name), Ok(value)) = (
            HeaderName::try_from(&**name),
            HeaderValue::try_from(&**value),
        ) else {
            continue;
        };
        if name == header::HOST || name == header::USER_AGENT {
            headers.insert(name, value);
        } else {
            headers.append(name, value);
        }
    }
}
