//! Plugins that count and measure requests.

use super::PluginSchema;
use super::common::{FLUSH_TIMEOUT, QUEUE, QUEUE_SIZE, RETRY_COUNT, TEXT, number, off, text};
use crate::field::{Check, Field, Literal, Match};
use crate::kind::common::{HOST, PORT};

const CONSUMER_IDENTIFIERS: &[&str] = &["consumer_id", "custom_id", "username"];
const SERVICE_IDENTIFIERS: &[&str] = &[
    "service_id",
    "service_name",
    "service_host",
    "service_name_or_host",
];
const WORKSPACE_IDENTIFIERS: &[&str] = &["workspace_id", "workspace_name"];

/// What is counted over samples needs to know how many there are.
const SAMPLED: &[Check] = &[Check::Conditional {
    if_field: "stat_type",
    if_match: Match::OneOf(&["counter", "gauge"]),
    then_field: "sample_rate",
    then_match: Match::Required,
    error: None,
}];

/// To Datadog's agent.
pub(super) static DATADOG: PluginSchema = PluginSchema::of(
    "datadog",
    &[
        HOST.referenceable().default(Literal::Text("localhost")),
        PORT.default(Literal::Int(8125)),
        text("prefix", "kong"),
        text("service_name_tag", "name"),
        text("status_tag", "status"),
        text("consumer_tag", "consumer"),
        RETRY_COUNT,
        QUEUE_SIZE,
        FLUSH_TIMEOUT,
        QUEUE,
        Field::array(
            "metrics",
            &Field::record("", DATADOG_METRIC).checks(SAMPLED),
        )
        .required()
        .default(Literal::List(DATADOG_METRICS)),
    ],
)
.any_protocol();

const DATADOG_METRIC: &[Field] = &[
    Field::string("name").required().one_of(&[
        "kong_latency",
        "latency",
        "request_count",
        "request_size",
        "response_size",
        "upstream_latency",
    ]),
    Field::string("stat_type").required().one_of(&[
        "counter",
        "gauge",
        "histogram",
        "meter",
        "set",
        "timer",
        "distribution",
    ]),
    Field::array(
        "tags",
        &TEXT.pattern("^.*[^:]$", |tag| !tag.is_empty() && !tag.ends_with(':')),
    ),
    Field::number("sample_rate").between(0, 1),
    Field::string("consumer_identifier").one_of(CONSUMER_IDENTIFIERS),
];

const DATADOG_METRICS: &[Literal] = &[
    Literal::Record(&[
        ("name", Literal::Text("request_count")),
        COUNTER,
        EACH,
        APP_KONG,
        BY_CUSTOM_ID,
    ]),
    Literal::Record(&[
        ("name", Literal::Text("latency")),
        TIMER,
        APP_KONG,
        BY_CUSTOM_ID,
    ]),
    Literal::Record(&[
        ("name", Literal::Text("request_size")),
        TIMER,
        APP_KONG,
        BY_CUSTOM_ID,
    ]),
    Literal::Record(&[
        ("name", Literal::Text("response_size")),
        TIMER,
        APP_KONG,
        BY_CUSTOM_ID,
    ]),
    Literal::Record(&[
        ("name", Literal::Text("upstream_latency")),
        TIMER,
        APP_KONG,
        BY_CUSTOM_ID,
    ]),
    Literal::Record(&[
        ("name", Literal::Text("kong_latency")),
        TIMER,
        APP_KONG,
        BY_CUSTOM_ID,
    ]),
];

const COUNTER: (&str, Literal) = ("stat_type", Literal::Text("counter"));
const TIMER: (&str, Literal) = ("stat_type", Literal::Text("timer"));
const EACH: (&str, Literal) = ("sample_rate", Literal::Int(1));
const APP_KONG: (&str, Literal) = ("tags", Literal::Texts(&["app:kong"]));
const BY_CUSTOM_ID: (&str, Literal) = ("consumer_identifier", Literal::Text("custom_id"));

/// To a StatsD server.
pub(super) static STATSD: PluginSchema = PluginSchema::of(
    "statsd",
    &[
        HOST.default(Literal::Text("localhost")),
        PORT.default(Literal::Int(8125)),
        text("prefix", "kong"),
        Field::array("metrics", &Field::record("", STATSD_METRIC).checks(SAMPLED))
            .default(Literal::List(STATSD_METRICS)),
        Field::array(
            "allow_status_codes",
            &TEXT.pattern("^[0-9]+-[0-9]+$", is_range),
        ),
        number("udp_packet_size", 0).between(0, 65_507),
        off("use_tcp"),
        off("hostname_in_prefix"),
        text("consumer_identifier_default", "custom_id")
            .required()
            .one_of(CONSUMER_IDENTIFIERS),
        text("service_identifier_default", "service_name_or_host")
            .required()
            .one_of(SERVICE_IDENTIFIERS),
        text("workspace_identifier_default", "workspace_id")
            .required()
            .one_of(WORKSPACE_IDENTIFIERS),
        RETRY_COUNT,
        QUEUE_SIZE,
        FLUSH_TIMEOUT,
        Field::string("tag_style").one_of(&["dogstatsd", "influxdb", "librato", "signalfx"]),
        QUEUE,
    ],
)
.any_protocol();

fn is_range(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.split_once('-')
        .is_some_and(|(low, high)| digits(low) && digits(high))
}

const STATSD_METRIC: &[Field] = &[
    Field::string("name").required().one_of(&[
        "kong_latency",
        "latency",
        "request_count",
        "request_per_user",
        "request_size",
        "response_size",
        "status_count",
        "status_count_per_user",
        "unique_users",
        "upstream_latency",
        "status_count_per_workspace",
        "status_count_per_user_per_route",
        "shdict_usage",
    ]),
    Field::string("stat_type").required().one_of(&[
        "counter",
        "gauge",
        "histogram",
        "meter",
        "set",
        "timer",
    ]),
    Field::number("sample_rate").gt(0.0),
    Field::string("consumer_identifier").one_of(CONSUMER_IDENTIFIERS),
    Field::string("service_identifier").one_of(SERVICE_IDENTIFIERS),
    Field::string("workspace_identifier").one_of(WORKSPACE_IDENTIFIERS),
];

const STATSD_METRICS: &[Literal] = &[
    Literal::Record(&[("name", Literal::Text("request_count")), COUNTER, EACH]),
    Literal::Record(&[("name", Literal::Text("latency")), TIMER]),
    Literal::Record(&[("name", Literal::Text("request_size")), COUNTER, EACH]),
    Literal::Record(&[("name", Literal::Text("status_count")), COUNTER, EACH]),
    Literal::Record(&[("name", Literal::Text("response_size")), COUNTER, EACH]),
    Literal::Record(&[
        ("name", Literal::Text("unique_users")),
        ("stat_type", Literal::Text("set")),
    ]),
    Literal::Record(&[("name", Literal::Text("request_per_user")), COUNTER, EACH]),
    Literal::Record(&[("name", Literal::Text("upstream_latency")), TIMER]),
    Literal::Record(&[("name", Literal::Text("kong_latency")), TIMER]),
    Literal::Record(&[
        ("name", Literal::Text("status_count_per_user")),
        COUNTER,
        EACH,
    ]),
    Literal::Record(&[
        ("name", Literal::Text("status_count_per_workspace")),
        COUNTER,
        EACH,
    ]),
    Literal::Record(&[
        ("name", Literal::Text("status_count_per_user_per_route")),
        COUNTER,
        EACH,
    ]),
    Literal::Record(&[
        ("name", Literal::Text("shdict_usage")),
        ("stat_type", Literal::Text("gauge")),
        EACH,
    ]),
];

/// For whoever scrapes the data plane.
pub(super) static PROMETHEUS: PluginSchema = PluginSchema::of(
    "prometheus",
    &[
        off("per_consumer"),
        off("status_code_metrics"),
        off("ai_metrics"),
        off("latency_metrics"),
        off("bandwidth_metrics"),
        off("upstream_health_metrics"),
        off("wasm_metrics"),
    ],
)
.any_protocol();
