//! What `statsd` and `datadog` have in common: metrics of a request as lines of text.

use crate::plugin::Record;
use crate::plugin::logging::{request_bytes, response_bytes};
use crate::table::Consumer;
use serde::Deserialize;
use std::fmt::Write as _;

/// How a value is to be taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
    Meter,
    Set,
    Timer,
    Distribution,
}

impl Kind {
    fn letter(self) -> &'static str {
        match self {
            Self::Counter => "c",
            Self::Gauge => "g",
            Self::Histogram => "h",
            Self::Meter => "m",
            Self::Set => "s",
            Self::Timer => "ms",
            Self::Distribution => "d",
        }
    }
}

/// A number of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Number {
    KongLatency,
    Latency,
    RequestCount,
    RequestSize,
    ResponseSize,
    UpstreamLatency,
}

impl Number {
    /// What it is called, and its value; `None` if the request has none.
    pub(super) fn of(self, record: &Record<'_>) -> (&'static str, Option<u64>) {
        let latencies = record.latencies;
        let asked = !record.tries.is_empty();
        match self {
            Self::KongLatency => ("kong_latency", Some(latencies.kong)),
            Self::Latency => ("latency", Some(latencies.request)),
            Self::RequestCount => ("request.count", Some(1)),
            Self::RequestSize => ("request.size", Some(request_bytes(record))),
            Self::ResponseSize => ("response.size", Some(response_bytes(record))),
            Self::UpstreamLatency => ("upstream_latency", asked.then_some(latencies.proxy)),
        }
    }
}

/// How consumers are named.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ConsumerName {
    ConsumerId,
    #[default]
    CustomId,
    Username,
}

impl ConsumerName {
    /// The name of a consumer, if it has one of this kind.
    pub(super) fn of(self, consumer: &Consumer) -> Option<String> {
        match self {
            Self::ConsumerId => Some(consumer.id.to_string()),
            Self::CustomId => consumer.custom_id.clone(),
            Self::Username => consumer.username.clone(),
        }
    }
}

/// How tags are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum TagStyle {
    Dogstatsd,
    Influxdb,
    Librato,
    Signalfx,
}

/// One metric of one request.
pub(super) struct Line<'a> {
    pub(super) name: &'a str,
    pub(super) value: &'a str,
    pub(super) kind: Kind,
    pub(super) sample_rate: Option<f64>,
    pub(super) tags: Option<(TagStyle, &'a [(String, String)])>,
}

impl Line<'_> {
    /// Adds it to an entry, unless this request is not in the sample.
    pub(super) fn write(&self, prefix: &str, entry: &mut String) {
        let rate = self.sample_rate.filter(|rate| *rate < 1.0);
        if rate.is_some_and(|rate| rand::random::<f64>() >= rate) {
            return;
        }
        if !prefix.is_empty() {
            entry.push_str(prefix);
            entry.push('.');
        }
        word(self.name, entry);
        if let Some((style, tags)) = self.tags {
            match style {
                TagStyle::Dogstatsd => {}
                TagStyle::Influxdb => join(tags, (",", "=", ""), entry),
                TagStyle::Librato => join(tags, ("#", "=", ""), entry),
                TagStyle::Signalfx => join(tags, ("[", "=", "]"), entry),
            }
        }
        entry.push(':');
        word(self.value, entry);
        entry.push('|');
        entry.push_str(self.kind.letter());
        if let Some(rate) = rate {
            // Writing to a String cannot fail.
            let _ = write!(entry, "|@{rate}");
        }
        if let Some((TagStyle::Dogstatsd, tags)) = self.tags {
            join(tags, ("|#", ":", ""), entry);
        }
        entry.push('\n');
    }
}

fn join(tags: &[(String, String)], (begin, between, end): (&str, &str, &str), entry: &mut String) {
    for (index, (name, value)) in tags.iter().enumerate() {
        entry.push_str(if index == 0 { begin } else { "," });
        word(name, entry);
        if !value.is_empty() {
            entry.push_str(between);
            word(value, entry);
        }
    }
    if !tags.is_empty() {
        entry.push_str(end);
    }
}

/// Names come from the configuration and values from consumers: neither may end a metric.
fn word(text: &str, entry: &mut String) {
    let safe = |c: char| {
        if c.is_control() || c == '|' || c == '#' {
            '_'
        } else {
            c
        }
    };
    entry.extend(text.chars().map(safe));
}

/// A name in which dots would be levels.
pub(super) fn without_dots(name: &str) -> String {
    name.replace('.', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_their_tags_in_each_style() {
        let tags = [
            ("a".to_owned(), "1".to_owned()),
            ("b".to_owned(), "x|\ny".to_owned()),
        ];
        let check = |style: Option<TagStyle>, expected: &str| {
            let line = Line {
                name: "latency",
                value: "5",
                kind: Kind::Timer,
                sample_rate: Some(1.0),
                tags: style.map(|style| (style, &tags[..])),
            };
            let mut entry = String::new();
            line.write("kong", &mut entry);
            assert_eq!(entry, expected);
        };
        check(None, "kong.latency:5|ms\n");
        check(Some(TagStyle::Dogstatsd), "kong.latency:5|ms|#a:1,b:x__y\n");
        check(Some(TagStyle::Influxdb), "kong.latency,a=1,b=x__y:5|ms\n");
        check(Some(TagStyle::Librato), "kong.latency#a=1,b=x__y:5|ms\n");
        check(Some(TagStyle::Signalfx), "kong.latency[a=1,b=x__y]:5|ms\n");
    }

    #[test]
    fn a_sample_says_its_rate() {
        let line = |rate| Line {
            name: "n",
            value: "1",
            kind: Kind::Counter,
            sample_rate: Some(rate),
            tags: None,
        };
        let mut entry = String::new();
        (0..1000).for_each(|_| line(0.5).write("", &mut entry));
        let count = entry.lines().count();
        assert!((300..700).contains(&count), "{count}");
        assert!(entry.lines().all(|line| line == "n:1|c|@0.5"));
        entry.clear();
        line(0.0).write("", &mut entry);
        assert_eq!(entry, "");
    }
}
