//! `datadog`: metrics of each request that has a service, to a Datadog agent by UDP, with tags.
//!
//! Deviations: with a `sample_rate` below 1 only that part of the requests is told of, where Kong tells of all and says
//! otherwise; `retry_count`, `queue_size` and `flush_timeout` mean nothing, as in Kong 3.

use super::stats::{ConsumerName, Kind, Line, Number, TagStyle, without_dots};
use crate::plugin::logging::{Datagrams, Place};
use crate::plugin::queue::{Outlet, Outlets, Parameters, QueueFields};
use crate::plugin::{Change, Entity, Phases, Plugin, Record};
use serde::Deserialize;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(1);

/// The fields of the entity's `config`.
#[derive(Deserialize)]
pub(crate) struct Fields {
    #[serde(default)]
    host: Option<String>,
    #[serde(default)]
    port: Option<u16>,
    #[serde(default)]
    prefix: Option<String>,
    #[serde(default)]
    service_name_tag: Option<String>,
    #[serde(default)]
    status_tag: Option<String>,
    #[serde(default)]
    consumer_tag: Option<String>,
    #[serde(default)]
    queue: QueueFields,
    #[serde(default)]
    metrics: Vec<Metric>,
}

/// A metric as configured.
#[derive(Debug, Deserialize)]
struct Metric {
    name: Number,
    stat_type: Kind,
    #[serde(default)]
    tags: Option<Vec<String>>,
    #[serde(default)]
    sample_rate: Option<f64>,
    #[serde(default)]
    consumer_identifier: Option<ConsumerName>,
}

/// The prepared configuration.
#[derive(Debug)]
pub(crate) struct Datadog {
    outlet: Outlet,
    prefix: String,
    service_tag: String,
    status_tag: String,
    consumer_tag: String,
    metrics: Vec<Metric>,
}

impl Plugin for Datadog {
    const NAME: &'static str = "datadog";
    const PRIORITY: i32 = 10;
    const PHASES: Phases = Phases::LOG;
    type Config = Fields;
    type State = Outlets;

    fn compile(fields: Fields, entity: &Entity<'_>) -> Result<Self, String> {
        let text = |field: Option<String>, usual: &str| field.unwrap_or_else(|| usual.to_owned());
        let place = Place {
            host: text(fields.host, "localhost"),
            port: fields.port.unwrap_or(8125),
        };
        let sink = Datagrams::new(place, TIMEOUT).of_lines(0);
        let parameters = Parameters::from(&fields.queue);
        Ok(Self {
            outlet: Outlet::new(entity, Self::NAME, parameters, sink),
            prefix: text(fields.prefix, "kong"),
            service_tag: text(fields.service_name_tag, "name"),
            status_tag: text(fields.status_tag, "status"),
            consumer_tag: text(fields.consumer_tag, "consumer"),
            metrics: fields.metrics,
        })
    }

    fn changed(outlets: &Outlets, change: Change<'_, Self>) {
        outlets.changed(&change, |plugin| &plugin.outlet);
    }

    fn log(&self, record: &Record<'_>) {
        let Some(service) = record.service else {
            return;
        };
        let service = without_dots(service.name.as_deref().unwrap_or(&service.host));
        let mut entry = String::new();
        for metric in &self.metrics {
            let (name, value) = metric.name.of(record);
            let Some(value) = value else {
                continue;
            };
            let mut tags = vec![
                (self.service_tag.clone(), service.clone()),
                (self.status_tag.clone(), record.status.as_u16().to_string()),
            ];
            let consumer = record.context.identity.consumer.as_deref();
            let consumer = metric.consumer_identifier.zip(consumer);
            if let Some(consumer) = consumer.and_then(|(name, consumer)| name.of(consumer)) {
                tags.push((self.consumer_tag.clone(), consumer));
            }
            tags.extend(metric.tags.iter().flatten().map(|tag| split(tag)));
            let line = Line {
                name,
                value: &value.to_string(),
                kind: metric.stat_type,
                sample_rate: metric.sample_rate,
                tags: Some((TagStyle::Dogstatsd, &tags)),
            };
            line.write(&self.prefix, &mut entry);
        }
        if !entry.is_empty() {
            self.outlet.push(record.state::<Self>(), entry);
        }
    }
}

/// A tag has a value or none.
fn split(tag: &str) -> (String, String) {
    let (name, value) = tag.split_once(':').unwrap_or((tag, ""));
    (name.to_owned(), value.to_owned())
}
