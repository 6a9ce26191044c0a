//! Plugins that mark requests, so that they can be followed through several services.

use super::PluginSchema;
use super::common::{HEADER_VALUE, QUEUE, TEXT, off, on, text, texts, timeout, url};
use crate::field::{Alias, Check, Field, Literal};
use crate::kind::common::HEADER_NAME;
use serde_json::Value;

/// A header of its own with a number of the request.
pub(super) static CORRELATION_ID: PluginSchema = PluginSchema::of(
    "correlation-id",
    &[
        text("header_name", "Kong-Request-ID"),
        text("generator", "uuid#counter")
            .required()
            .one_of(&["uuid", "uuid#counter", "tracker"]),
        off("echo_downstream").required(),
    ],
);

/// Spans and logs, by the OpenTelemetry protocol.
pub(super) static OPENTELEMETRY: PluginSchema = PluginSchema::new(
    "opentelemetry",
    PluginSchema::config(&[
        url("traces_endpoint").referenceable(),
        url("logs_endpoint").referenceable().forbidden(
            "Sluice sends traces only; a data plane's own log goes to its standard error: expected none",
        ),
        Field::map("headers", &HEADER_NAME, &HEADER_VALUE),
        Field::map("resource_attributes", &TEXT, &TEXT),
        QUEUE.default(Literal::Record(&[("max_batch_size", Literal::Int(200))])),
        Field::integer("batch_span_count"),
        Field::integer("batch_flush_delay"),
        timeout("connect_timeout", 1000),
        timeout("send_timeout", 5000),
        timeout("read_timeout", 5000),
        Field::string("http_response_header_for_traceid"),
        text("header_type", "preserve").one_of(HEADER_TYPES),
        Field::number("sampling_rate").between(0, 1),
        PROPAGATION.default(Literal::Record(&[("default_format", Literal::Text("w3c"))])),
    ])
    .checks(&[Check::AtLeastOneOf(&["traces_endpoint", "logs_endpoint"])])
    .aliases(&[Alias::new(
        url("endpoint").referenceable(),
        &["traces_endpoint"],
    )]),
);

const HEADER_TYPES: &[&str] = &[
    "preserve",
    "ignore",
    "b3",
    "b3-single",
    "w3c",
    "jaeger",
    "ot",
    "aws",
    "gcp",
    "datadog",
    "instana",
];

/// Which headers say what a request is part of.
const PROPAGATION: Field = Field::record(
    "propagation",
    &[
        Field::array(
            "extract",
            &TEXT.one_of(&[
                "b3", "jaeger", "ot", "datadog", "aws", "gcp", "instana", "w3c",
            ]),
        ),
        texts("clear"),
        Field::array(
            "inject",
            &TEXT.one_of(&[
                "preserve",
                "b3",
                "b3-single",
                "jaeger",
                "ot",
                "datadog",
                "aws",
                "gcp",
                "instana",
                "w3c",
            ]),
        ),
        Field::string("default_format").required().one_of(&[
            "b3",
            "b3-single",
            "jaeger",
            "ot",
            "datadog",
            "aws",
            "gcp",
            "instana",
            "w3c",
        ]),
    ],
)
.required();

/// Spans, in the form of Zipkin.
pub(super) static ZIPKIN: PluginSchema = PluginSchema::of(
    "zipkin",
    &[
        text("local_service_name", "kong").required(),
        url("http_endpoint"),
        Field::number("sample_ratio")
            .default(Literal::Number(0.001))
            .between(0, 1),
        Field::string("default_service_name"),
        on("include_credential").required(),
        Field::integer("traceid_byte_count")
            .required()
            .default(Literal::Int(16))
            .one_of_ints(&[8, 16]),
        text("header_type", "preserve").required().one_of(&[
            "preserve",
            "ignore",
            "b3",
            "b3-single",
            "w3c",
            "jaeger",
            "ot",
            "aws",
            "datadog",
            "gcp",
            "instana",
        ]),
        text("default_header_type", "b3").required().one_of(&[
            "b3",
            "b3-single",
            "w3c",
            "jaeger",
            "ot",
            "aws",
            "datadog",
            "gcp",
            "instana",
        ]),
        text("tags_header", "Zipkin-Tags").required(),
        Field::array("static_tags", &Field::record("", STATIC_TAG)).custom(no_tag_twice),
        text("http_span_name", "method")
            .required()
            .one_of(&["method", "method_path"]),
        timeout("connect_timeout", 2000),
        timeout("send_timeout", 5000),
        timeout("read_timeout", 5000),
        Field::string("http_response_header_for_traceid"),
        text("phase_duration_flavor", "annotations")
            .required()
            .one_of(&["annotations", "tags"]),
        QUEUE,
        PROPAGATION.default(Literal::Record(&[("default_format", Literal::Text("b3"))])),
    ],
)
.any_protocol();

const STATIC_TAG: &[Field] = &[
    // Those the plugin sets itself are not free.
    Field::string("name").required().not_one_of(&[
        "error",
        "http.method",
        "http.path",
        "http.status_code",
        "kong.balancer.state",
        "kong.balancer.try",
        "kong.consumer",
        "kong.credential",
        "kong.node.id",
        "kong.route",
        "kong.service",
        "lc",
        "peer.hostname",
    ]),
    Field::string("value").required(),
];

fn no_tag_twice(tags: &Value) -> Result<(), String> {
    let mut found = std::collections::BTreeSet::new();
    let tags = tags.as_array().map(Vec::as_slice).unwrap_or_default();
    for name in tags.iter().filter_map(|tag| tag.get("name")?.as_str()) {
        if !found.insert(name) {
            return Err(format!("repeated tags are not allowed: {name}"));
        }
    }
    Ok(())
}
