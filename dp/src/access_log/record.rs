//! What a line says.

use super::time::Date;
use super::{Format, Query};
use serde::Serialize;
use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

/// One request or one stream, finished.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// When it began.
    pub began: SystemTime,
    /// The client.
    pub client: IpAddr,
    /// The version of the configuration that served it.
    pub version: u64,
    /// The workspace of its route.
    pub workspace: Option<&'a str>,
    /// The route's name, or its id.
    pub route: Option<Cow<'a, str>>,
    /// The service's name, or its id.
    pub service: Option<Cow<'a, str>>,
    /// The upstream that answered.
    pub upstream: Option<SocketAddr>,
    /// Bytes from the client: of a request's body, or of a stream.
    pub received: u64,
    /// Bytes to the client: of a response's body, or of a stream.
    pub sent: u64,
    /// Whether it came to its end.
    pub whole: bool,
    /// In milliseconds.
    pub latencies: Latencies,
    /// What it was: a request.
    pub request: Option<Request<'a>>,
    /// What it was: a stream.
    pub stream: Option<Session<'a>>,
}

/// Where time went, in milliseconds; the names are Kong's.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Latencies {
    /// From the beginning to the end.
    pub request: u64,
    /// In the gateway, up to the response's head.
    pub kong: u64,
    /// Waiting for the upstream.
    pub proxy: u64,
}

/// A request.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its method.
    pub method: &'a str,
    /// Its path as the client sent it.
    pub path: &'a str,
    /// Its query.
    pub query: Option<&'a str>,
    /// `HTTP/1.1` or another.
    pub protocol: &'a str,
    /// Its `Host`.
    pub host: &'a str,
    /// Its `Referer`, without a query.
    pub referer: Option<&'a str>,
    /// Its `User-Agent`.
    pub user_agent: Option<&'a str>,
    /// The status it was answered with.
    pub status: u16,
}

/// A stream.
#[derive(Clone, Debug)]
pub struct Session<'a> {
    /// `TCP` or `TLS`.
    pub protocol: &'a str,
    /// The server name asked for.
    pub sni: Option<&'a str>,
    /// 200, or why there was none, as nginx has it: 404 without a route, 502 without an upstream.
    pub status: u16,
}

#[derive(Serialize)]
struct Json<'a> {
    time: String,
    client_ip: IpAddr,
    protocol: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uri: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sni: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    referer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<&'a str>,
    status: u16,
    bytes_received: u64,
    bytes_sent: u64,
    complete: bool,
    config_version: u64,
    workspace: Option<&'a str>,
    route: Option<&'a str>,
    service: Option<&'a str>,
    upstream: Option<SocketAddr>,
    latencies: Latencies,
}

impl Record<'_> {
    /// Adds the line to `out`.
    pub(super) fn write(&self, format: Format, query: Query, out: &mut Vec<u8>) {
        match format {
            Format::Text => self.text(query, out),
            Format::Json => self.json(query, out),
        }
        out.push(b'\n');
    }

    fn json(&self, query: Query, out: &mut Vec<u8>) {
        let (request, stream) = (self.request.as_ref(), self.stream.as_ref());
        let uri = request.map(|request| request.target(query));
        let line = Json {
            time: Date::of(self.began).rfc3339(),
            client_ip: self.client,
            protocol: request.map_or("", |request| request.protocol),
            request_id: request.map(|request| request.id),
            method: request.map(|request| request.method),
            host: request.map(|request| request.host),
            uri: uri.as_deref(),
            sni: stream.and_then(|stream| stream.sni),
            referer: request.and_then(|request| request.referer),
            user_agent: request.and_then(|request| request.user_agent),
            status: request.map_or(0, |request| request.status),
            bytes_received: self.received,
            bytes_sent: self.sent,
            complete: self.whole,
            config_version: self.version,
            workspace: self.workspace,
            route: self.route.as_deref(),
            service: self.service.as_deref(),
            upstream: self.upstream,
            latencies: self.latencies,
        };
        let line = match stream {
            Some(stream) => Json {
                protocol: stream.protocol,
                status: stream.status,
                ..line
            },
            None => line,
        };
        // Writing to memory does not fail, and all keys are text.
        let _ = serde_json::to_writer(out, &line);
    }

    fn text(&self, query: Query, out: &mut Vec<u8>) {
        let mut line = format!("{} - - [{}] \"", self.client, Date::of(self.began).common());
        if let Some(request) = &self.request {
            escape(request.method, &mut line);
            line.push(' ');
            escape(&request.target(query), &mut line);
            let (protocol, status, sent) = (request.protocol, request.status, self.sent);
            let _ = write!(line, " {protocol}\" {status} {sent} \"");
            escape(request.referer.unwrap_or("-"), &mut line);
            line.push_str("\" \"");
            escape(request.user_agent.unwrap_or("-"), &mut line);
            let _ = write!(line, "\" request_id: \"{}\" host: \"", request.id);
            escape(request.host, &mut line);
            line.push('"');
        }
        if let Some(stream) = &self.stream {
            let (protocol, status) = (stream.protocol, stream.status);
            let _ = write!(
                line,
                "{protocol}\" {status} {} {} sni: \"",
                self.received, self.sent
            );
            escape(stream.sni.unwrap_or("-"), &mut line);
            line.push('"');
        }
        let _ = write!(line, " version: {}", self.version);
        for (name, value) in [("route", &self.route), ("service", &self.service)] {
            let _ = write!(line, " {name}: \"");
            escape(value.as_deref().unwrap_or("-"), &mut line);
            line.push('"');
        }
        match self.upstream {
            Some(upstream) => _ = write!(line, " upstream: {upstream}"),
            None => line.push_str(" upstream: -"),
        }
        let Latencies {
            request,
            kong,
            proxy,
        } = self.latencies;
        let _ = write!(line, " ms: {request} {kong} {proxy}");
        if !self.whole {
            line.push_str(" cut off");
        }
        out.extend_from_slice(line.as_bytes());
    }
}

impl Request<'_> {
    fn target(&self, show: Query) -> Cow<'_, str> {
        let Some(query) = self.query.filter(|_| show != Query::Off) else {
            return self.path.into();
        };
        if show == Query::Full {
            return format!("{}?{query}", self.path).into();
        }
        let mut target = self.path.to_owned();
        for (index, pair) in query.split('&').enumerate() {
            target.push(if index == 0 { '?' } else { '&' });
            match pair.split_once('=') {
                Some((name, _)) => {
                    target.push_str(name);
                    target.push_str("=*");
                }
                // It may be a name or a value.
                None if pair.is_empty() => {}
                None => target.push('*'),
            }
        }
        target.into()
    }
}

/// Nothing a client sends may end a line or a quotation.
fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        if c.is_ascii_control() || c == '"' || c == '\\' {
            let _ = write!(out, "\\x{:02X}", u32::from(c));
        } else {
            out.push(c);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    fn record<'a>() -> Record<'a> {
        Record {
            began: UNIX_EPOCH + Duration::from_secs(1_795_420_805),
            client: IpAddr::from([127, 0, 0, 1]),
            version: 12,
            workspace: Some("default"),
            route: Some("shop".into()),
            service: None,
            upstream: Some(SocketAddr::from(([10, 0, 0, 1], 80))),
            received: 3,
            sent: 2,
            whole: true,
            latencies: Latencies {
                request: 5,
                kong: 1,
                proxy: 3,
            },
            request: None,
            stream: None,
        }
    }

    fn line(record: &Record<'_>, format: Format, query: Query) -> String {
        let mut out = Vec::new();
        record.write(format, query, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_of_text_is_one_line_whatever_clients_send() {
        let request = Request {
            id: "1f",
            method: "GET",
            path: "/a",
            query: Some("apikey=secret&x&b=1=2&"),
            protocol: "HTTP/1.1",
            host: "a.test",
            referer: None,
            user_agent: Some("curl \"\\\n"),
            status: 200,
        };
        let record = Record {
            request: Some(request),
            ..record()
        };
        assert_eq!(
            line(&record, Format::Text, Query::Names),
            "127.0.0.1 - - [23/Nov/2026:08:00:05 +0000] \"GET /a?apikey=*&*&b=*& HTTP/1.1\" 200 2 \"-\" \
             \"curl \\x22\\x5C\\x0A\" request_id: \"1f\" host: \"a.test\" version: 12 route: \"shop\" service: \"-\" \
             upstream: 10.0.0.1:80 ms: 5 1 3\n"
        );
        assert!(line(&record, Format::Text, Query::Off).contains("\"GET /a HTTP"));
        assert!(line(&record, Format::Json, Query::Full).contains("?apikey=secret&x&b=1=2&\""));
        let json: serde_json::Value =
            serde_json::from_str(&line(&record, Format::Json, Query::Names)).unwrap();
        assert_eq!(json["uri"], "/a?apikey=*&*&b=*&");
        assert_eq!(json["user_agent"], "curl \"\\\n");
        assert_eq!(
            json["latencies"],
            serde_json::json!({ "request": 5, "kong": 1, "proxy": 3 })
        );
    }

    #[test]
    fn a_stream_has_its_bytes_and_its_name() {
        let stream = Session {
            protocol: "TLS",
            sni: Some("a.test"),
            status: 200,
        };
        let record = Record {
            stream: Some(stream),
            whole: false,
            ..record()
        };
        assert_eq!(
            line(&record, Format::Text, Query::Names),
            "127.0.0.1 - - [23/Nov/2026:08:00:05 +0000] \"TLS\" 200 3 2 sni: \"a.test\" version: 12 route: \"shop\" \
             service: \"-\" upstream: 10.0.0.1:80 ms: 5 1 3 cut off\n"
        );
        let json: serde_json::Value =
            serde_json::from_str(&line(&record, Format::Json, Query::Names)).unwrap();
        assert_eq!(
            (&json["protocol"], &json["status"], &json["sni"]),
            (&"TLS".into(), &200.into(), &"a.test".into())
        );
    }
}
