//! The Prometheus text format: a few lines of our own, because the numbers live in our own shards and not in a
//! library's registry.

use super::{Connections, Histogram, Labels, Series, Source};
use std::collections::BTreeMap;
use std::fmt::{Display, Write};

/// Writes metrics as text.
#[derive(Debug, Default)]
pub struct Writer(String);

impl Writer {
    /// Starts a metric: its help and its type (`counter`, `gauge`, `histogram`).
    pub fn metric(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    /// One value. Labels' values are escaped.
    pub fn value(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let mut text = String::new();
        for (index, (label, value)) in labels.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let value = value
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n");
            // Writing to a String cannot fail.
            let _ = write!(text, "{comma}{label}=\"{value}\"");
        }
        if labels.is_empty() {
            self.line(format_args!("{name} {value}"));
        } else {
            self.line(format_args!("{name}{{{text}}} {value}"));
        }
    }

    /// A metric with one value and no labels.
    pub fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.metric(name, kind, help);
        self.value(name, &[], value);
    }

    /// Lines that somebody else writes.
    pub fn append(&mut self, write: impl FnOnce(&mut String)) {
        write(&mut self.0);
    }

    /// All that was written.
    pub fn finish(self) -> String {
        self.0
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        let _ = writeln!(self.0, "{line}");
    }
}

/// The counters of requests by route, service and code, and the latencies by route and service.
pub(super) fn requests(writer: &mut Writer, sums: &[((Labels, u16, Source), Series)]) {
    let help = "HTTP requests by route, service and status";
    writer.metric("kong_http_requests_total", "counter", help);
    // Series with nil routes are counted only.
    let mut routes: BTreeMap<Labels, Series> = BTreeMap::new();
    for ((labels, status, source), series) in sums {
        let source = match source {
            Source::Service => "service",
            Source::Gateway => "kong",
        };
        let pairs = [
            ("service", &*labels.service),
            ("route", &*labels.route),
            ("code", &*status.to_string()),
            ("source", source),
            ("workspace", &*labels.workspace),
            ("consumer", &*labels.consumer),
        ];
        writer.value("kong_http_requests_total", &pairs, series.count);
        if !labels.route.is_empty() {
            let labels = Labels {
                consumer: String::new(),
                ..labels.clone()
            };
            routes.entry(labels).or_default().add(series);
        }
    }
    writer.metric(
        "kong_kong_latency_ms",
        "histogram",
        "Latency added by the gateway",
    );
    for (labels, sum) in &routes {
        histogram(
            writer,
            "kong_kong_latency_ms",
            labels,
            &super::KONG_BUCKETS,
            &sum.gateway,
        );
    }
    writer.metric(
        "kong_upstream_latency_ms",
        "histogram",
        "Latency of the upstream",
    );
    for (labels, sum) in &routes {
        let bounds = &super::UPSTREAM_BUCKETS;
        histogram(
            writer,
            "kong_upstream_latency_ms",
            labels,
            bounds,
            &sum.upstream,
        );
    }
    writer.metric(
        "kong_request_latency_ms",
        "histogram",
        "Latency until the response's head",
    );
    for (labels, sum) in &routes {
        let bounds = &super::UPSTREAM_BUCKETS;
        histogram(
            writer,
            "kong_request_latency_ms",
            labels,
            bounds,
            &sum.request,
        );
    }
}

fn histogram<const N: usize>(
    writer: &mut Writer,
    name: &str,
    labels: &Labels,
    bounds: &[u32; N],
    values: &Histogram<N>,
) {
    if values.count == 0 {
        return;
    }
    let base = [
        ("service", &*labels.service),
        ("route", &*labels.route),
        ("workspace", &*labels.workspace),
    ];
    let bucket = format!("{name}_bucket");
    let mut cumulative = 0;
    for (bound, count) in bounds.iter().zip(values.counts) {
        cumulative += count;
        let bound = bound.to_string();
        writer.value(
            &bucket,
            &[&base[..], &[("le", &*bound)]].concat(),
            cumulative,
        );
    }
    writer.value(
        &bucket,
        &[&base[..], &[("le", "+Inf")]].concat(),
        values.count,
    );
    writer.value(&format!("{name}_sum"), &base, values.sum);
    writer.value(&format!("{name}_count"), &base, values.count);
}

/// The connection counters.
pub(super) fn connections(writer: &mut Writer, sum: Connections) {
    let name = "kong_nginx_connections_total";
    writer.metric(name, "gauge", "Client connections by state");
    for (state, value) in [
        ("accepted", sum.accepted),
        ("handled", sum.accepted - sum.refused.min(sum.accepted)),
        ("active", sum.active),
        ("total", sum.requests),
    ] {
        writer.value(name, &[("subsystem", "http"), ("state", state)], value);
    }
    writer.single(
        "kong_nginx_requests_total",
        "counter",
        "Requests answered",
        sum.requests,
    );
    writer.single(
        "sluice_dp_upstream_connections_idle",
        "gauge",
        "Idle connections to upstreams",
        sum.idle_upstream,
    );
    writer.single(
        "sluice_dp_stream_sessions_total",
        "counter",
        "TCP and TLS streams begun",
        sum.streams,
    );
    writer.single(
        "sluice_dp_connections_refused_total",
        "counter",
        "Client connections closed at once because there were too many",
        sum.refused,
    );
    writer.single(
        "sluice_dp_access_log_dropped_total",
        "counter",
        "Lines of the access log that could not be written",
        sum.access_log_dropped,
    );
}
