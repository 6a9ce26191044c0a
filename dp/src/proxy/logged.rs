//! What the access log needs of a request, kept until its response is at its end. Only made where there is a log.

use super::body::{Body, BodyError};
use super::forwarded::Client;
use super::later::{End, Later};
use super::life::{self, Trail};
use super::worker::Worker;
use crate::access_log::{Latencies, Record, Request as RequestLine};
use crate::table::{Route, Service, Table};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, Uri, Version, header};
use http_body::Frame;
use hyper::body::Incoming;
use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

/// What is kept of a request from its beginning.
pub(super) struct Notes {
    began: SystemTime,
    client: IpAddr,
    method: Method,
    uri: Uri,
    version: Version,
    host: Option<HeaderValue>,
    referer: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    /// The upstream that answered.
    pub(super) upstream: Option<SocketAddr>,
    /// How much of the request's body has come.
    pub(super) upload: Option<super::body::Upload>,
}

impl Notes {
    /// `None` without a log.
    pub(super) fn of(
        worker: &Worker,
        client: IpAddr,
        request: &Request<Incoming>,
    ) -> Option<Box<Self>> {
        worker.log.as_ref()?;
        let header = |name| request.headers().get(name).cloned();
        Some(Box::new(Self {
            began: SystemTime::now(),
            client,
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            host: header(header::HOST),
            referer: header(header::REFERER),
            user_agent: header(header::USER_AGENT),
            upstream: None,
            upload: None,
        }))
    }

    /// The client as it is known once the request was looked at.
    pub(super) fn set_client(&mut self, client: &Client) {
        self.client = client.address;
    }
}

/// A response's body that writes its line when it ends, and tells plugins.
pub(super) struct Logged {
    body: Body,
    sent: u64,
    whole: bool,
    notes: Option<Box<Notes>>,
    later: Option<Box<Later>>,
    worker: Rc<Worker>,
    started: Instant,
    request_id: HeaderValue,
    route: Option<Arc<Route>>,
    service: Option<Arc<Service>>,
    version: u64,
    status: u16,
    kong: Duration,
    proxy: Duration,
}

impl std::fmt::Debug for Logged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Logged").finish_non_exhaustive()
    }
}

impl Logged {
    /// Wraps the body of the response to `trail`'s request, if anybody wants to know of its end.
    pub(super) fn wrap(
        worker: &Rc<Worker>,
        table: &Table,
        trail: Trail,
        response: Response<Body>,
    ) -> Response<Body> {
        let (proxy, total) = life::times(&trail);
        let mut later = trail.later.filter(|later| later.logs());
        if let Some(later) = &mut later {
            later.sent(&response);
        }
        if trail.notes.is_none() && later.is_none() {
            return response;
        }
        let service = trail
            .route
            .as_ref()
            .and_then(|route| table.service(route.service?));
        let status = response.status().as_u16();
        response.map(|body| {
            Body::Logged(Box::new(Self {
                body,
                sent: 0,
                whole: false,
                notes: trail.notes,
                later,
                worker: Rc::clone(worker),
                started: trail.started,
                request_id: trail.request_id,
                service: service.cloned(),
                route: trail.route,
                version: table.version().0,
                status,
                kong: total.saturating_sub(proxy),
                proxy,
            }))
        })
    }

    pub(super) fn body(&self) -> &Body {
        &self.body
    }

    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        use http_body::Body as _;
        let polled = std::pin::Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                self.sent += frame.data_ref().map_or(0, Bytes::len) as u64;
                self.whole = self.body.is_end_stream();
            }
            Poll::Ready(None) => self.whole = true,
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        polled
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let latencies = Latencies {
            request: millis(self.started.elapsed()),
            kong: millis(self.kong),
            proxy: millis(self.proxy),
        };
        self.write_line(latencies);
        if let Some(later) = &self.later {
            later.log(&End {
                worker: &self.worker,
                route: self.route.as_ref(),
                service: self.service.as_ref(),
                version: self.version,
                sent: self.sent,
                whole: self.is_whole(later.method()),
                latencies,
            });
        }
    }
}

impl Logged {
    fn is_whole(&self, method: &Method) -> bool {
        use http_body::Body as _;
        self.whole || self.body.is_end_stream() || *method == Method::HEAD
    }

    /// Writes the line of the access log, if there is one.
    fn write_line(&self, latencies: Latencies) {
        let (Some(log), Some(notes)) = (&self.worker.log, &self.notes) else {
            return;
        };
        let text = |value: &Option<HeaderValue>| {
            let bytes = value.as_ref().map(HeaderValue::as_bytes);
            bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        };
        let host = match notes.uri.authority() {
            Some(authority) => Some(authority.to_string()),
            None => text(&notes.host),
        };
        // A query in a referer may hold what one in the target would.
        let referer = text(&notes.referer);
        let referer = referer
            .as_deref()
            .map(|text| text.split(['?', '#']).next().unwrap_or_default());
        let user_agent = text(&notes.user_agent);
        let request = RequestLine {
            id: self.request_id.to_str().unwrap_or_default(),
            method: notes.method.as_str(),
            path: notes.uri.path(),
            query: notes.uri.query(),
            protocol: match notes.version {
                Version::HTTP_2 => "HTTP/2.0",
                Version::HTTP_10 => "HTTP/1.0",
                _ => "HTTP/1.1",
            },
            host: host.as_deref().unwrap_or_default(),
            referer,
            user_agent: user_agent.as_deref(),
            status: self.status,
        };
        let route = self.route.as_ref();
        let service = self.service.as_ref();
        log.add(&Record {
            began: notes.began,
            client: notes.client,
            version: self.version,
            workspace: route.map(|route| route.workspace.as_str()),
            route: route.map(|route| name(route.name.as_deref(), route.id)),
            service: service.map(|service| name(service.name.as_deref(), service.id)),
            upstream: notes.upstream,
            received: notes.upload.as_ref().map_or(0, super::body::Upload::bytes),
            sent: self.sent,
            whole: self.is_whole(&notes.method),
            latencies,
            request: Some(request),
            stream: None,
        });
    }
}

/// What an entity is called in the log.
pub(super) fn name(name: Option<&str>, id: uuid::Uuid) -> Cow<'_, str> {
    name.map_or_else(|| id.to_string().into(), Cow::Borrowed)
}
