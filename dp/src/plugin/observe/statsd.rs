//! `statsd`: metrics of each request to a StatsD server, by UDP or TCP.
//!
//! Deviations: with a `sample_rate` below 1 only that part of the requests is told of, where Kong tells of all and says
//! otherwise; `shdict_usage` tells nothing, as there are no shared dictionaries; workspaces have no ids, so that
//! `workspace_id` is the name; `retry_count`, `queue_size` and `flush_timeout` mean nothing, as in Kong 3.

use super::stats::{ConsumerName, Kind, Line, Number, TagStyle, without_dots};
use crate::plugin::logging::{Datagrams, Place, Stream};
use crate::plugin::queue::{Outlet, Outlets, Parameters, QueueFields};
use crate::plugin::{Change, Entity, Phases, Plugin, Record};
use crate::table::Service;
use http::StatusCode;
use serde::Deserialize;
use sluice_replica::process::hostname;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Kong's time-out for its sockets, and how long a connection is kept.
const TIMEOUT: Duration = Duration::from_secs(1);
const KEEPALIVE: Duration = Duration::from_secs(60);
/// The most a datagram holds.
const DATAGRAM_MAX: usize = 65_507;

/// The fields of the entity's `config`.
#[derive(Deserialize)]
pub(crate) struct Fields {
    #[serde(default = "localhost")]
    host: String,
    #[serde(default = "port")]
    port: u16,
    #[serde(default = "kong")]
    prefix: String,
    #[serde(default)]
    metrics: Option<Vec<Metric>>,
    #[serde(default)]
    allow_status_codes: Option<Vec<String>>,
    #[serde(default)]
    udp_packet_size: f64,
    #[serde(default)]
    use_tcp: bool,
    #[serde(default)]
    hostname_in_prefix: bool,
    #[serde(default)]
    consumer_identifier_default: ConsumerName,
    #[serde(default)]
    service_identifier_default: Naming,
    #[serde(default)]
    tag_style: Option<TagStyle>,
    #[serde(default)]
    queue: QueueFields,
}

fn localhost() -> String {
    "localhost".into()
}

fn port() -> u16 {
    8125
}

fn kong() -> String {
    "kong".into()
}

/// A metric as configured.
#[derive(Debug, Deserialize)]
struct Metric {
    name: Name,
    stat_type: Kind,
    #[serde(default)]
    sample_rate: Option<f64>,
    #[serde(default)]
    consumer_identifier: Option<ConsumerName>,
    #[serde(default)]
    service_identifier: Option<Naming>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged)]
enum Name {
    Number(Number),
    Other(Other),
}

/// Metrics that are not a number of each request.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Other {
    RequestPerUser,
    StatusCount,
    StatusCountPerUser,
    UniqueUsers,
    StatusCountPerWorkspace,
    StatusCountPerUserPerRoute,
    ShdictUsage,
}

/// How services are named.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
enum Naming {
    #[serde(rename = "service_id")]
    Id,
    #[serde(rename = "service_name")]
    Name,
    #[serde(rename = "service_host")]
    Host,
    #[default]
    #[serde(rename = "service_name_or_host")]
    NameOrHost,
}

impl Naming {
    fn of(self, service: &Service) -> Option<String> {
        let name = service.name.as_deref();
        match self {
            Self::Id => Some(service.id.to_string()),
            Self::Name => name.map(str::to_owned),
            Self::Host => Some(service.host.to_string()),
            Self::NameOrHost => Some(name.unwrap_or(&service.host).to_owned()),
        }
    }
}

/// The prepared configuration.
#[derive(Debug)]
pub(crate) struct Statsd {
    outlet: Outlet,
    prefix: String,
    node: String,
    metrics: Vec<Metric>,
    /// `None` lets all through.
    statuses: Option<Vec<RangeInclusive<u16>>>,
    consumer: ConsumerName,
    service: Naming,
    tags: Option<TagStyle>,
}

impl Plugin for Statsd {
    const NAME: &'static str = "statsd";
    const PRIORITY: i32 = 11;
    const PHASES: Phases = Phases::LOG;
    type Config = Fields;
    type State = Outlets;

    fn compile(fields: Fields, entity: &Entity<'_>) -> Result<Self, String> {
        let place = Place {
            host: fields.host,
            port: fields.port,
        };
        let parameters = Parameters::from(&fields.queue);
        let outlet = if fields.use_tcp {
            let stream = Stream::new(place, TIMEOUT, KEEPALIVE);
            Outlet::new(entity, Self::NAME, parameters, stream)
        } else {
            let bytes = fields.udp_packet_size.clamp(0.0, DATAGRAM_MAX as f64);
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "it is within a datagram's size"
            )]
            let datagrams = Datagrams::new(place, TIMEOUT).of_lines(bytes as usize);
            Outlet::new(entity, Self::NAME, parameters, datagrams)
        };
        let node = without_dots(&hostname());
        let in_prefix = fields.hostname_in_prefix && fields.tag_style.is_none();
        let prefix = if in_prefix {
            format!("{}.node.{node}", fields.prefix)
        } else {
            fields.prefix
        };
        let statuses = fields.allow_status_codes.map(|ranges| {
            let ranges = ranges.iter().filter_map(|range| parse_range(range));
            ranges.collect()
        });
        Ok(Self {
            outlet,
            prefix,
            node,
            metrics: fields.metrics.unwrap_or_default(),
            statuses,
            consumer: fields.consumer_identifier_default,
            service: fields.service_identifier_default,
            tags: fields.tag_style,
        })
    }

    fn changed(outlets: &Outlets, change: Change<'_, Self>) {
        outlets.changed(&change, |plugin| &plugin.outlet);
    }

    fn log(&self, record: &Record<'_>) {
        if !self.admits(record.status) {
            return;
        }
        let mut entry = String::new();
        for metric in &self.metrics {
            match self.tags {
                Some(style) => self.tagged(metric, style, record, &mut entry),
                None => self.named(metric, record, &mut entry),
            }
        }
        if !entry.is_empty() {
            self.outlet.push(record.state::<Self>(), entry);
        }
    }
}

impl Statsd {
    fn admits(&self, status: StatusCode) -> bool {
        let ranges = self.statuses.as_ref();
        ranges.is_none_or(|ranges| ranges.iter().any(|range| range.contains(&status.as_u16())))
    }

    fn consumer(&self, metric: &Metric, record: &Record<'_>) -> Option<String> {
        let consumer = record.context.identity.consumer.as_deref()?;
        metric
            .consumer_identifier
            .unwrap_or(self.consumer)
            .of(consumer)
    }

    /// With all that a metric is about in its name.
    fn named(&self, metric: &Metric, record: &Record<'_>, entry: &mut String) {
        let status = record.status.as_u16();
        let service = record.service.map(|service| {
            let name = metric
                .service_identifier
                .unwrap_or(self.service)
                .of(service);
            without_dots(&name.unwrap_or_else(|| "unnamed".into()))
        });
        let scope = service.map_or_else(
            || "global.unmatched".into(),
            |service| format!("service.{service}"),
        );
        let consumer = || self.consumer(metric, record);
        let counted = match metric.name {
            Name::Number(number) => {
                let (name, value) = number.of(record);
                if let Some(value) = value {
                    let name = format!("{scope}.{name}");
                    self.line(metric, &name, &value.to_string(), metric.stat_type, entry);
                }
                return;
            }
            Name::Other(Other::UniqueUsers) => {
                if let Some(consumer) = consumer() {
                    let line = Line {
                        name: &format!("{scope}.user.uniques"),
                        value: &consumer,
                        kind: Kind::Set,
                        sample_rate: None,
                        tags: None,
                    };
                    line.write(&self.prefix, entry);
                }
                return;
            }
            Name::Other(Other::ShdictUsage) => return,
            Name::Other(Other::StatusCount) => Some(format!("{scope}.status.{status}")),
            Name::Other(Other::StatusCountPerWorkspace) => record
                .route
                .map(|route| format!("{scope}.workspace.{}.status.{status}", route.workspace)),
            Name::Other(Other::RequestPerUser) => {
                consumer().map(|consumer| format!("{scope}.user.{consumer}.request.count"))
            }
            Name::Other(Other::StatusCountPerUser) => {
                consumer().map(|consumer| format!("{scope}.user.{consumer}.status.{status}"))
            }
            Name::Other(Other::StatusCountPerUserPerRoute) => {
                let consumer = consumer().zip(record.route);
                consumer.map(|(consumer, route)| {
                    format!("route.{}.user.{consumer}.status.{status}", route.id)
                })
            }
        };
        if let Some(name) = counted {
            self.line(metric, &name, "1", Kind::Counter, entry);
        }
    }

    fn line(&self, metric: &Metric, name: &str, value: &str, kind: Kind, entry: &mut String) {
        let line = Line {
            name,
            value,
            kind,
            sample_rate: metric.sample_rate,
            tags: None,
        };
        line.write(&self.prefix, entry);
    }

    /// With all that a metric is about in its tags. Only numbers of requests with a service are told so.
    fn tagged(&self, metric: &Metric, style: TagStyle, record: &Record<'_>, entry: &mut String) {
        let Name::Number(number) = metric.name else {
            return;
        };
        let (name, value) = number.of(record);
        let service = metric.service_identifier.unwrap_or(self.service);
        let service = record.service.and_then(|of| service.of(of));
        let (Some(value), Some(service)) = (value, service) else {
            return;
        };
        let mut tags = vec![("service".to_owned(), service)];
        if let Some(route) = record.route {
            let name = route
                .name
                .as_deref()
                .map_or_else(|| route.id.to_string(), str::to_owned);
            tags.push(("route".into(), name));
            tags.push(("workspace".into(), route.workspace.to_string()));
        }
        if let Some(consumer) = self.consumer(metric, record) {
            tags.push(("consumer".into(), consumer));
        }
        tags.push(("node".into(), self.node.clone()));
        tags.push(("status".into(), record.status.as_u16().to_string()));
        let line = Line {
            name,
            value: &value.to_string(),
            kind: metric.stat_type,
            sample_rate: metric.sample_rate,
            tags: Some((style, &tags)),
        };
        line.write(&self.prefix, entry);
    }
}

fn parse_range(text: &str) -> Option<RangeInclusive<u16>> {
    let (from, to) = text.split_once('-')?;
    Some(from.trim().parse().ok()?..=to.trim().parse().ok()?)
}
