use super::*;

#[test]
fn datadog_has_kongs_defaults() {
    defaults(
        "datadog",
        json!({}),
        json!({
            "host": "localhost", "port": 8125, "prefix": "kong", "service_name_tag": "name",
            "status_tag": "status", "consumer_tag": "consumer", "queue": queue(),
            "metrics": [
                {
                    "name": "request_count", "stat_type": "counter", "tags": ["app:kong"],
                    "sample_rate": 1, "consumer_identifier": "custom_id",
                },
                {
                    "name": "latency", "stat_type": "timer", "tags": ["app:kong"],
                    "consumer_identifier": "custom_id",
                },
                {
                    "name": "request_size", "stat_type": "timer", "tags": ["app:kong"],
                    "consumer_identifier": "custom_id",
                },
                {
                    "name": "response_size", "stat_type": "timer", "tags": ["app:kong"],
                    "consumer_identifier": "custom_id",
                },
                {
                    "name": "upstream_latency", "stat_type": "timer", "tags": ["app:kong"],
                    "consumer_identifier": "custom_id",
                },
                {
                    "name": "kong_latency", "stat_type": "timer", "tags": ["app:kong"],
                    "consumer_identifier": "custom_id",
                },
            ],
        }),
    );
}

#[test]
fn statsd_has_kongs_defaults() {
    defaults(
        "statsd",
        json!({}),
        json!({
            "host": "localhost", "port": 8125, "prefix": "kong",
            "metrics": [
                {"name": "request_count", "stat_type": "counter", "sample_rate": 1},
                {"name": "latency", "stat_type": "timer"},
                {"name": "request_size", "stat_type": "counter", "sample_rate": 1},
                {"name": "status_count", "stat_type": "counter", "sample_rate": 1},
                {"name": "response_size", "stat_type": "counter", "sample_rate": 1},
                {"name": "unique_users", "stat_type": "set"},
                {"name": "request_per_user", "stat_type": "counter", "sample_rate": 1},
                {"name": "upstream_latency", "stat_type": "timer"},
                {"name": "kong_latency", "stat_type": "timer"},
                {
                    "name": "status_count_per_user", "stat_type": "counter", "sample_rate": 1,
                },
                {
                    "name": "status_count_per_workspace", "stat_type": "counter",
                    "sample_rate": 1,
                },
                {
                    "name": "status_count_per_user_per_route", "stat_type": "counter",
                    "sample_rate": 1,
                },
                {"name": "shdict_usage", "stat_type": "gauge", "sample_rate": 1},
            ],
            "udp_packet_size": 0, "use_tcp": false, "hostname_in_prefix": false,
            "consumer_identifier_default": "custom_id",
            "service_identifier_default": "service_name_or_host",
            "workspace_identifier_default": "workspace_id", "queue": queue(),
        }),
    );
}

#[test]
fn prometheus_has_kongs_defaults() {
    defaults(
        "prometheus",
        json!({}),
        json!({
            "per_consumer": false, "status_code_metrics": false, "ai_metrics": false,
            "latency_metrics": false, "bandwidth_metrics": false,
            "upstream_health_metrics": false, "wasm_metrics": false,
        }),
    );
}

#[test]
fn correlation_id_has_kongs_defaults() {
    defaults(
        "correlation-id",
        json!({}),
        json!({
            "header_name": "Kong-Request-ID", "generator": "uuid#counter",
            "echo_downstream": false,
        }),
    );
}

#[test]
fn opentelemetry_has_kongs_defaults() {
    defaults(
        "opentelemetry",
        json!({"traces_endpoint": "http://a/v1"}),
        json!({
            "traces_endpoint": "http://a/v1",
            "queue": {
                "max_batch_size": 200, "max_coalescing_delay": 1, "max_entries": 10000,
                "max_retry_time": 60, "initial_retry_delay": 0.01, "max_retry_delay": 60,
                "concurrency_limit": 1,
            },
            "connect_timeout": 1000, "send_timeout": 5000, "read_timeout": 5000,
            "header_type": "preserve", "propagation": {"default_format": "w3c"},
        }),
    );
}

#[test]
fn zipkin_has_kongs_defaults() {
    defaults(
        "zipkin",
        json!({}),
        json!({
            "local_service_name": "kong", "sample_ratio": 0.001, "include_credential": true,
            "traceid_byte_count": 16, "header_type": "preserve", "default_header_type": "b3",
            "tags_header": "Zipkin-Tags", "http_span_name": "method", "connect_timeout": 2000,
            "send_timeout": 5000, "read_timeout": 5000,
            "phase_duration_flavor": "annotations", "queue": queue(),
            "propagation": {"default_format": "b3"},
        }),
    );
}

#[test]
fn counters_are_sampled() {
    for (name, metrics, types) in [
        (
            "datadog",
            "kong_latency, latency, request_count, request_size, response_size, upstream_latency",
            "counter, gauge, histogram, meter, set, timer, distribution",
        ),
        (
            "statsd",
            "kong_latency, latency, request_count, request_per_user, request_size, \
             response_size, status_count, status_count_per_user, unique_users, \
             upstream_latency, status_count_per_workspace, status_count_per_user_per_route, \
             shdict_usage",
            "counter, gauge, histogram, meter, set, timer",
        ),
    ] {
        refused(
            name,
            &[
                (
                    json!({"metrics": [
                        {"name": "latency", "stat_type": "timer"},
                        {"name": "latency", "stat_type": "gauge"},
                    ]}),
                    json!({"metrics": [null, {
                        "@entity": [conditional("stat_type")],
                        "sample_rate": "required field missing",
                    }]}),
                ),
                (
                    json!({"metrics": [{"name": "x", "stat_type": "y", "consumer_identifier": "z"}]}),
                    json!({"metrics": [{
                        "name": one_of(metrics),
                        "stat_type": one_of(types),
                        "consumer_identifier": one_of("consumer_id, custom_id, username"),
                    }]}),
                ),
                (
                    json!({"metrics": [{}]}),
                    json!({"metrics": [{
                        "name": "required field missing",
                        "stat_type": "required field missing",
                    }]}),
                ),
            ],
        );
    }
}

#[test]
fn datadog_and_statsd_have_limits_of_their_own() {
    refused(
        "datadog",
        &[(
            json!({"metrics": [
                {"name": "latency", "stat_type": "gauge", "sample_rate": 2, "tags": ["a", "b:"]},
            ]}),
            json!({"metrics": [{
                "sample_rate": "value should be between 0 and 1",
                "tags": [null, "invalid value: b:"],
            }]}),
        )],
    );
    refused(
        "statsd",
        &[(
            json!({
                "allow_status_codes": ["200-204", "200", "a-b"], "udp_packet_size": 65_508,
                "tag_style": "x", "service_identifier_default": "x", "workspace_identifier_default": null,
                "metrics": [{"name": "latency", "stat_type": "timer", "sample_rate": 0}],
            }),
            json!({
                "allow_status_codes": [null, "invalid value: 200", "invalid value: a-b"],
                "udp_packet_size": "value should be between 0 and 65507",
                "tag_style": one_of("dogstatsd, influxdb, librato, signalfx"),
                "service_identifier_default":
                    one_of("service_id, service_name, service_host, service_name_or_host"),
                "workspace_identifier_default": "required field missing",
                "metrics": [{"sample_rate": "value must be greater than 0"}],
            }),
        )],
    );
}

#[test]
fn correlation_id_knows_three_generators() {
    refused(
        "correlation-id",
        &[(
            json!({"generator": "x"}),
            json!({"generator": one_of("uuid, uuid#counter, tracker")}),
        )],
    );
}

#[test]
fn opentelemetry_sends_somewhere() {
    let endpoints = "'traces_endpoint', 'logs_endpoint'";
    refused(
        "opentelemetry",
        &[
            (
                json!({}),
                json!({"@entity": [
                    format!("at least one of these fields must be non-empty: {endpoints}"),
                ]}),
            ),
            (
                json!({"traces_endpoint": "a", "sampling_rate": 1.1, "resource_attributes": {"a": ""}}),
                json!({
                    "traces_endpoint": "missing host in url",
                    "sampling_rate": "value should be between 0 and 1",
                    "resource_attributes": "length must be at least 1",
                }),
            ),
            (
                json!({"logs_endpoint": "http://a"}),
                json!({"logs_endpoint": "Sluice sends traces only; a data plane's own log goes to \
                    its standard error: expected none"}),
            ),
            (
                json!({"traces_endpoint": "http://a", "propagation": {"extract": ["x"]}}),
                json!({"propagation": {
                    "extract": [one_of("b3, jaeger, ot, datadog, aws, gcp, instana, w3c")],
                    "default_format": "required field missing",
                }}),
            ),
            (
                json!({"endpoint": "http://a", "traces_endpoint": "http://b"}),
                json!({"endpoint": "both deprecated and new field are used but their values \
                    mismatch: endpoint = http://a vs traces_endpoint = http://b"}),
            ),
        ],
    );
    check(
        json!({"name": "opentelemetry", "config": {"endpoint": "{vault://env/url}", "queue": {}}}),
        json!({"traces_endpoint": "{vault://env/url}", "endpoint": null, "queue": queue()}),
    );
}

#[test]
fn zipkin_tags_are_free_and_named_once() {
    let tag = |name: &str| json!({"name": name, "value": "v"});
    refused(
        "zipkin",
        &[
            (
                json!({"static_tags": [tag("a"), tag("b"), tag("a")]}),
                json!({"static_tags": "repeated tags are not allowed: a"}),
            ),
            (
                json!({"static_tags": [tag("a"), tag("error"), {}]}),
                json!({"static_tags": [
                    null,
                    {"name": "must not be one of: error, http.method, http.path, \
                              http.status_code, kong.balancer.state, kong.balancer.try, \
                              kong.consumer, kong.credential, kong.node.id, kong.route, \
                              kong.service, lc, peer.hostname"},
                    {"name": "required field missing", "value": "required field missing"},
                ]}),
            ),
            (
                json!({"sample_ratio": 2, "traceid_byte_count": 12, "http_span_name": "x"}),
                json!({
                    "sample_ratio": "value should be between 0 and 1",
                    "traceid_byte_count": one_of("8, 16"),
                    "http_span_name": one_of("method, method_path"),
                }),
            ),
        ],
    );
}
